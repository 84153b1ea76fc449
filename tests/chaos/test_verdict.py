"""The comparison behind `make chaos`: each kind of trouble is seen, and what is allowed is not."""

from collections.abc import Callable

import pytest

from tests.chaos.explain import explain
from tests.chaos.verdict import (
    KINDS,
    Answer,
    Clicks,
    Guarantee,
    History,
    Letter,
    Outcome,
    Verdict,
    compare,
    is_same_answer,
    live_sessions,
    why_reference_is_unfit,
)

IDLE_TIMEOUT_MS = 120_000
NOW_MS = 1_760_000_000_000


def answer(event: int, session: str = "s-1", scores: tuple[float, ...] = (3.0, 2.0, 1.0)) -> Answer:
    return Answer(session, f"e-{event}", ("a", "b", "c"), scores, "m1", "model")


CLICKS = Clicks(
    offsets={f"e-{number}": number for number in range(6)},
    sessions={"s-1": (0, NOW_MS), "s-2": (0, NOW_MS - 1_000), "s-ended": (0, NOW_MS - 600_000)},
    watermarks_ms={0: NOW_MS},
)
LETTERS = [Letter(0, 7, "malformed", b"{"), Letter(0, 8, "tombstone", None)]
HISTORIES: dict[str, History | None] = {
    "s-1": History(("a", "b", "c"), NOW_MS, 0, 4),
    "s-2": History(("a", "d"), NOW_MS - 1_000, 0, 5),
    "s-ended": None,
}
REFERENCE = Outcome(
    [answer(0, "s-ended"), *(answer(number) for number in (1, 2, 4)), answer(3, "s-2"), answer(5, "s-2")],
    LETTERS,
    HISTORIES,
)


def judge(found: Outcome, guarantee: Guarantee = "exactly_once") -> Verdict:
    return compare(CLICKS, REFERENCE, found, guarantee, IDLE_TIMEOUT_MS)


def counts(verdict: Verdict) -> dict[str, int]:
    return {kind: getattr(verdict, kind) for kind in KINDS if getattr(verdict, kind)}


def with_answers(change: Callable[[list[Answer]], object]) -> Outcome:
    answers = list(REFERENCE.answers)
    change(answers)
    return REFERENCE._replace(answers=answers)


def test_the_same_outcome_is_clean() -> None:
    for guarantee in ("exactly_once", "at_least_once"):
        verdict = judge(REFERENCE, guarantee)
        assert verdict.is_clean
        assert (verdict.live_sessions, verdict.second_answers, verdict.answered_later) == (2, 0, 0)
    assert why_reference_is_unfit(CLICKS, REFERENCE, IDLE_TIMEOUT_MS) == []


def test_answers_of_other_sessions_may_come_between() -> None:
    assert judge(with_answers(lambda answers: answers.insert(1, answers.pop(4)))).is_clean


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda answers: answers.pop(2), {"lost": 1}),
        (lambda answers: answers.clear(), {"lost": 6}),
        (lambda answers: answers.append(answers[2]), {"duplicated": 1}),
        (lambda answers: answers.extend([answers[2]] * 3), {"duplicated": 3}),
        (lambda answers: answers.insert(1, answers.pop(2)), {"reordered": 1}),
        (lambda answers: answers.insert(1, answers.pop(3)), {"reordered": 2}),
        (lambda answers: answers.__setitem__(2, answer(2, scores=(3.0, 2.0, 0.9))), {"different": 1}),
        (lambda answers: answers.__setitem__(2, answer(2, session="s-2")), {"different": 1}),
        (lambda answers: answers.append(answer(99)), {"different": 1}),
    ],
)
def test_each_trouble_with_answers_is_counted(
    change: Callable[[list[Answer]], object], expected: dict[str, int]
) -> None:
    verdict = judge(with_answers(change))
    assert counts(verdict) == expected
    assert not verdict.is_clean
    assert {finding.kind for finding in verdict.findings} == expected.keys()


def test_at_least_once_may_answer_again_and_from_a_later_state_but_loses_nothing() -> None:
    verdict = judge(with_answers(lambda answers: answers.append(answers[2])), "at_least_once")
    assert (counts(verdict), verdict.second_answers) == ({}, 1)
    later = with_answers(lambda answers: answers.__setitem__(2, answer(2, scores=(4.0, 2.0, 1.0))))
    verdict = judge(later, "at_least_once")
    assert (counts(verdict), verdict.answered_later) == ({}, 1)
    verdict = judge(with_answers(lambda answers: answers.pop(2)), "at_least_once")
    assert counts(verdict) == {"lost": 1}
    wrong_session = with_answers(lambda answers: answers.__setitem__(2, answer(2, session="s-2")))
    assert counts(judge(wrong_session, "at_least_once")) == {"different": 1}


