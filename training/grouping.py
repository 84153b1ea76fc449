"""Passes over the clicks of a log that lay each session's side by side, without an array of positions.

Compiled, because each click goes to a place that depends on where the clicks before it went. A position per
click (as from a sort) would take more memory than all that is kept of the clicks.
"""

import numpy as np
from numpy.typing import NDArray

from worker.core.compiled import compiled

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]

SHORT = 32
"""Longer runs of clicks are sorted by merging: insertion takes the square of their length."""


def count_clicks(
    session: NDArray[np.int32], timestamp_ms: NDArray[np.int64], sessions: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Clicks of each session and the time of its latest one: int64 [S] both."""
    clicks, last_ms = np.zeros(sessions, np.int64), np.full(sessions, np.iinfo(np.int64).min)
    _count(session, timestamp_ms, clicks, last_ms)
    return clicks, last_ms


def place_clicks(
    session: NDArray[np.int32],
    timestamp_ms: NDArray[np.int64],
    item: NDArray[np.int32],
    place: NDArray[np.int64],
    starts: NDArray[np.int64],
) -> NDArray[np.int32]:
    """Return the items with the clicks of a session side by side, by time, ties in the order given.

    Args:
        session, timestamp_ms, item: of N clicks.
        place: int64 [S], where the clicks of each session begin in the result, −1 to leave them out. Written
            over.
        starts: int64 [K + 1], the same places in ascending order, and the end of the last.
    """
    items, times_ms = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.int64)
    _place(session, timestamp_ms, item, place, items, times_ms)
    unsorted = np.zeros(len(starts) - 1, np.bool_)
    _sort_short(starts, times_ms, items, unsorted)
    for long in np.flatnonzero(unsorted).tolist():
        clicks = slice(starts[long], starts[long + 1])
        items[clicks] = items[clicks][np.argsort(times_ms[clicks], kind="stable")]
    return items


@compiled
def _count(session: Ints, timestamp_ms: Longs, clicks: Longs, last_ms: Longs) -> None:
    for click in range(len(session)):
        owner = session[click]
        last_ms[owner] = max(last_ms[owner], timestamp_ms[click])
        clicks[owner] += 1


@compiled
def _place(
    session: Ints, timestamp_ms: Longs, item: Ints, place: Longs, items: Ints, times_ms: Longs
) -> None:
    for click in range(len(session)):
        at = place[session[click]]
        if at >= 0:
            items[at] = item[click]
            times_ms[at] = timestamp_ms[click]
            place[session[click]] = at + 1


@compiled
def _sort_short(starts: Longs, times_ms: Longs, items: Ints, unsorted: NDArray[np.bool_]) -> None:
    """Sort each run in place; the long ones that are not in order yet are only marked."""
    for run in range(len(starts) - 1):
        first, end = starts[run], starts[run + 1]
        for click in range(first + 1, end):
            time_ms, item = times_ms[click], items[click]
            if times_ms[click - 1] <= time_ms:
                continue
            if end - first > SHORT:
                unsorted[run] = True
                break
            at = click
            while at > first and times_ms[at - 1] > time_ms:
                times_ms[at], items[at] = times_ms[at - 1], items[at - 1]
                at -= 1
            times_ms[at], items[at] = time_ms, item
