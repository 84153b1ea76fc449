"""Short seeded slices of `make chaos`."""

from pathlib import Path

import pytest

from tests.support.chaos_process import run_chaos

WRONG = ("lost", "duplicated", "different", "reordered")


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
