"""The same list for everyone: what was clicked most, ever or lately."""

import numpy as np
from numpy.typing import NDArray

from training.evaluate import MISSED, is_target
from training.sessions import UNKNOWN, Sessions

RECENT_SHARE = 0.1
"""Of the training clicks. On validation slices of three public click logs anything from 0.05 to 0.2 did well,
0.01 and everything worse."""
RECENT_MIN_CLICKS = 2_000
"""Fewer say little about a catalogue."""


def popularity_ranks(train: Sessions, test: Sessions, items: int) -> NDArray[np.int64]:
    """Ranks of all targets of `test` with the catalogue ordered by clicks in training.

    Item indices of both are rows of one vocabulary of so many items; `test` may hold `UNKNOWN`.
    """
    support = np.bincount(train.items, minlength=items)
    as_popular = items - np.searchsorted(np.sort(support), support, side="left")  # as many clicks or more
    targets = test.items[is_target(test)]
    return np.where(targets == UNKNOWN, MISSED, as_popular[targets]).astype(np.int64)


def recent_popularity_ranks(train: Sessions, test: Sessions, items: int) -> NDArray[np.int64]:
    """Ranks of all targets of `test` with the catalogue ordered by clicks in the newest training sessions.

    What has no click in those comes last, all tied.
    """
    return popularity_ranks(recent(train), test, items)


def recent(train: Sessions) -> Sessions:
    """The newest sessions that hold a tenth of the training clicks, or `RECENT_MIN_CLICKS` where that is
    more; all of them in a small log.

    A share and not a number of days, because many published logs have a made-up clock.
    """
    wanted = max(RECENT_SHARE * len(train.items), RECENT_MIN_CLICKS)
    newer_clicks = len(train.items) - train.starts[1:]
    return train.take(np.flatnonzero(newer_clicks < wanted))
