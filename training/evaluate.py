"""Full-ranking evaluation: for every later click of a session, where did the catalogue rank what came?

Every click after a session's first is a target. Its rank is 1 + the number of other items that score at
least as high, so that ties count against the model. A rank of `MISSED` says that there was none: the item is
unknown to the model, or nothing known was clicked before. The state starts at zero with each session; an
unknown click leaves it as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.sessions import UNKNOWN, Sessions
from worker.core.session_model import SessionModel

MISSED = 0
CUTOFFS = (1, 5, 10, 20)
SESSIONS_AT_ONCE = 512
SCORES_AT_ONCE = 1 << 23
"""Bound of the score block: 32 MiB, whatever the size of the catalogue (but one row at least)."""


@dataclass(frozen=True)
class Scores:
    """Means over the targets: `recall[k]` of rank ≤ k, `mrr[k]` of 1/rank where rank ≤ k and 0 elsewhere."""

    targets: int
    recall: dict[int, float]
    mrr: dict[int, float]


def scores(ranks: NDArray[np.int64], cutoffs: tuple[int, ...] = CUTOFFS) -> Scores:
    """Recall and mean reciprocal rank; a missed target counts as beyond every cutoff. No targets: zero."""
    reciprocal = np.where(ranks == MISSED, 0.0, 1 / np.maximum(ranks, 1))
    recall, mrr = {}, {}
    for cutoff in cutoffs:
        hit = (ranks != MISSED) & (ranks <= cutoff)
        recall[cutoff] = float(hit.sum() / max(1, len(ranks)))
        mrr[cutoff] = float(reciprocal[hit].sum() / max(1, len(ranks)))
    return Scores(len(ranks), recall, mrr)


def is_target(sessions: Sessions) -> NDArray[np.bool_]:
    """Which clicks are targets: all but the first of each session, bool [N]."""
    target = np.ones(len(sessions.items), bool)
    target[sessions.starts[:-1]] = False
    return target


def answerable(sessions: Sessions) -> NDArray[np.bool_]:
    """Which targets are known and follow a known click, bool over the targets.

    These are the transitions that are left when clicks on unknown items are dropped, and then sessions of
    one click: the protocol of the published comparisons.
    """
    return _answerable_clicks(sessions)[is_target(sessions)]


def model_ranks(
    model: SessionModel, sessions: Sessions, report: Callable[[int, int], None] = lambda _done, _total: None
) -> NDArray[np.int64]:
    """Ranks of all targets, int64, in the order of the sessions.

    Args:
        model: scores the catalogue.
        sessions: item indices are rows of the model's vocabulary, or `UNKNOWN`.
        report: called with the number of sessions done and in all.
    """
    ranks = np.full(len(sessions.items), MISSED, np.int64)
    known = np.flatnonzero(sessions.items != UNKNOWN)  # clicks that the model sees
    owner = np.repeat(np.arange(len(sessions)), sessions.lengths)[known]
    lengths = np.bincount(owner, minlength=len(sessions))
    firsts = np.cumsum(lengths) - lengths  # of each session, in `known`
    longest_first = np.argsort(-lengths, kind="stable")
    with torch.no_grad():
        for begin in range(0, len(sessions), SESSIONS_AT_ONCE):
            chosen = longest_first[begin : begin + SESSIONS_AT_ONCE]
            _rank_batch(model, sessions.items, known, firsts[chosen], lengths[chosen], ranks)
            report(min(begin + SESSIONS_AT_ONCE, len(sessions)), len(sessions))
    return ranks[is_target(sessions)]


def _rank_batch(
    model: SessionModel,
    items: NDArray[np.int32],
    known: NDArray[np.int64],
    firsts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    ranks: NDArray[np.int64],
) -> None:
    """Walk through sessions side by side, longest first, and enter the ranks of their targets."""
    state = model.start(len(firsts))
    for step in range(int(lengths[0]) - 1):
        going_on = int((lengths > step + 1).sum())
        clicks = known[firsts[:going_on] + step]
        targets = known[firsts[:going_on] + step + 1]
        clicked = torch.from_numpy(items[clicks])
        state = model.step(clicked, state[:going_on])
        query = model.ask(state, clicked)  # [B, H]
        ranks[targets] = rank_targets(query, model.item_matrix, torch.from_numpy(items[targets])).numpy()


def rank_targets(query: Tensor, item_matrix: Tensor, targets: Tensor) -> Tensor:
    """Rank of each query's target among all items; query [B, H], item_matrix [V, H], targets [B] → int64 [B].

    What does not score below the target counts as before it: ties, and scores that are no numbers.
    """
    rows_at_once = max(1, SCORES_AT_ONCE // len(item_matrix))
    ranks = []
    for begin in range(0, len(query), rows_at_once):
        block = query[begin : begin + rows_at_once] @ item_matrix.t()  # [b, V]
        wanted = targets[begin : begin + rows_at_once, None].long()
        below = (block < block.gather(1, wanted)).sum(1)
        ranks.append(len(item_matrix) - below)
    return torch.cat(ranks)


def _answerable_clicks(sessions: Sessions) -> NDArray[np.bool_]:
    known = sessions.items != UNKNOWN
    known_before = np.cumsum(known) - known
    at_start = np.repeat(known_before[sessions.starts[:-1]], sessions.lengths)
    answered: NDArray[np.bool_] = known & (known_before > at_start)
    return answered
