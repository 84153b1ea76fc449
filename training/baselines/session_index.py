"""Training sessions to be looked up by item: 8 bytes per click and 24 per item, made in one pass."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.sessions import Sessions
from worker.core.compiled import compiled

MAX_ITEMS_PER_SESSION = 100
"""Of a longer session only so many different items count, the last ones: pairs grow with the square, and who
clicks on thousands of items is a robot."""


@dataclass(frozen=True, eq=False)
class SessionIndex:
    """S sessions, oldest first, over V items; M pairs of a session and an item in it.

    Attributes:
        items: int32 [M], the different items of each session, last clicked first, laid end to end.
        starts: int64 [S + 1]; session s has items[starts[s] : starts[s + 1]].
        sessions: int32 [M], the sessions of each item, oldest first, laid end to end.
        item_starts: int64 [V + 1]; item i is in sessions[item_starts[i] : item_starts[i + 1]].
        twice: int64 [V], how many sessions hold the item more than once.
    """

    items: NDArray[np.int32]
    starts: NDArray[np.int64]
    sessions: NDArray[np.int32]
    item_starts: NDArray[np.int64]
    twice: NDArray[np.int64]

    @property
    def support(self) -> NDArray[np.int64]:
        """Number of sessions that hold each item, int64 [V]."""
        return np.diff(self.item_starts)


def index_sessions(train: Sessions, items: int) -> SessionIndex:
    """Index sessions, oldest first, whose item indices are below `items`."""
    distinct = np.empty(len(train.items), np.int32)
    starts = np.zeros(len(train) + 1, np.int64)
    twice = np.zeros(items, np.int64)
    _distinct_items(train.items, train.starts, MAX_ITEMS_PER_SESSION, distinct, starts, twice)
    distinct = distinct[: starts[-1]]
    item_starts = np.concatenate([[0], np.cumsum(np.bincount(distinct, minlength=items))])
    sessions = np.empty(len(distinct), np.int32)
    _sessions_of_items(distinct, starts, item_starts[:-1].copy(), sessions)
    return SessionIndex(distinct, starts, sessions, item_starts, twice)


@compiled
def _distinct_items(
    items: NDArray[np.int32],
    starts: NDArray[np.int64],
    most: int,
    distinct: NDArray[np.int32],
    distinct_starts: NDArray[np.int64],
    twice: NDArray[np.int64],
) -> None:
    met = np.full(len(twice), -1, np.int64)  # 2·session once an item was met in it, one more if met again
    end = 0
    for session in range(len(starts) - 1):
        first = end
        for click in range(starts[session + 1] - 1, starts[session] - 1, -1):
            item = items[click]
            if met[item] == 2 * session:
                met[item] += 1
                twice[item] += 1
            elif met[item] < 2 * session and end - first < most:
                met[item] = 2 * session
                distinct[end] = item
                end += 1
        distinct_starts[session + 1] = end


@compiled
def _sessions_of_items(
    distinct: NDArray[np.int32],
    starts: NDArray[np.int64],
    free: NDArray[np.int64],
    sessions: NDArray[np.int32],
) -> None:
    """Counting sort of (item, session); `free` holds where each item's next entry goes and is used up."""
    for session in range(len(starts) - 1):
        for at in range(starts[session], starts[session + 1]):
            sessions[free[distinct[at]]] = session
            free[distinct[at]] += 1