@pytest.mark.parametrize(
    ("letters", "guarantee", "expected"),
    [
        (LETTERS[:1], "exactly_once", {"lost": 1}),
        (LETTERS[:1], "at_least_once", {"lost": 1}),
        ([*LETTERS, LETTERS[0]], "exactly_once", {"duplicated": 1}),
        ([*LETTERS, LETTERS[0]], "at_least_once", {}),
        ([LETTERS[0], LETTERS[1]._replace(reason="invalid")], "exactly_once", {"different": 1}),
        ([LETTERS[0]._replace(value=b"{}"), LETTERS[1]], "at_least_once", {"different": 1}),
        ([*LETTERS, Letter(0, 1, "invalid", b"")], "exactly_once", {"different": 1}),
    ],
)
def test_dead_letters_count_by_the_place_of_their_record(
    letters: list[Letter], guarantee: Guarantee, expected: dict[str, int]
) -> None:
    assert counts(judge(REFERENCE._replace(letters=letters), guarantee)) == expected


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
@pytest.mark.parametrize(
    "changed",
    [
        {"s-1": None},
        {"s-1": History(("a", "b"), NOW_MS, 0, 4)},
        {"s-1": History(("a", "b", "c", "c"), NOW_MS, 0, 4)},
        {"s-1": History(("a", "b", "c"), NOW_MS, 0, 2)},
        {"s-nobody": History(("a",), NOW_MS, 0, 4)},
    ],
)
def test_a_changelog_with_another_history_of_a_live_session_is_different(
    guarantee: Guarantee, changed: dict[str, History | None]
) -> None:
    verdict = judge(REFERENCE._replace(histories=HISTORIES | changed), guarantee)
    assert counts(verdict) == {"different": 1}


def test_a_history_of_an_ended_session_is_told_but_not_wrong() -> None:
    verdict = judge(REFERENCE._replace(histories=HISTORIES | {"s-ended": History(("a",), 1, 0, 0)}))
    assert (verdict.is_clean, verdict.left_behind) == (True, 1)


def test_sessions_on_the_border_of_their_timeout_are_not_compared() -> None:
    sessions = {f"s-{ms}": (0, NOW_MS - ms) for ms in (0, 109_000, 111_000, 130_000)}
    assert live_sessions(CLICKS._replace(sessions=sessions), IDLE_TIMEOUT_MS) == ["s-0", "s-109000"]


@pytest.mark.parametrize(
    ("items", "scores", "is_same"),
    [
        (("a", "b", "c"), (3.0, 2.00009, 1.0), True),
        (("a", "b", "c"), (3.0, 2.0002, 1.0), False),
        (("b", "a", "c"), (3.0, 2.0, 1.0), False),
        (("a", "b", "d"), (3.0, 2.0, 1.0), True),  # d ties with c at the cut
        (("a", "d", "c"), (3.0, 2.0, 1.0), False),
        (("a", "b", "b"), (3.0, 2.0, 2.0), False),
        (("a", "b"), (3.0, 2.0), False),
    ],
)
def test_scores_are_held_to_the_tolerance(
    items: tuple[str, ...], scores: tuple[float, ...], is_same: bool
) -> None:
    found = answer(1)._replace(items=items, scores=scores)
    assert is_same_answer(answer(1), found) is is_same


def test_how_near_the_tolerance_is_gets_told() -> None:
    found = with_answers(lambda answers: answers.__setitem__(2, answer(2, scores=(3.0, 2.00004, 1.0))))
    assert judge(found).largest_score_difference == pytest.approx(4e-5)


def test_items_that_tie_may_swap() -> None:
    expected = answer(1, scores=(3.0, 2.00005, 2.0))
    swapped = expected._replace(items=("a", "c", "b"), scores=(3.0, 2.00004, 2.00001))
    assert is_same_answer(expected, swapped)
    assert not is_same_answer(expected, swapped._replace(model_version="m2"))
    assert not is_same_answer(expected, swapped._replace(source="popular"))


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        (Outcome([], [], {}), "0 answers to 6 clicks"),
        (with_answers(lambda answers: answers.append(answers[0])), "7 answers to 6 clicks"),
        (
            with_answers(lambda answers: answers.insert(1, answers.pop(2))),
            "1 of its answers are out of order",
        ),
        (
            with_answers(lambda answers: answers.__setitem__(0, answers[0]._replace(source="popular"))),
            "1 of its answers are not the model's",
        ),
        (REFERENCE._replace(histories={}), "no history of 2 of 2 live sessions"),
    ],
)
def test_a_reference_that_proves_nothing_is_refused(reference: Outcome, reason: str) -> None:
    assert any(reason in text for text in why_reference_is_unfit(CLICKS, reference, IDLE_TIMEOUT_MS))


def test_the_explanation_shows_both_sides_of_a_session() -> None:
    def break_it(answers: list[Answer]) -> None:
        answers[2] = answer(2, scores=(9.0, 2.0, 1.0))
        answers.append(answers[1])
        del answers[3]

    found = with_answers(break_it)
    text = "\n".join(explain(judge(found), CLICKS, REFERENCE, found))
    assert "lost: s-1 click e-4 at offset 4 has no answer" in text
    assert "2  e-2  a 9.0000, b 2.0000, c 1.0000  once DIFFERENT, reference: a 3.0000" in text
    assert "1  e-1  a 3.0000, b 2.0000, c 1.0000  AGAIN" in text
    assert "4  e-4  LOST" in text
