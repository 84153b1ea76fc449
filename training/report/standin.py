"""Placeholder for what `training.evaluation` will offer."""

import math

import numpy as np
from numpy.typing import NDArray

from training.evaluate import CUTOFFS, MISSED, Scores, is_target, scores
from training.evaluation import Evaluation, Metrics
from training.sessions import UNKNOWN, Sessions

POSITIONS = {"1": (1, 1), "2": (2, 2), "3": (3, 3), "4": (4, 4), "5": (5, 5)}
POSITIONS |= {"6-10": (6, 10), "11-20": (11, 20), "21+": (21, 10**9)}


def verdict(model: Metrics, baselines: dict[str, Metrics]) -> str:
    if not baselines:
        return "There was no baseline to compare with."
    best = max(baselines, key=lambda name: baselines[name].recall["20"])
    own, other = model.recall["20"], baselines[best].recall["20"]
    if own <= other:
        return (
            f"This model does not beat {best}: recall@20 {own:.4f} against {other:.4f}."
            f" Serve {best} instead, or train on more clicks."
        )
    gain = f" ({own / other - 1:+.1%})" if other else ""
    return f"This model beats the best baseline, {best}: recall@20 {own:.4f} against {other:.4f}{gain}."


def metrics(ranks: NDArray[np.int64]) -> Metrics:
    found = scores(ranks)
    gain = np.where(ranks == MISSED, 0.0, 1 / np.log2(1 + np.maximum(ranks, 1)))
    ndcg = {
        str(k): float((gain * ((ranks <= k) & (ranks != MISSED))).sum() / max(1, len(ranks))) for k in CUTOFFS
    }
    return Metrics(found.targets, _texts(found.recall), _texts(found.mrr), ndcg)


def metrics_of(found: Scores) -> Metrics:
    return Metrics(found.targets, _texts(found.recall), _texts(found.mrr), {})


def evaluation(
    ranks: NDArray[np.int64], headline: NDArray[np.bool_], test: Sessions, support: NDArray[np.int64]
) -> Evaluation:
    target = is_target(test)
    position = (np.arange(len(test.items)) - np.repeat(test.starts[:-1], test.lengths))[target]
    items = test.items[target]
    third = np.searchsorted(np.cumsum(support), support.sum() * np.array([1 / 3, 2 / 3])) + 1
    part = np.searchsorted(third, items, side="right")
    overall = metrics(ranks[headline])
    share = overall.recall["20"]
    error = math.sqrt(share * (1 - share) / max(1, overall.targets))
    return Evaluation(
        overall,
        metrics(ranks),
        float((items == UNKNOWN).mean()),
        [
            (name, metrics(ranks[headline & (position >= low) & (position <= high)]))
            for name, (low, high) in POSITIONS.items()
        ],
        [(name, metrics(ranks[headline & (part == i)])) for i, name in enumerate(("head", "middle", "tail"))],
        {"5": 0.31, "10": 0.44, "20": 0.58},
        error,
        error / 2,
    )


def _texts(found: dict[int, float]) -> dict[str, float]:
    return {str(k): value for k, value in found.items()}
