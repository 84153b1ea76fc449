"""Popular items against a literal count of all clicks."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.reference import popular_scores
from worker.core.item_register import UNREGISTERED
from worker.core.popularity import REFRESH_AFTER_AT_MOST, PopularItems, Ranking

START_MS = 1_700_000_000_000
HALF_LIFE_MS = 10_000


def count(popular: PopularItems, items: list[int], times_ms: list[int]) -> list[Ranking]:
    return popular.count(np.array(items, np.int64), times_ms, max(items) + 1)


clicks = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from([0, 1, 1_000, HALF_LIFE_MS, 20 * HALF_LIFE_MS])),
    min_size=1,
    max_size=80,
)


@given(clicks, st.sampled_from([1, 3, 50]), st.sampled_from([HALF_LIFE_MS, 10**15]), st.integers(1, 80))
@settings(deadline=None, max_examples=150)
def test_each_ranking_is_that_of_the_literal_count(
    gaps: list[tuple[int, int]], top_k: int, half_life_ms: int, batch: int
) -> None:
    items = [item for item, _ in gaps]
    times_ms = (START_MS + np.cumsum([gap for _, gap in gaps])).tolist()
    popular = PopularItems(top_k, half_life_ms)
    rankings: list[Ranking] = []
    for start in range(0, len(items), batch):
        rankings += count(popular, items[start : start + batch], times_ms[start : start + batch])
    refreshed = 1
    for position in range(len(items)):
        if position + 1 == refreshed:
            known = [
                (None if item == UNREGISTERED else str(item), time_ms)
                for item, time_ms in zip(items[:refreshed], times_ms, strict=False)
            ]
            expected = popular_scores(known, times_ms[position], half_life_ms)
            refreshed += max(refreshed // 16, 1)
        found = [str(item) for item in rankings[position].items.tolist()]
        best = sorted(expected.values(), reverse=True)[:top_k]
        assert len(found) == len(set(found)) == len(best)
        assert [expected[item] for item in found] == pytest.approx(best, rel=1e-5)
        assert rankings[position].scores.tolist() == pytest.approx(best, rel=1e-5)


def test_the_first_click_already_ranks_itself() -> None:
    (ranking,) = count(PopularItems(5, HALF_LIFE_MS), [3], [START_MS])
    assert (ranking.items.tolist(), ranking.scores.tolist()) == ([3], [1.0])


def test_half_life() -> None:
    """A click weighs one when it comes, half a half-life later, however long nothing came before."""
    popular = PopularItems(5, HALF_LIFE_MS)
    count(popular, [1, 1, 1], [START_MS] * 3)
    (ranking,) = count(popular, [2], [START_MS + HALF_LIFE_MS])
    assert (ranking.items.tolist(), ranking.scores.tolist()) == ([1, 2], [1.5, 1.0])
    (ranking,) = count(popular, [3], [START_MS + 4 * HALF_LIFE_MS])
    assert (ranking.items.tolist(), ranking.scores.tolist()) == ([3, 1, 2], [1.0, 0.1875, 0.125])
    (ranking,) = count(popular, [4], [START_MS + 10_000 * HALF_LIFE_MS])
    assert ranking.items.tolist() == [4], "what was forgotten altogether is not recommended"


def test_of_equals_the_first_seen_come_first_however_large_the_register() -> None:
    for numbers_in_use in (30, 1_025, 5_000):
        popular = PopularItems(4, HALF_LIFE_MS)
        items = np.array([9, 2, 25, 7, 9, 11, 3, 1], np.int64)
        rankings = popular.count(items, [START_MS] * len(items), numbers_in_use)
        assert rankings[-1].items.tolist() == [9, 1, 2, 3]


def test_counts_outlive_the_growth_of_the_register() -> None:
    for numbers_in_use in (1_025, 50_000):
        popular = PopularItems(2, HALF_LIFE_MS)
        count(popular, [5, 5], [START_MS] * 2)
        (ranking,) = popular.count(np.array([numbers_in_use - 1], np.int64), [START_MS], numbers_in_use)
        assert (ranking.items.tolist(), ranking.scores.tolist()) == ([5, numbers_in_use - 1], [2.0, 1.0])


def test_clicks_between_two_refreshes_have_each_their_own_age() -> None:
    """From the 32nd click on, two clicks wait for one refresh."""
    popular = PopularItems(3, HALF_LIFE_MS)
    count(popular, [1] * 32, [START_MS] * 32)
    later_ms = START_MS + 10 * HALF_LIFE_MS
    rankings = count(popular, [2, 3], [later_ms, later_ms + HALF_LIFE_MS])
    assert rankings[0].items.tolist() == [1]
    assert rankings[1].items.tolist() == [3, 2, 1]
    assert rankings[1].scores.tolist() == [1.0, 0.5, 32 / 2**11]


def test_the_unregistered_are_never_ranked() -> None:
    rankings = count(PopularItems(5, HALF_LIFE_MS), [UNREGISTERED] * 3 + [1], [START_MS] * 4)
    assert [ranking.items.tolist() for ranking in rankings] == [[], [], [], [1]]


def test_a_warm_ranking_is_refreshed_at_fixed_counts_and_stays_fresh_enough() -> None:
    popular = PopularItems(1, 10**15)
    rankings = count(popular, [1] * 40_000, [START_MS] * 40_000)
    refreshed_at = [n + 1 for n in range(1, 40_000) if rankings[n] is not rankings[n - 1]]
    assert refreshed_at[:31] == list(range(2, 33)), "at every click while young"
    steps = np.diff(refreshed_at)
    assert (steps <= np.maximum(np.array(refreshed_at[:-1]) // 16, 1)).all()
    assert max(steps.tolist()) == REFRESH_AFTER_AT_MOST
    assert math.isclose(float(rankings[-1].scores[0]), 40_000, rel_tol=0.03)
