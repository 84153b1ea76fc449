"""Logs: JSON lines for machines, readable lines for people, nothing on standard output."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from worker.shell.log import MAX_FIELD_CHARACTERS, MAX_TROUBLES, OTHER_KIND, TroubleLog, tell_all_suppressed

PROGRAM = """
import structlog
from worker.shell.log import configure_logging
log = structlog.get_logger()  # made before the set-up, as modules do
configure_logging()
log.debug("too_fine")
log.info("model_serves", model_version="m1", sessions=3)
log.warning("commit_failed", error='said "no"\\nand left', partitions=[1, 2])
"""


def test_json_lines_where_there_is_no_terminal() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    assert done.stdout == b""
    info, warning = (json.loads(line) for line in done.stderr.decode().splitlines())
    at = datetime.fromisoformat(info.pop("timestamp"))
    assert abs(datetime.now(UTC) - at) < timedelta(minutes=1)
    del warning["timestamp"]
    assert info == {"level": "info", "event": "model_serves", "model_version": "m1", "sessions": 3}
    assert warning == {
        "level": "warning",
        "event": "commit_failed",
        "error": 'said "no"\nand left',
        "partitions": [1, 2],
    }


def on_a_terminal(program: str) -> str:
    """What the program logs where standard error is a terminal; standard output must stay empty."""
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "NO_COLOR": "1"},
        check=True,
    )
    os.close(theirs)
    shown = os.read(ours, 65_536).decode()
    os.close(ours)
    assert done.stdout == b""
    return shown


def as_json_lines(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return done.stderr.decode()


def test_readable_lines_on_a_terminal() -> None:
    shown = on_a_terminal(PROGRAM)
    assert "model_version=m1" in shown  # and no colour codes around the sign
    assert "too_fine" not in shown
    assert '{"' not in shown


FAULT = """
import structlog
from worker.shell.log import configure_logging
configure_logging()
def connect(password, payload):
    text = password * 1
    raise ValueError("no \\x1b[31mway")
try:
    connect("hun" + "ter2", b"click of " + b"somebody")
except ValueError:
    structlog.get_logger().exception("fault")
"""


@pytest.mark.parametrize("render", [on_a_terminal, as_json_lines])
def test_a_traceback_is_told_without_local_variables(render: Callable[[str], str]) -> None:
    shown = render(FAULT)
    assert "line 7, in connect" in shown
    assert "ValueError: no " in shown
    assert "hunter2" not in shown
    assert "click of somebody" not in shown
    assert "\x1b" not in shown


HOSTILE = """
import structlog
from pathlib import Path
from worker.shell.log import configure_logging
configure_logging()
log = structlog.get_logger()
log.info("odd", value=b"secret click", nested={1: [b"secret", {"k": bytearray(9)}], "path": Path("a/b")},
         half="\\ud800", huge=2**64, clear="\\x1b[2Jgone", set={3}, nan=float("nan"), none=None, yes=True)
"""
LONG = HOSTILE + 'log.info("long", text="a" * 10_000_000 + "z")'


def test_what_is_logged_is_bounded_and_never_makes_logging_fail() -> None:
    odd, long = (json.loads(line) for line in as_json_lines(LONG).splitlines())
    assert odd["value"] == "<12 bytes>"
    assert odd["nested"] == {"1": ["<6 bytes>", {"k": "<9 bytes>"}], "path": "a/b"}
    assert odd["half"] == "\\ud800"
    assert odd["huge"] == str(2**64)
    assert (odd["set"], odd["nan"], odd["none"], odd["yes"]) == ([3], None, None, True)
    assert len(long["text"]) < MAX_FIELD_CHARACTERS + 100
    assert "9,983,617 characters left out" in long["text"]
    assert long["text"].endswith("z")


def test_nothing_that_is_logged_moves_the_cursor_of_a_terminal() -> None:
    shown = on_a_terminal(HOSTILE)
    assert "\x1b" not in shown
    assert "x1b[2Jgone" in shown
    assert "secret" not in shown


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


def test_of_one_trouble_one_line_an_interval_and_the_next_says_how_many_were_held_back() -> None:
    clock = Clock()
    trouble = TroubleLog(interval_s=1.0, now_s=clock)
    with capture_logs() as lines:
        for offset in range(5):
            trouble.warning("dead_letter", "malformed", partition=1, offset=offset)
        trouble.warning("dead_letter", "invalid", offset=5)  # another kind has a line of its own
        trouble.warning("late_click", "malformed", offset=6)  # and so has another event
        clock.s += 0.999
        trouble.warning("dead_letter", "malformed", offset=7)
        clock.s += 0.001
        trouble.warning("dead_letter", "malformed", offset=8)
        trouble.warning("dead_letter", "invalid", offset=9)
    level = {"log_level": "warning"}
    assert lines == [
        {"event": "dead_letter", "kind": "malformed", "partition": 1, "offset": 0, **level},
        {"event": "dead_letter", "kind": "invalid", "offset": 5, **level},
        {"event": "late_click", "kind": "malformed", "offset": 6, **level},
        {"event": "dead_letter", "kind": "malformed", "offset": 8, "suppressed": 5, **level},
        {"event": "dead_letter", "kind": "invalid", "offset": 9, **level},
    ]


def test_what_is_held_back_at_the_end_can_be_told_once() -> None:
    trouble = TroubleLog(now_s=Clock())
    with capture_logs() as lines:
        for _ in range(4):
            trouble.warning("dead_letter", "invalid")
        trouble.tell_suppressed()
        trouble.tell_suppressed()
    assert [(line["kind"], line.get("suppressed")) for line in lines] == [("invalid", None), ("invalid", 3)]


def test_what_is_held_back_is_told_once_its_interval_is_over_and_nothing_follows() -> None:
    clock = Clock()
    trouble = TroubleLog(now_s=clock)
    with capture_logs() as lines:
        for _ in range(4):
            trouble.warning("dead_letter", "invalid")
        tell_all_suppressed(due_only=True)
        assert len(lines) == 1
        clock.s += 1
        tell_all_suppressed(due_only=True)
        tell_all_suppressed(due_only=True)
    assert [line.get("suppressed") for line in lines] == [None, 3]


def test_kinds_without_end_neither_fill_the_log_nor_the_memory() -> None:
    clock = Clock()
    trouble = TroubleLog(now_s=clock)
    with capture_logs() as lines:
        for number in range(1_000):
            trouble.warning("dead_letter", f"kind-{number}")
        assert len(lines) == MAX_TROUBLES + 1
        clock.s += 1
        trouble.warning("dead_letter", "kind-0")
        trouble.warning("dead_letter", "kind-1000")
        trouble.warning("dead_letter", "kind-1001")
        trouble.tell_suppressed()
    assert [(line["kind"], line.get("suppressed")) for line in lines[MAX_TROUBLES:]] == [
        (f"kind-{MAX_TROUBLES}", None),
        ("kind-0", None),
        ("kind-1000", 1_000 - MAX_TROUBLES - 1),
        (OTHER_KIND, 1),
    ]


def test_a_field_cannot_take_the_place_of_the_kind() -> None:
    with capture_logs() as lines:
        TroubleLog(now_s=Clock()).warning("dead_letter", "invalid", suppressed=7, level="x")
    assert lines[0]["kind"] == "invalid"
