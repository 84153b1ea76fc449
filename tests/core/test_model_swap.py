"""A new model takes over the sessions: from their histories, lazily, as if it had served all along."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.model_manifest import Cell
from tests.core.driving import START_MS, Run, check_answer, check_same_answers, new_run
from tests.core.models import random_model
from tests.core.reference import Click, Expected, Limits, PlainModel
from worker.core.advance import CatalogueTooLargeError
from worker.core.session_model import SessionModel
from worker.core.session_records import NOTHING_KNOWN
from worker.core.step import CellWeights

HISTORY = 6
LIMITS = Limits(max_sessions=20, history_length=HISTORY, max_items=30)
ITEMS = [f"i{item}" for item in range(10)]
OLD = random_model(ITEMS, hidden_size=5, seed=21, version="old")
SAME_WIDTH = random_model(ITEMS[::-1], hidden_size=5, seed=22, version="same-width")
OTHER_WIDTH = random_model([*ITEMS[3:], "n1", "n2"], hidden_size=8, seed=23, version="other-width")
LSTM = random_model(ITEMS, hidden_size=5, seed=24, version="lstm", cell="lstm")
TWO_LAYERS = random_model(ITEMS[2:], hidden_size=5, seed=25, version="two-layers", layers=2)
PLAIN_RNN = random_model(
    ITEMS, 10, seed=26, version="rnn", cell="rnn", item_embedding="separate", score="dot"
)
ONE_HOT = random_model(
    ITEMS, 4, seed=27, version="one-hot", cell="lstm", layers=2, item_embedding="none", last_click_query=False
)
NEW_MODELS = [SAME_WIDTH, OTHER_WIDTH, LSTM, TWO_LAYERS, PLAIN_RNN, ONE_HOT]
ROUNDING = 1e-4
"""A last bit that differs can tip a rounding by 1/32,767; the clicks after it can let that grow a little."""


def clicks(pairs: list[tuple[int, int]], start_ms: int = START_MS) -> list[Click]:
    names = [*ITEMS, "n1", "n2"]
    return [
        Click(f"s{session}", names[item], start_ms + number) for number, (session, item) in enumerate(pairs)
    ]


def expect(plain: PlainModel, items: list[str]) -> Expected:
    scores = plain.scores_after([item for item in items if item in plain.rows])
    return Expected("model", scores, sorted(scores, key=lambda item: -scores[item])[: LIMITS.top_k])


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 11)), max_size=30),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 11)), min_size=1, max_size=6),
    st.sampled_from(NEW_MODELS),
    st.sampled_from([None, OLD]),
)
@settings(deadline=None, max_examples=150)
def test_adopting_equals_having_computed_with_that_model_all_along(
    before: list[tuple[int, int]],
    after: list[tuple[int, int]],
    new: SessionModel,
    old: SessionModel | None,
) -> None:
    """Sessions with more clicks than the history holds count from their last clicks."""
    swapped, steady = new_run(LIMITS), new_run(LIMITS)
    if old is not None:
        swapped.adopt(old)
    first, then = clicks(before), clicks(after, START_MS + 1_000)
    if first:
        swapped.feed(first)
    swapped.adopt(new)
    answers = swapped.feed(then)
    steady.adopt(new)
    if kept := [click for number, click in enumerate(first) if is_among_last(first, number)]:
        steady.feed(kept)
    for mine, theirs in zip(answers, steady.feed(then), strict=True):
        assert mine.source == theirs.source
        if mine.source == "model":
            check_same_answers([mine], [theirs])
    for name in {click.session for click in then}:
        assert swapped.history(name) == steady.history(name)
        assert_same_state(swapped, steady, name)


def is_among_last(every: list[Click], number: int) -> bool:
    """Whether this click is one of its session's last `HISTORY`."""
    later = sum(click.session == every[number].session for click in every[number + 1 :])
    return later < HISTORY


