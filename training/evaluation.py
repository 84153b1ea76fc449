"""What full ranking says about a model: means over targets, in all and by group, and how sure they are.

A target is a click that was to be predicted; see `training.evaluate` for its rank. Cutoffs are written as
strings, as they stand in JSON.
"""

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from training.evaluate import MISSED, Ranking, answerable, is_target, known_before
from training.sessions import UNKNOWN, Sessions

CUTOFFS = (1, 5, 10, 20)
COVERAGE_CUTOFFS = (5, 10, 20)
HEADLINE = "20"
"""The cutoff that models are compared at."""

_POSITIONS = (
    *((str(clicks), clicks, clicks) for clicks in range(1, 6)),
    ("6-10", 6, 10),
    ("11-20", 11, 20),
    ("21+", 21, np.iinfo(np.int64).max),
)
_POPULARITIES = ("head", "middle", "tail")


class Metrics(msgspec.Struct, frozen=True):
    """Means over one group of targets, by cutoff k; all 0 where there are none.

    Attributes:
        targets: how many.
        recall: share of them with a rank ≤ k.
        mrr: 1/rank where that is ≤ k, 0 elsewhere.
        ndcg: 1/log2(rank + 1) where the rank is ≤ k, 0 elsewhere: the one right item is the ideal list.
    """

    targets: int
    recall: dict[str, float]
    mrr: dict[str, float]
    ndcg: dict[str, float]


class Evaluation(msgspec.Struct, frozen=True):
    """How a model did on the test part of a log.

    Attributes:
        overall: over the targets that the model knows and that follow a click it knows: the protocol of
            published figures, and the figures to compare with others'.
        all_targets: over every later click; what the model does not know is a miss.
        unknown_share: of those later clicks, the ones on items that the model does not know.
        by_position: `overall` by which click of its session was the last one seen, of those that the model
            knows: "1", …, "5", "6-10", "11-20", "21+". Groups without targets are left out, here and below.
        by_popularity: `overall` by the target's item: "head", "middle" and "tail" are the items, most
            clicked first, that hold the first, second and last third of the training clicks.
        coverage: share of the catalogue that stood in any of the lists of the best 5, 10, 20.
        recall_error, mrr_error: standard error of overall recall@20 and MRR@20 from which sessions happened
            to be in the test part; about two of them either way are 95%. 0 for a single session.
    """

    overall: Metrics
    all_targets: Metrics
    unknown_share: float
    by_position: list[tuple[str, Metrics]]
    by_popularity: list[tuple[str, Metrics]]
    coverage: dict[str, float]
    recall_error: float
    mrr_error: float


def metrics(ranks: NDArray[np.int64]) -> Metrics:
    """Means over targets of these ranks; a missed one counts as beyond every cutoff."""
    count = max(1, len(ranks))
    reciprocal = _reciprocal(ranks, len(ranks) and int(ranks.max()))
    gain = np.where(ranks == MISSED, 0.0, 1 / np.log2(np.maximum(ranks, 1) + 1))
    recall, mrr, ndcg = {}, {}, {}
    for cutoff in CUTOFFS:
        hit = (ranks != MISSED) & (ranks <= cutoff)
        recall[str(cutoff)] = float(hit.sum() / count)
        mrr[str(cutoff)] = float(reciprocal[hit].sum() / count)
        ndcg[str(cutoff)] = float(gain[hit].sum() / count)
    return Metrics(len(ranks), recall, mrr, ndcg)


def evaluation(ranking: Ranking, test: Sessions, clicks_of_items: NDArray[np.int64]) -> Evaluation:
    """Put together what `rank_sessions` found.

    Args:
        ranking: of the test part.
        test: item indices are rows of the model's vocabulary, or `UNKNOWN`; at least one answerable target.
        clicks_of_items: int64 [V], clicks on each row of that vocabulary in training.
    """
    headline = answerable(test)
    ranks = ranking.ranks[headline]
    target = is_target(test)
    items = test.items[target][headline]
    session = np.repeat(np.arange(len(test)), test.lengths)[target][headline]
    seen = known_before(test)[target][headline]
    return Evaluation(
        overall=metrics(ranks),
        all_targets=metrics(ranking.ranks),
        unknown_share=float((test.items[target] == UNKNOWN).mean()),
        by_position=_grouped(ranks, {name: (low <= seen) & (seen <= high) for name, low, high in _POSITIONS}),
        by_popularity=_grouped(
            ranks,
            {
                name: popularity_thirds(clicks_of_items)[items] == third
                for third, name in enumerate(_POPULARITIES)
            },
        ),
        coverage={str(cutoff): float((ranking.best_place < cutoff).mean()) for cutoff in COVERAGE_CUTOFFS},
        recall_error=standard_error((ranks != MISSED) & (ranks <= int(HEADLINE)), session),
        mrr_error=standard_error(_reciprocal(ranks, int(HEADLINE)), session),
    )


