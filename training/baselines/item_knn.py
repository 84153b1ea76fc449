"""Item-kNN: what was seen in the same sessions as the last click, by cosine similarity.

Sarwar et al., Item-based collaborative filtering recommendation algorithms, WWW 2001, with sessions in the
place of users, as in Hidasi et al. 2016 (arXiv 1511.06939, §4): two items are as similar as their vectors of
sessions, which is to say the number of sessions with both over the root of the product of the numbers with
each. A constant added to these numbers keeps what was hardly ever seen from being similar by chance.

An item is its own neighbour by the sessions that hold it more than once: to come back to what one has seen
is a habit in most logs, and a baseline that is not told so is too easily beaten (recall@20 of 0.39 in place
of 0.61 on the log with the most of it).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from training.baselines.known_clicks import known_pairs
from training.baselines.session_index import SessionIndex
from training.chunks import in_chunks
from training.evaluate import MISSED, is_target
from training.sessions import Sessions
from worker.core.compiled import compiled

DAMPING = 50.0
"""From 0 to 50 recall@20 grew by up to 0.03 on validation slices of three public click logs, hardly after."""
CHUNK = 2_048
"""Last clicks that a thread works on before it reports."""


def item_knn_ranks(
    index: SessionIndex,
    test: Sessions,
    report: Callable[[int, int], None] = lambda _done, _total: None,
    damping: float = DAMPING,
) -> NDArray[np.int64]:
    """Ranks of all targets of `test` by similarity to the last known click; never seen with it: last, tied.

    Similarities are counted anew for each different last click, in memory for one catalogue; a table of all
    pairs would grow with the square of the sessions' lengths.
    """
    previous, target = known_pairs(test)
    by_click = np.argsort(test.items[previous], kind="stable")
    clicked, begins = np.unique(test.items[previous][by_click], return_index=True)
    begins = np.append(begins, len(by_click))
    wanted = test.items[target][by_click]
    found = np.empty(len(wanted), np.int64)
    scale = 1 / np.sqrt(index.support + damping)

    def rank(begin: int, end: int) -> None:
        _rank_by_similarity(
            index.items,
            index.starts,
            index.sessions,
            index.item_starts,
            index.twice,
            scale,
            clicked[begin:end],
            begins[begin : end + 1],
            wanted,
            found,
        )

    in_chunks(rank, len(clicked), CHUNK, report)
    ranks = np.full(len(test.items), MISSED, np.int64)
    ranks[target[by_click]] = found
    return ranks[is_target(test)]


@compiled
def _rank_by_similarity(
    items: NDArray[np.int32],
    starts: NDArray[np.int64],
    sessions: NDArray[np.int32],
    item_starts: NDArray[np.int64],
    twice: NDArray[np.int64],
    scale: NDArray[np.float64],
    clicked: NDArray[np.int32],
    begins: NDArray[np.int64],
    wanted: NDArray[np.int32],
    ranks: NDArray[np.int64],
) -> None:
    """Targets of clicked[c] are wanted[begins[c] : begins[c + 1]]; the click's own scale changes no rank."""
    together = np.zeros(len(twice), np.int64)
    touched = np.empty(len(twice), np.int32)
    ordered = np.empty(len(twice), np.float64)
    for at in range(len(clicked)):
        click, count = clicked[at], 0
        for session in sessions[item_starts[click] : item_starts[click + 1]]:
            for item in items[starts[session] : starts[session + 1]]:
                if together[item] == 0 and item != click:
                    touched[count] = item
                    count += 1
                together[item] += 1
        together[click] = twice[click]
        if twice[click]:
            touched[count] = click
            count += 1
        similar = touched[:count]
        for place in range(count):
            ordered[place] = together[similar[place]] * scale[similar[place]]
        in_order = np.sort(ordered[:count])
        for target in range(begins[at], begins[at + 1]):
            item = wanted[target]
            ranks[target] = len(twice)
            if together[item]:
                below = np.searchsorted(in_order, together[item] * scale[item])
                ranks[target] = count - below
        for item in similar:
            together[item] = 0
        together[click] = 0
