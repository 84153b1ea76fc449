"""Scores of the whole catalogue and the k best, exactly."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.core.best import clear, find_best, put, sort
from worker.core.code_products import CAN_MULTIPLY_CODES, GROUP, LANES
from worker.core.compiled import compiled
from worker.core.item_codes import ItemCodes, approximate, encode_query, write_margins
from worker.core.lanes import dot

BUFFER_BYTES = 4 << 20
"""Scores of one block of queries: small enough to stay in cache between product and selection."""

MIN_BLOCK = 16
"""Queries in a block at least: below, the catalogue is read too often for each query."""

Floats = NDArray[np.float32]
Items = NDArray[np.int64]


class Columns(NamedTuple):
    """The items of a catalogue, of which all are scored."""

    columns: Tensor  # [H, V]; by columns the product with few queries is up to twice as quick


Catalogue = ItemCodes | Columns
"""What is scored, as a scorer reads it; never changed, so threads may share it."""


def catalogue_of(item_matrix: Tensor) -> Catalogue:
    """The catalogue of items float32 [V, H], in the way that is quickest on this processor."""
    if CAN_MULTIPLY_CODES:
        return ItemCodes.of(item_matrix.contiguous().numpy())
    return Columns(item_matrix.t().contiguous())


class Scorer:
    """Exact top-k against one catalogue; owns its buffer, so one per thread.

    By `ItemCodes` candidates are found, and only these are scored in float32. The results are those of
    `Columns` but for the rounding of float32 sums, which depends on their order.

    Args:
        catalogue: of V items of width H.
        top_k: results per query; fewer where the catalogue is smaller.
    """

    def __init__(self, catalogue: Catalogue, top_k: int) -> None:
        if isinstance(catalogue, ItemCodes):
            items, width = len(catalogue.rows), len(catalogue.scales)
        else:
            items = width = catalogue.columns.shape[1]
        self._catalogue = catalogue
        self._k = min(top_k, items)
        self._block = max(MIN_BLOCK, BUFFER_BYTES // (4 * width))
        self._scores = np.empty((self._block, width), np.float32)

    def top_k(self, queries: Tensor) -> tuple[Floats, Items]:
        """The best items for each query [B, H]: scores float32 [B, k], descending, and items int64 [B, k].

        Of items with equal scores the one in the earlier row comes first. Scores must be finite, as they are
        of weights within the bounds of an artefact.
        """
        count = len(queries)
        scores, items = np.empty((count, self._k), np.float32), np.empty((count, self._k), np.int64)
        for begin in range(0, count, self._block):
            end = min(begin + self._block, count)
            self._select(queries[begin:end], scores[begin:end], items[begin:end])
        return scores, items

    def _select(self, queries: Tensor, best_scores: Floats, best_items: Items) -> None:
        """Write the best scores and items [B, k] of queries [B, H], B at most a block."""
        buffer, catalogue = self._scores[: len(queries)], self._catalogue
        if isinstance(catalogue, Columns):
            torch.mm(queries, catalogue.columns, out=torch.from_numpy(buffer))
            _select(buffer, best_scores, best_items)
            return
        if queries.shape[1] != catalogue.rows.shape[1]:  # compiled code would not notice
            raise ValueError(f"queries of width {queries.shape[1]}, items of {catalogue.rows.shape[1]}")
        asked = np.ascontiguousarray(queries.numpy())
        _select_by_codes(catalogue, asked, buffer, best_scores, best_items)


@compiled
def _select(scores: Floats, best_scores: Floats, best_items: Items) -> None:
    """The k best of each row of scores [B, V], k ≤ V, into the other two [B, k]."""
    for row in range(scores.shape[0]):
        find_best(scores[row], best_scores[row], best_items[row])
        sort(best_scores[row], best_items[row])


@compiled
def _select_by_codes(
    items: ItemCodes, queries: Floats, scores: Floats, best_scores: Floats, best_items: Items
) -> None:
    """The k best items for queries [B, H], into the last two [B, k]; `scores` is a buffer."""
    asked, blocks = queries.shape[0], items.codes.shape[0]
    coded, scales = np.empty((asked, items.codes.shape[1] * GROUP), np.int8), np.empty(asked, np.float32)
    margins, highest = np.empty((asked, blocks), np.float32), np.empty((asked, blocks), np.float32)
    for row in range(asked):
        scales[row], length, off = encode_query(queries[row], coded[row])
        write_margins(items, length, off, margins[row])
    approximate(items, coded, scales, scores, highest)
    for row in range(asked):
        best, place = best_scores[row], best_items[row]
        least = _least(highest[row] - margins[row], best, place)
        _score_candidates(
            items.rows, queries[row], scores[row], highest[row], margins[row], least, best, place
        )
        sort(best, place)


@compiled
def _least(surely: Floats, best: Floats, place: Items) -> np.float32:
    """What each of the k best items scores at least, by what the best of each block surely scores.

    k blocks have an item that scores at least the k-th highest of these, so no item of the k best scores
    less. The last two [k] are overwritten.
    """
    if best.shape[0] > surely.shape[0]:
        return np.float32(-np.inf)
    find_best(surely, best, place)
    return np.float32(best[0])


@compiled
def _score_candidates(
    rows: Floats,
    query: Floats,
    scores: Floats,
    highest: Floats,
    margins: Floats,
    least: np.float32,
    best: Floats,
    place: Items,
) -> None:
    """The k best by exact score, as a heap, of the items that could score so much.

    What could is told by approximate scores [≥ V], and in each block by the highest of them and their margin.
    """
    clear(best, place)
    for block in range(highest.shape[0]):
        needed = least - margins[block]
        if highest[block] < needed:
            continue
        for item in range(block * LANES, min((block + 1) * LANES, rows.shape[0])):
            if scores[item] >= needed:
                score = dot(rows[item], query)
                if score > best[0]:
                    put(best, place, best.shape[0], score, item)