def assert_same_state(one: Run, other: Run, session: str) -> None:
    mine, theirs = one.worker.table, other.worker.table
    rows = [np.array([table.row(0, session)]) for table in (mine, theirs)]
    assert np.allclose(mine.hidden.load(rows[0]), theirs.hidden.load(rows[1]), rtol=0, atol=ROUNDING)
    assert mine.records.last_item[rows[0]] == theirs.records.last_item[rows[1]]


@pytest.mark.parametrize("new", NEW_MODELS, ids=lambda model: model.version)
@pytest.mark.parametrize("length", [1, HISTORY - 1, HISTORY, HISTORY + 1, 3 * HISTORY])
def test_a_session_of_any_length_against_torch(new: SessionModel, length: int) -> None:
    items = [ITEMS[(7 * number + 3) % 10] for number in range(length)]
    run = new_run(LIMITS)
    run.adopt(OLD)
    run.feed([Click("s", item, START_MS) for item in items])
    run.adopt(new)
    answers = run.feed([Click("s", "i4", START_MS), Click("s", "i9", START_MS)])
    plain = PlainModel(new)
    check_answer(answers[0], expect(plain, [*items[-HISTORY:], "i4"]))
    check_answer(answers[1], expect(plain, [*items[-HISTORY:], "i4", "i9"]))


def test_from_cell_to_cell() -> None:
    """States of 5, 10, again 10 of another kind, 10 of a plain RNN, 16 and 5 numbers: each model goes on with
    the clicks as if it had served all along, and nothing of the states before is left.
    """
    run, items = new_run(LIMITS), ["i3", "i8"]
    for number, model in enumerate([OLD, LSTM, TWO_LAYERS, PLAIN_RNN, ONE_HOT, OLD]):
        run.adopt(model)
        item = ITEMS[2 * number % 10] if model is not TWO_LAYERS else "i9"
        clicked = [item] if number else [*items, item]
        answers = run.feed([Click("s", one, START_MS) for one in clicked])
        items.append(item)
        check_answer(answers[-1], expect(PlainModel(model), items[-HISTORY - 1 :]))
        assert run.worker.table.hidden.layout == model.state_layout
        assert run.worker.reencoded == number


@pytest.mark.parametrize("size", [5, 70])
@pytest.mark.parametrize("model", ["gru", "lstm", "rnn"])
def test_rows_go_through_the_table_whatever_the_cell(model: Cell, size: int) -> None:
    """Click by click through stored rows, wide ones rounded, equals clicks that never left the model."""
    served = random_model(ITEMS, size, seed=28, cell=model, layers=2)
    small = tuple(CellWeights(*(t if t is None else t / size**0.5 for t in each)) for each in served.layers)  # type: ignore[arg-type]
    served = replace(served, layers=small)
    run = new_run(Limits(max_sessions=20, history_length=40, max_items=30))
    run.adopt(served)
    items = [ITEMS[7 * number % 10] for number in range(30)]
    for number, item in enumerate(items):
        answers = run.feed([Click("s", item, START_MS), Click("t", items[-1 - number], START_MS)])
    check_answer(answers[0], expect(PlainModel(served), items))
    check_answer(answers[1], expect(PlainModel(served), items[::-1]))
    row, hidden = np.array([run.worker.table.row(0, "s")]), run.worker.table.hidden
    stored = hidden.load(row)
    run.worker.adopt(served)
    (again,) = run.feed([Click("s", "unknown", START_MS)])
    assert torch.allclose(hidden.load(row), stored, rtol=0, atol=ROUNDING), "re-encoded from its clicks"
    check_same_answers([again], [answers[0]])


