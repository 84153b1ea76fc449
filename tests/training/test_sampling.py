"""The sampler against what it promises."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from training.losses import reduce_by_log_chance
from training.sampling import AliasTable, alias_table, candidate_log_chance, candidate_sampler


def distribution(table: AliasTable) -> NDArray[np.float64]:
    """What a table draws from, exactly: each column gives its item `keep` and its alias the rest."""
    probability = table.keep.copy()
    np.add.at(probability, table.alias, 1 - table.keep)
    return probability / len(table.keep)


@settings(deadline=None)
@example([1, 1, 3, 3], 0.75)  # gaps and excesses that end at the same place
@example([1, 2, 3, 2, 2], 1.0)  # items that weigh just the mean
@given(st.lists(st.integers(1, 10**7), min_size=1, max_size=300), st.sampled_from([0.0, 0.25, 0.75, 1.0]))
def test_alias_table_holds_the_distribution(counts: list[int], alpha: float) -> None:
    weights = np.array(counts, np.float64) ** alpha
    table = alias_table(weights)
    assert (table.keep >= -1e-12).all()
    assert (table.keep <= 1 + 1e-12).all()
    np.testing.assert_allclose(distribution(table), weights / weights.sum(), rtol=0, atol=1e-12)


def test_alias_table_of_a_large_skewed_catalogue() -> None:
    weights = (1 / np.arange(1.0, 200_001)) * np.random.default_rng(0).uniform(0.5, 1.5, 200_000)
    weights = np.random.default_rng(1).permutation(weights)
    table, expected = alias_table(weights), weights / weights.sum()
    # The prefix sums round: their error is spread over single items, of which the mean has 5e-6.
    np.testing.assert_allclose(distribution(table), expected, rtol=0, atol=1e-14)


def test_draws_follow_the_distribution() -> None:
    """Pearson's chi square of a million draws over 400 items: mean 399, standard deviation 28."""
    weights = np.maximum(1, (400 / np.arange(1, 401)).astype(np.int64)) ** 0.75
    draws = alias_table(weights).draw(1_000_000, np.random.default_rng(7))
    seen = np.bincount(draws, minlength=400)
    expected = 1_000_000 * weights / weights.sum()
    chi_square = ((seen - expected) ** 2 / expected).sum()
    assert 399 - 4 * 28 < chi_square < 399 + 4 * 28


def test_same_seed_same_draws() -> None:
    table = alias_table(np.arange(1.0, 1_000))
    first, again, other = (table.draw(500, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_negatives_are_drawn_by_support_to_the_alpha() -> None:
    support = np.array([1000, 100, 10, 0])  # the last as if seen once
    sampler = candidate_sampler(support, support, 0.25, draws=1, batch_transitions=1)
    rng = np.random.default_rng(2)
    no_targets = np.array([], np.int64)
    seen = np.bincount([int(sampler.draw(no_targets, rng)[0]) for _ in range(20_000)], minlength=4)
    expected = np.maximum(1, support) ** 0.25
    np.testing.assert_allclose(seen / 20_000, expected / expected.sum(), atol=0.015)


def test_chance_to_be_a_candidate_is_what_drawing_shows() -> None:
    rng = np.random.default_rng(1)
    support = np.array([100, 30, 10, 3, 1, 0])
    sampler = candidate_sampler(support, support, 0.5, draws=4, batch_transitions=6)
    rounds = 20_000
    seen = np.zeros(6)
    for _ in range(rounds):
        seen[sampler.draw(rng.choice(6, 6, p=support / support.sum()), rng)] += 1
    np.testing.assert_allclose(seen / rounds, np.exp(sampler.log_chance), atol=0.015)


def test_candidates_hold_the_targets_sorted_and_once() -> None:
    ones = np.ones(1_000, np.int64)
    sampler = candidate_sampler(ones, ones, 0.25, draws=500, batch_transitions=3)
    drawn = sampler.draw(np.array([7, 999, 7]), np.random.default_rng(0))
    assert {7, 999} <= set(drawn.tolist())
    assert (np.diff(drawn) > 0).all()


def test_a_catalogue_of_one_item_is_always_drawn() -> None:
    sampler = candidate_sampler(np.array([5]), np.array([5]), 0.25, 10, 10)
    assert sampler.log_chance.tolist() == [0.0]
    assert sampler.draw(np.array([0, 0]), np.random.default_rng(0)).tolist() == [0]


def test_the_sampled_partition_estimates_the_full_one() -> None:
    """Mean over many draws of Σ exp(reduced logit) is the Σ exp(logit) of the whole catalogue."""
    rng = np.random.default_rng(4)
    items = 50
    support = rng.integers(1, 100, items)
    logits = torch.from_numpy(rng.normal(size=(1, items)))
    sampler = candidate_sampler(support, support, 0.25, draws=15, batch_transitions=5)
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
