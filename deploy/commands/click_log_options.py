"""The options of `nextclick train` and `nextclick evaluate` that say which clicks, and which to hold out."""

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from deploy.settings import Connection, UsageError

if TYPE_CHECKING:  # imported where it is used, so that `--help` stays quick
    from training.click_log import LoadedLog
    from training.progress import Report
    from training.sessions import SplitRule

_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ClickLogOptions:
    """Which clicks are read, and which of them test the model."""

    topic: Annotated[bool, Parameter(negative=())] = False
    """Replay the clicks topic (--clicks-topic) instead of reading a file."""

    from_time: str | None = None
    """With --topic: only records that the broker took at this time or later. ISO 8601 (UTC where it names no
    zone) or milliseconds since the epoch."""

    to_time: str | None = None
    """With --topic: only records that the broker took before this time."""

    offsets: str | None = None
    """With --topic: only these offsets, as 0:100-2000,1:0-500 (partition, first, after the last)."""

    columns: str | None = None
    """Names of a file's columns, as session_id=sid,item_id=product,timestamp=ts."""

    timestamp_unit: Literal["auto", "s", "ms", "order"] = "auto"
    """Of a file: seconds or milliseconds since the epoch, or numbers that only order the clicks."""

    test_sessions: Path | None = None
    """File with the ids of the sessions to hold out, one a line."""

    test_last: str | None = None
    """Hold out the sessions whose last click lies in the last 30m, 12h, 1d, 1w, … of the log. Without
    either: the tenth of the sessions that ended last."""

    def rule(self) -> "SplitRule":
        """How the log is split.

        Raises:
            UsageError: the options contradict each other, or a duration is none.
            UnreadableLogError: the list of test sessions cannot be read.
        """
        from training.log_file import read_test_sessions
        from training.sessions import TestLast, TestSessions, TestShare

        if self.test_sessions is not None and self.test_last is not None:
            raise UsageError("say --test-sessions or --test-last, not both")
        if self.test_sessions is not None:
            return TestSessions(read_test_sessions(self.test_sessions))
        return TestShare() if self.test_last is None else TestLast(duration_ms(self.test_last))

    def load(self, file: Path | None, connection: Connection, report: "Report") -> "LoadedLog":
        """Read the clicks.

        Raises:
            UsageError: the options contradict each other.
            TrainingError: the clicks cannot be read.
        """
        if (file is None) != self.topic:
            raise UsageError("say which clicks: a FILE, or --topic for the clicks topic (and not both)")
        return self._replay(connection, report) if file is None else self._read(file, report)

    def _read(self, file: Path, report: "Report") -> "LoadedLog":
        from training.log_file import parse_columns, read_click_log

        for name in ("from_time", "to_time", "offsets"):
            if getattr(self, name) is not None:
                raise UsageError(f"--{name.replace('_', '-')} goes with --topic")
        try:
            columns = None if self.columns is None else parse_columns(self.columns)
        except ValueError as error:
            raise UsageError(f"--columns: {error}") from None
        return read_click_log(file, _now_ms(), columns, self.timestamp_unit, report)

    def _replay(self, connection: Connection, report: "Report") -> "LoadedLog":
        from training.replay import ReplayRange, parse_offsets, replay

        if self.columns is not None or self.timestamp_unit != "auto":
            raise UsageError("--columns and --timestamp-unit go with a file")
        try:
            offsets = None if self.offsets is None else parse_offsets(self.offsets)
        except ValueError as error:
            raise UsageError(f"--offsets: {error}") from None
        wanted = ReplayRange(
            offsets,
            None if self.from_time is None else instant_ms(self.from_time),
            None if self.to_time is None else instant_ms(self.to_time),
        )
        return replay(connection.client_config(), connection.clicks_topic, wanted, _now_ms(), report)


def duration_ms(text: str) -> int:
    """Milliseconds of `90s`, `30m`, `12h`, `1.5d` or `1w`.

    Raises:
        UsageError: it is none of these, or zero.
    """
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw])", text.strip())
    length_ms = round(float(found[1]) * _UNITS_MS[found[2]]) if found else 0
    if not length_ms:
        raise UsageError(f"{text!r} is no duration: say 90s, 30m, 12h, 1d or 1w")
    return length_ms


def instant_ms(text: str) -> int:
    """Milliseconds since the epoch, from those or from ISO 8601; UTC where that names no zone.

    Raises:
        UsageError: it is neither.
    """
    if text.isdecimal() and len(text) > len("20260102"):  # as short a number is a date without dashes
        return int(text)
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no time: say 2026-01-02T03:04:05 or milliseconds") from None
    return round((instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp() * 1000)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
