"""Scores of the whole catalogue and the k best, exactly."""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.core.best import clear, find_best, put, sort
from worker.core.code_products import GROUP, LANES
from worker.core.compiled import compiled
from worker.core.item_codes import ItemCodes, approximate, encode_query, margin
from worker.core.lanes import dot

BUFFER_BYTES = 4 << 20
"""Scores of one block of queries: small enough to stay in cache between product and selection."""

MIN_BLOCK = 16
"""Queries in a block at least: below, the catalogue is read too often for each query."""

Floats = NDArray[np.float32]
Items = NDArray[np.int64]


class Scorer:
    """Exact top-k against one item matrix; owns its buffer, so one per thread.

    Args:
        item_matrix: float32 [V, H].
        codes: of the item matrix: candidates are found by them, and only these are scored in float32. None:
            all items are. The results are the same but for the rounding of float32 sums, which depends on
            their order.
        top_k: results per query; fewer where the catalogue is smaller.
    """

    def __init__(self, item_matrix: Tensor, codes: ItemCodes | None, top_k: int) -> None:
        items = item_matrix.shape[0]
        self._k = min(top_k, items)
        self._block = max(MIN_BLOCK, BUFFER_BYTES // (4 * items))
        self._select: _Selection = (
            _ByProducts(item_matrix, self._block)
            if codes is None
            else _ByCodes(item_matrix, codes, self._block)
        )

    def top_k(self, queries: Tensor) -> tuple[Floats, Items]:
        """The best items for each query [B, H]: scores float32 [B, k], descending, and items int64 [B, k].

        Of items with equal scores the one in the earlier row comes first.
        """
        count = len(queries)
        scores, items = np.empty((count, self._k), np.float32), np.empty((count, self._k), np.int64)
        for begin in range(0, count, self._block):
            end = min(begin + self._block, count)
            self._select(queries[begin:end], scores[begin:end], items[begin:end])
        return scores, items


class _Selection(Protocol):
    def __call__(self, queries: Tensor, best_scores: Floats, best_items: Items) -> None:
        """Write the best scores and items [B, k] of queries [B, H], B at most a block."""
        ...


class _ByProducts:
    def __init__(self, item_matrix: Tensor, block: int) -> None:
        # By columns, in which the product with few queries is up to twice as quick.
        self._columns = item_matrix.t().contiguous()
        self._scores = torch.empty(block, len(item_matrix))

    def __call__(self, queries: Tensor, best_scores: Floats, best_items: Items) -> None:
        scores = torch.mm(queries, self._columns, out=self._scores[: len(queries)])
        _select(scores.numpy(), best_scores, best_items)


class _ByCodes:
    def __init__(self, item_matrix: Tensor, codes: ItemCodes, block: int) -> None:
        self._rows = np.ascontiguousarray(item_matrix.numpy())
        self._codes = codes
        self._scores = np.empty((block, len(codes.scales)), np.float32)

    def __call__(self, queries: Tensor, best_scores: Floats, best_items: Items) -> None:
        asked, scores = np.ascontiguousarray(queries.numpy()), self._scores[: len(queries)]
        _select_by_codes(self._rows, self._codes, asked, scores, best_scores, best_items)


@compiled
def _select(scores: Floats, best_scores: Floats, best_items: Items) -> None:
    """The k best of each row of scores [B, V], k ≤ V, into the other two [B, k]."""
    for row in range(scores.shape[0]):
        find_best(scores[row], best_scores[row], best_items[row])
        sort(best_scores[row], best_items[row])


@compiled
def _select_by_codes(
    rows: Floats, codes: ItemCodes, queries: Floats, scores: Floats, best_scores: Floats, best_items: Items
) -> None:
    """The k best of rows [V, H] for queries [B, H], into the last two [B, k]; `scores` is a buffer."""
    asked, blocks = queries.shape[0], codes.codes.shape[0]
    coded, scales = np.empty((asked, codes.codes.shape[1] * GROUP), np.int8), np.empty(asked, np.float32)
    margins, highest = np.empty(asked, np.float64), np.empty((asked, blocks), np.float32)
    for row in range(asked):
        scales[row], length, off = encode_query(queries[row], coded[row])
        margins[row] = margin(codes, queries.shape[1], length, off)
    approximate(codes, coded, scales, scores, highest, rows.shape[0])
    for row in range(asked):
        best, place = best_scores[row], best_items[row]
        least = _least(highest[row], margins[row], best, place)
        _score_candidates(rows, queries[row], scores[row], highest[row], least, best, place)
        sort(best, place)


@compiled
def _least(highest: Floats, margin: float, best: Floats, place: Items) -> np.float32:
    """What the approximate score of each of the k best is at least, by the highest ones of blocks; the last
    two [k] are overwritten.

    k blocks have a score of at least the k-th highest. So the exact scores of k items are no further below
    that than the margin, and no item of the k best has an exact score below theirs.
    """
    if best.shape[0] > highest.shape[0]:
        return np.float32(-np.inf)
    find_best(highest, best, place)
    return np.float32(best[0] - 2 * margin)


@compiled
def _score_candidates(
    rows: Floats,
    query: Floats,
    scores: Floats,
    highest: Floats,
    least: np.float32,
    best: Floats,
    place: Items,
) -> None:
    """The k best by exact score, as a heap, of the items whose approximate score is at least so much."""
    clear(best, place)
    for block in range(highest.shape[0]):
        if highest[block] < least:
            continue
        for item in range(block * LANES, min((block + 1) * LANES, rows.shape[0])):
            if scores[item] >= least:
                score = dot(rows[item], query)
                if score > best[0]:
                    put(best, place, best.shape[0], score, item)
