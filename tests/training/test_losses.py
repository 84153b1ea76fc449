"""The losses against their formulas, the sampler against what it promises."""

import math

import numpy as np
import pytest
import torch

from training.losses import (
    candidate_log_chance,
    candidate_sampler,
    reduce_by_log_chance,
    weighted_cross_entropy,
)


def test_cross_entropy_is_the_formula() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 7, generator=draw) * 3
    target, weight = torch.tensor([0, 6, 3, 3, 1]), torch.tensor([1.0, 0.5, 0.0, 2.0, 0.25])
    by_hand = 0.0
    for row, (right, share) in enumerate(zip(target.tolist(), weight.tolist(), strict=True)):
        partition = sum(math.exp(score) for score in logits[row].tolist())
        by_hand += share * -math.log(math.exp(logits[row, right].item()) / partition)
    assert weighted_cross_entropy(logits, target, weight).item() == pytest.approx(by_hand / 5, rel=1e-5)


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


def test_chance_to_be_a_candidate_is_what_drawing_shows() -> None:
    rng = np.random.default_rng(1)
    support = np.array([100, 30, 10, 3, 1, 0])
    sampler = candidate_sampler(support, 0.5, draws=4, batch_transitions=6)
    rounds = 20_000
    seen = np.zeros(6)
    for _ in range(rounds):
        seen[sampler.draw(rng.choice(6, 6, p=support / support.sum()), rng)] += 1
    np.testing.assert_allclose(seen / rounds, np.exp(sampler.log_chance), atol=0.015)


def test_negatives_are_drawn_by_support_to_the_alpha() -> None:
    support = np.array([1000, 100, 10, 1])
    sampler = candidate_sampler(support, 0.25, draws=1, batch_transitions=1)
    rng = np.random.default_rng(2)
    no_targets = np.array([], np.int64)
    seen = np.bincount([int(sampler.draw(no_targets, rng)[0]) for _ in range(20_000)], minlength=4)
    np.testing.assert_allclose(seen / 20_000, support**0.25 / (support**0.25).sum(), atol=0.015)


def test_candidates_hold_the_targets_sorted_and_once() -> None:
    sampler = candidate_sampler(np.ones(1_000, np.int64), 0.25, draws=50, batch_transitions=3)
    drawn = sampler.draw(np.array([7, 999, 7]), np.random.default_rng(0))
    assert {7, 999} <= set(drawn.tolist())
    assert (np.diff(drawn) > 0).all()


def test_a_catalogue_of_one_item_is_always_drawn() -> None:
    assert candidate_sampler(np.array([5]), 0.25, 10, 10).log_chance.tolist() == [0.0]


def test_the_sampled_partition_estimates_the_full_one() -> None:
    """Mean over many draws of Σ exp(reduced logit) is the Σ exp(logit) of the whole catalogue."""
    rng = np.random.default_rng(4)
    items = 50
    support = rng.integers(1, 100, items)
    logits = torch.from_numpy(rng.normal(size=(1, items)))
    sampler = candidate_sampler(support, 0.25, draws=15, batch_transitions=5)
    right = 7
    estimates = []
    for _ in range(6_000):
        others = rng.choice(items, 5, p=support / support.sum())
        rows = sampler.draw(others, rng)
        rows = np.union1d(rows, [right])
        target = torch.tensor([int(np.searchsorted(rows, right))])
        reduced = reduce_by_log_chance(logits[:, rows], target, candidate_log_chance(sampler, rows).double())
        estimates.append(reduced.exp().sum().item())
    full = logits.exp().sum().item()
    assert np.mean(estimates) == pytest.approx(full, rel=0.02)
