"""The soak's verdict, on made-up samples: a flat run passes, each kind of trouble is told."""

from itertools import islice

import pytest

from tests.soak.observe import resident_mb, sums_by_sample
from tests.soak.produce import CLICKS_PER_SESSION, sessions_and_items
from tests.soak.verdict import Sample, judge

RATE = 100.0
WARM_UP_S = 50.0


def run(
    rss_mb_per_s: float = 0.0, lag: float = 10.0, lag_at_500_s: float = 10.0, expiring: float = 1.0
) -> list[Sample]:
    """A run of 1,000 s that uses 500 MB and grows all the time, sampled each 5 s; busy while it warms up."""
    return [
        Sample(
            at_s=at_s,
            rss_mb=500 + rss_mb_per_s * at_s - 200 * (at_s < WARM_UP_S),
            lag=50_000 if at_s < WARM_UP_S else lag_at_500_s if at_s == 500 else lag,
            sessions_live=1_000,
            sessions_expired=expiring * at_s,
            sessions_evicted=0,
            answered=at_s * RATE,
        )
        for at_s in range(0, 1_001, 5)
    ]


def test_a_flat_run_passes_whatever_the_warm_up_was() -> None:
    figures, problems = judge(run(), WARM_UP_S, RATE)
    assert problems == []
    assert figures["clicks_per_s"] == RATE
    assert (figures["rss_min_mb"], figures["rss_max_mb"], figures["rss_spread"]) == (500, 500, 0)
    assert (figures["lag_p50"], figures["lag_max"], figures["sessions_expired"]) == (10, 10, 1_000)


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (run(rss_mb_per_s=0.05), "memory strayed 4."),
        (run(rss_mb_per_s=-0.05), "memory strayed"),
        (run(lag=250.0), "lag of 250 clicks at p99"),
        (run(lag_at_500_s=1_001.0), "lag of 1001 clicks is over"),
        (run(expiring=0.0), "no session expired"),
        (run()[:12], "run longer"),
    ],
)
def test_each_trouble_is_told(samples: list[Sample], said: str) -> None:
    _, [problem] = judge(samples, WARM_UP_S, RATE)
    assert said in problem


def test_a_little_growth_and_one_short_pause_are_allowed() -> None:
    assert judge(run(rss_mb_per_s=0.02, lag_at_500_s=900.0), WARM_UP_S, RATE)[1] == []


def test_sessions_churn() -> None:
    draws = list(islice(sessions_and_items(slots=50, seed=0), 60_000))
    sessions = {session for session, _ in draws}
    assert len(draws) / len(sessions) == pytest.approx(CLICKS_PER_SESSION, rel=0.05)
    assert len({session for session, _ in draws[-5_000:]} & {session for session, _ in draws[:5_000]}) == 0


def test_what_is_observed_of_a_process() -> None:
    held = bytearray(b"x" * 50_000_000)
    with_it = resident_mb()
    del held
    assert with_it - resident_mb() == pytest.approx(50, abs=5)
    assert sums_by_sample('# TYPE a counter\na_total{p="0"} 2\na_total{p="1"} 3\n') == {"a_total": 5}
