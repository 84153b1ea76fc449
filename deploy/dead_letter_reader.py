"""Reads the dead-letter topic, or a part of it, up to where it ends now. No group, no commits."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from deploy.dead_letters import DeadLetter, DeadLetterError, Position, dead_letter
from deploy.topic_admin import REACH_BROKER_S
from worker.shell.client_config import for_consumer
from worker.shell.records import headers_of

SILENCE_S = 30.0
"""Without any record or end of a partition for so long, a broker is away and the reading has failed."""

_RECORDS_AT_ONCE = 500
_POLL_S = 0.1
_SETTINGS: Mapping[str, str | int | bool] = {
    "group.id": "nextclick-dead-letters",  # the client wants one; it is never joined
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "isolation.level": "read_committed",  # a letter of an aborted batch is none
    "enable.partition.eof": True,
    "auto.offset.reset": "earliest",  # where retention has overtaken us
    "fetch.wait.max.ms": 100,
    "queued.max.messages.kbytes": 16_384,
    "log_level": 0,
}

Report = Callable[[int, int], None]
"""Takes how many offsets are read, and of how many."""


@dataclass(frozen=True)
class Part:
    """Which letters: all by default.

    Attributes:
        from_ms: only what came at this time or later, ms since the epoch.
        positions: only these.
    """

    from_ms: int | None = None
    positions: AbstractSet[Position] | None = None


def read_dead_letters(
    client_config: Mapping[str, str], topic: str, part: Part, report: Report
) -> Generator[DeadLetter, None, None]:
    """The committed letters that are there now, those of a partition in order. What comes later is left out.

    Args:
        client_config: librdkafka settings.
        topic: of dead letters.
        part: which of them; positions that do not exist are no error.
        report: called several times a second.

    Raises:
        DeadLetterError: no broker answers, the topic is missing or may not be read.
    """
    servers = client_config.get("bootstrap.servers", "")
    try:
        consumer = Consumer({**for_consumer(client_config), **_SETTINGS})
    except KafkaException as error:
        raise DeadLetterError(f"bad Kafka setting: {error.args[0].str()}") from None
    try:
        ranges = _ranges(consumer, topic, part, servers)
        for record in _records(consumer, topic, ranges, servers, report):
            letter = _letter(record)
            if part.positions is None or letter.position in part.positions:
                yield letter
    except KafkaException as error:
        raise DeadLetterError(f"topic {topic} at {servers} cannot be read: {error.args[0].str()}") from None
    finally:
        consumer.close()


def _ranges(consumer: Consumer, topic: str, part: Part, servers: str) -> dict[int, tuple[int, int]]:
    """First offset and the one after the last, by partition; none of them empty."""
    try:
        found = consumer.list_topics(timeout=REACH_BROKER_S).topics.get(topic)
    except KafkaException as error:
        raise DeadLetterError(
            f"no Kafka broker answered at {servers} within {REACH_BROKER_S:.0f} s ({error.args[0].str()}). "
            "Is it running, and is --bootstrap right?"
        ) from None
    if found is None:
        raise DeadLetterError(
            f"there is no topic {topic} at {servers}: make it with `nextclick topics create`, "
            "or name yours with --dead-letters-topic"
        )
    spans = None if part.positions is None else _spans(part.positions)
    ranges = {}
    for partition in sorted(found.partitions):
        if spans is not None and partition not in spans:
            continue
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), REACH_BROKER_S)
        if part.from_ms is not None:
            low = max(low, _offset_at(consumer, topic, partition, part.from_ms, high))
        if spans is not None:
            low, high = max(low, spans[partition][0]), min(high, spans[partition][1])
        if low < high:
            ranges[partition] = (low, high)
    return ranges


def _spans(positions: AbstractSet[Position]) -> dict[int, tuple[int, int]]:
    """From the first of these offsets to the one after the last, by partition."""
    spans: dict[int, tuple[int, int]] = {}
    for partition, offset in positions:
        first, end = spans.get(partition, (offset, offset + 1))
        spans[partition] = min(first, offset), max(end, offset + 1)
    return spans


def _offset_at(consumer: Consumer, topic: str, partition: int, at_ms: int, end: int) -> int:
    [found] = consumer.offsets_for_times([TopicPartition(topic, partition, at_ms)], REACH_BROKER_S)
    if found.error is not None:
        raise KafkaException(found.error)
    return int(found.offset) if found.offset >= 0 else end


def _records(
    consumer: Consumer, topic: str, ranges: Mapping[int, tuple[int, int]], servers: str, report: Report
) -> Iterator[Message]:
    """All records of the ranges.

    The last offsets may belong to transaction markers or to aborted records, for which nothing comes: then
    the client's end-of-partition event ends the reading of a partition, as also before an open transaction.
    """
    done = dict.fromkeys(ranges, 0)
    total = sum(end - start for start, end in ranges.values())
    unfinished = set(ranges)
    consumer.assign([TopicPartition(topic, number, start) for number, (start, _) in ranges.items()])
    heard_s = time.monotonic()
    while unfinished:
        for record in consumer.consume(_RECORDS_AT_ONCE, _POLL_S):
            partition, offset = record.partition(), record.offset()
            error = record.error()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                _raise_if_hopeless(error, topic)
                continue
            heard_s = time.monotonic()
            if partition not in unfinished or offset is None:
                continue
            start, end = ranges[partition]
            if error is None and offset < end:
                yield record
            done[partition] = end - start
            if error is not None or offset + 1 >= end:
                unfinished.discard(partition)
                consumer.pause([TopicPartition(topic, partition)])
            else:
                done[partition] = offset + 1 - start
        report(sum(done.values()), total)
        if time.monotonic() - heard_s > SILENCE_S:
            raise DeadLetterError(f"no answer from {servers} for {SILENCE_S:.0f} s while reading {topic}")


def _raise_if_hopeless(error: KafkaError, topic: str) -> None:
    hopeless = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED}
    if error.fatal() or error.code() in hopeless:
        raise DeadLetterError(f"topic {topic} cannot be read: {error.str()}")


def _letter(record: Message) -> DeadLetter:
    partition, offset = record.partition(), record.offset()
    assert partition is not None  # noqa: S101 - for the type checker; a consumed record has both
    assert offset is not None  # noqa: S101
    key, value = record.key(), record.value()
    return dead_letter(
        Position(partition, offset),
        max(record.timestamp()[1], 0),
        key.encode() if isinstance(key, str) else key,
        value.encode() if isinstance(value, str) else value,
        headers_of(record),
    )
