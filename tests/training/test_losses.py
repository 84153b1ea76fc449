"""The losses against slow, literal transcriptions of their formulas, gradients included."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from training.losses import (
    bpr,
    bpr_max,
    loss_function,
    reduce_by_log_chance,
    top1,
    top1_max,
    weighted_cross_entropy,
)
from training.settings import LossName, TrainSettings

BPREG = 0.7
Literal = Callable[[list[Tensor], int], Tensor]
"""The scores of one transition, each a float64 scalar, and the place of its positive → its loss."""


def sigmoid(x: Tensor) -> Tensor:
    """As it is written."""
    return 1 / (1 + torch.exp(-x))


def softmax_of_negatives(scores: list[Tensor], right: int) -> dict[int, Tensor]:
    """s_j of each negative."""
    others = [j for j in range(len(scores)) if j != right]
    partition = sum((torch.exp(scores[j]) for j in others), torch.zeros((), dtype=torch.float64))
    return {j: torch.exp(scores[j]) / partition for j in others}


def literal_cross_entropy(scores: list[Tensor], right: int) -> Tensor:
    """arXiv 1706.03847: −log s_i."""
    partition = torch.zeros((), dtype=torch.float64)
    for score in scores:
        partition = partition + torch.exp(score)
    return -torch.log(torch.exp(scores[right]) / partition)


def literal_top1(scores: list[Tensor], right: int) -> Tensor:
    """arXiv 1511.06939: 1/N_S · Σ_j σ(r_j − r_i) + σ(r_j²)."""
    loss, negatives = torch.zeros((), dtype=torch.float64), 0
    for j, score in enumerate(scores):
        if j != right:
            loss = loss + sigmoid(score - scores[right]) + sigmoid(score**2)
            negatives += 1
    return loss / negatives


def literal_bpr(scores: list[Tensor], right: int) -> Tensor:
    """arXiv 1511.06939: −1/N_S · Σ_j log σ(r_i − r_j)."""
    loss, negatives = torch.zeros((), dtype=torch.float64), 0
    for j, score in enumerate(scores):
        if j != right:
            loss = loss - torch.log(sigmoid(scores[right] - score))
            negatives += 1
    return loss / negatives


def literal_top1_max(scores: list[Tensor], right: int) -> Tensor:
    """arXiv 1706.03847: Σ_j s_j · (σ(r_j − r_i) + σ(r_j²))."""
    loss = torch.zeros((), dtype=torch.float64)
    for j, share in softmax_of_negatives(scores, right).items():
        loss = loss + share * (sigmoid(scores[j] - scores[right]) + sigmoid(scores[j] ** 2))
    return loss


def literal_bpr_max(scores: list[Tensor], right: int) -> Tensor:
    """arXiv 1706.03847: −log Σ_j s_j · σ(r_i − r_j) + λ · Σ_j s_j · r_j²."""
    below, size = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for j, share in softmax_of_negatives(scores, right).items():
        below = below + share * sigmoid(scores[right] - scores[j])
        size = size + share * scores[j] ** 2
    return -torch.log(below) + BPREG * size


LITERAL: dict[LossName, Literal] = {
    "cross_entropy": literal_cross_entropy,
    "top1": literal_top1,
    "bpr": literal_bpr,
    "top1_max": literal_top1_max,
    "bpr_max": literal_bpr_max,
}


def literal(name: LossName, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean over the transitions of weight · loss, one transition at a time."""
    total = torch.zeros((), dtype=torch.float64)
    for scores, right, share in zip(logits, target.tolist(), weight.tolist(), strict=True):
        total = total + share * LITERAL[name](list(scores), right)
    return total / len(logits)


