"""Items in eight-bit codes, by which the best of a query are found without multiplying all in float32.

What all items have in common, their mean μ, does not tell one from another: q·μ is the same for each. Of an
item x the rest is kept as s·c, where c are whole numbers within ±127, and a query q is written as t·d
likewise. The product c·d is exact, and by Cauchy-Schwarz s·t·c·d misses q·(x − μ) by no more than

    ‖q‖·‖x − μ − s·c‖ + ‖q − t·d‖·‖s·c‖

so that an item whose approximate score is further below the k-th best than its own margin and that of the
k-th best cannot be of the k best: those that remain, some dozens, are scored exactly (`worker.core.scoring`).

They lie as `worker.core.code_products` multiplies them: by `LANES` items, and of these by `GROUP` columns.
V items, H width, B queries.
"""

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from worker.core.code_products import AT_ONCE, GROUP, LANES, score_one, score_some
from worker.core.compiled import compiled
from worker.core.lanes import highest as best_of

LARGEST = 127
SHIFT = 128
"""Added to the codes of items: one factor of the instruction has no sign."""

FLOAT32_STEP = 2.0**-23
"""Relative distance of two float32 numbers; one operation is off by half of that."""

FLOAT32_LEAST = 2.0**-149
"""The smallest float32 number: what is near it is off by as much."""


class ItemCodes(NamedTuple):
    """The items of a catalogue and their codes; margins by blocks, so that a long item blurs few others.

    Attributes:
        rows: the items themselves, float32 [V, H].
        codes: uint8 [⌈V / LANES⌉, ⌈H / GROUP⌉, LANES · GROUP], c + `SHIFT`.
        scales: s of each item, float32 [LANES · ⌈V / LANES⌉], zeros behind.
        rounding: of each block the largest ‖x − μ − s·c‖, and what float32 sums with a query of length 1 are
            off by.
        longest: of each block the largest ‖s·c‖.
    """

    rows: NDArray[np.float32]
    codes: NDArray[np.uint8]
    scales: NDArray[np.float32]
    rounding: NDArray[np.float32]
    longest: NDArray[np.float32]

    @classmethod
    def of(cls, items: NDArray[np.float32]) -> Self:
        """The codes of items float32 [V, H], rows in one piece."""
        count, width = items.shape
        blocks = -(-count // LANES)
        codes = np.full((blocks, -(-width // GROUP), LANES * GROUP), SHIFT, np.uint8)
        made = cls(
            items,
            codes,
            np.zeros(blocks * LANES, np.float32),
            np.zeros(blocks, np.float32),
            np.zeros(blocks, np.float32),
        )
        _encode_items(made, items.mean(axis=0, dtype=np.float64))
        return made


@compiled
def _encode_items(made: ItemCodes, mean: NDArray[np.float64]) -> None:
    """Fill in all but the rows; `mean` [H]."""
    count, width = made.rows.shape
    rest = np.empty(width, np.float64)
    for item in range(count):
        block, lane = item // LANES, item % LANES
        length = rounding = kept_length = 0.0
        for column in range(width):
            rest[column] = made.rows[item, column] - mean[column]
            length += float(made.rows[item, column]) ** 2
        made.scales[item] = scale = np.float32(np.abs(rest).max() / LARGEST)
        for column in range(width):
            code = _code(rest[column], scale)
            made.codes[block, column // GROUP, lane * GROUP + column % GROUP] = code + SHIFT
            rounding += (rest[column] - float(scale) * code) ** 2
            kept_length += (float(scale) * code) ** 2
        of_sums = (np.sqrt(length) + np.sqrt(kept_length)) * (width + LANES) * FLOAT32_STEP
        made.rounding[block] = max(made.rounding[block], np.sqrt(rounding) + of_sums)
        made.longest[block] = max(made.longest[block], np.sqrt(kept_length))


@compiled
def encode_query(query: NDArray[np.float32], coded: NDArray[np.int8]) -> tuple[np.float32, float, float]:
    """Write the codes d of a query [H] into `coded`, zeros behind them; returns t, ‖q‖ and ‖q − t·d‖."""
    scale = np.float32(np.abs(query).max() / LARGEST)
    coded[:] = 0
    off = length = 0.0
    for column in range(query.shape[0]):
        code = _code(query[column], scale)
        coded[column] = code
        off += (float(query[column]) - float(scale) * code) ** 2
        length += float(query[column]) ** 2
    return scale, np.sqrt(length), np.sqrt(off)


@compiled
def write_margins(items: ItemCodes, length: float, off: float, margins: NDArray[np.float32]) -> None:
    """How far approximate scores can be from those that float32 computes, less what is common to all.

    Args:
        items: the codes.
        length: ‖q‖.
        off: ‖q − t·d‖.
        margins: float32 [⌈V / LANES⌉], written: of each block of items.
    """
    of_tiny_numbers = items.rows.shape[1] * LARGEST**2 * FLOAT32_LEAST
    for block in range(margins.shape[0]):
        margins[block] = length * items.rounding[block] + off * items.longest[block] + of_tiny_numbers


@compiled
def approximate(
    items: ItemCodes,
    coded: NDArray[np.int8],
    query_scales: NDArray[np.float32],
    scores: NDArray[np.float32],
    highest: NDArray[np.float32],
) -> None:
    """Approximate scores of all items, less what is common to all, for queries that `encode_query` wrote.

    Args:
        items: the codes.
        coded: int8 [B, GROUP · ⌈H / GROUP⌉], rows in one piece.
        query_scales: float32 [B].
        scores: float32 [B, ≥ LANES · ⌈V / LANES⌉], written; the last of a row belong to no item.
        highest: float32 [B, ⌈V / LANES⌉], written: the best of each block of items.
    """
    codes, scales, count = items.codes, items.scales, items.rows.shape[0]
    queries, blocks = scores.shape[0], codes.shape[0]
    shifts = np.empty(queries, np.int32)
    for query in range(queries):
        shifts[query] = SHIFT * coded[query].sum()
    for block in range(blocks):
        of_block = block * LANES
        query = 0
        while query < queries:
            at_once = AT_ONCE if query + AT_ONCE <= queries else 1
            place = (
                codes[block].ctypes.data,
                codes.shape[1],
                scales[of_block:].ctypes.data,
                coded[query].ctypes.data,
                coded.shape[1],
                shifts[query:].ctypes.data,
                query_scales[query:].ctypes.data,
                scores[query, of_block:].ctypes.data,
                scores.strides[0],
                highest[query, block:].ctypes.data,
                highest.strides[0],
            )
            if at_once == 1:
                score_one(place)
            else:
                score_some(place)
            query += at_once
    behind = blocks * LANES
    for query in range(queries):  # the last block has lanes without an item
        highest[query, blocks - 1] = best_of(scores[query, behind - LANES : count])


@compiled
def _code(number: float, scale: np.float32) -> int:
    if scale == 0:
        return 0
    return int(min(max(np.rint(number / scale), -LARGEST), LARGEST))
