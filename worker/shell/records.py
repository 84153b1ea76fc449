"""What the worker asks of a consumed record, past the oddities of the client library."""

from collections.abc import Callable
from operator import methodcaller

from confluent_kafka import Message

from schemas.dead_letter import UNREADABLE_HEADERS, Header
from schemas.recommendation import TRACEPARENT

MAX_TRACEPARENT_BYTES = 256
"""The standard has 55; what is far longer is no trace context, and could make the output too large."""


def partition_of(record: Message) -> int:
    """Partition of a consumed record; None only stands in messages that were never on a topic."""
    partition = record.partition()
    assert partition is not None  # noqa: S101 - for the type checker
    return partition


def offset_of(record: Message) -> int:
    """Offset of a consumed record."""
    offset = record.offset()
    assert offset is not None  # noqa: S101 - for the type checker
    return offset


def headers_of(record: Message) -> list[Header]:
    """Headers of a record; ask only once for each.

    Of a header whose name is no UTF-8 the client library makes a list with a hole, and sets an exception that
    a direct call can miss: it would surface later, elsewhere, and touching the hole ends the process. Called
    through `methodcaller` the exception is raised here.
    """
    try:
        headers = _call_headers(record)
    except SystemError:
        record.set_headers([UNREADABLE_HEADERS])  # a batch that is undone and done again asks once more
        return [UNREADABLE_HEADERS]
    return list(headers.items()) if isinstance(headers, dict) else headers or []


def traceparent_of(record: Message) -> bytes | None:
    """The W3C trace context of a record, if it has one."""
    for name, value in headers_of(record):
        if name == TRACEPARENT and value is not None and len(value) <= MAX_TRACEPARENT_BYTES:
            return value.encode() if isinstance(value, str) else value
    return None


_call_headers: Callable[[Message], list[Header] | dict[str, str | bytes | None] | None] = methodcaller(
    "headers"
)
