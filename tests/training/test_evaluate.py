"""Full-ranking evaluation against a slow, literal one; ties, unknown items and session ends."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.logs import random_model, sessions_of
from training import evaluate
from training.evaluate import MISSED, SHOWN, answerable, model_ranks, rank_sessions, rank_targets
from training.sessions import UNKNOWN
from worker.core.session_model import SessionModel
from worker.core.step import output, session_query, step

ITEMS = 15
MODEL = random_model(ITEMS)


def slow_scores(model: SessionModel, sessions: list[list[int]]) -> list[tuple[int, list[float]] | None]:
    """Of every target the item and the scores of the catalogue, one click at a time, one item at a time."""
    found: list[tuple[int, list[float]] | None] = []
    for items in sessions:
        state, last = model.start(1), None
        for place, item in enumerate(items):
            if place and (item == UNKNOWN or last is None):
                found.append(None)
            elif place and last is not None:
                query = session_query(model.query, output(model.layers, state), last)[0]
                found.append((item, [float(query @ model.item_matrix[i]) for i in range(len(model.items))]))
            if item != UNKNOWN:
                last = model.embedding[item][None]
                state = step(model.cell, model.layers, last, state)
    return found


def slow_ranks(model: SessionModel, sessions: list[list[int]]) -> list[int]:
    return [
        MISSED if found is None else sum(score >= found[1][found[0]] for score in found[1])
        for found in slow_scores(model, sessions)
    ]


def slow_best_places(all_scores: list[list[float]], items: int) -> list[int]:
    """The best place that each item had in the lists of the best, equal scores by row."""
    best = [SHOWN] * items
    for scores in all_scores:
        for place, item in enumerate(sorted(range(items), key=lambda item: (-scores[item], item))[:SHOWN]):
            best[item] = min(best[item], place)
    return best


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
    monkeypatch.setattr(evaluate, "QUERIES_AT_ONCE", (1, 2))
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


@pytest.mark.parametrize("items", [1, 5, 15, 64, 65, 200])
def test_best_places_equal_slow_ones(items: int) -> None:
    model = random_model(items, seed=items)
    sessions = [[i % items, (i * 7) % items, UNKNOWN, (i * 3) % items] for i in range(12)]
    all_scores = [found[1] for found in slow_scores(model, sessions) if found is not None]
    assert rank_sessions(model, sessions_of(*sessions)).best_place.tolist() == slow_best_places(
        all_scores, items
    )


@settings(deadline=None)
@given(st.integers(1, 150).flatmap(lambda n: st.lists(st.integers(0, 12), min_size=n, max_size=n)), st.data())
def test_one_pass_over_scores_with_many_ties(scores: list[int], data: st.DataObject) -> None:
    """The catalogue has one dimension and the query is 1, so that the items are their scores."""
    target = data.draw(st.integers(0, len(scores) - 1))
    items = torch.tensor(scores, dtype=torch.float32)[:, None]
    best = np.full(len(scores), SHOWN, np.int64)
    ranks = evaluate._rank_queries(torch.ones(1, 1), items, np.array([target]), best, lambda _at, _of: None)
    assert ranks.tolist() == [sum(score >= scores[target] for score in scores)]
    assert best.tolist() == slow_best_places([[float(score) for score in scores]], len(scores))


def test_progress_counts_the_targets_that_can_be_answered() -> None:
    sessions = sessions_of(*[[1, 2, UNKNOWN, 3] for _ in range(9)], [4, UNKNOWN])
    told: list[tuple[int, int]] = []
    rank_sessions(MODEL, sessions, lambda done, total: told.append((done, total)))
    assert told[-1] == (18, 18)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_sessions_that_hold_nothing_known() -> None:
    found = rank_sessions(MODEL, sessions_of([UNKNOWN, UNKNOWN], [3, UNKNOWN]))
    assert found.ranks.tolist() == [MISSED, MISSED]
    assert (found.best_place == SHOWN).all()
