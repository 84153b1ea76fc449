"""Short seeded slices of `make chaos`, and the proof that it can fail: workers that are broken on purpose."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

ROOT = Path(__file__).parents[2]
KILLS_ONLY = "456"
"""The first five rounds of this seed are kills."""

WRONG = ("lost", "duplicated", "different", "reordered")


def run_chaos(evidence: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, the JSON line and everything else that it said."""
    command = [sys.executable, "-m", "tests.chaos.run", "--evidence", str(evidence), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    lines = done.stdout.splitlines()
    assert lines, f"no report; exit code {done.returncode}:\n{done.stderr[-8_000:]}"
    return done.returncode, orjson.loads(lines[-1]), done.stderr


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("guarantee", "rounds", "seed"), [("exactly_once", 12, 4), ("at_least_once", 6, 3)])
def test_chaos_changes_nothing_that_a_reader_sees(
    tmp_path: Path, guarantee: str, rounds: int, seed: int
) -> None:
    code, report, said = run_chaos(
        tmp_path, "--guarantee", guarantee, "--rounds", str(rounds), "--seed", str(seed)
    )
    assert {kind: report[kind] for kind in WRONG} == dict.fromkeys(WRONG, 0), said
    assert code == 0
    assert report["rounds"] == rounds
    assert report["kills"] > 0
    assert report["broker_restarts"] > 0
    assert report["zombies"] > 0
    assert report["rebalances"] > 0
    assert report["clicks"] > 2_000
    assert report["live_sessions"] > 50
    assert report["dead_letters"] > 10


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("sabotage", "seen"), [("offsets-first", "lost"), ("skip-restore", "different")])
def test_a_worker_that_is_broken_on_purpose_is_found_out(tmp_path: Path, sabotage: str, seen: str) -> None:
    code, report, said = run_chaos(
        tmp_path, "--sabotage", sabotage, "--rounds", "5", "--seed", KILLS_ONLY, "--workers", "1"
    )
    assert code == 1
    assert report[seen] > 0, said
    assert f"{seen}: " in said
    assert str(tmp_path) in said, "where the logs are"
