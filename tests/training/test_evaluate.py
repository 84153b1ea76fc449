"""Full-ranking evaluation against a slow, literal one; ties, unknown items and session ends."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.logs import random_model, sessions_of
from training import evaluate
from training.evaluate import MISSED, answerable, model_ranks, rank_targets, scores
from training.sessions import UNKNOWN
from worker.core.session_model import SessionModel
from worker.core.step import output, session_query, step

ITEMS = 15
MODEL = random_model(ITEMS)


def slow_ranks(model: SessionModel, sessions: list[list[int]]) -> list[int]:
    """One click at a time, one item at a time."""
    ranks = []
    for items in sessions:
        state, last = model.start(1), None
        for place, item in enumerate(items):
            if place and (item == UNKNOWN or last is None):
                ranks.append(MISSED)
            elif place and last is not None:
                query = session_query(model.query, output(model.layers, state), last)[0]
                all_scores = [float(query @ model.item_matrix[i]) for i in range(len(model.items))]
                ranks.append(sum(score >= all_scores[item] for score in all_scores))
            if item != UNKNOWN:
                last = model.embedding[item][None]
                state = step(model.cell, model.layers, last, state)
    return ranks


item = st.integers(UNKNOWN, ITEMS - 1)


@settings(deadline=None)
@given(st.lists(st.lists(item, min_size=2, max_size=9), min_size=1, max_size=8))
def test_batched_ranks_equal_slow_ones(sessions: list[list[int]]) -> None:
    assert model_ranks(MODEL, sessions_of(*sessions)).tolist() == slow_ranks(MODEL, sessions)


def test_state_ends_with_its_session() -> None:
    """A session's ranks are the same alone, after others, and beside others."""
    sessions = [[1, 2, 3, 4], [9, 9], [5, 1, 2, 8, 0, 3], [1, 2, 3, 4]]
    together = model_ranks(MODEL, sessions_of(*sessions)).tolist()
    alone = [rank for items in sessions for rank in model_ranks(MODEL, sessions_of(items)).tolist()]
    assert together == alone


def test_small_batches_and_score_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = sessions_of(*[[i % ITEMS, (i * 7) % ITEMS, (i * 3) % ITEMS] for i in range(40)])
    expected = model_ranks(MODEL, sessions).tolist()
    monkeypatch.setattr(evaluate, "SESSIONS_AT_ONCE", 3)
    monkeypatch.setattr(evaluate, "SCORES_AT_ONCE", 1)
    assert model_ranks(MODEL, sessions).tolist() == expected


def test_an_unknown_click_leaves_the_state() -> None:
    with_unknown = model_ranks(MODEL, sessions_of([1, UNKNOWN, 2, UNKNOWN, UNKNOWN, 3])).tolist()
    without = model_ranks(MODEL, sessions_of([1, 2, 3])).tolist()
    assert with_unknown == [MISSED, without[0], MISSED, MISSED, without[1]]


def test_answerable_is_the_protocol_of_dropping_unknown_clicks() -> None:
    sessions = sessions_of([UNKNOWN, 2, UNKNOWN, 3], [4, UNKNOWN], [UNKNOWN, UNKNOWN, 5], [6, 7])
    assert answerable(sessions).tolist() == [False, False, True, False, False, False, True]
    ranks = model_ranks(MODEL, sessions)
    assert ((ranks != MISSED) == answerable(sessions)).all()


def test_ties_and_no_numbers_count_against_the_model() -> None:
    items = torch.tensor([[1.0], [1.0], [0.0], [2.0], [float("nan")]])
    ranks = rank_targets(torch.ones(5, 1), items, torch.arange(5))
    assert ranks.tolist() == [4, 4, 5, 2, 5]


def test_scores_by_hand() -> None:
    found = scores(np.array([1, 2, 20, 21, MISSED]))
    assert found.targets == 5
    assert found.recall == {1: 0.2, 5: 0.4, 10: 0.4, 20: 0.6}
    assert found.mrr[1] == pytest.approx(0.2)
    assert found.mrr[20] == pytest.approx((1 + 1 / 2 + 1 / 20) / 5)
    assert scores(np.array([], np.int64)).recall[20] == 0.0
