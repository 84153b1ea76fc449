"""The path of a click, whole: record → decode and check → advance → encode → recommendations topic."""

from collections.abc import Callable, Sequence
from operator import methodcaller
from time import perf_counter
from typing import NamedTuple

import numpy as np
from confluent_kafka import Message

from schemas.click import Click, InvalidClickError, decode_click
from schemas.dead_letter import UNREADABLE_HEADERS, Header, Letter, cut, dead_letter_headers, fit_for_brokers
from schemas.recommendation import TRACEPARENT, cloudevents_headers, encode_recommendation
from schemas.topics import TopicNames
from worker.core.advance import Answer, Batch, Recommender
from worker.shell.failures import OutputTooLarge
from worker.shell.metrics import SOURCES, WorkerMetrics
from worker.shell.sink import AtLeastOnceSink

MAX_TRACEPARENT_BYTES = 256
"""The standard has 55; what is far longer is no trace context, and could make the output too large."""


class BadRecord(NamedTuple):
    """A record that is no click, and why."""

    record: Message
    error: InvalidClickError


class Handler:
    """Takes micro-batches of records through the core to the sink. One thread only."""

    def __init__(
        self,
        recommender: Recommender,
        sink: AtLeastOnceSink,
        topics: TopicNames,
        metrics: WorkerMetrics,
        now_ms: Callable[[], int],
    ) -> None:
        self._recommender = recommender
        self._sink = sink
        self._topics = topics
        self._metrics = metrics
        self._now_ms = now_ms

    def handle(self, records: Sequence[Message]) -> None:
        """Answer every record of the batch, with a recommendation or a dead letter, in order.

        Raises:
            OutputLost: an output was refused for good; nothing of this batch gets committed.
        """
        started = perf_counter()
        now_ms = self._now_ms()
        good, clicks, bad = _decode(records, now_ms)
        decoded = perf_counter()
        answers = self._advance(good, clicks, now_ms) if clicks else []
        advanced = perf_counter()
        self._publish(good, clicks, answers)
        self._bury(bad)
        self._sink.end_batch({_partition(record): _offset(record) + 1 for record in records})
        published = perf_counter()
        seconds = self._metrics.stage_seconds
        seconds["decode"].observe(decoded - started)
        seconds["advance"].observe(advanced - decoded)
        seconds["publish"].observe(published - advanced)
        self._count(good, clicks, answers, bad)

    def _advance(self, records: list[Message], clicks: list[Click], now_ms: int) -> list[Answer]:
        batch = Batch(
            [click.session_id for click in clicks],
            [click.item_id for click in clicks],
            [click.timestamp_ms for click in clicks],
            [_partition(record) for record in records],
            now_ms,
        )
        answers, judgement = self._recommender.advance(batch)
        for source in SOURCES:
            self._metrics.judged_clicks[source].inc(judgement.judged[source])
            self._metrics.hits[source].inc(judgement.hits[source])
            self._metrics.reciprocal_ranks[source].inc(judgement.reciprocal_ranks[source])
        return answers

    def _publish(self, records: list[Message], clicks: list[Click], answers: list[Answer]) -> None:
        send, topic = self._sink.send, self._topics.recommendations
        version, generated_at_ms = self._recommender.model_version, self._now_ms()
        for record, click, answer in zip(records, clicks, answers, strict=True):
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
        self, records: list[Message], clicks: list[Click], answers: list[Answer], bad: list[BadRecord]
    ) -> None:
        metrics = self._metrics
        metrics.batch_clicks.observe(len(clicks) + len(bad))
        metrics.clicks.inc(len(clicks))
        by_model = sum(answer.source == "model" for answer in answers)
        metrics.recommendations["model"].inc(by_model)
        metrics.recommendations["popular"].inc(len(answers) - by_model)
        for _, error in bad:
            metrics.dead_letters[error.reason].inc()
        handed_over_ms = self._now_ms()
        appended_ms = np.fromiter((record.timestamp()[1] for record in records), np.float64, len(records))
        metrics.latency_seconds.observe_many((handed_over_ms - appended_ms) / 1000)


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
