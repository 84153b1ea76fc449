"""What a baseline sees of test sessions: the clicks on items that it has learned about."""

import numpy as np
from numpy.typing import NDArray

from training.sessions import UNKNOWN, Sessions


def known_pairs(test: Sessions) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of each known click and of the next known one of its session."""
    known = np.flatnonzero(test.items != UNKNOWN)
    owner = np.repeat(np.arange(len(test)), test.lengths)[known]
    together = owner[1:] == owner[:-1]
    return known[:-1][together], known[1:][together]


def known_only(test: Sessions) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the known clicks, and where each session begins among them, int64 [S + 1]."""
    known = test.items != UNKNOWN
    starts = np.concatenate([[0], np.cumsum(known)])[test.starts]
    return np.flatnonzero(known), starts
