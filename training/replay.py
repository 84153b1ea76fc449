"""Replaying a range of the clicks topic into a click log. Reads only: no group, no commits.

The end of the range is fixed at the start, so that a topic that is being written to comes to an end. The
partitions are read one after the other: the same range gives the same log, click for click.
"""

import logging
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from schemas.click import InvalidClickError, decode_click
from schemas.model_manifest import OffsetRange
from training.click_log import MAX_EVENTS, ClickLogBuilder, LoadedLog
from training.errors import ReplayError
from training.progress import Progress, Report

RECORDS_AT_ONCE = 1_000
POLL_TIMEOUT_S = 0.1
"""`consume` waits so long for a full batch, so it is also what the tail of each partition costs."""

_kafka_log = logging.getLogger("nextclick.kafka")
_kafka_log.addHandler(logging.NullHandler())  # what matters comes back as an error; the rest is for --debug


@dataclass(frozen=True)
class ReplayRange:
    """What to read; all of the topic by default.

    Attributes:
        offsets: (start, end) by partition, end excluded; partitions not named are left out.
        from_ms, to_ms: by the time at which the broker took the records, `to_ms` excluded. The two ways
            narrow each other.
    """

    offsets: Mapping[int, tuple[int, int]] | None = None
    from_ms: int | None = None
    to_ms: int | None = None


def parse_offsets(text: str) -> dict[int, tuple[int, int]]:
    """Parse `0:100-2000,1:0-500`: partition, first offset, offset after the last.

    Raises:
        ValueError: with what is wrong, for the user.
    """
    offsets: dict[int, tuple[int, int]] = {}
    for part in text.split(","):
        partition, _, span = part.strip().partition(":")
        start, _, end = span.partition("-")
        if not (partition.isdecimal() and start.isdecimal() and end.isdecimal()):
            raise ValueError(f"{part!r}: say PARTITION:START-END, as in 0:100-2000")
        if int(start) >= int(end):
            raise ValueError(f"{part!r}: the end must lie after the start")
        if int(partition) in offsets:
            raise ValueError(f"partition {int(partition)} is named twice")
        offsets[int(partition)] = int(start), int(end)
    return offsets


def replay(
    client_config: Mapping[str, str],
    topic: str,
    wanted: ReplayRange,
    now_ms: int,
    report: Report,
    timeout_s: float = 30.0,
) -> LoadedLog:
    """Read committed clicks of a range into memory.

    Args:
        client_config: librdkafka settings, with `bootstrap.servers`.
        topic: of clicks.
        wanted: the range; what retention has deleted is left out, and what is not yet written or committed.
        now_ms: wall clock, see `decode_click`.
        report: called after every batch of records, `done` and `total` in offsets.
        timeout_s: bound on each answer of the broker, and on a time without any record.

    Returns:
        The log; records that are no clicks are counted in `skipped` by reason. `offsets` names what was
        read, per partition.

    Raises:
        ReplayError: the broker does not answer, the topic is missing, or the range holds no click.
    """
    config = {
        **client_config,
        "group.id": "nextclick-replay",  # the client wants one; it is never joined
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
    }
    try:
        consumer = Consumer(config, logger=_kafka_log)
    except KafkaException as error:
        raise ReplayError(f"bad Kafka setting: {error.args[0].str()}") from None
    try:
        ranges = _ranges(consumer, topic, wanted, timeout_s)
        return _read(consumer, topic, ranges, now_ms, report, timeout_s)
    except KafkaException as error:
        raise ReplayError(_explain(error.args[0], topic, client_config)) from None
    finally:
        consumer.close()


def _ranges(consumer: Consumer, topic: str, wanted: ReplayRange, timeout_s: float) -> list[OffsetRange]:
    """The ranges that there are, none empty, by partition."""
    metadata = consumer.list_topics(topic, timeout_s).topics[topic]
    if metadata.error is not None:
        raise KafkaException(metadata.error)
    chosen = sorted(metadata.partitions if wanted.offsets is None else wanted.offsets)
    if unknown := [number for number in chosen if number not in metadata.partitions]:
        raise ReplayError(f"topic {topic} has no partition {unknown[0]}; it has {len(metadata.partitions)}")
    ranges = []
    for number in chosen:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout_s)
        start, end = (low, high) if wanted.offsets is None else wanted.offsets[number]
        start, end = max(start, low), min(end, high)
        if wanted.from_ms is not None:
            start = max(start, _offset_at(consumer, topic, number, wanted.from_ms, high, timeout_s))
        if wanted.to_ms is not None:
            end = min(end, _offset_at(consumer, topic, number, wanted.to_ms, high, timeout_s))
        if start < end:
            ranges.append(OffsetRange(number, start, end))
    if not ranges:
        raise ReplayError(f"topic {topic} holds no records in the range: fill it with `nextclick produce`")
    return ranges


