"""Items in eight-bit codes, by which the best of a query are found without multiplying all in float32.

An item x is kept as s·c, where c are whole numbers within ±127, and a query q is written as t·d likewise. The
product c·d is exact, and by Cauchy-Schwarz s·t·c·d misses q·x by no more than

    ‖q‖·‖x − s·c‖ + ‖q − t·d‖·‖s·c‖

so that an item whose approximate score is further below the k-th best than twice that cannot be of the k
best: those that remain, some dozens, are scored exactly (`worker.core.scoring`).

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

FLOAT32_ERROR = 2.0**-23
"""Twice the relative error of one float32 operation."""


class ItemCodes(NamedTuple):
    """The items of a catalogue as codes."""

    codes: NDArray[np.uint8]  # [⌈V / LANES⌉, ⌈H / GROUP⌉, LANES · GROUP]
    scales: NDArray[np.float32]  # s of each item, [LANES · ⌈V / LANES⌉], zeros behind
    rounding: float  # largest ‖x − s·c‖
    longest: float  # largest ‖s·c‖

    @classmethod
    def of(cls, items: NDArray[np.float32]) -> Self:
        """The codes of items float32 [V, H]."""
        count, width = items.shape
        shape = -(-count // LANES), -(-width // GROUP), LANES * GROUP
        codes, scales = np.full(shape, SHIFT, np.uint8), np.zeros(shape[0] * LANES, np.float32)
        return cls(codes, scales, *_encode_items(items, codes, scales))


@compiled
def _encode_items(
    items: NDArray[np.float32], codes: NDArray[np.uint8], scales: NDArray[np.float32]
) -> tuple[float, float]:
    rounding = longest = 0.0
    for item in range(items.shape[0]):
        block, lane = item // LANES, item % LANES
        scales[item] = scale = _scale_of(items[item])
        off = length = 0.0
        for column in range(items.shape[1]):
            code = _code(items[item, column], scale)
            codes[block, column // GROUP, lane * GROUP + column % GROUP] = code + SHIFT
            kept = float(scale) * code
            off += (float(items[item, column]) - kept) ** 2
            length += kept**2
        rounding, longest = max(rounding, off), max(longest, length)
    return np.sqrt(rounding), np.sqrt(longest)


@compiled
def encode_query(query: NDArray[np.float32], coded: NDArray[np.int8]) -> tuple[np.float32, float, float]:
    """Write the codes d of a query [H] into `coded`, zeros behind them; returns t, ‖q‖ and ‖q − t·d‖."""
    scale = _scale_of(query)
    coded[:] = 0
    off = length = 0.0
    for column in range(query.shape[0]):
        code = _code(query[column], scale)
        coded[column] = code
        off += (float(query[column]) - float(scale) * code) ** 2
        length += float(query[column]) ** 2
    return scale, np.sqrt(length), np.sqrt(off)


@compiled
def margin(items: ItemCodes, width: int, length: float, off: float) -> float:
    """How far an approximate score can be from the exact one, both as float32 computes them.

    Args:
        items: the codes.
        width: H.
        length: ‖q‖.
        off: ‖q − t·d‖.
    """
    by_codes = length * items.rounding + off * items.longest
    by_floats = length * (items.longest + items.rounding) * (width + LANES) * FLOAT32_ERROR
    return by_codes + by_floats


@compiled
def approximate(
    items: ItemCodes,
    coded: NDArray[np.int8],
    query_scales: NDArray[np.float32],
    scores: NDArray[np.float32],
    highest: NDArray[np.float32],
    count: int,
) -> None:
    """Approximate scores of all items for B queries, as `encode_query` wrote them.

    Args:
        items: the codes.
        coded: int8 [B, GROUP · ⌈H / GROUP⌉], rows in one piece.
        query_scales: float32 [B].
        scores: float32 [B, ≥ LANES · ⌈V / LANES⌉], written; the last of a row belong to no item.
        highest: float32 [B, ⌈V / LANES⌉], written: the best of each block of items.
        count: V.
    """
    codes, scales = items.codes, items.scales
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
def _scale_of(numbers: NDArray[np.float32]) -> np.float32:
    largest = np.float32(0)
    for number in numbers:
        largest = max(largest, abs(number))
    return largest / np.float32(LARGEST)


@compiled
def _code(number: np.float32, scale: np.float32) -> int:
    if scale == 0:
        return 0
    return int(min(max(np.rint(number / scale), -LARGEST), LARGEST))
