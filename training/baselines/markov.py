"""First-order Markov: what followed the last click most often."""

import numpy as np
from numpy.typing import NDArray

from training.baselines.known_clicks import known_pairs
from training.evaluate import MISSED, is_target
from training.sessions import Sessions


def markov_ranks(train: Sessions, test: Sessions, items: int) -> NDArray[np.int64]:
    """Ranks of all targets of `test` by how often each item followed the last known click in training.

    Equal counts in the order in which the two clicks first met in training, so that the list has no ties and
    is what a table of counters recommends. What never followed the click comes last, all tied.
    """
    pairs, counts, first_met = _transition_counts(train, items)
    previous, target = known_pairs(test)
    ranks = np.full(len(test.items), MISSED, np.int64)
    ranks[target] = items
    wanted = test.items[previous].astype(np.int64) * items + test.items[target]
    place = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    met = np.flatnonzero(pairs[place] == wanted)
    begin = np.searchsorted(pairs, wanted[met] // items * items)
    end = np.searchsorted(pairs, (wanted[met] // items + 1) * items)
    for index, first, last in zip(met, begin, end, strict=True):
        own = place[index]
        more = counts[first:last] > counts[own]
        earlier = (counts[first:last] == counts[own]) & (first_met[first:last] <= first_met[own])
        ranks[target[index]] = (more | earlier).sum()
    return ranks[is_target(test)]


def _transition_counts(
    train: Sessions, items: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Pairs (click, next click) coded as click · items + next, sorted; how often and where first each is."""
    later = np.flatnonzero(is_target(train))
    pairs, first_met, counts = np.unique(
        train.items[later - 1].astype(np.int64) * items + train.items[later],
        return_index=True,
        return_counts=True,
    )
    return pairs, counts.astype(np.int64), first_met.astype(np.int64)
