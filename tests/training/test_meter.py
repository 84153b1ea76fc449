"""When a training is stopped because its loss makes no sense any more, and when not yet."""

import math

import pytest

from training.checkpoint import Position
from training.errors import DivergedError
from training.meter import JUDGED_AT_LEAST, REPORT_EVERY_STEPS, FitProgress, Meter

ITEMS = 100
HIGH = 10 * math.log(ITEMS)


def new_meter(events_total: int = 10**9) -> tuple[Meter, list[FitProgress]]:
    reports: list[FitProgress] = []
    return Meter(Position(), 1, events_total, ITEMS, reports.append), reports


def test_a_few_bad_steps_of_a_few_clicks_are_no_divergence() -> None:
    meter, reports = new_meter()
    for loss in [1.0] * (JUDGED_AT_LEAST // 2) + [HIGH] * 2 * REPORT_EVERY_STEPS:
        meter.add(loss, 1)
    meter.check()
    assert reports[-1].loss == pytest.approx(HIGH), "the report tells it all the same"


def test_a_loss_that_stays_high_is_divergence() -> None:
    meter, _ = new_meter()
    meter.add(1.0, 1)
    for _ in range(REPORT_EVERY_STEPS - 2):
        meter.add(HIGH, JUDGED_AT_LEAST)
    with pytest.raises(DivergedError, match="it began with 1: lower the learning rate"):
        meter.add(HIGH, JUDGED_AT_LEAST)


def test_what_is_no_number_is_seen_at_the_next_look() -> None:
    meter, _ = new_meter()
    meter.add(1.0, 1)
    meter.add(math.nan, 1)
    with pytest.raises(DivergedError, match="the loss is nan"):
        meter.check()


def test_the_end_of_a_short_training_is_judged_whatever_it_was() -> None:
    meter, _ = new_meter(events_total=4)
    meter.add(1.0, 1)
    with pytest.raises(DivergedError, match="it began with 1"):
        meter.add(HIGH, 3)
