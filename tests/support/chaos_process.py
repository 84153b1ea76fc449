"""`make chaos`, run to its end by a test."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson

ROOT = Path(__file__).parents[2]


def run_chaos(evidence: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, the JSON line and everything else that it said."""
    command = [sys.executable, "-m", "tests.chaos.run", "--evidence", str(evidence), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    lines = done.stdout.splitlines()
    assert lines, f"no report; exit code {done.returncode}:\n{done.stderr[-8_000:]}"
    return done.returncode, orjson.loads(lines[-1]), done.stderr
