"""Workers that are broken on purpose: `make chaos` finds out."""

from pathlib import Path

import pytest

from tests.support.chaos_process import run_chaos

KILLS_ONLY = "456"
"""The first five rounds of this seed are kills."""


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
