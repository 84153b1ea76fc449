"""The clicks of a chaos run have the properties that its comparison relies on."""

from collections import defaultdict
from itertools import islice

from schemas.click import Click, InvalidClickError, decode_click
from tests.chaos.plan import DECK, steps
from tests.chaos.workload import (
    GAP_MARGIN_MS,
    IDLE_TIMEOUT_MS,
    ITEMS,
    MAX_LATE_MS,
    MAX_VISIT_CLICKS,
    START_MS,
    Simulator,
)
from worker.shell.settings import WorkerSettings

RECORDS = 60_000


def clicks_and_bad() -> tuple[list[Click], int]:
    clicks, bad = [], 0
    for record in islice(Simulator(seed=5), RECORDS):
        try:
            click = decode_click(record.value, START_MS + 10**9)
        except InvalidClickError:
            assert record.event_id is None
            bad += 1
        else:
            assert (record.event_id, record.key) == (click.event_id, click.session_id)
            clicks.append(click)
    return clicks, bad


def visits(clicks: list[Click]) -> tuple[list[list[Click]], list[int]]:
    """Visits as the worker tells them apart, and all gaps between a session's clicks in ms."""
    of_session: dict[str, list[list[Click]]] = defaultdict(list)
    gaps_ms = []
    for click in clicks:
        own = of_session[click.session_id]
        if own:
            gap_ms = click.timestamp_ms - max(one.timestamp_ms for one in own[-1])
            gaps_ms.append(gap_ms)
        if not own or gap_ms > IDLE_TIMEOUT_MS:
            own.append([])
        own[-1].append(click)
    return [visit for own in of_session.values() for visit in own], gaps_ms


def test_the_clicks_are_what_the_comparison_relies_on() -> None:
    clicks, bad = clicks_and_bad()
    assert 100 < bad < 600
    assert len({click.event_id for click in clicks}) == len(clicks) == RECORDS - bad
    found, gaps_ms = visits(clicks)
    assert max(len(visit) for visit in found) <= MAX_VISIT_CLICKS < WorkerSettings().history_length
    assert all(visit[0].item_id in ITEMS for visit in found)
    assert any(click.item_id not in ITEMS for click in clicks)
    near_ms = GAP_MARGIN_MS - MAX_LATE_MS
    assert not [gap for gap in gaps_ms if abs(gap - IDLE_TIMEOUT_MS) < near_ms]
    assert sum(gap > IDLE_TIMEOUT_MS for gap in gaps_ms) > 100, "sessions come back after their timeout"
    assert sum(gap < 0 for gap in gaps_ms) > 5, "some clicks are late"


def test_event_time_hardly_runs_back() -> None:
    """So that a session ends by the watermark exactly where its next click finds it ended."""
    clicks, _ = clicks_and_bad()
    watermark_ms = 0
    for click in clicks:
        assert click.timestamp_ms > watermark_ms - MAX_LATE_MS
        watermark_ms = max(watermark_ms, click.timestamp_ms)


def test_a_seed_gives_the_same_run_and_another_one_another() -> None:
    assert list(islice(Simulator(7), 500)) == list(islice(Simulator(7), 500))
    assert list(islice(Simulator(7), 500)) != list(islice(Simulator(8), 500))
    assert list(islice(steps(7, 5.0), 50)) == list(islice(steps(7, 5.0), 50))
    assert list(islice(steps(7, 5.0), 50)) != list(islice(steps(8, 5.0), 50))


def test_twelve_rounds_hold_all_there_is() -> None:
    drawn = list(islice(steps(3, 5.0), 36))
    for start in (0, 12, 24):
        assert sorted(step.action for step in drawn[start : start + 12]) == sorted(DECK)
    assert all(step.frozen_s > 5.0 for step in drawn)
