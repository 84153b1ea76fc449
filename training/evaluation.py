"""What an evaluation found, as plain data that can be kept as JSON and drawn."""

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from training.evaluate import CUTOFFS, MISSED

HEADLINE = "20"


class Metrics(msgspec.Struct, frozen=True):
    """One group of targets; keys of the three are cutoffs, "1", "5", "10" and "20"."""

    targets: int
    recall: dict[str, float]
    mrr: dict[str, float]
    ndcg: dict[str, float]


class Evaluation(msgspec.Struct, frozen=True):
    """How a model does on the held-out part of a log.

    Attributes:
        overall: over the targets that the model knows and that follow a click it knows.
        all_targets: over every later click; what the model does not know it misses.
        unknown_share: of those later clicks, the ones on items that the model does not know.
        by_position: by how many clicks of the session went before: "1", …, "5", "6-10", "11-20", "21+".
        by_popularity: "head", "middle", "tail": items that together hold the first third of the training
            clicks, the next, the last.
        coverage: share of the catalogue that appears in any list of 5, 10 or 20.
        recall_error, mrr_error: standard errors of recall@20 and MRR@20, by sessions.
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


def _reciprocal(ranks: NDArray[np.int64], cutoff: int) -> NDArray[np.float64]:
    """1/rank of each target where that is within the cutoff, else 0."""
    hit = (ranks != MISSED) & (ranks <= cutoff)
    found: NDArray[np.float64] = np.where(hit, 1 / np.maximum(ranks, 1), 0.0)
    return found
