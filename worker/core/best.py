"""The k best of many scores, in a heap; for compiled code.

A heap is two arrays [k], scores and where they stand, with the worst of the k best on top. Of equal scores
the one that stands earlier is better.
"""

import numpy as np
from numpy.typing import NDArray

from worker.core.compiled import compiled
from worker.core.lanes import highest

CHUNK = 16
"""Scores that are compared at once with the worst of the k best so far; measured beside 32 and 64."""


@compiled
def find_best(scores: NDArray[np.float32], best: NDArray[np.float32], place: NDArray[np.int64]) -> None:
    """The k best of scores [V], k ≤ V, as a heap."""
    items, k = scores.shape[0], best.shape[0]
    clear(best, place)
    for item in range(k):
        put(best, place, k, scores[item], item)
    for begin in range(k, items, CHUNK):
        part = scores[begin : begin + CHUNK]
        if highest(part) > best[0]:
            for at in range(part.shape[0]):
                if part[at] > best[0]:
                    put(best, place, k, part[at], begin + at)


@compiled
def clear(best: NDArray[np.float32], place: NDArray[np.int64]) -> None:
    """A heap of what is worse than everything."""
    best[:] = -np.inf
    place[:] = np.iinfo(np.int64).max


@compiled
def sort(best: NDArray[np.float32], place: NDArray[np.int64]) -> None:
    """A heap in descending order: the worst goes to the end (Williams 1964, "Algorithm 232: Heapsort")."""
    for end in range(best.shape[0] - 1, 0, -1):
        score, item = best[end], place[end]
        best[end], place[end] = best[0], place[0]
        put(best, place, end, score, item)


@compiled
def put(best: NDArray[np.float32], place: NDArray[np.int64], size: int, score: np.float32, item: int) -> None:
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
