"""Softmax cross-entropy over the catalogue, and over a sample of it where the catalogue is large.

N transitions, V items, C candidates, H hidden size.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional


def weighted_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean over the N transitions of weight · (−log softmax(logits)[target]); logits [N, C], rest [N]."""
    return (functional.cross_entropy(logits, target, reduction="none") * weight).mean()


def reduce_by_log_chance(logits: Tensor, target: Tensor, log_chance: Tensor) -> Tensor:
    """Correct the logits of sampled candidates, so that their softmax estimates the full one.

    Each candidate stands for 1 / chance items like it, hence exp(logit) / chance in the partition function
    (importance sampling; Bengio & Senécal 2008). The positive is there for certain and keeps its logit.

    Args:
        logits: [N, C].
        target: int64 [N], column of each transition's positive.
        log_chance: [C], log of each candidate's chance to be among the candidates.
    """
    # In place on the difference, and with a constant: the backward pass then copies no [N, C] block.
    return (logits - log_chance).scatter_add_(1, target[:, None], log_chance[target][:, None])


@dataclass(frozen=True, eq=False)
class CandidateSampler:
    """Draws the candidates of a batch: shared negatives and the batch's own targets.

    Attributes:
        cumulative: float64 [V], of the distribution that negatives are drawn from; ends at 1.
        log_chance: float32 [V], log of an item's chance to be among the candidates of a batch.
        draws: negatives drawn per batch, with replacement.
    """

    cumulative: NDArray[np.float64]
    log_chance: NDArray[np.float32]
    draws: int

    def draw(self, targets: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Sorted rows without repeats: the draws and `targets` [N] together."""
        drawn = np.searchsorted(self.cumulative, rng.random(self.draws), side="right")
        return np.unique(np.concatenate([drawn, targets]))


def candidate_sampler(
    support: NDArray[np.int64], alpha: float, draws: int, batch_transitions: int
) -> CandidateSampler:
    """Prepare the drawing of negatives ∝ support^alpha.

    An item is a candidate unless every draw and every target of the batch misses it:
    chance = 1 − (1 − p)^draws · (1 − f)^batch_transitions, with f its share of all targets.

    Args:
        support: int64 [V], how often each item is a target in training.
        alpha: 0 uniform, 1 by popularity.
        draws: per batch.
        batch_transitions: targets per batch.
    """
    drawn = (
        np.maximum(support, 1).astype(np.float64) ** alpha
    )  # an item never targeted is drawn as one seen once
    drawn /= drawn.sum()
    share = support / support.sum()
    with np.errstate(divide="ignore"):  # a catalogue of one item is always drawn: log(1 − 1)
        log_missed = draws * np.log1p(-drawn) + batch_transitions * np.log1p(-share)
    cumulative = np.cumsum(drawn)
    cumulative /= cumulative[-1]
    return CandidateSampler(cumulative, np.log(-np.expm1(log_missed)).astype(np.float32), draws)


def candidate_log_chance(sampler: CandidateSampler, rows: NDArray[np.int64]) -> Tensor:
    """`log_chance` of these rows [C]."""
    return torch.from_numpy(sampler.log_chance[rows])
