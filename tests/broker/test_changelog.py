"""The thread that reads the changelog: what it does about a client that gets no answers any more."""

import time
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from schemas.topics import TopicNames
from tests.support.kafka_io import send_records
from worker.shell import changelog
from worker.shell.changelog import TIMEOUTS_IN_A_ROW, ChangelogReader

RECORDS = 30


class Deaf(Consumer):
    """A client that has lost its coordinator for good."""

    asked = 0

    def committed(self, *_: Any, **__: Any) -> list[TopicPartition]:
        Deaf.asked += 1
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))


def test_clients_that_get_no_answers_are_replaced(
    bootstrap: str, topics: TopicNames, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a broker's restart one asked for committed offsets for ever; a new one is answered at once."""
    send_records(bootstrap, topics.session_histories, [("s", b"value")] * RECORDS)
    made: list[str] = []

    def new_consumer(settings: dict[str, Any], **more: Any) -> Consumer:
        made.append(settings["client.id"])
        return (Deaf if len(made) <= 2 else Consumer)(settings, **more)

    monkeypatch.setattr(changelog, "Consumer", new_consumer)
    reader = ChangelogReader({"bootstrap.servers": bootstrap}, "test", topics)
    try:
        reader.start({0, 1, 2})
        done: set[int] = set()
        records, deadline_s = 0, time.monotonic() + 60
        while len(done) < 3:
            assert time.monotonic() < deadline_s, f"restored {done}, clients {made}"
            if (chunk := reader.take(0.1)) is not None:
                records += len(chunk.records)
                done |= {chunk.partition} if chunk.is_last else set()
    finally:
        reader.close()
    assert records == RECORDS
    assert Deaf.asked == TIMEOUTS_IN_A_ROW
    assert made == ["nextclick-restore", "nextclick-restore-ends"] * 2
