"""Session-parallel batches without back-propagation through time (arXiv 1511.06939, section 3.1.1).

So many slots stand side by side; each walks through a session, one click a step. A session that ends leaves
its slot to the next one, which starts from a zero state. When no session is left to take a slot, the slot
goes and the others walk on, so that every transition of every session is learned, exactly once:

    sessions (a b c), (d e), (f g h) in two slots:
    step 1   a→b  d→e    both from zero
    step 2   b→c  f→g    the second from zero
    step 3        g→h    the first is gone, the second goes on
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.batches import Batch, session_weights
from training.sessions import Sessions


@dataclass(frozen=True, eq=False)
class SlotStep:
    """One step of n slots.

    Attributes:
        inputs: int64 [n], rows of the embedding that are clicked.
        targets: int64 [n], rows of what is clicked next.
        weights: float32 [n], of each slot's session.
        kept: int64 [n], where each of these slots stood in the step before, rising; 0 to n − 1 at first.
        reset: bool [n], the slot begins a session: its state is zero before this click. Made anew at every
            step, so that no slot is reset for an end that came earlier.
    """

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    weights: NDArray[np.float32]
    kept: NDArray[np.int64]
    reset: NDArray[np.bool_]

    @property
    def batch(self) -> Batch:
        """The step as a batch of one time step."""
        return Batch(self.inputs, self.targets, self.weights, [len(self.inputs)])


def slot_steps(sessions: Sessions, slots: int, order: NDArray[np.int64] | None = None) -> Iterator[SlotStep]:
    """One epoch.

    Args:
        sessions: of at least two clicks each.
        slots: sessions side by side, as long as there are so many; at least 1.
        order: int64 [S], in which sessions take the slots; None for as they come, oldest first.
    """
    order = np.arange(len(sessions)) if order is None else order
    items, weight = sessions.items.astype(np.int64), session_weights(sessions)
    place, last = sessions.starts[:-1][order], sessions.starts[1:][order] - 1  # clicks of the next input, end
    weight = weight[order]

    session = np.arange(min(slots, len(order)))  # [n], place in `order` of each slot's session
    waiting = len(session)  # the first that has no slot yet
    click = place[session]
    kept, reset = np.arange(len(session)), np.ones(len(session), bool)
    while len(session):
        yield SlotStep(items[click], items[click + 1], weight[session], kept, reset)
        click = click + 1
        reset = click == last[session]  # nothing follows this click: the slot is free
        kept = np.arange(len(session))
        free = np.flatnonzero(reset)
        if not len(free):
            continue
        taken = min(len(free), len(order) - waiting)
        session[free[:taken]] = np.arange(waiting, waiting + taken)
        waiting += taken
        click[free[:taken]] = place[session[free[:taken]]]
        if taken < len(free):
            kept = np.delete(kept, free[taken:])
            session, click, reset = session[kept], click[kept], reset[kept]


def carried(state: Tensor, step: SlotStep) -> Tensor:
    """The state that each slot of this step starts from, [n, W]: what it had [m, W], or zero if it begins."""
    kept = torch.from_numpy(step.kept).to(state.device)
    begins = torch.from_numpy(step.reset).to(state.device)
    return state[kept].masked_fill_(begins[:, None], 0.0)
