"""The account of records sent through a broker: it adds up when all is well, and each loss shows."""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from schemas.click import Reason
from schemas.dead_letter import PREFIX, Letter
from tests.fuzz.account import Counted, Sent, problems_of
from tests.fuzz.hostile import Hostile

NOW_MS = 1_760_000_000_000
TOPIC = "clicks"


class Outcome(NamedTuple):
    """What a worker made of the records."""

    counted: Counted
    answers: list[str]
    letters: list[Letter]


@pytest.fixture(scope="module")
def sent() -> Sent:
    hostile = Hostile(0, NOW_MS)
    return Sent({(number % 3, number): number for number in range(2_000)}, hostile.record, NOW_MS)


@pytest.fixture
def outcome(sent: Sent) -> Outcome:
    """That of a worker without fault, which found two duplicates."""
    bad = [place for place, verdict in sent.verdicts.items() if isinstance(verdict, Reason)]
    good = [str(verdict) for verdict in sent.verdicts.values() if not isinstance(verdict, Reason)]
    twice = [number for number, event_id in enumerate(good) if event_id in good[:number]]
    answers = [event_id for number, event_id in enumerate(good) if number not in twice[:2]]
    counted = Counted(len(answers), len(good) - len(answers), len(bad))
    assert counted.duplicates == 2
    return Outcome(counted, answers, [sent.letter(place, TOPIC) for place in bad])


def reworded(letter: Letter, name: str, text: bytes) -> Letter:
    headers = [(was, text if was == PREFIX + name else value) for was, value in letter.headers]
    return letter._replace(headers=headers)


def test_all_is_accounted_for(sent: Sent, outcome: Outcome) -> None:
    assert problems_of(sent, *outcome, TOPIC) == []


def test_the_message_of_a_dead_letter_may_differ(sent: Sent, outcome: Outcome) -> None:
    outcome.letters[0] = reworded(outcome.letters[0], "exception.message", b"later")
    assert problems_of(sent, *outcome, TOPIC) == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda o: o.letters.pop(), "no dead letter of record"),
        (lambda o: o.letters.append(o.letters[0]), "comes twice"),
        (lambda o: o.letters.append(Letter(b"k", b"v", [])), "dead-letter topic is none"),
        (lambda o: o.letters.append(o.letters.pop()._replace(value=b"other")), "not as the record came"),
        (lambda o: o.letters.append(o.letters.pop()._replace(key=b"other")), "not as the record came"),
        (lambda o: o.letters.append(reworded(o.letters.pop(), "reason", b"x")), "not as the record came"),
        (lambda o: o.letters[-1].headers.insert(0, ("shop", b"x")), "not as the record came"),
        (lambda o: o.answers.remove(o.answers[0]), "never answered"),
        (lambda o: o.answers.append(o.answers[0]), "1 recommendations too many"),
        (lambda o: o.answers.append("nobody"), "such as for 'nobody'"),
    ],
)
def test_each_fault_shows(
    sent: Sent, outcome: Outcome, fault: Callable[[Outcome], object], said: str
) -> None:
    fault(outcome)
    assert any(said in problem for problem in problems_of(sent, *outcome, TOPIC))


@pytest.mark.parametrize("field", Counted._fields)
def test_counters_that_miss_one_show(sent: Sent, outcome: Outcome, field: str) -> None:
    counted = outcome.counted._replace(**{field: getattr(outcome.counted, field) - 1})
    assert problems_of(sent, counted, outcome.answers, outcome.letters, TOPIC)
