"""Clicks to recommendations: sessions apart from each other, unknown items, popular items, bounds."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.driving import START_MS, Run, check_answer, check_same_answers, new_run
from tests.core.models import random_model
from tests.core.reference import HOUR_MS, Click, Expected, Limits, PlainModel

ITEMS = [f"i{item}" for item in range(12)]
MODEL = random_model(ITEMS, hidden_size=6, seed=11, version="m11")
PLAIN = PlainModel(MODEL)
TOP_K = 3
ROOMY = Limits(max_sessions=50, top_k=TOP_K)


def from_model(items: list[str]) -> Expected:
    """What a fresh session of these (known) items must be answered."""
    scores = PLAIN.scores_after(items)
    return Expected("model", scores, sorted(scores, key=lambda item: -scores[item])[:TOP_K])


def with_model(limits: Limits = ROOMY) -> Run:
    run = new_run(limits)
    assert run.adopt(MODEL)
    return run


def clicks_of(session: str, items: list[str], start_ms: int = START_MS) -> list[Click]:
    return [Click(session, item, start_ms + 1_000 * number) for number, item in enumerate(items)]


clicked = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 15)), min_size=1, max_size=40)


@given(clicked, st.sets(st.integers(1, 39), max_size=4))
@settings(deadline=None)
def test_sessions_do_not_disturb_each_other(pairs: list[tuple[int, int]], cuts: set[int]) -> None:
    """What a session gets among others is what it gets alone; i12 to i15 are unknown to the model."""
    every = [
        Click(f"s{session}", f"i{item}", START_MS + 1_000 * number)
        for number, (session, item) in enumerate(pairs)
    ]
    together = with_model()
    bounds = [0, *sorted(cut for cut in cuts if cut < len(every)), len(every)]
    for start, end in pairwise(bounds):
        together.feed(every[start:end])
    for name in {click.session for click in every}:
        at = [number for number, click in enumerate(every) if click.session == name]
        alone = with_model()
        alone.feed([every[number] for number in at])
        assert alone.history(name) == together.history(name)
        for mine, theirs in zip(alone.answers, [together.answers[number] for number in at], strict=True):
            assert mine is not None
            assert theirs is not None
            assert mine.source == theirs.source
            if mine.source == "model":  # what is popular is everybody's
                check_same_answers([mine], [theirs])


@given(clicked)
@settings(deadline=None)
def test_the_order_within_a_session_is_kept(pairs: list[tuple[int, int]]) -> None:
    """One batch of many clicks per session, each against PyTorch's cell run over that session so far."""
    every = [
        Click(f"s{session}", f"i{item % 12}", START_MS + number)
        for number, (session, item) in enumerate(pairs)
    ]
    answers = with_model().feed(every)
    sessions: dict[str, list[str]] = {}
    for click, answer in zip(every, answers, strict=True):
        sessions.setdefault(click.session, []).append(click.item)
        check_answer(answer, from_model(sessions[click.session]))


def test_unknown_items_leave_the_state_and_enter_the_history() -> None:
    run = with_model()
    answers = run.feed(clicks_of("s", ["i1", "new", "i2", "new", "newer"]))
    for answer, known in zip(
        answers, [["i1"], ["i1"], ["i1", "i2"], ["i1", "i2"], ["i1", "i2"]], strict=True
    ):
        check_answer(answer, from_model(known))
    assert run.history("s") == ["i1", "new", "i2", "new", "newer"]


def test_unknown_items_count_for_the_next_model_that_knows_them() -> None:
    run = with_model()
    run.feed(clicks_of("s", ["i1", "new", "i2"]))
    following = random_model(["new", "i2", "i5", "i1"], hidden_size=3, seed=12)
    assert run.adopt(following)
    (answer,) = run.feed(clicks_of("s", ["i5"], START_MS + 5_000))
    scores = PlainModel(following).scores_after(["i1", "new", "i2", "i5"])
    check_answer(answer, Expected("model", scores, sorted(scores, key=lambda item: -scores[item])[:TOP_K]))


def test_a_session_in_which_nothing_is_known_gets_popular_items() -> None:
    run = with_model()
    run.feed([Click("other", item, START_MS) for item in ["i7", "i7", "i4"]])
    (first, second) = run.feed([Click("s", item, START_MS) for item in ["new", "i3"]])
    assert (first.source, first.items, first.scores.tolist()) == ("popular", ["i7", "i4", "new"], [2, 1, 1])
    check_answer(second, from_model(["i3"]))
    assert run.worker.model_version == "m11"


