"""Structured logs to standard error: for people on a terminal, JSON lines elsewhere. Nothing per click.

What a log line may hold is bounded here, for whoever logs: bytes are told by their size alone, long texts
lose their middle, tracebacks have no local variables (which would show payloads and passwords), and nothing
that is logged can make the logging itself fail.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from weakref import WeakSet

import orjson
import structlog

log = structlog.get_logger()

MAX_FIELD_CHARACTERS = 16_384
"""Of one text in a line: room for a traceback, or for one click that was asked for."""

MAX_TROUBLES = 100
"""Pairs of event and kind that a `TroubleLog` tells apart."""

OTHER_KIND = "other"
"""The kind under which a `TroubleLog` counts what comes beyond `MAX_TROUBLES`."""

_MAX_INTEGER = 2**63  # JSON readers, and orjson, go no further


def configure_logging() -> None:
    """Set structlog up for this process."""
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # The plain one: what structlog chooses for a terminal shows local variables.
        structlog.processors.format_exc_info,
        _bound_fields,
    ]
    if sys.stderr.isatty():
        renderer = structlog.dev.ConsoleRenderer(
            colors="NO_COLOR" not in os.environ, exception_formatter=structlog.dev.plain_traceback
        )
        structlog.configure(
            processors=[*shared, _escape_controls, renderer],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        )
    else:
        structlog.configure(
            processors=[*shared, structlog.processors.JSONRenderer(serializer=orjson.dumps)],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
        )


class TroubleLog:
    """Warnings about single records, at most one line per event and kind in each interval. One thread only.

    A topic full of bad records must not become a log full of lines: what is held back is counted, and the
    next line says how many, as `suppressed`. Of new kinds beyond `MAX_TROUBLES`, all go as `OTHER_KIND`, so
    that a kind taken from the outside does not grow the memory.
    """

    def __init__(self, interval_s: float = 1.0, now_s: Callable[[], float] = time.monotonic) -> None:
        """Nothing was logged yet.

        Args:
            interval_s: between two lines of one event and kind.
            now_s: a clock that never goes back, in seconds.
        """
        self._interval_s = interval_s
        self._now_s = now_s
        self._next_line_s: dict[tuple[str, str], float] = {}
        self._suppressed: dict[tuple[str, str], int] = {}
        _trouble_logs.add(self)

    def warning(self, event: str, kind: str, **fields: object) -> None:
        """Log one trouble, or only count it.

        Args:
            event: what happened, one of few words of ours, such as `dead_letter`.
            kind: the class of the trouble, such as its reason.
            fields: where, such as partition and offset; no payload.
        """
        trouble = (event, kind)
        if trouble not in self._next_line_s and len(self._next_line_s) >= MAX_TROUBLES:
            trouble = (event, OTHER_KIND)
        now_s = self._now_s()
        if now_s < self._next_line_s.get(trouble, now_s):
            self._suppressed[trouble] = self._suppressed.get(trouble, 0) + 1
            return
        self._next_line_s[trouble] = now_s + self._interval_s
        held_back = self._suppressed.pop(trouble, 0)
        more = {"suppressed": held_back} if held_back else {}
        log.warning(event, **{**fields, "kind": kind, **more})

    def tell_suppressed(self, *, due_only: bool = False) -> None:
        """Say what is held back and was not told yet: at the end of a process all of it, `due_only` what no
        further trouble has told since its interval is over. Any thread.
        """
        now_s = self._now_s()
        for trouble in list(self._suppressed):
            if due_only and now_s < self._next_line_s[trouble]:
                continue
            event, kind = trouble
            if count := self._suppressed.pop(trouble, 0):
                log.warning(event, kind=kind, suppressed=count)


_trouble_logs: WeakSet[TroubleLog] = WeakSet()


def tell_all_suppressed(*, due_only: bool = False) -> None:
    """`tell_suppressed` of every `TroubleLog` there is."""
    for trouble_log in list(_trouble_logs):
        trouble_log.tell_suppressed(due_only=due_only)


def _bound_fields(
    _: structlog.typing.WrappedLogger, __: str, fields: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """What is logged, as bounded plain values that can be written as JSON whatever they were."""
    return {name: _bounded(value) for name, value in fields.items()}


def _bounded(value: object) -> object:
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return int(value) if -_MAX_INTEGER <= value < _MAX_INTEGER else str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value):,} bytes>"
    if isinstance(value, Mapping):
        return {_text(key): _bounded(one) for key, one in value.items()}
    if isinstance(value, AbstractSet | list | tuple):
        return [_bounded(one) for one in value]
    return _text(value)


def _text(value: object) -> str:
    """At most `MAX_FIELD_CHARACTERS` of it and a remark; no halves of characters, which JSON cannot hold."""
    text = value if isinstance(value, str) else str(value)
    if (surplus := len(text) - MAX_FIELD_CHARACTERS) > 0:
        half = MAX_FIELD_CHARACTERS // 2
        text = f"{text[:half]}… {surplus:,} characters left out …{text[-half:]}"
    return text.encode("utf-8", "backslashreplace").decode()


def _escape_controls(
    _: structlog.typing.WrappedLogger, __: str, fields: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Texts without what a terminal would obey, such as colours and movements of the cursor."""
    return {name: _shown(value) if isinstance(value, str) else value for name, value in fields.items()}


def _shown(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one in "\n\t" else one.encode("unicode_escape").decode() for one in text
    )
