"""The path of a click, whole: record → decode and check → advance → encode → recommendations, changelog."""

from collections.abc import Callable, Sequence
from operator import methodcaller
from time import perf_counter
from typing import NamedTuple

import numpy as np
from confluent_kafka import Message

from schemas.click import Click, InvalidClickError, decode_click
from schemas.dead_letter import UNREADABLE_HEADERS, Header, Letter, cut, dead_letter_headers, fit_for_brokers
from schemas.recommendation import TRACEPARENT, cloudevents_headers, encode_recommendation
from schemas.session_history import FORMAT_VERSION, SessionHistory, encode_session_history, event_hash
from schemas.topics import TopicNames
from worker.core.advance import Advanced, Answer, Batch, Recommender, SessionChange
from worker.core.dead_letter_cap import DeadLetterCap
from worker.core.quality import NOTHING_JUDGED
from worker.shell.failures import BatchAborted, OutputTooLarge, TooManyDeadLetters
from worker.shell.log import TroubleLog
from worker.shell.metrics import SOURCES, WorkerMetrics
from worker.shell.sink import Sink

MAX_TRACEPARENT_BYTES = 256
"""The standard has 55; what is far longer is no trace context, and could make the output too large."""

SHOWN_PAYLOAD_BYTES = 1_024
"""Of a bad record, in the log line, where that is asked for."""


class BadRecord(NamedTuple):
    """A record that is no click, and why."""

    record: Message
    error: InvalidClickError