def test_sessions_are_re_encoded_once_and_only_when_they_click_again() -> None:
    run = new_run(LIMITS)
    run.adopt(OLD)
    run.feed(clicks([(0, 1), (1, 2), (2, 3)]))
    assert run.worker.reencoded == 0, "fresh sessions are up to date"
    run.adopt(SAME_WIDTH)
    assert run.worker.reencoded == 0
    run.feed(clicks([(0, 1), (0, 2), (1, 3)]))
    assert run.worker.reencoded == 2
    run.feed(clicks([(0, 1), (1, 2), (3, 3)]))
    assert run.worker.reencoded == 2
    run.feed(clicks([(2, 1)]))
    assert run.worker.reencoded == 3
    assert run.worker.model_version == "same-width"


def test_what_a_former_session_left_in_a_row_is_not_re_encoded() -> None:
    """A row that is taken over still holds the ring of the session before, behind the new one's clicks."""
    run = new_run(Limits(max_sessions=1, history_length=HISTORY, max_items=30))
    run.adopt(OLD)
    run.feed([Click("former", item, START_MS) for item in ITEMS])
    run.feed([Click("s", "i1", START_MS)])
    run.adopt(SAME_WIDTH)
    (answer,) = run.feed([Click("s", "i2", START_MS)])
    check_answer(answer, expect(PlainModel(SAME_WIDTH), ["i1", "i2"]))


def test_models_that_a_session_slept_through_leave_no_trace() -> None:
    run = new_run(LIMITS)
    run.adopt(OLD)
    run.feed([Click("s", item, START_MS) for item in ["i1", "i2"]])
    run.adopt(OTHER_WIDTH)
    run.feed([Click("other", "i3", START_MS)])
    run.adopt(SAME_WIDTH)
    (answer,) = run.feed([Click("s", "i5", START_MS)])
    check_answer(answer, expect(PlainModel(SAME_WIDTH), ["i1", "i2", "i5"]))


def test_adopting_the_first_model_takes_up_the_sessions_that_got_popular_items() -> None:
    run = new_run(LIMITS)
    run.feed([Click("s", item, START_MS) for item in ["i1", "i2"]])
    run.adopt(OTHER_WIDTH)  # knows neither
    (answer,) = run.feed([Click("s", "i1", START_MS)])
    assert answer.source == "popular"
    assert run.worker.table.records.last_item.tolist()[0] == NOTHING_KNOWN
    run.adopt(OLD)
    (answer,) = run.feed([Click("s", "n1", START_MS)])
    check_answer(answer, expect(PlainModel(OLD), ["i1", "i2", "i1"]))


def test_a_session_of_which_the_new_model_knows_nothing_gets_popular_items() -> None:
    run = new_run(LIMITS)
    run.adopt(OLD)
    run.feed([Click("s", item, START_MS) for item in ["i0", "i1"]])
    run.adopt(OTHER_WIDTH)
    answers = run.feed([Click("s", "i2", START_MS), Click("s", "i3", START_MS)])
    assert answers[0].source == "popular"
    check_answer(answers[1], expect(PlainModel(OTHER_WIDTH), ["i3"]))


def test_a_catalogue_that_does_not_fit_changes_nothing() -> None:
    run = new_run(Limits(max_items=11))
    run.adopt(OLD)
    answers = run.feed([Click("s", "i1", START_MS)])
    with pytest.raises(CatalogueTooLargeError, match="raise max_items"):
        run.worker.adopt(OTHER_WIDTH)
    assert run.worker.model_version == "old"
    assert len(run.worker.register) == 11
    assert run.worker.register.refused == 0
    again = run.feed([Click("t", "i1", START_MS)])
    check_same_answers(answers, again)


def test_items_that_came_after_the_model_have_no_row_in_it() -> None:
    """Their numbers lie beyond the model's translation table."""
    run = new_run(LIMITS)
    run.adopt(OLD)
    answers = run.feed([Click("s", item, START_MS) for item in ["x1", "i1", "x2", "x1"]])
    assert [answer.source for answer in answers] == ["popular", "model", "model", "model"]
    check_answer(answers[3], expect(PlainModel(OLD), ["i1"]))
