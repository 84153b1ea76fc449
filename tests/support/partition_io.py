"""Records on one chosen partition, the deletion of its oldest ones, and where a group stands there."""

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.dead_letter import Header

CALL_S = 30.0


def produce_to(
    bootstrap: str,
    topic: str,
    partition: int,
    key: str | None,
    value: bytes | None,
    headers: list[Header] | None = None,
) -> None:
    """Send one record and wait for it."""
    refused: list[KafkaError] = []
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
    producer.produce(
        topic,
        value,
        key,
        partition,
        lambda error, _: refused.append(error) if error else None,
        headers=headers or [],
    )
    assert producer.flush(CALL_S) == 0
    assert not refused


def delete_before(admin: AdminClient, topic: str, partition: int, offset: int) -> None:
    """What retention does, at once: the partition begins at this offset."""
    at = TopicPartition(topic, partition, offset)
    admin.delete_records([at])[at].result(CALL_S)


def commit(bootstrap: str, group_id: str, topic: str, partition: int, offset: int) -> None:
    """Say of a group without members that it has read up to this offset."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group_id})
    consumer.commit(offsets=[TopicPartition(topic, partition, offset)], asynchronous=False)
    consumer.close()