class Handler:
    """Takes micro-batches of records through the core to the sink. One thread only.

    Args:
        recommender: the core.
        sink: for the outputs.
        topics: the topic names.
        metrics: of the worker.
        cap: on dead letters.
        log_payloads: whether log lines show the start of a bad record.
        now_ms: wall clock.
    """

    def __init__(
        self,
        recommender: Recommender,
        sink: Sink,
        topics: TopicNames,
        metrics: WorkerMetrics,
        cap: DeadLetterCap,
        log_payloads: bool,
        now_ms: Callable[[], int],
    ) -> None:
        self._recommender = recommender
        self._sink = sink
        self._topics = topics
        self._metrics = metrics
        self._cap = cap
        self._log_payloads = log_payloads
        self._now_ms = now_ms
        self._trouble = TroubleLog()

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
        self._check_cap(records, bad)
        decoded = perf_counter()
        advanced = self._advance(good, clicks, now_ms) if clicks else Advanced([], 0, NOTHING_JUDGED)
        after_advance = perf_counter()
        try:
            self._publish(good, clicks, advanced.answers)
            self._bury(bad)
            changes = self._log_changes() if clicks else 0
            published = perf_counter()
            self._sink.end_batch({_partition(record): _offset(record) + 1 for record in records})
        except BatchAborted:
            self._recommender.table.rollback()
            raise
        committed = perf_counter()
        seconds = self._metrics.stage_seconds
        seconds["decode"].observe(decoded - started)
        seconds["advance"].observe(after_advance - decoded)
        seconds["publish"].observe(published - after_advance)
        seconds["commit"].observe(committed - published)
        self._metrics.changelog_records.inc(changes)
        self._count(good, clicks, advanced, bad)

    def _check_cap(self, records: Sequence[Message], bad: list[BadRecord]) -> None:
        if self._cap.exceeded_by(len(records), len(bad)):
            last = bad[-1]
            raise TooManyDeadLetters(
                f"{self._cap.letters + len(bad):,} of the last {self._cap.records + len(records):,} records "
                f"are no clicks, such as partition {last.record.partition()}, offset {last.record.offset()}: "
                f"{last.error}. Nothing of this batch was taken. Mend the producer, or let them through with "
                "--dead-letter-max-ratio 1"
            )

    def _advance(self, records: list[Message], clicks: list[Click], now_ms: int) -> Advanced:
        batch = Batch(
            [click.session_id for click in clicks],
            [click.item_id for click in clicks],
            [click.timestamp_ms for click in clicks],
            [_partition(record) for record in records],
            [_offset(record) for record in records],
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
            headers = cloudevents_headers(click.event_id, _traceparent(record))
            send(topic, _partition(record), click.session_id, value, headers)

    def _log_changes(self) -> int:
        """Write the sessions that changed to the changelog; returns how many."""
        send, topic = self._sink.send, self._topics.session_histories
        changes = self._recommender.changes()
        for change in changes:
            send(topic, change.partition, change.session_id, _changelog_value(change), [])
        return len(changes)

    def _bury(self, bad: list[BadRecord]) -> None:
        for record, error in bad:
            partition, offset = _partition(record), _offset(record)
            original = Letter(record.key(), record.value(), _headers(record))
            try:
                self._send_letter(fit_for_brokers(*original), partition, offset, error)
            except OutputTooLarge:  # the operator's bound is lower than ours
                self._send_letter(cut(*original), partition, offset, error)

    def _send_letter(self, letter: Letter, partition: int, offset: int, error: InvalidClickError) -> None:
        headers = dead_letter_headers(self._topics.clicks, partition, offset, error, letter.headers)
        self._sink.send(self._topics.dead_letters, partition, letter.key, letter.value, headers)

    def _count(
        self, records: list[Message], clicks: list[Click], advanced: Advanced, bad: list[BadRecord]
    ) -> None:
        metrics = self._metrics
        metrics.batch_clicks.observe(len(clicks) + len(bad))
        sources = [answer.source for answer in advanced.answers if answer is not None]
        metrics.clicks.inc(advanced.applied)
        for source in SOURCES:
            metrics.recommendations[source].inc(sources.count(source))
            metrics.judged_clicks[source].inc(advanced.judgement.judged[source])
            metrics.hits[source].inc(advanced.judgement.hits[source])
            metrics.reciprocal_ranks[source].inc(advanced.judgement.reciprocal_ranks[source])
        metrics.key_mismatches.inc(sum(map(_has_other_key, records, clicks)))
        handed_over_ms = self._now_ms()
        appended_ms = np.fromiter((record.timestamp()[1] for record in records), np.float64, len(records))
        metrics.latency_seconds.observe_many((handed_over_ms - appended_ms) / 1000)
        self._cap.note(len(clicks) + len(bad), len(bad))
        for record, error in bad:
            metrics.dead_letters[error.reason].inc()
            self._tell(record, error)

    def _tell(self, record: Message, error: InvalidClickError) -> None:
        said: dict[str, object] = {"partition": record.partition(), "offset": record.offset()}
        if self._log_payloads:
            said["value"] = repr((record.value() or b"")[:SHOWN_PAYLOAD_BYTES])
        self._trouble.warning("dead_letter", error.reason.value, detail=error.detail, **said)


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


def _traceparent(record: Message) -> bytes | None:
    for name, value in _headers(record):
        if name == TRACEPARENT and value is not None and len(value) <= MAX_TRACEPARENT_BYTES:
            return value.encode() if isinstance(value, str) else value
    return None


def _headers(record: Message) -> list[Header]:
    """Headers of a record; ask only once for each.

    Of a header whose name is no UTF-8 the client library makes a list with a hole, and sets an exception that
    a direct call can miss: it would surface later, elsewhere, and touching the hole ends the process. Called
    through `methodcaller` the exception is raised here.
    """
    try:
        headers = _call_headers(record)
    except SystemError:
        return [UNREADABLE_HEADERS]
    return list(headers.items()) if isinstance(headers, dict) else headers or []


_call_headers: Callable[[Message], list[Header] | dict[str, str | bytes | None] | None] = methodcaller(
    "headers"
)


def _partition(record: Message) -> int:
    """Partition of a consumed record; None only stands in messages that were never on a topic."""
    partition = record.partition()
    assert partition is not None  # noqa: S101 - for the type checker
    return partition


def _offset(record: Message) -> int:
    offset = record.offset()
    assert offset is not None  # noqa: S101 - for the type checker
    return offset
