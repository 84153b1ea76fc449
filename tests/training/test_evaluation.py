"""Metrics by hand, groups, coverage, sampling error, and what is said about it all."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.logs import random_model, sessions_of
from training.evaluate import MISSED, SHOWN, Ranking, rank_sessions
from training.evaluation import (
    Evaluation,
    Metrics,
    evaluation,
    metrics,
    popularity_thirds,
    standard_error,
    verdict,
)
from training.sessions import UNKNOWN

NO_LISTS = np.full(50, SHOWN)


def scored(recall: float, mrr: float) -> Metrics:
    return Metrics(100, {"20": recall}, {"20": mrr}, {"20": mrr})


def test_metrics_by_hand() -> None:
    found = metrics(np.array([1, 2, 20, 21, MISSED]))
    assert found.targets == 5
    assert found.recall == {"1": 0.2, "5": 0.4, "10": 0.4, "20": 0.6}
    assert found.mrr == pytest.approx({"1": 0.2, "5": 0.3, "10": 0.3, "20": (1 + 1 / 2 + 1 / 20) / 5})
    assert found.ndcg["1"] == pytest.approx(0.2)
    assert found.ndcg["20"] == pytest.approx((1 + 1 / math.log2(3) + 1 / math.log2(21)) / 5)
    nothing = metrics(np.array([], np.int64))
    assert (nothing.targets, nothing.recall["20"], nothing.ndcg["20"]) == (0, 0.0, 0.0)


@given(st.lists(st.integers(0, 30), max_size=30))
def test_metrics_grow_with_the_cutoff_and_stay_in_order(ranks: list[int]) -> None:
    found = metrics(np.array(ranks, np.int64))
    for values in (found.recall, found.mrr, found.ndcg):
        assert list(values.values()) == sorted(values.values())
    for cutoff in found.recall:
        assert found.mrr[cutoff] <= found.ndcg[cutoff] + 1e-12 <= found.recall[cutoff] + 2e-12


def test_groups_by_position_count_the_clicks_that_the_model_knows() -> None:
    test = sessions_of([UNKNOWN, 1, 2, UNKNOWN, 3], list(range(24)), [4, UNKNOWN])
    ranks = np.array([MISSED, 1, MISSED, 2, *range(1, 24), MISSED])
    found = evaluation(Ranking(ranks, NO_LISTS), test, np.ones(50, np.int64))
    by_position = dict(found.by_position)
    assert {name: of_group.targets for name, of_group in by_position.items()} == {
        "1": 2,
        "2": 2,
        "3": 1,
        "4": 1,
        "5": 1,
        "6-10": 5,
        "11-20": 10,
        "21+": 3,
    }
    assert by_position["1"].recall["1"] == 1.0  # ranks 1 and 1
    assert by_position["2"].mrr["20"] == 0.5  # 2 and 2
    assert by_position["21+"].recall["20"] == 0.0  # 21, 22, 23
    assert (found.overall.targets, found.all_targets.targets) == (25, 28)
    assert found.unknown_share == pytest.approx(2 / 28)
    assert found.all_targets.recall["20"] == pytest.approx(22 / 28)


def test_groups_by_popularity() -> None:
    clicks = np.array([1, 21, 0, 12, 10, 7])  # in order: 21 | 12, 10 | 7, 1, 0: thirds begin at 17 and 34
    assert popularity_thirds(clicks).tolist() == [2, 0, 2, 1, 1, 2]
    test = sessions_of([1, 1, 3, 4, 5], [0, 2])
    found = evaluation(Ranking(np.array([1, 2, 3, 4, 5]), NO_LISTS), test, clicks)
    assert [(name, of_group.targets) for name, of_group in found.by_popularity] == [
        ("head", 1),
        ("middle", 2),
        ("tail", 2),
    ]
    assert dict(found.by_popularity)["middle"].mrr["20"] == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert popularity_thirds(np.zeros(3, np.int64)).tolist() == [2, 2, 2]


def test_empty_groups_are_left_out() -> None:
    found = evaluation(Ranking(np.array([1]), NO_LISTS), sessions_of([0, 1]), np.array([5, 1]))
    assert [name for name, _ in found.by_position] == ["1"]
    assert [name for name, _ in found.by_popularity] == ["tail"]


def test_coverage() -> None:
    best_place = np.array([0, 4, 5, 9, 10, 19, 20, 20])
    found = evaluation(Ranking(np.array([1]), best_place), sessions_of([0, 1]), np.ones(8, np.int64))
    assert found.coverage == {"5": 2 / 8, "10": 4 / 8, "20": 6 / 8}
    model = random_model(30)
    test = sessions_of([1, 2], [UNKNOWN, 5])  # one question: one list
    assert evaluation(rank_sessions(model, test), test, np.ones(30, np.int64)).coverage == pytest.approx(
        {"5": 5 / 30, "10": 10 / 30, "20": 20 / 30}
    )


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=5), min_size=2, max_size=12))
def test_standard_error_of_a_mean_by_sessions(sessions: list[list[bool]]) -> None:
    values = [hit for hits in sessions for hit in hits]
    mean = sum(values) / len(values)
    squares = sum((sum(hits) - mean * len(hits)) ** 2 for hits in sessions)
    expected = math.sqrt(len(sessions) / (len(sessions) - 1) * squares) / len(values)
    owner = np.repeat(7 * np.arange(len(sessions)), [len(hits) for hits in sessions])
    assert standard_error(np.array(values), owner) == pytest.approx(expected)


def test_targets_of_one_session_are_one_draw() -> None:
    hits = np.repeat(np.array([True, False] * 50), 4)
    apart = standard_error(hits, np.arange(400))
    assert apart == pytest.approx(math.sqrt(0.25 / 399))  # that of a share
    assert standard_error(hits, np.repeat(np.arange(100), 4)) == pytest.approx(2 * apart, rel=0.01)
    assert standard_error(hits, np.zeros(400, np.int64)) == 0.0


def test_it_is_json_and_back() -> None:
    test = sessions_of([0, 1, 2], [2, 1])
    found = evaluation(rank_sessions(random_model(3), test), test, np.array([3, 2, 1]))
    assert msgspec.json.decode(msgspec.json.encode(found), type=Evaluation) == found


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (scored(0.5, 0.3), "The model beats every baseline: recall@20 0.5000 against 0.4000 of VS-kNN"),
        (scored(0.5, 0.2), "beats every baseline in recall, but NOT in MRR"),
        (scored(0.4, 0.3), "does NOT beat the best baseline in recall, only in MRR"),
        (scored(0.4, 0.2), "does NOT beat the best baseline: recall@20 0.4000 against 0.4000 of VS-kNN"),
    ],
)
def test_verdict(model: Metrics, said: str) -> None:
    """Each metric against the baseline that is best in it; equal is not beaten."""
    found = verdict(model, {"markov": scored(0.3, 0.2), "VS-kNN": scored(0.4, 0.1)})
    assert said in found
    assert "0.2000 of markov" in found


def test_verdict_without_baselines() -> None:
    assert "no baseline" in verdict(scored(0.4, 0.2), {})
