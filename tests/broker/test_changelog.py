"""The thread that reads the changelog: what it does about a client that gets no answers any more."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from schemas.topics import TopicNames
from tests.support.kafka_io import send_records
from tests.support.open_transaction import open_transaction
from worker.shell import changelog
from worker.shell.changelog import TIMEOUTS_IN_A_ROW, ChangelogReader

RECORDS = 30


class Deaf(Consumer):
    """A client that loses its coordinator for good after so many answers."""

    answers_left = 0
    asked_in_vain = 0

    def committed(self, *args: Any, **more: Any) -> list[TopicPartition]:
        if Deaf.answers_left:
            Deaf.answers_left -= 1
            return super().committed(*args, **more)
        Deaf.asked_in_vain += 1
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the clients that were made, of which the first two are deaf."""
    made: list[str] = []

    def new_consumer(settings: dict[str, Any], **more: Any) -> Consumer:
        made.append(settings["client.id"])
        return (Deaf if len(made) <= 2 else Consumer)(settings, **more)

    monkeypatch.setattr(changelog, "Consumer", new_consumer)
    monkeypatch.setattr(Deaf, "answers_left", 0)
    monkeypatch.setattr(Deaf, "asked_in_vain", 0)
    return made


def read(reader: ChangelogReader, until: Callable[[set[int], int], bool]) -> tuple[set[int], int]:
    """Partitions that are restored and records that were read by then."""
    done: set[int] = set()
    records, deadline_s = 0, time.monotonic() + 60
    while not until(done, records):
        assert time.monotonic() < deadline_s, f"restored {done} with {records} records"
        if (chunk := reader.take(0.1)) is not None:
            records += len(chunk.records)
            done |= {chunk.partition} if chunk.is_last else set()
    return done, records


def test_clients_that_get_no_answers_are_replaced(
    bootstrap: str, topics: TopicNames, made: list[str]
) -> None:
    """After a broker's restart one asked for committed offsets for ever; a new one is answered at once."""
    send_records(bootstrap, topics.session_histories, [("s", b"value")] * RECORDS)
    reader = ChangelogReader({"bootstrap.servers": bootstrap}, "test", topics)
    try:
        reader.start({0, 1, 2})
        assert read(reader, lambda done, _: len(done) == 3) == ({0, 1, 2}, RECORDS)
    finally:
        reader.close()
    assert Deaf.asked_in_vain == TIMEOUTS_IN_A_ROW
    assert made == ["nextclick-restore", "nextclick-restore-ends"] * 2


def test_a_restore_under_way_goes_on_where_it_was(
    bootstrap: str, topic_prefix: str, topics: TopicNames, made: list[str]
) -> None:
    """It waits for an open transaction when its clients are replaced; nothing is read twice or left out."""
    send_records(bootstrap, topics.session_histories, [(f"s-{n}", b"value") for n in range(RECORDS)])
    Deaf.answers_left = 1
    reader = ChangelogReader({"bootstrap.servers": bootstrap}, "test", topics)
    try:
        with open_transaction(bootstrap, topic_prefix + "open", topics.session_histories, [0, 1, 2]):
            reader.start({0, 1})
            done, before = read(reader, lambda _, records: records > 0)
            assert not done
            reader.start({2})
            done, meanwhile = read(reader, lambda *_: len(made) == 4)
            assert not done
        done, after = read(reader, lambda done, _: len(done) == 3)
    finally:
        reader.close()
    assert done == {0, 1, 2}
    assert before + meanwhile + after == RECORDS