def block(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Scores [6, 9] of a few units; two transitions lead to the same item, one weighs nothing."""
    draw = torch.Generator().manual_seed(0)
    logits = (torch.randn(6, 9, generator=draw, dtype=torch.float64) * 3).to(dtype).requires_grad_()
    weight = torch.tensor([1.0, 0.5, 0.0, 2.0, 0.25, 0.37], dtype=dtype)
    return logits, torch.tensor([0, 8, 3, 3, 1, 5]), weight


@pytest.mark.parametrize("name", LITERAL)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_loss_and_gradient_are_the_formula(name: LossName, dtype: torch.dtype, tolerance: float) -> None:
    logits, target, weight = block(dtype)
    exact = logits.detach().double().requires_grad_()
    slow = literal(name, exact, target, weight.double())
    loss = loss_function(TrainSettings(loss=name, bpreg=BPREG))(logits, target, weight, None)
    assert loss.dtype == dtype
    torch.testing.assert_close(loss.double(), slow, atol=tolerance, rtol=tolerance)
    (gradient,), (slow_gradient,) = torch.autograd.grad(loss, logits), torch.autograd.grad(slow, exact)
    torch.testing.assert_close(gradient.double(), slow_gradient, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", LITERAL)
def test_autograd_agrees_with_finite_differences(name: LossName) -> None:
    logits, target, weight = block()
    loss = loss_function(TrainSettings(loss=name, bpreg=BPREG))
    assert torch.autograd.gradcheck(lambda scores: loss(scores, target, weight, None), logits)


def test_sampled_cross_entropy_is_the_formula_of_corrected_scores() -> None:
    logits, target, weight = block()
    log_chance = -torch.linspace(0.1, 6, 9, dtype=torch.float64)
    corrected = torch.stack(
        [
            torch.stack([logits[n, c] - (0 if c == target[n] else log_chance[c]) for c in range(9)])
            for n in range(6)
        ]
    )
    slow = literal("cross_entropy", corrected, target, weight)
    loss = loss_function(TrainSettings())(logits, target, weight, log_chance)
    torch.testing.assert_close(loss, slow)
    torch.testing.assert_close(
        torch.autograd.grad(loss, logits)[0], torch.autograd.grad(slow, logits, retain_graph=True)[0]
    )
    uncorrected = loss_function(TrainSettings(logq=False))(logits, target, weight, log_chance)
    torch.testing.assert_close(uncorrected, literal("cross_entropy", logits, target, weight))


@pytest.mark.parametrize("name", ["top1", "bpr", "top1_max", "bpr_max"])
def test_losses_of_pairs_take_no_correction(name: LossName) -> None:
    logits, target, weight = block()
    loss = loss_function(TrainSettings(loss=name))
    chance = -torch.linspace(0.1, 6, 9, dtype=torch.float64)
    assert loss(logits, target, weight, chance) == loss(logits, target, weight, None)


def test_log_chance_comes_off_every_candidate_but_the_positive() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, generator=draw, requires_grad=True)
    log_chance, target = torch.tensor([-0.1, -2.0, 0.0, -5.0]), torch.tensor([1, 1, 3])
    reduced = reduce_by_log_chance(logits, target, log_chance)
    for row in range(3):
        for column in range(4):
            off = 0.0 if column == target[row] else log_chance[column].item()
            assert reduced[row, column].item() == pytest.approx(logits[row, column].item() - off, abs=1e-6)
    (gradient,) = torch.autograd.grad(reduced.sum(), logits)
    assert torch.equal(gradient, torch.ones(3, 4))


@pytest.mark.parametrize("name", ["top1", "bpr", "top1_max", "bpr_max"])
def test_without_negatives_there_is_nothing_to_learn(name: LossName) -> None:
    logits = torch.tensor([[2.0], [-1.0]], requires_grad=True)
    loss = loss_function(TrainSettings(loss=name))(logits, torch.tensor([0, 0]), torch.ones(2), None)
    assert loss.item() == 0
    assert torch.autograd.grad(loss, logits)[0].tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("name", LITERAL)
@pytest.mark.parametrize("far", [30.0, 200.0, 1e4])
def test_scores_far_apart_give_numbers(name: LossName, far: float) -> None:
    """With a positive far below its negatives a sum of rounded probabilities is zero, its log infinite."""
    logits = torch.tensor([[-far, far, 0.0], [far, -far, 0.0]], requires_grad=True)
    loss = loss_function(TrainSettings(loss=name))(logits, torch.tensor([0, 0]), torch.ones(2), None)
    assert math.isfinite(loss.item())
    assert torch.autograd.grad(loss, logits)[0].isfinite().all()


def test_functions_are_those_that_settings_choose() -> None:
    logits, target, weight = block()
    direct = {
        "cross_entropy": weighted_cross_entropy(logits, target, weight),
        "top1": top1(logits, target, weight),
        "bpr": bpr(logits, target, weight),
        "top1_max": top1_max(logits, target, weight),
        "bpr_max": bpr_max(logits, target, weight, 0.3),
    }
    assert len({loss.item() for loss in direct.values()}) == 5
    for name in LITERAL:
        chosen = loss_function(TrainSettings(loss=name, bpreg=0.3))
        assert chosen(logits, target, weight, None) == direct[name]
