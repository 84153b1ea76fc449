"""VS-kNN: what the most similar past sessions went on to.

Ludewig & Jannach, Evaluation of session-based recommendation algorithms, UMUAI 2018 (arXiv 1803.09587),
vector multiplication session-kNN, with their sample of the most recent candidates:

1. An item of the running session weighs its position over the session's length: 1 for the last click, less
   the longer ago, by a straight line. An item clicked twice has the later position.
2. Candidates are the `CANDIDATES` newest past sessions that share an item with the running one.
3. Their similarity is the sum of the weights of the shared items; the `NEIGHBOURS` most similar remain, of
   equal ones the newer.
4. An item scores the sum, over the neighbours that hold it, of their similarity times the weight of the
   latest shared item, and that times the item's inverse document frequency, log(sessions / sessions with it).

Positions are used in place of weights, for the length is the same in every sum: so all is whole numbers up
to the last product, and equal scores are equal whatever the order of adding.

The sizes are those of the authors' experiments. On validation slices of three public click logs 200
neighbours or 500 or 2,000 candidates moved recall@20 by less than 0.01; without the weight of the latest
shared item it fell by up to 0.004, without the frequencies by 0.01 to 0.02.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from training.baselines.known_clicks import known_only
from training.baselines.session_index import SessionIndex
from training.chunks import in_chunks
from training.evaluate import MISSED, is_target
from training.sessions import Sessions
from worker.core.compiled import compiled

CANDIDATES = 1_000
NEIGHBOURS = 100
MAX_LENGTH = 100
"""Of a longer running session the last so many clicks count."""
CHUNK = 256
"""Test sessions that a thread works on before it reports."""


def vs_knn_ranks(
    index: SessionIndex,
    test: Sessions,
    report: Callable[[int, int], None] = lambda _done, _total: None,
    candidates: int = CANDIDATES,
    neighbours: int = NEIGHBOURS,
) -> NDArray[np.int64]:
    """Ranks of all targets of `test`; in no neighbour: last, tied. Reports test sessions."""
    known, starts = known_only(test)
    clicks = test.items[known]
    found = np.full(len(clicks), MISSED, np.int64)
    document_frequency = np.maximum(index.support, 1)
    rarity = np.log((len(index.starts) - 1) / document_frequency)

    def rank(begin: int, end: int) -> None:
        _rank_by_neighbours(
            index.items,
            index.starts,
            index.sessions,
            index.item_starts,
            rarity,
            clicks,
            starts[begin : end + 1],
            candidates,
            neighbours,
            found,
        )

    in_chunks(rank, len(test), CHUNK, report)
    ranks = np.full(len(test.items), MISSED, np.int64)
    ranks[known] = found
    return ranks[is_target(test)]


@compiled
def _rank_by_neighbours(
    items: NDArray[np.int32],
    starts: NDArray[np.int64],
    sessions: NDArray[np.int32],
    item_starts: NDArray[np.int64],
    rarity: NDArray[np.float64],
    clicks: NDArray[np.int32],
    running: NDArray[np.int64],
    candidates: int,
    neighbours: int,
    ranks: NDArray[np.int64],
) -> None:
    """Ranks of the later clicks of the sessions clicks[running[s] : running[s + 1]]."""
    position = np.zeros(len(rarity), np.int64)
    weight = np.zeros(len(rarity), np.int64)
    touched = np.empty(len(rarity), np.int32)
    shared = np.empty(MAX_LENGTH, np.int32)
    found = np.empty((3, candidates), np.int64)
    for session in range(len(running) - 1):
        for target in range(running[session] + 1, running[session + 1]):
            first = max(running[session], target - MAX_LENGTH)
            different = _latest_positions(clicks[first:target], position, shared)
            count = _newest_sharing(shared[:different], position, sessions, item_starts, found)
            count = _most_similar(found[:, :count], neighbours)
            scored = _add_up(found[:, :count], items, starts, weight, touched)
            ranks[target] = len(rarity)
            own = weight[clicks[target]] * rarity[clicks[target]]
            if own > 0:
                ranks[target] = 0
                for item in touched[:scored]:
                    ranks[target] += weight[item] * rarity[item] >= own
            for item in touched[:scored]:
                weight[item] = 0
            for item in shared[:different]:
                position[item] = 0


@compiled
def _latest_positions(
    clicks: NDArray[np.int32], position: NDArray[np.int64], shared: NDArray[np.int32]
) -> int:
    """Enter the last position of each item, from 1; list the items, last clicked first. Returns how many."""
    different = 0
    for place in range(len(clicks), 0, -1):
        item = clicks[place - 1]
        if position[item] == 0:
            position[item] = place
            shared[different] = item
            different += 1
    return different


@compiled
def _newest_sharing(
    shared: NDArray[np.int32],
    position: NDArray[np.int64],
    sessions: NDArray[np.int32],
    item_starts: NDArray[np.int64],
    found: NDArray[np.int64],
) -> int:
    """Merge the lists of the items' sessions from their newest ends until `found` [3, most] is full.

    Its rows: session, sum of the positions of the shared items, position of the latest. Returns how many.
    """
    heads = np.empty(len(shared), np.int64)
    for at, item in enumerate(shared):
        heads[at] = item_starts[item + 1] - 1
    for count in range(found.shape[1]):
        newest = -1
        for at, item in enumerate(shared):
            if heads[at] >= item_starts[item]:
                newest = max(newest, sessions[heads[at]])
        if newest < 0:
            return count
        found[0, count], found[1, count], found[2, count] = newest, 0, 0
        for at, item in enumerate(shared):
            if heads[at] >= item_starts[item] and sessions[heads[at]] == newest:
                found[1, count] += position[item]
                found[2, count] = max(found[2, count], position[item])
                heads[at] -= 1
    return len(found[0])


@compiled
def _most_similar(found: NDArray[np.int64], most: int) -> int:
    """Move the columns of the largest sums to the front, of equal ones those that came first."""
    count = len(found[0])
    if count <= most:
        return count
    largest = 0
    for at in range(count):
        largest = max(largest, found[1, at])
    having = np.zeros(largest + 1, np.int64)  # candidates of each sum: small whole numbers need no sorting
    for at in range(count):
        having[found[1, at]] += 1
    last, room = largest, most  # the least sum that still is among the most similar; how many have room
    while having[last] < room:
        room -= having[last]
        last -= 1
    kept = 0
    for at in range(count):
        similarity = found[1, at]
        if similarity > last or (similarity == last and room > 0):
            room -= similarity == last
            for row in range(len(found)):
                found[row, kept] = found[row, at]
            kept += 1
    return kept


@compiled
def _add_up(
    found: NDArray[np.int64],
    items: NDArray[np.int32],
    starts: NDArray[np.int64],
    weight: NDArray[np.int64],
    touched: NDArray[np.int32],
) -> int:
    """Add similarity · latest position to the items of each neighbour; list the items. Returns how many."""
    scored = 0
    for at in range(found.shape[1]):
        session = found[0, at]
        for item in items[starts[session] : starts[session + 1]]:
            if weight[item] == 0:
                touched[scored] = item
                scored += 1
            weight[item] += found[1, at] * found[2, at]
    return scored
