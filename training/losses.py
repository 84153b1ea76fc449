"""The losses, each a plain differentiable function on one block of scores.

N transitions, C candidates: the whole catalogue, or distinct rows of it that hold every positive. r_j is the
score of candidate j for a transition, r_i that of its positive; a loss is the mean over the N transitions of
weight · (loss of the transition). logits [N, C] are of float32 or wider, on any device; target int64 [N] is
the column of each transition's positive; weight [N] is that of its session.

What is a negative. The candidates are distinct, so an item that several transitions of a batch lead to has
one column: there it is the positive of those transitions and a negative of the others. The pairwise losses
leave a transition's own positive out of its negatives (out of the softmax in TOP1-max and BPR-max too),
whether it is a candidate as a target or as a draw. A transition without negatives (a catalogue of one item)
has a loss of 0.

Final activation. The papers put tanh (arXiv 1511.06939) or ELU and identity (1706.03847) on the scores; here
it is the identity. Scores are dot products, or cosines times a fixed temperature, which bounds them already.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from training.settings import TrainSettings

Loss = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""(logits [N, C], target [N], weight [N], log_chance) → scalar. `log_chance` [C] is the log of each
candidate's chance to be among the candidates, None where they are the whole catalogue."""


def loss_function(settings: TrainSettings) -> Loss:
    """The loss that these settings ask for."""
    if settings.loss == "cross_entropy":
        return partial(_cross_entropy, logq=settings.logq)
    pairwise = {"top1": top1, "bpr": bpr, "top1_max": top1_max}
    if settings.loss in pairwise:
        return partial(_without_chance, pairwise[settings.loss])
    return partial(_without_chance, partial(bpr_max, bpreg=settings.bpreg))


def weighted_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Softmax cross-entropy, L = −log(exp r_i / Σ_j exp r_j) with the positive in the sum.

    Hidasi & Karatzoglou 2018 (arXiv 1706.03847), section 2; taken in one piece from the scores, so that there
    is no log of a rounded probability to guard. Scores go in as they are: the softmax is in here.
    """
    return (functional.cross_entropy(logits, target, reduction="none") * weight).mean()


def reduce_by_log_chance(logits: Tensor, target: Tensor, log_chance: Tensor) -> Tensor:
    """Correct the logits of sampled candidates, so that their softmax estimates the full one ("logQ").

    Each candidate stands for 1 / chance items like it, hence exp(logit) / chance in the partition function
    (importance sampling; Bengio & Senécal 2008). The positive is there for certain and keeps its logit.

    Args:
        logits: [N, C].
        target: int64 [N], column of each transition's positive.
        log_chance: [C], log of each candidate's chance to be among the candidates.
    """
    # In place on the difference, and with a constant: the backward pass then copies no [N, C] block.
    return (logits - log_chance).scatter_add_(1, target[:, None], log_chance[target][:, None])


def top1(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """TOP1, L = 1/(C−1) · Σ_j σ(r_j − r_i) + σ(r_j²) over the negatives j.

    Hidasi et al. 2016 (arXiv 1511.06939), section 3.2.1. The second term pulls negatives to zero.
    """
    above = torch.sigmoid(logits - _positive(logits, target)) + torch.sigmoid(logits.square())
    return (_mean_of_negatives(above, target) * weight).mean()


def bpr(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """BPR, L = −1/(C−1) · Σ_j log σ(r_i − r_j) over the negatives j.

    Rendle et al. 2009, with several negatives as in Hidasi et al. 2016 (arXiv 1511.06939), section 3.2.1.
    """
    missed = functional.softplus(logits - _positive(logits, target))  # −log σ(−x), without overflow
    return (_mean_of_negatives(missed, target) * weight).mean()


def top1_max(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """TOP1-max, L = Σ_j s_j · (σ(r_j − r_i) + σ(r_j²)), s the softmax over the negatives j alone.

    Hidasi & Karatzoglou 2018 (arXiv 1706.03847), section 3.3. The gradient goes through s too.
    """
    if logits.shape[1] == 1:
        return _no_negatives(logits)
    above = torch.sigmoid(logits - _positive(logits, target)) + torch.sigmoid(logits.square())
    share = torch.softmax(_negatives_alone(logits, target), dim=1)
    return ((share * above).sum(1) * weight).mean()


def bpr_max(logits: Tensor, target: Tensor, weight: Tensor, bpreg: float) -> Tensor:
    """BPR-max with score regularisation, L = −log Σ_j s_j · σ(r_i − r_j) + bpreg · Σ_j s_j · r_j².

    s is the softmax over the negatives j alone, and the gradient goes through it too. Hidasi & Karatzoglou
    2018 (arXiv 1706.03847), sections 3.3 and 3.3.1.

    The log is taken of no rounded sum: with s_j = exp(r_j) / Σ exp,
    log Σ_j s_j · σ(r_i − r_j) = logΣexp_j(r_j + log σ(r_i − r_j)) − logΣexp_j(r_j),
    which is finite, and its gradient right, where the sum itself would be zero.
    """
    if logits.shape[1] == 1:
        return _no_negatives(logits)
    negatives = _negatives_alone(logits, target)
    below = functional.logsigmoid(_positive(logits, target) - logits)
    log_sum = torch.logsumexp(negatives + below, dim=1) - torch.logsumexp(negatives, dim=1)
    size = (torch.softmax(negatives, dim=1) * logits.square()).sum(1)
    return ((bpreg * size - log_sum) * weight).mean()


def _cross_entropy(
    logits: Tensor, target: Tensor, weight: Tensor, log_chance: Tensor | None, logq: bool
) -> Tensor:
    if logq and log_chance is not None:
        logits = reduce_by_log_chance(logits, target, log_chance)
    return weighted_cross_entropy(logits, target, weight)


def _without_chance(
    loss: Callable[[Tensor, Tensor, Tensor], Tensor],
    logits: Tensor,
    target: Tensor,
    weight: Tensor,
    _log_chance: Tensor | None,
) -> Tensor:
    """A loss of pairs: there is no partition function that the chance of a candidate would correct."""
    return loss(logits, target, weight)


def _positive(logits: Tensor, target: Tensor) -> Tensor:
    """r_i of each transition, [N, 1]."""
    return logits.gather(1, target[:, None])


def _negatives_alone(logits: Tensor, target: Tensor) -> Tensor:
    """The scores with −∞ in place of each positive, [N, C]: a softmax of them leaves it out."""
    return logits.scatter(1, target[:, None], -torch.inf)


def _mean_of_negatives(terms: Tensor, target: Tensor) -> Tensor:
    """Mean of the terms [N, C] of each transition over all columns but its positive's, [N]."""
    negatives = terms.shape[1] - 1
    return terms.scatter(1, target[:, None], 0.0).sum(1) / max(1, negatives)


def _no_negatives(logits: Tensor) -> Tensor:
    """Zero, with a gradient of zero."""
    return logits.sum() * 0