def _offset_at(
    consumer: Consumer, topic: str, partition: int, at_ms: int, high: int, timeout_s: float
) -> int:
    """First offset that the broker took at `at_ms` or later; the end where there is none."""
    found = consumer.offsets_for_times([TopicPartition(topic, partition, at_ms)], timeout_s)[0]
    if found.error is not None:
        raise KafkaException(found.error)
    return found.offset if found.offset >= 0 else high


def _read(
    consumer: Consumer,
    topic: str,
    ranges: list[OffsetRange],
    now_ms: int,
    report: Report,
    timeout_s: float,
) -> LoadedLog:
    builder = ClickLogBuilder()
    skipped: Counter[str] = Counter()
    total = sum(wanted.end - wanted.start for wanted in ranges)
    done = 0
    actual = []
    for wanted in ranges:
        end = _read_partition(
            consumer, topic, wanted, builder, skipped, now_ms, _Meter(report, done, total), timeout_s
        )
        done += wanted.end - wanted.start
        if end > wanted.start:
            actual.append(OffsetRange(wanted.partition, wanted.start, end))
    report(Progress("replay", total, total))
    if not len(builder):
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(skipped.items()))
        raise ReplayError(
            f"topic {topic} holds no click in the range" + (f"; skipped: {reasons}" if reasons else "")
        )
    return LoadedLog(builder.build(), "topic", topic, dict(skipped), offsets=actual)


@dataclass(frozen=True)
class _Meter:
    """Reports progress within one partition as progress within all."""

    report: Report
    before: int
    total: int

    def show(self, done: int) -> None:
        self.report(Progress("replay", self.before + done, self.total))


def _read_partition(
    consumer: Consumer,
    topic: str,
    wanted: OffsetRange,
    builder: ClickLogBuilder,
    skipped: Counter[str],
    now_ms: int,
    meter: _Meter,
    timeout_s: float,
) -> int:
    """Read one partition; returns the offset after the last one that counts as read.

    The last offsets may belong to transaction markers, to aborted records or to records compacted away, for
    which nothing comes: then the client's end-of-partition event ends the reading.
    """
    consumer.assign([TopicPartition(topic, wanted.partition, wanted.start)])
    heard_s = time.monotonic()
    while True:
        records = consumer.consume(RECORDS_AT_ONCE, POLL_TIMEOUT_S)
        if records:
            heard_s = time.monotonic()
        elif time.monotonic() - heard_s > timeout_s:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        offset = wanted.start
        for record in records:
            offset = record.offset() or 0
            error = record.error()
            if error is not None and error.code() == KafkaError._PARTITION_EOF:
                return min(offset, wanted.end)
            if error is not None:
                raise KafkaException(error)
            if offset >= wanted.end:
                return wanted.end
            _take(record.value(), builder, skipped, now_ms)
            if offset + 1 == wanted.end:
                return wanted.end
        if records:
            meter.show(offset + 1 - wanted.start)


def _take(value: bytes | None, builder: ClickLogBuilder, skipped: Counter[str], now_ms: int) -> None:
    try:
        click = decode_click(value, now_ms)
    except InvalidClickError as error:
        skipped[error.reason.value] += 1
        return
    if len(builder) >= MAX_EVENTS:
        raise ReplayError(f"the range holds more than {MAX_EVENTS:,} clicks: narrow it, as with --from-time")
    builder.add(click.session_id, click.item_id, click.timestamp_ms)


def _explain(error: KafkaError, topic: str, client_config: Mapping[str, str]) -> str:
    bootstrap = client_config.get("bootstrap.servers", "")
    if error.code() in {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}:
        return f"there is no topic {topic} at {bootstrap}: make it with `nextclick topics create`"
    if error.code() in {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError._RESOLVE,
    }:
        return (
            f"no Kafka broker answers at {bootstrap}: "
            "is it running (`nextclick broker`), is --bootstrap right?"
        )
    return f"topic {topic} cannot be read: {error.str()}"
