"""Every metric of the worker, with its type and meaning. The registry is passed in; counts come per batch."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from schemas.click import Reason
from schemas.recommendation import Source

LATENCY_BUCKETS_S = (
    0.001, 0.002, 0.004, 0.006, 0.008, 0.012, 0.016, 0.024, 0.032, 0.048, 0.064, 0.1, 0.2, 0.5, 1, 5, 30, 300,
)  # fmt: skip
STAGE_BUCKETS_S = (0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 10_000)

STAGES = ("decode", "advance", "publish", "commit")
SOURCES: tuple[Source, ...] = ("model", "popular")


class BatchHistogram(Collector):
    """A histogram that takes a whole batch of observations at once.

    `Histogram.observe` costs about a microsecond; once per click that would be a tenth of the worker's time.
    """

    def __init__(
        self, name: str, documentation: str, buckets: tuple[float, ...], registry: CollectorRegistry
    ):
        self._name = name
        self._documentation = documentation
        self._edges = np.array(buckets)
        self._counts = np.zeros(len(buckets) + 1, np.int64)
        self._sum = 0.0
        registry.register(self)

    def observe_many(self, values: NDArray[np.float64]) -> None:
        """Add observations: float64[n], in the unit that the metric's name says; negative ones count as 0.

        A latency is negative where another machine's clock is ahead; a sum that falls would look like a
        restart to Prometheus.
        """
        values = np.maximum(values, 0.0)
        places = np.searchsorted(self._edges, values, side="left")
        self._counts += np.bincount(places, minlength=len(self._counts))
        self._sum += float(values.sum())

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The histogram as Prometheus reads it: cumulative counts by upper bound."""
        bounds = [*(str(float(edge)) for edge in self._edges), "+Inf"]
        cumulative = np.cumsum(self._counts).astype(float).tolist()
        yield HistogramMetricFamily(
            self._name,
            self._documentation,
            buckets=list(zip(bounds, cumulative, strict=True)),
            sum_value=self._sum,
        )


class WorkerMetrics:
    """The metrics of one worker process; children with labels are made once, here."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.clicks = Counter("nextclick_clicks", "Good clicks applied to a session", registry=registry)
        recommendations = Counter(
            "nextclick_recommendations",
            "Recommendations published, by who chose",
            ["source"],
            registry=registry,
        )
        self.recommendations = {source: recommendations.labels(source) for source in SOURCES}
        dead_letters = Counter(
            "nextclick_dead_letters", "Records dead-lettered, by reason", ["reason"], registry=registry
        )
        self.dead_letters = {reason: dead_letters.labels(reason.value) for reason in Reason}
        self.late_clicks = Counter(
            "nextclick_late_clicks",
            "Clicks older than the latest of their session (applied)",
            registry=registry,
        )
        self.duplicate_clicks = Counter(
            "nextclick_duplicate_clicks",
            "Clicks whose event was among the last few of their session (neither applied nor answered)",
            registry=registry,
        )
        self.replayed_clicks = Counter(
            "nextclick_replayed_clicks",
            "Clicks that had been applied before (answered again)",
            registry=registry,
        )
        self.key_mismatches = Counter(
            "nextclick_key_mismatches",
            "Clicks whose record key is not their session id: their session may be on several workers",
            registry=registry,
        )
        self.lost_input_records = Counter(
            "nextclick_lost_input_records",
            "Records that were deleted before they were read",
            registry=registry,
        )
        self.aborted_batches = Counter(
            "nextclick_aborted_batches", "Batches undone because their transaction failed", registry=registry
        )
        self.changelog_records = Counter(
            "nextclick_changelog_records", "Session histories and ends written", registry=registry
        )
        self.restored_records = Counter(
            "nextclick_restored_records", "Changelog records applied to the table", registry=registry
        )
        self.corrupt_changelog_records = Counter(
            "nextclick_corrupt_changelog_records",
            "Changelog records that could not be read",
            registry=registry,
        )
        self.late_changelog_records = Counter(
            "nextclick_late_changelog_records",
            "At least once: changelog records of a worker that had lost its partition; not applied",
            registry=registry,
        )
        self.restoring = Gauge(
            "nextclick_restoring_partitions", "Assigned partitions not restored yet", registry=registry
        )
        self.restore_remaining = Gauge(
            "nextclick_restore_remaining_records",
            "Changelog offsets still to be read before these are restored",
            registry=registry,
        )
        self.refused_items = Counter(
            "nextclick_refused_items", "Clicks on new items that met a full item register", registry=registry
        )
        self.batch_clicks = Histogram(
            "nextclick_batch_clicks", "Records in a micro-batch", buckets=BATCH_BUCKETS, registry=registry
        )
        stage_seconds = Histogram(
            "nextclick_stage_seconds",
            "Seconds that a micro-batch spends in a stage",
            ["stage"],
            buckets=STAGE_BUCKETS_S,
            registry=registry,
        )
        self.stage_seconds = {stage: stage_seconds.labels(stage) for stage in STAGES}
        self.latency_seconds = BatchHistogram(
            "nextclick_click_to_recommendation_seconds",
            "From the timestamp of the click's record on the topic to handing over its recommendation",
            LATENCY_BUCKETS_S,
            registry,
        )
        self.sessions_live = Gauge("nextclick_sessions_live", "Sessions in the table", registry=registry)
        self.sessions_max = Gauge(
            "nextclick_sessions_max", "Sessions that the table can hold", registry=registry
        )
        self.sessions_evicted = Counter(
            "nextclick_sessions_evicted", "Sessions dropped because the table was full", registry=registry
        )
        self.sessions_expired = Counter(
            "nextclick_sessions_expired", "Sessions dropped because they were idle", registry=registry
        )
        self.sessions_reencoded = Counter(
            "nextclick_sessions_reencoded", "Hidden states recomputed from history", registry=registry
        )
        self.partitions = Gauge("nextclick_assigned_partitions", "Partitions assigned", registry=registry)
        self.consumer_lag = Gauge(
            "nextclick_consumer_lag", "Records not yet read, by partition", ["partition"], registry=registry
        )
        self.unacknowledged = Gauge(
            "nextclick_unacknowledged_records",
            "Outputs that the broker has not acknowledged",
            registry=registry,
        )
        self.turn_age_seconds = Gauge(
            "nextclick_turn_age_seconds",
            "Seconds since the worker's loop last turned; climbing means that it hangs",
            registry=registry,
        )
        self.model_info = Gauge(
            "nextclick_model_info",
            "1 for the model version that serves",
            ["model_version"],
            registry=registry,
        )
        self.model_swaps = Counter("nextclick_model_swaps", "Models taken up", registry=registry)
        self.model_refusals = Counter(
            "nextclick_model_refusals", "Announced models that were refused", registry=registry
        )
        judged_clicks = Counter(
            "nextclick_judged_clicks",
            "Clicks compared with what was last recommended to their session, by who chose that",
            ["source"],
            registry=registry,
        )
        hits = Counter("nextclick_hits", "Judged clicks on a recommended item", ["source"], registry=registry)
        reciprocal_ranks = Counter(
            "nextclick_reciprocal_ranks",
            "Sum of 1/rank over the judged clicks",
            ["source"],
            registry=registry,
        )
        self.judged_clicks = {source: judged_clicks.labels(source) for source in SOURCES}
        self.hits = {source: hits.labels(source) for source in SOURCES}
        self.reciprocal_ranks = {source: reciprocal_ranks.labels(source) for source in SOURCES}
