"""Dead letter: a record of the clicks topic that is no click, kept as it came.

Key, value and headers are the original ones; what went wrong is said in headers with the names that Kafka
Connect gives them (KIP-298), so that tools made for Connect's dead-letter queues read ours.

One bound: a record that brokers would refuse for its size (a compressed one can unfold to many megabytes) is
cut to its first bytes, and says so. The whole of it lies where the headers point, while the clicks are kept.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from schemas.click import InvalidClickError

PREFIX = "__connect.errors."
STAGE = "VALUE_CONVERTER"

Header = tuple[str, str | bytes | None]

CUT_HEADER = "nextclick.cut.from.bytes"
"""On a dead letter that was cut: how large key, value and headers were together."""

MAX_DEAD_LETTER_BYTES = 900_000
"""Key, value and original headers together. Kafka's own default bound is 1 MB for the whole record."""

HEADER_FRAME_BYTES = 10
"""Two lengths of up to five bytes each frame a header on the wire (record format v2)."""

UNREADABLE_HEADERS: Header = ("nextclick.headers.unreadable", b"a header's name is no UTF-8")
"""On a dead letter whose original headers the client library could not read, so they are missing."""

CUT_VALUE_BYTES = 65_536
"""What is kept of the value of a larger one: enough to see what it was."""


class Letter(NamedTuple):
    """Key, value and headers of a dead letter."""

    key: bytes | None
    value: bytes | None
    headers: list[Header]


class DeadLetterHeaders(msgspec.Struct, frozen=True, rename=lambda name: PREFIX + name.replace("_", ".")):
    """The headers that a dead letter carries beside those of the original record; all values are text."""

    topic: str
    partition: str
    offset: str
    stage: str
    exception_class_name: str
    exception_message: str
    reason: str


def dead_letter_headers(
    topic: str, partition: int, offset: int, error: InvalidClickError, original: Sequence[Header] | None
) -> list[Header]:
    """Headers of the dead letter: the original ones first, then where it came from and why it is here."""
    said = DeadLetterHeaders(
        topic=topic,
        partition=str(partition),
        offset=str(offset),
        stage=STAGE,
        exception_class_name=type(error).__name__,
        exception_message=error.detail,
        reason=error.reason.value,
    )
    fields: dict[str, str] = msgspec.to_builtins(said)
    return [*(original or ()), *((name, text.encode()) for name, text in fields.items())]


def fit_for_brokers(key: bytes | None, value: bytes | None, headers: list[Header]) -> Letter:
    """The record as it came, or, if brokers would refuse it for its size, the start of its value.

    Of a record that is cut, key and original headers are dropped: either may be what is too large.
    """
    size = _size_bytes(key, value, headers)
    return Letter(key, value, headers) if size <= MAX_DEAD_LETTER_BYTES else cut(key, value, headers)


def cut(key: bytes | None, value: bytes | None, headers: list[Header]) -> Letter:
    """The start of the value, and how large the whole was."""
    size = _size_bytes(key, value, headers)
    return Letter(None, (value or b"")[:CUT_VALUE_BYTES], [(CUT_HEADER, str(size).encode())])


def _size_bytes(key: bytes | None, value: bytes | None, headers: list[Header]) -> int:
    of_headers = sum(len(name.encode()) + len(text or b"") + HEADER_FRAME_BYTES for name, text in headers)
    return len(key or b"") + len(value or b"") + of_headers


def read_dead_letter_headers(headers: Sequence[Header]) -> DeadLetterHeaders:
    """Read back what `dead_letter_headers` wrote; where a name stands twice the last one wins.

    Raises:
        msgspec.ValidationError: a header is missing, so this record is no dead letter of ours.
    """
    texts = {
        name: value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        for name, value in headers
        if name.startswith(PREFIX)
    }
    return msgspec.convert(texts, DeadLetterHeaders)