def popularity_thirds(clicks_of_items: NDArray[np.int64]) -> NDArray[np.int64]:
    """0 for the items of the head, 1 of the middle, 2 of the tail, int64 [V].

    Items in order of their clicks, ties by row; an item belongs to the third in which its first click lies,
    one without clicks to the tail.
    """
    order = np.argsort(-clicks_of_items, kind="stable")
    in_order = clicks_of_items[order]
    before = np.cumsum(in_order) - in_order
    thirds = np.empty(len(order), np.int64)
    thirds[order] = np.where(in_order > 0, 3 * before // max(1, int(in_order.sum())), 2)
    return thirds


def standard_error(values: NDArray[np.float64] | NDArray[np.bool_], session: NDArray[np.int64]) -> float:
    """Standard error of the mean over targets, with sessions as what was drawn.

    The targets of a session are no independent draws: one that the model understands gives many hits. So it
    is the error of a ratio of two sums over sessions (linearised; Cochran, Sampling Techniques, 1977, §6.3).

    Args:
        values: of each target, [T].
        session: of each target, int64 [T].
    """
    _, owner = np.unique(session, return_inverse=True)
    sums, counts = np.bincount(owner, weights=values), np.bincount(owner)
    if len(counts) < 2:
        return 0.0
    residuals = sums - values.mean() * counts
    return float(np.sqrt(len(counts) / (len(counts) - 1) * np.square(residuals).sum()) / len(values))


def best_baseline(baselines: Mapping[str, Metrics]) -> str:
    """Name of the baseline with the highest recall@20, of equal ones the one with the higher MRR@20."""
    return max(baselines, key=lambda name: (baselines[name].recall[HEADLINE], baselines[name].mrr[HEADLINE]))


def verdict(model: Metrics, baselines: Mapping[str, Metrics]) -> str:
    """Whether the model is worth its trouble, in a sentence or two of plain words.

    The best baseline is looked for in recall@20 and in MRR@20 apart; equal is not beaten.
    """
    if not baselines:
        return "There is no baseline to compare the model with."
    by_recall = best_baseline(baselines)
    by_mrr = max(baselines, key=lambda name: baselines[name].mrr[HEADLINE])
    recall = _against("recall", model.recall, by_recall, baselines[by_recall].recall)
    mrr = _against("MRR", model.mrr, by_mrr, baselines[by_mrr].mrr)
    wins_recall = model.recall[HEADLINE] > baselines[by_recall].recall[HEADLINE]
    wins_mrr = model.mrr[HEADLINE] > baselines[by_mrr].mrr[HEADLINE]
    if wins_recall and wins_mrr:
        return f"The model beats every baseline: {recall}, {mrr}."
    if wins_recall:
        return f"The model beats every baseline in recall, but NOT in MRR: {recall}, {mrr}."
    if wins_mrr:
        return f"The model does NOT beat the best baseline in recall, only in MRR: {recall}, {mrr}."
    return (
        f"The model does NOT beat the best baseline: {recall}, {mrr}."
        " As it is, the baseline would serve better; more clicks or other settings may help."
    )


def _against(metric: str, own: dict[str, float], name: str, other: dict[str, float]) -> str:
    return f"{metric}@{HEADLINE} {own[HEADLINE]:.4f} against {other[HEADLINE]:.4f} of {name}"


def _grouped(ranks: NDArray[np.int64], groups: dict[str, NDArray[np.bool_]]) -> list[tuple[str, Metrics]]:
    return [(name, metrics(ranks[chosen])) for name, chosen in groups.items() if chosen.any()]


def _reciprocal(ranks: NDArray[np.int64], cutoff: int) -> NDArray[np.float64]:
    """1/rank of each target where that is within the cutoff, else 0."""
    hit = (ranks != MISSED) & (ranks <= cutoff)
    found: NDArray[np.float64] = np.where(hit, 1 / np.maximum(ranks, 1), 0.0)
    return found
