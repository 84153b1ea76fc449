"""Records on one chosen partition, and the deletion of a partition's oldest ones."""

from confluent_kafka import KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

CALL_S = 30.0


def produce_to(bootstrap: str, topic: str, partition: int, key: str | None, value: bytes | None) -> None:
    """Send one record and wait for it."""
    refused: list[KafkaError] = []
    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce(topic, value, key, partition, lambda error, _: refused.append(error) if error else None)
    assert producer.flush(CALL_S) == 0
    assert not refused


def delete_before(admin: AdminClient, topic: str, partition: int, offset: int) -> None:
    """What retention does, at once: the partition begins at this offset."""
    at = TopicPartition(topic, partition, offset)
    admin.delete_records([at])[at].result(CALL_S)