def test_without_a_model_popular_items_are_counted_as_they_come() -> None:
    run = new_run(Limits(top_k=2, half_life_ms=10**15))
    answers = run.feed(
        [Click(f"s{n}", item, START_MS) for n, item in enumerate(["b", "a", "a", "c", "c", "c"])]
    )
    assert [answer.items for answer in answers] == [
        ["b"],
        ["b", "a"],
        ["a", "b"],
        ["a", "b"],
        ["a", "c"],
        ["c", "a"],
    ]
    assert [answer.scores.tolist() for answer in answers][-1] == [3.0, 2.0]
    assert {answer.source for answer in answers} == {"popular"}
    assert run.worker.model_version is None
    assert run.worker.table.hidden.width == 0, "no model, no states"


def test_old_popularity_fades_in_event_time() -> None:
    run = new_run(Limits(top_k=2, half_life_ms=HOUR_MS))
    run.feed([Click(f"s{n}", "old", START_MS) for n in range(3)])
    (answer,) = run.feed([Click("t", "new", START_MS + 2 * HOUR_MS)])
    assert (answer.items, answer.scores.tolist()) == (["new", "old"], [1.0, 0.75])


def test_a_session_that_comes_back_after_the_idle_time_starts_anew_within_one_batch() -> None:
    run = with_model()
    late = START_MS + ROOMY.idle_timeout_ms + 1
    answers = run.feed([*clicks_of("s", ["i1"]), *clicks_of("s", ["i2"], late)])
    check_answer(answers[0], from_model(["i1"]))
    check_answer(answers[1], from_model(["i2"]))
    assert run.history("s") == ["i2"]
    assert run.judged == {"model": 0, "popular": 0}, "a session is not judged by the one before it"


def test_evicted_within_a_batch_both_are_answered_right() -> None:
    """One row for three sessions: each click finds the row that another session holds."""
    run = with_model(Limits(max_sessions=1, top_k=TOP_K))
    names = ["a", "b", "b", "a", "c", "a"]
    answers = run.feed([Click(name, f"i{number}", START_MS) for number, name in enumerate(names)])
    expected = [["i0"], ["i1"], ["i1", "i2"], ["i3"], ["i4"], ["i5"]]
    for answer, items in zip(answers, expected, strict=True):
        check_answer(answer, from_model(items))
    assert run.worker.table.counts.evicted == 4
    assert len(run.worker.table) == 1


def test_a_row_is_emptied_only_when_its_turn_has_come() -> None:
    """Within one batch a session still clicks before another one takes its row."""
    run = with_model(Limits(max_sessions=1, top_k=TOP_K))
    run.feed([Click("a", "i1", START_MS)])
    answers = run.feed([Click("a", "i2", START_MS), Click("b", "i3", START_MS), Click("b", "i4", START_MS)])
    for answer, items in zip(answers, [["i1", "i2"], ["i3"], ["i3", "i4"]], strict=True):
        check_answer(answer, from_model(items))
    assert run.history("b") == ["i3", "i4"]


def test_items_beyond_the_register_are_answered_but_never_recommended() -> None:
    run = new_run(Limits(max_items=2, top_k=5))
    answers = run.feed([Click("s", item, START_MS) for item in ["a", "b", "c", "c", "c", "d"]])
    assert answers[-1].items == ["a", "b"]
    assert run.history("s") == ["a", "b", "", "", "", ""]
    assert run.worker.register.refused == 4
    assert len(run.worker.register) == 3


def test_fewer_items_than_asked_for() -> None:
    run = new_run(Limits(top_k=20))
    run.adopt(random_model(["a", "b"], 3, seed=1))
    (answer,) = run.feed([Click("s", "a", START_MS)])
    assert sorted(answer.items) == ["a", "b"]
    assert answer.scores.tolist() == sorted(answer.scores.tolist(), reverse=True)


def test_judged_against_the_last_answer_of_the_session() -> None:
    run = with_model()
    (first,) = run.feed([Click("s", "i1", START_MS)])
    second_best = first.items[1]
    missed = next(item for item in ITEMS if item not in from_model(["i1", second_best]).best)
    run.feed(
        [
            Click("t", first.items[0], START_MS),
            Click("s", second_best, START_MS),
            Click("s", missed, START_MS),
        ]
    )
    assert run.judged == {"model": 2, "popular": 0}
    assert run.hits == {"model": 1, "popular": 0}
    assert run.reciprocal_ranks["model"] == pytest.approx(0.5)


def test_an_answer_is_judged_after_its_model_is_gone() -> None:
    run = with_model()
    (first,) = run.feed([Click("s", "i1", START_MS)])
    run.adopt(random_model(list(reversed(ITEMS)), 6, seed=99))
    run.feed([Click("s", first.items[0], START_MS + 1)])
    assert run.hits == {"model": 1, "popular": 0}
    assert run.reciprocal_ranks["model"] == pytest.approx(1.0)


