"""Logs: JSON lines for machines, readable lines for people, nothing on standard output."""

import json
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime, timedelta

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


def test_readable_lines_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "NO_COLOR": "1"},
        check=True,
    )
    os.close(theirs)
    shown = os.read(ours, 65_536).decode()
    os.close(ours)
    assert done.stdout == b""
    assert "model_version=m1" in shown  # and no colour codes around the sign
    assert "too_fine" not in shown
    assert '{"' not in shown
