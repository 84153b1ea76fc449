"""Small helpers around real Kafka clients, for tests."""

import time
from collections.abc import Iterable
from typing import Any

from confluent_kafka import Consumer, Message, Producer, TopicPartition

from schemas.click import Click, encode_click


def send_clicks(bootstrap: str, topic: str, clicks: Iterable[Click]) -> int:
    """Send clicks keyed by session id; returns how many."""
    return send_records(bootstrap, topic, ((click.session_id, encode_click(click)) for click in clicks))


def send_records(
    bootstrap: str,
    topic: str,
    records: Iterable[tuple[str | None, bytes | None]],
    headers: list[tuple[str, str | bytes | None]] | None = None,
) -> int:
    """Send keys and values as they are and in this order, whatever has to be sent again; returns how many."""
    config = {"partitioner": "murmur2_random", "linger.ms": 5, "enable.idempotence": True}
    producer = Producer({"bootstrap.servers": bootstrap, **config})
    count = 0
    for key, value in records:
        producer.produce(topic, value, key, headers=headers or [])
        count += 1
        if count % 10_000 == 0:
            producer.flush(30)
    assert producer.flush(30) == 0
    return count


def read_records(bootstrap: str, topic: str, count: int, timeout_s: float = 60.0) -> list[Message]:
    """Read the topic from its start until `count` records are there (or the time is up), then a bit longer.

    The bit longer is what shows records that should not be there.
    """
    config: dict[str, Any] = {
        "bootstrap.servers": bootstrap,
        "group.id": "unused",
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
    }
    consumer = Consumer(config)
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    found: list[Message] = []
    deadline_s = time.monotonic() + timeout_s
    while len(found) < count and time.monotonic() < deadline_s:
        found += [record for record in consumer.consume(1_000, 0.2) if record.error() is None]
    found += [record for record in consumer.consume(1_000, 0.5) if record.error() is None]
    consumer.close()
    return found
