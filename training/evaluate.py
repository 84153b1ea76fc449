"""Full-ranking evaluation: for every later click of a session, where did the catalogue rank what came?

Every click after a session's first is a target. Its rank is 1 + the number of other items that score at
least as high, so that ties count against the model. A rank of `MISSED` says that there was none: the item is
unknown to the model, or nothing known was clicked before. The state starts at zero with each session; an
unknown click leaves it as it is. All in float32: a rounder number format would decide ranks by itself.

Sessions of like length walk side by side, and what they ask is kept; then blocks of queries meet the whole
catalogue in one product each, and one pass over the scores finds both the rank and the best twenty.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.chunks import in_chunks
from training.sessions import UNKNOWN, Sessions
from worker.core.compiled import compiled
from worker.core.session_model import SessionModel

MISSED = 0
SHOWN = 20
"""Length of the list that coverage looks at."""
SESSIONS_AT_ONCE = 4_096
"""Bounds what is kept of queries: 4,096 sessions of ten clicks and 100 wide are 16 MB."""
SCORES_AT_ONCE = 1 << 21
"""Bound of a score block: 8 MiB per thread, so that the pass over it finds it in cache."""
QUERIES_AT_ONCE = (16, 256)
"""Rows of a score block, at least and at most, whatever the catalogue: fewer, and the product has to read
the catalogue too often; more, and threads wait for each other at the end. 64 MB per million items."""

Report = Callable[[int, int], None]
"""Called with how many are done and how many there are."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """What a model made of sessions.

    Attributes:
        ranks: int64, of all targets in the order of the sessions.
        best_place: int64 [V], the best place from 0 that each item had in any list of the best `SHOWN`
            (equal scores by row); `SHOWN` or more for an item that never was in one.
    """

    ranks: NDArray[np.int64]
    best_place: NDArray[np.int64]


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
    known = sessions.items != UNKNOWN
    found: NDArray[np.bool_] = known & (known_before(sessions) > 0)
    return found[is_target(sessions)]


def known_before(sessions: Sessions) -> NDArray[np.int64]:
    """Clicks on known items that came before each click in its session, int64 [N]."""
    known = sessions.items != UNKNOWN
    before: NDArray[np.int64] = np.cumsum(known) - known
    at_start: NDArray[np.int64] = np.repeat(before[sessions.starts[:-1]], sessions.lengths)
    return before - at_start


def model_ranks(
    model: SessionModel, sessions: Sessions, report: Report = lambda _done, _total: None
) -> NDArray[np.int64]:
    """Ranks of all targets, int64, in the order of the sessions; see `rank_sessions`."""
    return rank_sessions(model, sessions, report).ranks


def rank_sessions(
    model: SessionModel, sessions: Sessions, report: Report = lambda _done, _total: None
) -> Ranking:
    """Rank all targets against the whole catalogue.

    Args:
        model: scores the catalogue.
        sessions: item indices are rows of the model's vocabulary, or `UNKNOWN`.
        report: called with the number of answerable targets done and in all.
    """
    known = np.flatnonzero(sessions.items != UNKNOWN)  # clicks that the model sees
    owner = np.repeat(np.arange(len(sessions)), sessions.lengths)[known]
    lengths = np.bincount(owner, minlength=len(sessions))
    firsts = np.cumsum(lengths) - lengths  # of each session, in `known`
    longest_first = np.argsort(-lengths, kind="stable")
    longest_first = longest_first[: int((lengths > 1).sum())]
    found = Ranking(
        np.full(len(sessions.items), MISSED, np.int64), np.full(len(model.items), SHOWN, np.int64)
    )
    done, total = 0, int(np.maximum(lengths - 1, 0).sum())
    with torch.no_grad():
        for begin in range(0, len(longest_first), SESSIONS_AT_ONCE):
            chosen = longest_first[begin : begin + SESSIONS_AT_ONCE]
            clicks, query = _queries(model, sessions.items, known, firsts[chosen], lengths[chosen])
            targets = known[clicks + 1]
            found.ranks[targets] = _rank_queries(
                query,
                model.item_matrix,
                sessions.items[targets].astype(np.int64),
                found.best_place,
                partial(_report_after, report, done, total),
            )
            done += len(targets)
    return Ranking(found.ranks[is_target(sessions)], found.best_place)


def _report_after(report: Report, before: int, total: int, done: int, _: int) -> None:
    report(before + done, total)


def _queries(
    model: SessionModel,
    items: NDArray[np.int32],
    known: NDArray[np.int64],
    firsts: NDArray[np.int64],
    lengths: NDArray[np.int64],
) -> tuple[NDArray[np.int64], Tensor]:
    """Walk through sessions side by side, longest first; what is asked after each click but the last.

    Returns:
        Indices into `known` of the clicks, int64 [Q], and the queries [Q, H].
    """
    state = model.start(len(firsts))
    clicks, queries = [], []
    for step in range(int(lengths[0]) - 1):
        going_on = int((lengths > step + 1).sum())
        clicks.append(firsts[:going_on] + step)
        clicked = torch.from_numpy(items[known[clicks[-1]]])
        state = model.step(clicked, state[:going_on])
        queries.append(model.ask(state, clicked))
    return np.concatenate(clicks), torch.cat(queries)


def rank_targets(query: Tensor, item_matrix: Tensor, targets: Tensor) -> Tensor:
    """Rank of each query's target among all items; query [B, H], item_matrix [V, H], targets [B] → int64 [B].

    What does not score below the target counts as before it: ties, and scores that are no numbers.
    """
    place = np.full(len(item_matrix), SHOWN, np.int64)
    ranks = _rank_queries(query, item_matrix, targets.numpy().astype(np.int64), place, lambda _at, _of: None)
    return torch.from_numpy(ranks)


def _rank_queries(
    query: Tensor,
    item_matrix: Tensor,
    targets: NDArray[np.int64],
    best_place: NDArray[np.int64],
    report: Report,
) -> NDArray[np.int64]:
    """Ranks int64 [B]; lowers `best_place` [V] where an item came further up."""
    items, columns = len(item_matrix), item_matrix.t()
    ranks = np.empty(len(query), np.int64)
    listed = np.empty((len(query), min(SHOWN, items)), np.int32)
    least, most = QUERIES_AT_ONCE
    rows = min(most, max(least, SCORES_AT_ONCE // items))
    buffers = threading.local()  # a fresh block for each product would be paid for page by page

    def rank(begin: int, end: int) -> None:
        if not hasattr(buffers, "scores"):
            buffers.scores = torch.empty(rows, items)
        with torch.no_grad():  # which holds for one thread
            scores = torch.mm(query[begin:end], columns, out=buffers.scores[: end - begin])  # [b, V]
        _rank_and_list(scores.numpy(), targets[begin:end], ranks[begin:end], listed[begin:end])

    in_chunks(rank, len(query), rows, report)
    for place in range(listed.shape[1]):
        at = listed[:, place]
        at = at[at >= 0]
        best_place[at] = np.minimum(best_place[at], place)
    return ranks


@compiled
def _rank_and_list(
    scores: NDArray[np.float32],
    targets: NDArray[np.int64],
    ranks: NDArray[np.int64],
    listed: NDArray[np.int32],
) -> None:
    """Fill in the rank of each target and the best items of each row, best first, equal ones by row.

    scores [b, V], targets [b], ranks [b], listed [b, k]; −1 where fewer than k scores are numbers. A chunk of
    scores is compared as a whole with the target's and with the last of the list; few chunks have to be
    looked at twice.
    """
    items, shown = scores.shape[1], listed.shape[1]
    best = np.empty(shown, np.float32)
    for row in range(scores.shape[0]):
        own, line = scores[row, targets[row]], scores[row]
        best[:] = -np.inf
        listed[row, :] = -1
        below = np.int32(0)
        for begin in range(0, items, 64):
            end = min(begin + 64, items)
            last = best[shown - 1]
            chunk_below, chunk_better = np.int32(0), np.int32(0)
            for item in range(begin, end):
                chunk_below += np.int32(line[item] < own)
                chunk_better += np.int32(line[item] > last)
            below += chunk_below
            if chunk_better == 0:
                continue
            for item in range(begin, end):
                score = line[item]
                if score > best[shown - 1]:
                    place = shown - 1
                    while place > 0 and score > best[place - 1]:
                        best[place] = best[place - 1]
                        listed[row, place] = listed[row, place - 1]
                        place -= 1
                    best[place] = score
                    listed[row, place] = item
        ranks[row] = items - below