def test_forgotten_partitions_start_anew_and_the_others_go_on() -> None:
    run = with_model()
    run.feed([Click("a", "i1", START_MS, 0), Click("b", "i2", START_MS, 1)])
    assert run.worker.table.forget_partitions({0}) == 1
    answers = run.feed([Click("a", "i3", START_MS, 0), Click("b", "i4", START_MS, 1)])
    check_answer(answers[0], from_model(["i3"]))
    check_answer(answers[1], from_model(["i2", "i4"]))
    assert run.judged == {"model": 1, "popular": 0}


def test_a_replayed_click_is_answered_from_what_the_session_is_by_now() -> None:
    run = with_model()
    run.feed([Click("other", "new", START_MS, 0, 3)])
    (_, answer) = run.feed([Click("s", "i1", START_MS, 0, 4), Click("s", "i2", START_MS, 0, 5)])
    judged, popular = dict(run.judged), run.worker.table.watermark_ms
    run.worker.changes()
    again = run.feed([Click("s", "i1", START_MS, 0, 4), Click("s", "unheard of", START_MS + HOUR_MS, 0, 5)])
    for replayed in again:
        check_same_answers([replayed], [answer])
    assert (run.judged, run.worker.table.watermark_ms) == (judged, popular)
    assert run.history("s") == ["i1", "i2"]
    assert run.worker.table.counts.replayed == 2
    assert run.worker.changes() == []
    assert len(run.worker.register) == len(ITEMS) + 2, "what is not applied registers no item"
    (third,) = run.feed([Click("s", "i3", START_MS, 0, 6)])
    check_answer(third, from_model(["i1", "i2", "i3"]))


def test_a_replayed_click_is_not_counted_as_popular_again() -> None:
    run = new_run(Limits(half_life_ms=10**15))
    run.feed([Click("s", "a", START_MS, 0, 1), Click("t", "b", START_MS, 0, 2)])
    answers = run.feed([Click("s", "a", START_MS, 0, 1), Click("t", "b", START_MS, 0, 3)])
    assert (answers[0].items, answers[0].scores.tolist()) == (["a", "b"], [1.0, 1.0])
    assert (answers[1].items, answers[1].scores.tolist()) == (["b", "a"], [2.0, 1.0])


def test_a_replayed_click_is_answered_by_the_model_that_serves_now() -> None:
    run = new_run(Limits())
    run.feed([Click("s", "i1", START_MS, 0, 1)])
    run.adopt(MODEL)
    (answer,) = run.feed([Click("s", "i1", START_MS, 0, 1)])
    check_answer(answer, from_model(["i1"]))


def test_duplicates_are_not_answered_and_register_nothing() -> None:
    run = with_model()
    first = Click("s", "i1", START_MS, 0, 1, "e1")
    again = Click("s", "unheard of", START_MS, 0, 2, "e1")
    (answer, nothing, following) = run.advance([first, again, Click("s", "i2", START_MS, 0, 3, "e2")])
    check_answer(answer, from_model(["i1"]))
    assert nothing is None
    check_answer(following, from_model(["i1", "i2"]))
    judged = dict(run.judged)
    assert run.advance([replace(again, offset=4), replace(again, offset=5)]) == [None, None]
    assert run.judged == judged
    assert run.advance([]) == []
    assert run.worker.table.counts.duplicates == 3
    assert len(run.worker.register) == len(ITEMS) + 1


def test_a_hundred_thousand_sessions_in_one_batch() -> None:
    run = with_model(Limits(max_sessions=60_000, top_k=TOP_K))
    answers = run.feed([Click(f"s{n}", ITEMS[n % 12], START_MS, n % 7) for n in range(100_000)])
    for number in (0, 1, 50_000, 99_999):
        check_answer(answers[number], from_model([ITEMS[number % 12]]))
    assert len(run.worker.table) == 60_000
    assert run.worker.table.counts.evicted == 40_000
    changes = run.worker.changes()
    assert sum(change.history is None for change in changes) == 40_000
    assert len(changes) == 100_000


def test_a_session_with_a_hundred_thousand_clicks() -> None:
    """Its rings have gone round thousands of times."""
    run = with_model()
    items = [ITEMS[(number * number) % 11] for number in range(100_000)]
    for start in range(0, len(items), 10_000):
        run.feed([Click("s", item, START_MS) for item in items[start : start + 10_000]])
    assert run.history("s") == items[-ROOMY.history_length :]
    (change,) = run.worker.changes()
    assert change.history is not None
    assert change.history.items == items[-ROOMY.history_length :]
    assert change.history.source_offset == 99_999
    (answer,) = run.feed([Click("s", "i11", START_MS)])
    check_answer(answer, from_model([*items[-200:], "i11"]))  # a state forgets what lies further back
