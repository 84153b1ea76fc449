"""Dead letters as people look at them: what one says, how it is shown, and how many there are by reason.

No Kafka here: `deploy.dead_letter_reader` reads them.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from schemas.dead_letter import CUT_HEADER, DeadLetterHeaders, Header, read_dead_letter_headers

FOREIGN = "no dead letter"
"""Stands for the reason of a record that lacks the headers of a dead letter."""

EXCERPT_CHARACTERS = 120
_MAX_MESSAGE_CHARACTERS = 300
_MAX_UTF8_BYTES = 4  # of one character


class DeadLetterError(Exception):
    """Dead letters could not be read or sent back; the message says what to do."""


class Position(NamedTuple):
    """Where a record lies on the dead-letter topic."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


@dataclass(frozen=True)
class DeadLetter:
    """One record of the dead-letter topic.

    Attributes:
        position: on the dead-letter topic.
        timestamp_ms: when it was dead-lettered, ms since the epoch.
        key, value, headers: of the record, `headers` with those that say why it is here.
        said: these, read; None for a record that somebody else put here.
    """

    position: Position
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: list[Header]
    said: DeadLetterHeaders | None

    @property
    def reason(self) -> str:
        """Why it is no click, or `FOREIGN`; few values, as long as the headers are ours."""
        return FOREIGN if self.said is None else self.said.reason

    @property
    def source(self) -> str:
        """Where the record came from, as topic-partition@offset; empty where nothing says so."""
        said = self.said
        return "" if said is None else f"{said.topic}-{said.partition}@{said.offset}"

    @property
    def cut_from_bytes(self) -> str | None:
        """How large the record was, if only the start of its value is here."""
        for name, size in self.headers:
            if name == CUT_HEADER:
                return size.decode("utf-8", "replace") if isinstance(size, bytes) else (size or "?")
        return None


def dead_letter(
    position: Position,
    timestamp_ms: int,
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[Header],
) -> DeadLetter:
    """Read a record of the dead-letter topic; nothing is raised, whatever it holds."""
    try:
        said = read_dead_letter_headers(headers)
    except msgspec.ValidationError:
        said = None
    return DeadLetter(position, timestamp_ms, key, value, list(headers), said)


def parse_positions(text: str) -> frozenset[Position]:
    """Parse `0:17,2:5`: partition and offset on the dead-letter topic.

    Raises:
        ValueError: with what is wrong, for the user.
    """
    positions = set()
    for part in text.split(","):
        found = re.fullmatch(r"([0-9]{1,9}):([0-9]{1,18})", part.strip())
        if found is None:
            raise ValueError(f"{part!r}: say PARTITION:OFFSET, as in 0:17")
        positions.add(Position(int(found[1]), int(found[2])))
    return frozenset(positions)


def printable(text: str, max_characters: int) -> str:
    """The first characters of a text on one line, with all escaped that a terminal would not show or obey."""
    shown = "".join(
        one if one.isprintable() else one.encode("unicode_escape", "backslashreplace").decode()
        for one in text[:max_characters]
    )
    return shown + ("…" if len(text) > max_characters else "")


def excerpt(value: bytes | None) -> str:
    """The first `EXCERPT_CHARACTERS` of a value, for people; what is no UTF-8 is shown as hex digits."""
    if value is None:
        return "(no value)"
    start = value[: (EXCERPT_CHARACTERS + 1) * _MAX_UTF8_BYTES]
    return printable(start.decode("utf-8", "backslashreplace"), EXCERPT_CHARACTERS)


def said_message(letter: DeadLetter) -> str:
    """What was wrong with it, for people."""
    if letter.said is None:
        return "it lacks the headers of a dead letter"
    return printable(letter.said.exception_message, _MAX_MESSAGE_CHARACTERS)


def instant(timestamp_ms: int) -> str:
    """A time for people, in UTC to the second; empty where there is none."""
    try:
        return f"{datetime.fromtimestamp(timestamp_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}" if timestamp_ms else ""
    except (ValueError, OverflowError, OSError):  # producers may set what they like
        return ""


def json_line(letter: DeadLetter) -> bytes:
    """The letter whole, as one JSON object and a line end; edited, it is what `--repaired` reads."""
    said = letter.said
    fields = {
        "partition": letter.position.partition,
        "offset": letter.position.offset,
        "timestamp_ms": letter.timestamp_ms,
        "reason": letter.reason,
        "message": None if said is None else said.exception_message,
        "source_topic": None if said is None else said.topic,
        "source_partition": None if said is None else said.partition,
        "source_offset": None if said is None else said.offset,
        "cut_from_bytes": letter.cut_from_bytes,
        "key": _text(letter.key),
        "key_base64": _base64(letter.key),
        "value": _text(letter.value),
        "value_base64": _base64(letter.value),
    }
    return msgspec.json.encode(fields) + b"\n"


@dataclass
class Group:
    """The letters of one reason, counted.

    Attributes:
        first_ms, last_ms: oldest and newest time, ms since the epoch.
        partitions: of the dead-letter topic.
        samples: the newest ones, oldest first.
    """

    count: int = 0
    first_ms: int = 0
    last_ms: int = 0
    partitions: set[int] = field(default_factory=set)
    samples: list[DeadLetter] = field(default_factory=list)


class Groups:
    """Counts letters by reason and keeps a few of each, so that a topic of any length can be looked at.

    Reasons beyond `MAX_REASONS`, which our workers never write, are counted as `OTHER`.
    """

    MAX_REASONS = 50
    OTHER = "other reasons"

    def __init__(self, samples: int) -> None:
        """Keep at most so many samples of each reason: the newest."""
        self._samples = samples
        self._groups: dict[str, Group] = {}

    def add(self, letter: DeadLetter) -> None:
        """Count one letter."""
        reason = letter.reason
        if reason not in self._groups and len(self._groups) >= self.MAX_REASONS:
            reason = self.OTHER
        group = self._groups.setdefault(reason, Group())
        at_ms = letter.timestamp_ms
        group.first_ms = min(group.first_ms, at_ms) if group.count else at_ms
        group.last_ms = max(group.last_ms, at_ms)
        group.count += 1
        group.partitions.add(letter.position.partition)
        group.samples.append(letter)
        if len(group.samples) > self._samples:
            group.samples.remove(min(group.samples, key=_age))

    def by_count(self) -> list[tuple[str, Group]]:
        """Reasons and groups, the most frequent first."""
        for group in self._groups.values():
            group.samples.sort(key=_age)
        return sorted(self._groups.items(), key=lambda item: (-item[1].count, item[0]))


def _age(letter: DeadLetter) -> tuple[int, Position]:
    return letter.timestamp_ms, letter.position


def _text(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _base64(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()
