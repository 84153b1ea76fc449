"""What is looked up every second instead of being counted as it happens."""

from collections.abc import Set as AbstractSet

from prometheus_client import Counter

from worker.core.advance import Recommender
from worker.shell.changelog import ChangelogReader
from worker.shell.metrics import WorkerMetrics
from worker.shell.restoring import PartitionRestorer
from worker.shell.sink import Sink
from worker.shell.source import Source


class Gauges:
    """Brings the metrics up to date with what is so now. One thread only, that of the worker."""

    def __init__(
        self,
        metrics: WorkerMetrics,
        recommender: Recommender,
        source: Source,
        sink: Sink,
        restorer: PartitionRestorer,
        changelog: ChangelogReader,
    ) -> None:
        self._metrics = metrics
        self._recommender = recommender
        self._source, self._sink = source, sink
        self._restorer, self._changelog = restorer, changelog
        self._counted: dict[Counter, int] = {}
        self._shown_partitions: set[int] = set()

    def refresh(self) -> None:
        """Look everything up; asks no broker."""
        metrics, table = self._metrics, self._recommender.table
        metrics.sessions_live.set(len(table))
        metrics.partitions.set(len(self._source.assigned))
        metrics.unacknowledged.set(len(self._sink))
        metrics.restoring.set(len(self._restorer.restoring))
        done, total = self._changelog.progress()
        metrics.restore_remaining.set(total - done)
        lags = self._source.lag()
        for partition, lag in lags.items():
            metrics.consumer_lag.labels(str(partition)).set(lag)
        self._shown_partitions |= lags.keys()
        for counter, so_far in (
            (metrics.late_clicks, table.counts.late_clicks),
            (metrics.sessions_evicted, table.counts.evicted),
            (metrics.sessions_expired, table.counts.expired),
            (metrics.duplicate_clicks, table.counts.duplicates),
            (metrics.replayed_clicks, table.counts.replayed),
            (metrics.sessions_reencoded, self._recommender.reencoded),
            (metrics.refused_items, self._recommender.register.refused),
        ):
            counter.inc(so_far - self._counted.get(counter, 0))
            self._counted[counter] = so_far

    def forget_partitions(self, partitions: AbstractSet[int]) -> None:
        """Show nothing of these any more: a gauge of a partition that left would stand still for ever."""
        for partition in partitions & self._shown_partitions:
            self._metrics.consumer_lag.remove(str(partition))
        self._shown_partitions -= partitions
