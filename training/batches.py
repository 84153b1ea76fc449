"""Batches of whole sessions, packed without padding.

A batch of sessions (a b c), (d e), (f g h i) becomes, longest session first,
    inputs   f a d │ g b │ h        targets  g b e │ h c │ i        active  3, 2, 1
so that the sessions still going on at a time step are always the leading ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.sessions import Sessions

LENGTH_NOISE = 2.0
"""Clicks added at random to a session's length before sorting: mates change from epoch to epoch while
sessions of a batch stay of about one length, which is what keeps the time loop short."""


@dataclass(frozen=True, eq=False)
class Batch:
    """N transitions.

    Attributes:
        inputs: int64 [N], rows of the embedding that are clicked.
        targets: int64 [N], rows of what is clicked next.
        weights: float32 [N], of the session that each transition belongs to.
        active: sessions at each time step, sums to N.
    """

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    weights: NDArray[np.float32]
    active: list[int]


@dataclass(frozen=True, eq=False)
class Pieces:
    """Sessions cut to at most so many transitions each. P pieces over the N clicks of `items`.

    Attributes:
        items: int64 [N], the clicks of all sessions.
        first: int64 [P], index of each piece's first click.
        length: int64 [P], transitions of each piece.
        weight: float32 [P], of its session.
    """

    items: NDArray[np.int64]
    first: NDArray[np.int64]
    length: NDArray[np.int64]
    weight: NDArray[np.float32]


def session_weights(sessions: Sessions) -> NDArray[np.float32]:
    """Weights exp(−age), float32 [S]; age 0 for the newest session to 1 for the oldest, by rank.

    By rank, not by time: one session from years ago would otherwise make all others equally new.
    """
    return np.exp(-np.linspace(1.0, 0.0, len(sessions))).astype(np.float32)


def cut(sessions: Sessions, max_transitions: int) -> Pieces:
    """Cut sessions into pieces. A piece's last click is the next piece's first, so no transition is lost."""
    per_session = sessions.lengths - 1
    pieces = -(-per_session // max_transitions)
    owner = np.repeat(np.arange(len(sessions)), pieces)
    nth = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    begin = nth * max_transitions
    return Pieces(
        sessions.items.astype(np.int64),
        sessions.starts[:-1][owner] + begin,
        np.minimum(max_transitions, per_session[owner] - begin),
        session_weights(sessions)[owner],
    )


def batches(pieces: Pieces, transitions: int, rng: np.random.Generator) -> Iterator[Batch]:
    """One epoch: every piece once, about `transitions` transitions a batch, batches in random order."""
    order = np.argsort(pieces.length + rng.uniform(0, LENGTH_NOISE, len(pieces.length)))
    batch_of = (np.cumsum(pieces.length[order]) - 1) // transitions
    edges = np.flatnonzero(np.diff(batch_of)) + 1
    groups = np.split(order, edges)
    for index in rng.permutation(len(groups)):
        yield pack(pieces, groups[index])


def pack(pieces: Pieces, chosen: NDArray[np.int64]) -> Batch:
    """Pack these pieces into one batch."""
    chosen = chosen[np.argsort(-pieces.length[chosen], kind="stable")]
    length, first = pieces.length[chosen], pieces.first[chosen]
    steps = np.arange(length[0])
    going_on = length[None, :] > steps[:, None]  # [T, B], true in a leading part of each row
    step, column = np.nonzero(going_on)
    clicks = first[column] + step
    return Batch(
        pieces.items[clicks],
        pieces.items[clicks + 1],
        pieces.weight[chosen][column],
        going_on.sum(1).tolist(),
    )
