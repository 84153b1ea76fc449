"""Watching the recommendations topic: a live table in a terminal, lines elsewhere, or raw JSON lines."""

import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self

import msgspec
import orjson
from confluent_kafka import Message
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from deploy.stop_signals import Stopped, stop_signals
from deploy.topic_reader import TopicReader
from schemas.recommendation import Recommendation, decode_recommendation

BATCH = 500
POLL_S = 0.2
REFRESH_S = 0.1  # faster than anybody reads
ITEMS_SHOWN = 5
_VERSION_END = 8  # of our own versions: the hash
_TABLE_FRAME_LINES = 6  # borders, heading, footer and the prompt


@dataclass(frozen=True)
class TailOptions:
    """What was asked for; see `deploy.commands.tail`."""

    from_beginning: bool = False
    limit: int | None = None
    json: bool = False


class _Output(Protocol):
    """Shows recommendations; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, found: list[tuple[bytes, Recommendation]]) -> None:
        """Take what came, value and meaning; maybe nothing: called several times a second."""

    def complain(self, text: str) -> None:
        """Say what went wrong, where it disturbs nobody."""


def run_tail(options: TailOptions, client_config: Mapping[str, str], topic: str) -> int:
    """Show what comes until the limit, Ctrl-C or SIGTERM; returns the exit code 0.

    Raises:
        TopicError: no broker answers, or the topic does not exist.
        BrokenPipeError: the reader of standard output has left.
    """
    output = _output(options, topic)
    try:
        with (
            stop_signals(),
            TopicReader(
                client_config, [topic], from_beginning=options.from_beginning, on_trouble=output.complain
            ) as reader,
            output,
        ):
            left = options.limit
            while left is None or left > 0:
                records = reader.read(BATCH if left is None else min(left, BATCH), POLL_S)
                found = [one for record in records if (one := _decoded(record, output)) is not None]
                output.show(found)
                left = None if left is None else left - len(found)
    except Stopped:
        pass
    return 0


def _decoded(record: Message, output: _Output) -> tuple[bytes, Recommendation] | None:
    value = record.value() or b""
    try:
        return value, decode_recommendation(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        output.complain(f"partition {record.partition()}, offset {record.offset()}: no recommendation")
        return None


def _output(options: TailOptions, topic: str) -> _Output:
    if options.json:
        return _JsonLines()
    console = Console(highlight=False)
    return _LiveTable(console, topic) if console.is_terminal else _PlainLines(console)


class _Unframed:
    """What needs nothing at the start or the end, and complains on standard error."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def complain(self, text: str) -> None:
        Console(stderr=True, highlight=False).print(text, style="dim", markup=False, soft_wrap=True)


class _JsonLines(_Unframed):
    def show(self, found: list[tuple[bytes, Recommendation]]) -> None:
        for value, _ in found:
            # Ours hold no line ends; somebody else's worker may write them for people.
            line = orjson.dumps(orjson.loads(value)) if b"\n" in value else value
            sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()


class _PlainLines(_Unframed):
    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, found: list[tuple[bytes, Recommendation]]) -> None:
        for _, one in found:
            cells = (_time(one), one.session_id, one.source, one.model_version or "no model", _items(one))
            self._console.print("  ".join(cells), markup=False, soft_wrap=True)
        sys.stdout.flush()


class _LiveTable:
    """The newest recommendations, as many as fit on the screen."""

    def __init__(self, console: Console, topic: str) -> None:
        self._console = console
        self._topic = topic
        self._rows: deque[Recommendation] = deque(maxlen=max(console.height - _TABLE_FRAME_LINES, 3))
        self._count = self._drawn_count = 0
        self._drawn_s = 0.0
        self._live = Live(self._table(), console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.update(self._table())  # what came since it was last drawn
        self._live.stop()

    def show(self, found: list[tuple[bytes, Recommendation]]) -> None:
        """Add what came at the bottom."""
        self._rows.extend(one for _, one in found)
        self._count += len(found)
        now_s = time.monotonic()
        if self._count > self._drawn_count and now_s - self._drawn_s >= REFRESH_S:
            self._drawn_count, self._drawn_s = self._count, now_s
            self._live.update(self._table(), refresh=True)

    def complain(self, text: str) -> None:
        """Print above the table."""
        self._live.console.print(text, style="dim", markup=False)

    def _table(self) -> Table:
        table = Table(
            expand=True,
            caption=f"{self._count:,} recommendations on {self._topic}; Ctrl-C ends",
            caption_justify="left",
        )
        for name, ratio in (("time", None), ("session", 2), ("source", None), ("model", None), ("items", 5)):
            table.add_column(name, ratio=ratio, no_wrap=True, overflow="ellipsis")
        for one in self._rows:
            source = Text(one.source, style="green" if one.source == "model" else "yellow")
            version = Text((one.model_version or "none")[-_VERSION_END:])
            table.add_row(_time(one), Text(one.session_id), source, version, Text(_items(one)))
        return table


def _time(one: Recommendation) -> str:
    """Local time of day at which it was made; a date that no calendar has shows as a number."""
    try:
        return f"{datetime.fromtimestamp(one.generated_at_ms / 1000):%H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return str(one.generated_at_ms)


def _items(one: Recommendation) -> str:
    pairs = zip(one.items[:ITEMS_SHOWN], one.scores, strict=False)
    more = len(one.items) - ITEMS_SHOWN
    shown = "  ".join(f"{item} {score:.2f}" for item, score in pairs)
    return f"{shown}  +{more}" if more > 0 else shown
