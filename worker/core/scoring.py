"""Scores of the whole catalogue and the k best, exactly."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.core.compiled import compiled, compiled_with

BUFFER_BYTES = 4 << 20
"""Scores of one block of queries: small enough to stay in cache between product and selection."""

MIN_BLOCK = 16
"""Queries in a block at least: below, the product reads the catalogue too often for each query."""

CHUNK = 16
"""Scores that are compared at once with the worst of the k best so far; measured beside 32 and 64."""


class Scorer:
    """Exact top-k against one item matrix; owns its buffer, so one per thread.

    Args:
        item_matrix: float32 [V, H], best in column order.
        top_k: results per query; fewer where the catalogue is smaller.
    """

    def __init__(self, item_matrix: Tensor, top_k: int) -> None:
        items = item_matrix.shape[0]
        self._columns = item_matrix.t()
        self._k = min(top_k, items)
        self._block = max(MIN_BLOCK, BUFFER_BYTES // (4 * items))
        self._scores = torch.empty(self._block, items)

    def top_k(self, queries: Tensor) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The best items for each query [B, H]: scores float32 [B, k], descending, and items int64 [B, k].

        Of items with equal scores the one in the earlier row comes first.
        """
        count = len(queries)
        scores, items = np.empty((count, self._k), np.float32), np.empty((count, self._k), np.int64)
        for begin in range(0, count, self._block):
            end = min(begin + self._block, count)
            block = torch.mm(queries[begin:end], self._columns, out=self._scores[: end - begin])
            _select(block.numpy(), scores[begin:end], items[begin:end])
        return scores, items


def _is_any_above(numbers: NDArray[np.float32], least: np.float32) -> bool:
    highest = np.float32(-np.inf)
    for number in numbers:
        if number > highest:  # noqa: PLR1730 - max() is not turned into vector code
            highest = number
    return bool(highest > least)


# In vector lanes. All scores are numbers: weights that are not, or that are beyond bounds, are no artefact.
_is_any_above = compiled_with(_is_any_above, fastmath={"reassoc", "nnan", "nsz"})


@compiled
def _select(
    scores: NDArray[np.float32], best_scores: NDArray[np.float32], best_items: NDArray[np.int64]
) -> None:
    """The k best of each row of scores [B, V], k ≤ V, into the other two [B, k].

    While a row is read its part of these two is a heap with the worst of the k best on top; then it is sorted
    in place, the worst going to the end (Williams 1964, "Algorithm 232: Heapsort").
    """
    (rows, items), k = scores.shape, best_scores.shape[1]
    for row in range(rows):
        every, best, place = scores[row], best_scores[row], best_items[row]
        best[:] = -np.inf
        place[:] = items
        for item in range(k):
            _put(best, place, k, every[item], item)
        for begin in range(k, items, CHUNK):
            part = every[begin : begin + CHUNK]
            if _is_any_above(part, best[0]):
                for at in range(part.shape[0]):
                    if part[at] > best[0]:
                        _put(best, place, k, part[at], begin + at)
        for end in range(k - 1, 0, -1):
            score, item = best[end], place[end]
            best[end], place[end] = best[0], place[0]
            _put(best, place, end, score, item)


@compiled
def _put(
    best: NDArray[np.float32], place: NDArray[np.int64], size: int, score: np.float32, item: int
) -> None:
    """Put a score in place of the top of the heap, the first `size` of these."""
    hole = 0
    while True:
        child = 2 * hole + 1
        if child >= size:
            break
        if child + 1 < size and _is_worse(best[child + 1], place[child + 1], best[child], place[child]):
            child += 1
        if not _is_worse(best[child], place[child], score, item):
            break
        best[hole], place[hole] = best[child], place[child]
        hole = child
    best[hole], place[hole] = score, item


@compiled
def _is_worse(score: np.float32, item: int, than: np.float32, than_item: int) -> bool:
    return bool(score < than or (score == than and item > than_item))
