"""Every record that was sent to a worker against what came of it. Pure."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from schemas.click import InvalidClickError, Reason, decode_click
from schemas.dead_letter import (
    PREFIX,
    Letter,
    dead_letter_headers,
    fit_for_brokers,
    read_dead_letter_headers,
)
from tests.fuzz.hostile import Record

Place = tuple[int, int]
"""Partition and offset on the clicks topic."""

KEPT_PROBLEMS = 20


class Counted(NamedTuple):
    """The worker's own counters at the end."""

    applied: int
    duplicates: int
    dead_letters: int


class Sent:
    """The records that were sent.

    Args:
        numbers: of the records by where they lie.
        record: the record of a number.
        now_ms: wall clock while they were sent, ms since the epoch.

    Attributes:
        verdicts: by place, what `verdict_on` says.
    """

    def __init__(self, numbers: Mapping[Place, int], record: Callable[[int], Record], now_ms: int) -> None:
        self.numbers = numbers
        self._record = record
        self._now_ms = now_ms
        self.verdicts = {place: verdict_on(record(number), now_ms) for place, number in numbers.items()}

    def letter(self, place: Place, topic: str) -> Letter:
        """The dead letter of the record at this place, which is none that is accepted."""
        record = self._record(self.numbers[place])
        letter = fit_for_brokers(record.key, record.value, record.headers)
        try:
            decode_click(record.value, self._now_ms)
        except InvalidClickError as error:
            return letter._replace(headers=dead_letter_headers(topic, *place, error, letter.headers))
        raise LookupError(f"the record at {place} is a click")


def verdict_on(record: Record, now_ms: int) -> Reason | str:
    """The reason for which a record is no click, or its event id."""
    try:
        return decode_click(record.value, now_ms).event_id
    except InvalidClickError as error:
        return error.reason


def problems_of(
    sent: Sent, counted: Counted, answers: list[str], letters: list[Letter], topic: str
) -> list[str]:
    """What does not add up, in words, the first few; empty when every record is accounted for.

    Args:
        sent: the records.
        counted: what the worker counted.
        answers: event ids of all recommendations.
        letters: all dead letters.
        topic: of the clicks, as dead letters name it.
    """
    bad = {place for place, verdict in sent.verdicts.items() if isinstance(verdict, Reason)}
    good = Counter(str(verdict) for place, verdict in sent.verdicts.items() if place not in bad)
    problems = [
        f"{name}: {found}, expected {expected}"
        for name, found, expected in (
            ("clicks applied and duplicates", counted.applied + counted.duplicates, good.total()),
            ("dead letters counted", counted.dead_letters, len(bad)),
            ("dead letters on the topic", len(letters), len(bad)),
            ("recommendations on the topic", len(answers), counted.applied),
        )
        if found != expected
    ]
    problems += _wrong_letters(sent, letters, topic, bad)
    answered = Counter(answers)
    # A duplicate is answered under the event id of its first click, so each id has an answer.
    if missing := good.keys() - answered.keys():
        problems.append(f"{len(missing)} clicks were never answered, such as {min(missing)!r}")
    if extra := answered - good:
        problems.append(f"{extra.total()} recommendations too many, such as for {min(extra)!r}")
    return problems[:KEPT_PROBLEMS]


def _wrong_letters(sent: Sent, letters: list[Letter], topic: str, bad: set[Place]) -> list[str]:
    """Each bad record must lie on the dead-letter topic once, as it came and with its reason."""
    problems = []
    waiting = set(bad)
    for letter in letters:
        try:
            said = read_dead_letter_headers(letter.headers)
        except msgspec.ValidationError as error:
            problems.append(f"what lies on the dead-letter topic is none: {error}")
            continue
        place = int(said.partition), int(said.offset)
        if place not in waiting:
            problems.append(f"the dead letter of {place} comes twice, or of a good record")
            continue
        waiting.remove(place)
        if _comparable(letter) != _comparable(sent.letter(place, topic)):
            problems.append(f"the dead letter of record {sent.numbers[place]} is not as the record came")
    return problems + [f"no dead letter of record {sent.numbers[place]}" for place in sorted(waiting)]


def _comparable(letter: Letter) -> Letter:
    """Without the message: it says how far a click is ahead of the clock, and the worker's has gone on."""
    headers = [(name, text) for name, text in letter.headers if name != PREFIX + "exception.message"]
    return letter._replace(headers=headers)
