"""The worker's metrics: the batch histogram equals prometheus_client's own, all are named and explained."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from schemas.click import Reason
from worker.shell.metrics import BATCH_BUCKETS, LATENCY_BUCKETS_S, BatchHistogram, WorkerMetrics

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]

# On the edges, too: a bucket counts what is equal to its upper bound.
seconds = st.sampled_from(LATENCY_BUCKETS_S) | st.floats(0, 1_000)


def series(registry: CollectorRegistry) -> Series:
    """All values by sample name and labels, as Prometheus reads them; without the times of creation."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@given(st.lists(st.lists(seconds, max_size=20), max_size=5))
def test_the_batch_histogram_equals_the_one_of_prometheus_client(batches: list[list[float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    in_batches = BatchHistogram("x_seconds", "Some time", LATENCY_BUCKETS_S, ours)
    one_by_one = Histogram("x_seconds", "Some time", buckets=LATENCY_BUCKETS_S, registry=theirs)
    for batch in batches:
        in_batches.observe_many(np.array(batch, np.float64))
        for value in batch:
            one_by_one.observe(value)
    assert series(ours) == pytest.approx(series(theirs), rel=1e-12)
    assert series(ours)["x_seconds_count", ()] == sum(len(batch) for batch in batches)


def test_a_clock_that_is_ahead_never_makes_the_sum_fall() -> None:
    registry = CollectorRegistry()
    histogram = BatchHistogram("x_seconds", "Some time", LATENCY_BUCKETS_S, registry)
    histogram.observe_many(np.array([0.5, -3_600.0]))
    found = series(registry)
    assert found["x_seconds_sum", ()] == 0.5
    assert found["x_seconds_bucket", (("le", "0.001"),)] == 1
    assert found["x_seconds_count", ()] == 2


def test_every_metric_is_ours_by_name_and_says_what_it_means() -> None:
    registry = CollectorRegistry()
    WorkerMetrics(registry)
    families = list(registry.collect())
    assert len(families) >= 20
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert family.name.startswith("nextclick_")
        assert len(family.documentation.split()) >= 2, family.name


def test_labels_that_are_known_beforehand_stand_at_zero_from_the_start() -> None:
    """A counter that appears with its first count shows no increase: the first would be missed."""
    registry = CollectorRegistry()
    WorkerMetrics(registry)
    found = series(registry)
    for reason in Reason:
        assert found["nextclick_dead_letters_total", (("reason", reason.value),)] == 0
    for source in ("model", "popular"):
        for name in ("recommendations", "judged_clicks", "hits", "reciprocal_ranks"):
            assert found[f"nextclick_{name}_total", (("source", source),)] == 0
    for stage in ("decode", "advance", "publish"):
        assert found["nextclick_stage_seconds_count", (("stage", stage),)] == 0


def test_counts_go_to_the_label_that_they_belong_to() -> None:
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry)
    metrics.recommendations["model"].inc(3)
    metrics.dead_letters[Reason.OVERSIZED].inc()
    metrics.hits["popular"].inc(2)
    metrics.latency_seconds.observe_many(np.array([0.003, 0.05]))
    changed = {key: value for key, value in series(registry).items() if value and "bucket" not in key[0]}
    assert changed == {
        ("nextclick_recommendations_total", (("source", "model"),)): 3,
        ("nextclick_dead_letters_total", (("reason", "oversized"),)): 1,
        ("nextclick_hits_total", (("source", "popular"),)): 2,
        ("nextclick_click_to_recommendation_seconds_count", ()): 2,
        ("nextclick_click_to_recommendation_seconds_sum", ()): pytest.approx(0.053),
    }


def test_the_buckets_rise() -> None:
    for buckets in (LATENCY_BUCKETS_S, BATCH_BUCKETS):
        assert list(buckets) == sorted(set(buckets))
