"""Clicks from a file or a pipe, ready to be sent: JSON lines, or click logs in columns.

JSON lines are read one at a time, so a pipe may be endless; a log in columns is read whole (it has to be
sorted by time), within the bounds of `training.log_file`.
"""

import gzip
import io
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

import msgspec
import numpy as np
import orjson

from schemas.click import Click, InvalidClickError, decode_click, encode_click
from schemas.identifiers import Id, id_text

if TYPE_CHECKING:  # needs polars; imported by whoever has a log in columns
    from training.click_log import ClickLog

MAX_LINE_BYTES = 1_000_000
"""What Kafka takes in one record by default; a click is far smaller (`schemas.click`)."""

STANDARD_INPUT = "-"
LINE_FORMATS = (".jsonl", ".ndjson", ".json")
_EVENT_ID_PREFIX = 16  # hex digits of a file's hash: no two logs that anybody sends share them


class OutgoingClick(NamedTuple):
    """One record to send.

    Attributes:
        session_id: key of the record; None for a raw line that names none.
        value: of the record.
        timestamp_ms: event time; None for a raw line, which nobody looked into.
    """

    session_id: str | None
    value: bytes
    timestamp_ms: int | None


class BadLine(NamedTuple):
    """A line that is no click: its number, from 1, and why."""

    number: int
    reason: str


class UnreadableClicksError(Exception):
    """The file is missing, cannot be read, or is no whole gzip file."""


def is_lines(file: str) -> bool:
    """Whether this is read as JSON lines: standard input, or a name that says so (also with .gz)."""
    suffixes = [suffix.lower() for suffix in Path(file).suffixes]
    kind = suffixes[-2:-1] if suffixes[-1:] == [".gz"] else suffixes[-1:]
    return file == STANDARD_INPUT or (bool(kind) and kind[0] in LINE_FORMATS)


@contextmanager
def opened(file: str) -> Iterator[BinaryIO]:
    """The bytes of a file of JSON lines, unpacked; `-` is standard input.

    Raises:
        UnreadableClicksError: also while it is being read inside the block.
    """
    try:
        if file == STANDARD_INPUT:
            yield sys.stdin.buffer
        elif file.lower().endswith(".gz"):
            with gzip.open(file) as packed:
                yield cast("BinaryIO", packed)
        else:
            with Path(file).open("rb") as plain:
                yield plain
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UnreadableClicksError(f"{file} is no whole gzip file: {error}") from None
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UnreadableClicksError(f"{file} cannot be read: {error.strerror}") from None


def read_lines(
    stream: BinaryIO | io.BytesIO, now_ms: Callable[[], int], *, raw: bool = False
) -> Iterator[OutgoingClick | BadLine]:
    """Clicks of JSON lines, one by one; blank lines are skipped.

    Args:
        stream: of lines.
        now_ms: wall clock, see `decode_click`.
        raw: lines go out unchecked; only one too long for Kafka is bad.
    """
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 2):
        number += 1
        if not line.endswith(b"\n") and len(line) > MAX_LINE_BYTES:
            while (rest := stream.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield BadLine(number, f"longer than {MAX_LINE_BYTES:,} bytes")
        elif value := line.rstrip(b"\r\n") if raw else line.strip():
            yield _raw(value) if raw else _checked(value, number, now_ms())


def _checked(value: bytes, number: int, now_ms: int) -> OutgoingClick | BadLine:
    try:
        click = decode_click(value, now_ms)
    except InvalidClickError as error:
        return BadLine(number, str(error))
    return OutgoingClick(click.session_id, value, click.timestamp_ms)


class _Key(msgspec.Struct):
    session_id: Id


_decode_key = msgspec.json.Decoder(_Key).decode


def _raw(value: bytes) -> OutgoingClick:
    try:
        session_id: str | None = id_text(_decode_key(value).session_id)
    except (ValueError, RecursionError):  # all that msgspec and id_text raise is a ValueError
        session_id = None
    return OutgoingClick(session_id, value, None)


def log_clicks(log: "ClickLog", event_id_prefix: str) -> Iterator[OutgoingClick]:
    """Clicks of a log, in order of time. Event ids are the same each time that the log is sent.

    Args:
        log: the clicks.
        event_id_prefix: names the log, such as the hash of its file.
    """
    prefix = event_id_prefix[:_EVENT_ID_PREFIX]
    for row in np.argsort(log.timestamp_ms, kind="stable").tolist():
        session_id = log.session_ids[log.session[row]]
        timestamp_ms = int(log.timestamp_ms[row])
        click = Click(f"{prefix}-{row}", session_id, log.item_ids[log.item[row]], timestamp_ms)
        yield OutgoingClick(session_id, encode_click(click), timestamp_ms)


def restamped(click: OutgoingClick, timestamp_ms: int) -> OutgoingClick:
    """The same checked click at another event time; its other fields stay."""
    fields = orjson.loads(click.value)
    fields["timestamp_ms"] = timestamp_ms
    return OutgoingClick(click.session_id, orjson.dumps(fields), timestamp_ms)
