"""Placeholder for what `training.evaluation` will offer."""

import math

import numpy as np
from numpy.typing import NDArray

from training.evaluate import Scores, is_target
from training.evaluation import Evaluation, Metrics, metrics
from training.sessions import UNKNOWN, Sessions

POSITIONS = {"1": (1, 1), "2": (2, 2), "3": (3, 3), "4": (4, 4), "5": (5, 5)}
POSITIONS |= {"6-10": (6, 10), "11-20": (11, 20), "21+": (21, 10**9)}


def metrics_of(found: Scores) -> Metrics:
    """Without NDCG, which was not measured."""
    return Metrics(
        found.targets,
        {str(k): value for k, value in found.recall.items()},
        {str(k): value for k, value in found.mrr.items()},
        {},
    )


def evaluation(
    ranks: NDArray[np.int64], headline: NDArray[np.bool_], test: Sessions, support: NDArray[np.int64]
) -> Evaluation:
    """Roughly what will be there; errors as of a binomial, coverage not measured."""
    target = is_target(test)
    position = (np.arange(len(test.items)) - np.repeat(test.starts[:-1], test.lengths))[target]
    items = test.items[target]
    third = np.searchsorted(np.cumsum(support), support.sum() * np.array([1 / 3, 2 / 3])) + 1
    part = np.searchsorted(third, items, side="right")
    overall = metrics(ranks[headline])
    share = overall.recall["20"]
    error = math.sqrt(share * (1 - share) / max(1, overall.targets))
    positions = [
        (name, metrics(ranks[headline & (position >= low) & (position <= high)]))
        for name, (low, high) in POSITIONS.items()
    ]
    parts = [
        (name, metrics(ranks[headline & (part == at)])) for at, name in enumerate(("head", "middle", "tail"))
    ]
    unknown = float((items == UNKNOWN).mean())
    return Evaluation(overall, metrics(ranks), unknown, positions, parts, {}, error, error / 2)
