"""The path of a click, whole: record → decode and check → advance → encode → recommendations, changelog."""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from time import perf_counter

import numpy as np
from confluent_kafka import Message

from schemas.click import Click, InvalidClickError, decode_click
from schemas.recommendation import cloudevents_headers, encode_recommendation
from schemas.session_history import (
    FORMAT_VERSION,
    SessionHistory,
    encode_session_history,
    event_hash,
    tombstone_headers,
)
from schemas.topics import TopicNames
from worker.core.advance import Advanced, Answer, Batch, Recommender, SessionChange
from worker.shell.dead_letters import BadRecord, DeadLetters
from worker.shell.failures import BatchAborted
from worker.shell.metrics import SOURCES, WorkerMetrics
from worker.shell.records import offset_of, partition_of, traceparent_of
from worker.shell.sink import Sink


class Handler:
    """Takes micro-batches of records through the core to the sink. One thread only.

    Args:
        recommender: the core.
        sink: for the outputs.
        topics: the topic names.
        metrics: of the worker.
        dead_letters: for what is no click.
        settle_interval_s: how long changes may wait for the changelog, and offsets with them; 0 settles each
            batch, as a transaction must.
        is_ours: whether a partition of the clicks topic is assigned to this worker.
        now_ms: wall clock.
    """

    def __init__(
        self,
        recommender: Recommender,
        sink: Sink,
        topics: TopicNames,
        metrics: WorkerMetrics,
        dead_letters: DeadLetters,
        settle_interval_s: float,
        is_ours: Callable[[int], bool],
        now_ms: Callable[[], int],
    ) -> None:
        self._recommender = recommender
        self._sink = sink
        self._topics = topics
        self._metrics = metrics
        self._dead_letters = dead_letters
        self._settle_interval_s = settle_interval_s
        self._settle_at_s = 0.0
        self._positions: dict[int, int] = {}  # next offsets of what is answered and not settled
        self._is_ours = is_ours
        self._now_ms = now_ms

    def handle(self, records: Sequence[Message]) -> None:
        """Answer every record of the batch, with a recommendation or a dead letter, in order.

        Raises:
            BatchAborted: none of it happened; the table is as before. Abort the sink and handle again what is
                still to be answered here.
            WorkerFailure, StopRequested: nothing of this batch gets committed.
        """
        started = perf_counter()
        now_ms = self._now_ms()
        good, clicks, bad = _decode(records, now_ms)
        self._dead_letters.check(len(records), bad)
        decoded = perf_counter()
        advanced = self._advance(good, clicks, now_ms)  # without clicks too: a rollback goes back to here
        after_advance = perf_counter()
        try:
            self._publish(good, clicks, advanced.answers)
            self._dead_letters.send(bad)
            published = perf_counter()
            self._positions |= {partition_of(record): offset_of(record) + 1 for record in records}
            self.settle_if_due()
        except BatchAborted:
            self._positions.clear()
            self._recommender.table.rollback()
            raise
        except BaseException:  # whatever it is, no later call may commit offsets whose outputs are missing
            self._positions.clear()
            raise
        committed = perf_counter()
        seconds = self._metrics.stage_seconds
        seconds["decode"].observe(decoded - started)
        seconds["advance"].observe(after_advance - decoded)
        seconds["publish"].observe(published - after_advance)
        seconds["commit"].observe(committed - published)
        self._dead_letters.note(len(records), bad)
        self._count(good, clicks, advanced, len(records))

    def settle_if_due(self) -> None:
        """Settle what is answered, if that has waited long enough. Raises as of `handle`."""
        if perf_counter() >= self._settle_at_s:
            self.settle()

    def settle(self) -> None:
        """Write what changed to the changelog; then the offsets may be committed. Raises as of `handle`."""
        if not self._positions:
            return
        changes = self._log_changes()
        self._sink.end_batch(self._positions)
        self._positions = {}
        self._metrics.changelog_records.inc(changes)
        self._settle_at_s = perf_counter() + self._settle_interval_s

    def forget_partitions(self, partitions: AbstractSet[int]) -> None:
        """Settle these no more: they have left."""
        for partition in partitions & self._positions.keys():
            del self._positions[partition]

    def _advance(self, records: list[Message], clicks: list[Click], now_ms: int) -> Advanced:
        batch = Batch(
            [click.session_id for click in clicks],
            [click.item_id for click in clicks],
            [click.timestamp_ms for click in clicks],
            [partition_of(record) for record in records],
            [offset_of(record) for record in records],
            [event_hash(click.event_id) for click in clicks],
            now_ms,
        )
        return self._recommender.advance(batch)

    def _publish(self, records: list[Message], clicks: list[Click], answers: list[Answer | None]) -> None:
        send, topic = self._sink.send, self._topics.recommendations
        version, generated_at_ms = self._recommender.model_version, self._now_ms()
        for record, click, answer in zip(records, clicks, answers, strict=True):
            if answer is None:
                continue
            value = encode_recommendation(
                click.session_id,
                click.event_id,
                answer.items,
                answer.scores,
                version,
                answer.source,
                click.timestamp_ms,
                generated_at_ms,
            )
            headers = cloudevents_headers(click.event_id, traceparent_of(record))
            send(topic, partition_of(record), click.session_id, value, headers)

    def _log_changes(self) -> int:
        """Write the sessions that changed to the changelog; returns how many."""
        send, topic = self._sink.send, self._topics.session_histories
        # Whoever has a partition now writes its histories; ours would overwrite newer ones.
        changes = [change for change in self._recommender.changes() if self._is_ours(change.partition)]
        for change in changes:
            headers = tombstone_headers(change.ended_at)
            send(topic, change.partition, change.session_id, _changelog_value(change), headers)
        return len(changes)

    def _count(self, records: list[Message], clicks: list[Click], advanced: Advanced, batch: int) -> None:
        metrics = self._metrics
        metrics.batch_clicks.observe(batch)
        sources = [answer.source for answer in advanced.answers if answer is not None]
        metrics.clicks.inc(advanced.applied)
        judgement = advanced.judgement
        for source in SOURCES:  # most of it is zero in a small batch, and each `inc` takes a lock
            if recommendations := sources.count(source):
                metrics.recommendations[source].inc(recommendations)
            if judged := judgement.judged[source]:
                metrics.judged_clicks[source].inc(judged)
            if hits := judgement.hits[source]:
                metrics.hits[source].inc(hits)
                metrics.reciprocal_ranks[source].inc(judgement.reciprocal_ranks[source])
        metrics.key_mismatches.inc(sum(map(_has_other_key, records, clicks)))
        handed_over_ms = self._now_ms()
        appended_ms = np.fromiter((record.timestamp()[1] for record in records), np.float64, len(records))
        metrics.latency_seconds.observe_many((handed_over_ms - appended_ms) / 1000)


def _has_other_key(record: Message, click: Click) -> bool:
    return record.key() != click.session_id.encode()


def _changelog_value(change: SessionChange) -> bytes | None:
    history = change.history
    if history is None:
        return None
    return encode_session_history(
        SessionHistory(
            FORMAT_VERSION,
            change.session_id,
            history.items,
            history.last_activity_ms,
            change.partition,
            history.source_offset,
            history.event_hashes.hex(),
        )
    )


def _decode(records: Sequence[Message], now_ms: int) -> tuple[list[Message], list[Click], list[BadRecord]]:
    good: list[Message] = []
    clicks: list[Click] = []
    bad: list[BadRecord] = []
    for record in records:
        try:
            clicks.append(decode_click(record.value(), now_ms))
            good.append(record)
        except InvalidClickError as error:
            bad.append(BadRecord(record, error))
    return good, clicks, bad
