"""Sending a file of clicks: what is read, at which pace, with which timestamps, and what is told about it."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from rich.console import Console

from deploy.click_file import (
    STANDARD_INPUT,
    BadLine,
    OutgoingClick,
    is_lines,
    log_clicks,
    opened,
    read_lines,
    restamped,
)
from deploy.click_pace import Pace
from deploy.click_sender import ClickSender, SendError
from deploy.sending_progress import shown_sending
from deploy.settings import UsageError
from deploy.stop_signals import Stopped, stop_signals

if TYPE_CHECKING:  # needs polars; imported where a log in columns is read
    from training.log_times import TimestampUnit

FLUSH_S = 10.0
MAX_BAD_LINES_SHOWN = 5


class ProduceError(Exception):
    """Not all of the file is on the topic; the message says how much is, and why not more."""


@dataclass(frozen=True)
class ProduceOptions:
    """What was asked for; see `deploy.commands.produce`.

    Raises:
        UsageError: options contradict each other or the kind of file.
    """

    file: str
    rate: float | None = None
    speed: float | None = None
    now: bool = False
    raw: bool = False
    columns: str | None = None
    timestamp_unit: "TimestampUnit" = "auto"

    def __post_init__(self) -> None:
        if self.rate is not None and self.speed is not None:
            raise UsageError("say --rate or --speed, not both")
        if self.raw and (self.now or self.speed is not None):
            raise UsageError("--raw does not look into the lines: --now and --speed do not go with it")
        if self.raw and not is_lines(self.file):
            raise UsageError("--raw goes with JSON lines, not with a log in columns")
        if is_lines(self.file) and (self.columns is not None or self.timestamp_unit != "auto"):
            raise UsageError("--columns and --timestamp-unit go with a log in columns, not with JSON lines")
        if self.file == STANDARD_INPUT and self.now and not self.is_paced:
            raise UsageError("--now has to know the last click: give a file, or a pace (--rate, --speed)")

    @property
    def is_paced(self) -> bool:
        """Whether clicks have times at which they are due."""
        return self.rate is not None or self.speed is not None


class _Source(NamedTuple):
    """Clicks to come, how many (None: not known), and how many were left out already."""

    clicks: Iterator[OutgoingClick | BadLine]
    total: int | None
    left_out: int


def run_produce(options: ProduceOptions, client_config: Mapping[str, str], topic: str) -> None:
    """Send it all; the summary goes to standard output, progress and complaints to standard error.

    Raises:
        ProduceError: records were not taken, or lines were no clicks.
        TopicError: no broker answers, or the topic does not exist.
        UnreadableClicksError, TrainingError: the file cannot be read.
        Stopped: Ctrl-C or SIGTERM came; what was read has been sent.
    """
    console = Console(stderr=True, highlight=False)
    with stop_signals(), _open_source(options, console) as source:
        run = _Run(ClickSender(client_config, topic), options, console)
        started_s = time.monotonic()
        try:
            with shown_sending(console, source.total) as show:
                run.send_all(source, show)
            run.sender.finish(FLUSH_S)
        except Stopped:
            run.sender.finish(FLUSH_S)
            _sum_up(run.sender, topic, started_s)
            raise
        except SendError as error:
            run.finish_failed()
            raise ProduceError(
                f"{run.sender.delivered:,} clicks are on {topic}, {run.sender.failed:,} failed: {error}"
            ) from None
    _sum_up(run.sender, topic, started_s)
    if left_out := source.left_out + run.bad_lines:
        hint = "; --raw sends lines as they are" if is_lines(options.file) else ""
        raise ProduceError(f"left out of {options.file}, as no clicks: {left_out:,} records{hint}")


class _Run:
    """The loop over the clicks of one file."""

    def __init__(self, sender: ClickSender, options: ProduceOptions, console: Console) -> None:
        self.sender = sender
        self.bad_lines = 0
        self._options = options
        self._console = console

    def send_all(self, source: _Source, show: Callable[[int], None]) -> None:
        """Send click after click when it is due. Raises SendError."""
        options, sender = self._options, self.sender
        pace = Pace(options.rate, options.speed)
        started_s = time.monotonic()
        for click in source.clicks:
            if isinstance(click, BadLine):
                self._complain(click)
                continue
            wait_s = started_s + pace.due_s(click.timestamp_ms) - time.monotonic()
            if wait_s > 0:
                sender.wait(wait_s)
            ready = restamped(click, _now_ms()) if options.now and options.is_paced else click
            sender.send(ready.session_id, ready.value)
            show(sender.sent)

    def finish_failed(self) -> None:
        """Give what is under way its chance, so that the counts are right."""
        try:
            self.sender.finish(FLUSH_S)
        except SendError:
            return  # known already

    def _complain(self, bad: BadLine) -> None:
        self.bad_lines += 1
        if self.bad_lines <= MAX_BAD_LINES_SHOWN:
            self._console.print(f"line {bad.number}: {bad.reason}", markup=False, soft_wrap=True)
        elif self.bad_lines == MAX_BAD_LINES_SHOWN + 1:
            self._console.print("… further ones are only counted")


@contextmanager
def _open_source(options: ProduceOptions, console: Console) -> Iterator[_Source]:
    if not is_lines(options.file):
        yield _log_source(options, console)
        return
    shift_ms = 0
    if options.now and not options.is_paced:
        shift_ms = _now_ms() - _last_timestamp_ms(options.file)
    if options.file == STANDARD_INPUT and sys.stdin.isatty():
        console.print("Type clicks, one JSON object a line; Ctrl-D ends.")
    with opened(options.file) as stream:
        lines = read_lines(stream, _now_ms, raw=options.raw)
        yield _Source(_shifted(lines, shift_ms) if shift_ms else lines, None, 0)


def _log_source(options: ProduceOptions, console: Console) -> _Source:
    from pathlib import Path

    from training.log_file import parse_columns, read_click_log

    try:
        columns = None if options.columns is None else parse_columns(options.columns)
    except ValueError as error:
        raise UsageError(f"--columns: {error}") from None
    loaded = read_click_log(Path(options.file), _now_ms(), columns, options.timestamp_unit)
    for remark in loaded.remarks:
        console.print(remark, markup=False)
    for reason, count in sorted(loaded.skipped.items()):
        console.print(f"left out: {count:,} records with a bad {reason}", markup=False)
    clicks = log_clicks(loaded.clicks, loaded.file_sha256 or "")
    if options.now and not options.is_paced:
        clicks_now = _shifted(clicks, _now_ms() - int(np.max(loaded.clicks.timestamp_ms)))
        return _Source(clicks_now, len(loaded.clicks), sum(loaded.skipped.values()))
    return _Source(iter(clicks), len(loaded.clicks), sum(loaded.skipped.values()))


def _last_timestamp_ms(file: str) -> int:
    """Event time of the newest click of a file of JSON lines, by reading it once; 0 where it has none."""
    with opened(file) as stream:
        clicks = read_lines(stream, _now_ms)
        times = (click.timestamp_ms for click in clicks if isinstance(click, OutgoingClick))
        return max((time_ms for time_ms in times if time_ms is not None), default=0)


def _shifted(
    clicks: Iterator[OutgoingClick] | Iterator[OutgoingClick | BadLine], shift_ms: int
) -> Iterator[OutgoingClick | BadLine]:
    for click in clicks:
        if isinstance(click, OutgoingClick) and click.timestamp_ms is not None:
            yield restamped(click, click.timestamp_ms + shift_ms)
        else:
            yield click


def _sum_up(sender: ClickSender, topic: str, started_s: float) -> None:
    seconds = time.monotonic() - started_s
    rate = sender.delivered / max(seconds, 1e-3)
    print(f"sent {sender.delivered:,} clicks to {topic} in {seconds:.1f} s ({rate:,.0f}/s)")  # noqa: T201


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
