"""A transaction on a topic that a test begins, and ends when it likes."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from confluent_kafka import Producer

CALL_S = 30.0


@contextmanager
def open_transaction(
    bootstrap: str, transactional_id: str, topic: str, partitions: Iterable[int], records: int = 3
) -> Iterator[None]:
    """Records that are no session histories lie on these partitions, uncommitted; aborted at the end."""
    config = {"transactional.id": transactional_id, "transaction.timeout.ms": 120_000}
    producer = Producer({"bootstrap.servers": bootstrap, **config})
    producer.init_transactions(CALL_S)
    producer.begin_transaction()
    for partition in partitions:
        for number in range(records):
            producer.produce(topic, b"never committed", f"garbage-{number}", partition)
    assert producer.flush(CALL_S) == 0
    try:
        yield
    finally:
        producer.abort_transaction(CALL_S)
