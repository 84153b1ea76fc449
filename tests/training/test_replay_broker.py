"""Replaying from a real broker: the range that was asked for, no more, and always to an end."""

import time
from collections.abc import Sequence

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from schemas.click import Click, encode_click
from schemas.model_manifest import OffsetRange
from tests.conftest import CreateTopic
from training.click_log import LoadedLog
from training.errors import ReplayError
from training.model_store import load_model
from training.progress import Progress, silent
from training.replay import ReplayRange, replay
from training.sessions import TestShare
from training.settings import TrainSettings
from training.train import train

pytestmark = pytest.mark.broker

START_MS = 1_700_000_000_000
NOW_MS = START_MS + 1_000_000_000


def value(number: int, session_id: str = "s", item_id: str | None = None) -> bytes:
    """The record of click number so and so."""
    return encode_click(Click(f"e{number}", session_id, item_id or f"i{number}", START_MS + number * 1_000))


def send(bootstrap: str, topic: str, values: Sequence[bytes | None], partition: int = 0) -> None:
    """Produce these records, in order, and wait until the broker has them."""
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 0})
    for record in values:
        producer.produce(topic, record, key=b"s", partition=partition)
    assert producer.flush(30) == 0


def read(bootstrap: str, topic: str, wanted: ReplayRange | None = None) -> LoadedLog:
    """Replay quietly."""
    return replay({"bootstrap.servers": bootstrap}, topic, wanted or ReplayRange(), NOW_MS, silent)


def items(loaded: LoadedLog) -> list[str]:
    """Item ids in the order of the log."""
    return [loaded.clicks.item_ids[item] for item in loaded.clicks.item]


def test_a_whole_topic_partition_by_partition(
    bootstrap: str, topic_prefix: str, create_topic: CreateTopic
) -> None:
    topic = create_topic(topic_prefix + "clicks", 3)
    send(bootstrap, topic, [value(n, "b") for n in range(5, 9)], partition=2)
    send(bootstrap, topic, [value(n, "a") for n in range(3)], partition=0)
    reports: list[Progress] = []
    loaded = replay({"bootstrap.servers": bootstrap}, topic, ReplayRange(), NOW_MS, reports.append)
    assert items(loaded) == ["i0", "i1", "i2", "i5", "i6", "i7", "i8"]
    assert loaded.clicks.timestamp_ms[0] == START_MS
    assert list(loaded.clicks.session_ids) == ["a", "b"]
    assert loaded.offsets == [OffsetRange(0, 0, 3), OffsetRange(2, 0, 4)]
    assert (loaded.kind, loaded.name, loaded.skipped) == ("topic", topic, {})
    assert (reports[-1].done, reports[-1].total) == (7, 7)


def test_a_range_of_offsets(bootstrap: str, topic_prefix: str, create_topic: CreateTopic) -> None:
    topic = create_topic(topic_prefix + "clicks", 2)
    for partition in (0, 1):
        send(bootstrap, topic, [value(n) for n in range(10)], partition)
    loaded = read(bootstrap, topic, ReplayRange(offsets={1: (3, 6)}))
    assert items(loaded) == ["i3", "i4", "i5"]
    assert loaded.offsets == [OffsetRange(1, 3, 6)]
    beyond = read(bootstrap, topic, ReplayRange(offsets={0: (8, 999)}))
    assert beyond.offsets == [OffsetRange(0, 8, 10)]


def test_a_range_of_time(bootstrap: str, topic_prefix: str, create_topic: CreateTopic) -> None:
    topic = create_topic(topic_prefix + "clicks")
    send(bootstrap, topic, [value(0), value(1)])
    time.sleep(0.05)
    middle_ms = time.time_ns() // 1_000_000  # of the append times: the clicks themselves are of long ago
    time.sleep(0.05)
    send(bootstrap, topic, [value(2), value(3)])
    assert items(read(bootstrap, topic, ReplayRange(from_ms=middle_ms))) == ["i2", "i3"]
    assert items(read(bootstrap, topic, ReplayRange(to_ms=middle_ms))) == ["i0", "i1"]
    assert read(bootstrap, topic, ReplayRange(to_ms=middle_ms)).offsets == [OffsetRange(0, 0, 2)]
    with pytest.raises(ReplayError, match="no records in the range"):
        read(bootstrap, topic, ReplayRange(from_ms=middle_ms, to_ms=middle_ms))


def test_bad_records_are_skipped_and_counted(
    bootstrap: str, topic_prefix: str, create_topic: CreateTopic
) -> None:
    topic = create_topic(topic_prefix + "clicks")
    send(bootstrap, topic, [b"{", value(1), None, b"{}", b"[" * 20_000, value(5)])
    loaded = read(bootstrap, topic)
    assert items(loaded) == ["i1", "i5"]
    assert loaded.skipped == {"malformed": 1, "tombstone": 1, "invalid": 1, "oversized": 1}


def test_transactions_aborted_ones_and_markers_at_the_end(
    bootstrap: str, topic_prefix: str, create_topic: CreateTopic
) -> None:
    topic = create_topic(topic_prefix + "clicks")
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": topic_prefix + "tx"})
    producer.init_transactions(30)
    for numbers, commit in (([0, 1], True), ([2, 3], False)):
        producer.begin_transaction()
        for number in numbers:
            producer.produce(topic, value(number), partition=0)
        producer.flush(30)
        (producer.commit_transaction if commit else producer.abort_transaction)(30)
    loaded = read(bootstrap, topic)
    assert items(loaded) == ["i0", "i1"]
    assert loaded.offsets == [OffsetRange(0, 0, 6)]  # two records and a marker, twice


def test_an_open_transaction_ends_the_range_before_it(
    bootstrap: str, topic_prefix: str, create_topic: CreateTopic
) -> None:
    topic = create_topic(topic_prefix + "clicks")
    send(bootstrap, topic, [value(0), value(1)])
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": topic_prefix + "tx"})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, value(2), partition=0)
    producer.flush(30)
    loaded = read(bootstrap, topic)
    producer.abort_transaction(30)
    assert items(loaded) == ["i0", "i1"]
    assert loaded.offsets == [OffsetRange(0, 0, 2)]


def test_nothing_is_committed_and_no_group_is_joined(
    bootstrap: str, topic_prefix: str, create_topic: CreateTopic, admin: AdminClient
) -> None:
    topic = create_topic(topic_prefix + "clicks")
    send(bootstrap, topic, [value(0), value(1)])
    read(bootstrap, topic)
    groups = admin.list_consumer_groups(request_timeout=30).result().valid
    assert "nextclick-replay" not in [group.group_id for group in groups]


def test_missing_empty_and_clickless_topics_are_refused(
    bootstrap: str, topic_prefix: str, create_topic: CreateTopic
) -> None:
    with pytest.raises(ReplayError, match=r"no topic .*nextclick topics create"):
        read(bootstrap, topic_prefix + "nowhere")
    topic = create_topic(topic_prefix + "clicks")
    with pytest.raises(ReplayError, match="holds no records in the range"):
        read(bootstrap, topic)
    with pytest.raises(ReplayError, match="has no partition 4; it has 1"):
        read(bootstrap, topic, ReplayRange(offsets={4: (0, 1)}))
    send(bootstrap, topic, [b"{"])
    with pytest.raises(ReplayError, match="holds no click in the range; skipped: 1 malformed"):
        read(bootstrap, topic)


def test_training_on_a_replayed_topic_can_be_repeated(
    bootstrap: str, topic_prefix: str, create_topic: CreateTopic, tmp_path_factory: pytest.TempPathFactory
) -> None:
    topic = create_topic(topic_prefix + "clicks", 2)
    for partition in (0, 1):
        clicks = [value(n, f"s{partition}-{n // 4}", f"i{n % 4}") for n in range(80)]
        send(bootstrap, topic, clicks, partition)
    settings = TrainSettings(hidden_size=8, epochs=1)
    first, second = (
        train(read(bootstrap, topic), TestShare(), settings, tmp_path_factory.mktemp("store"), NOW_MS, silent)
        for _ in range(2)
    )
    assert first.model_version == second.model_version
    data = load_model(first.model_folder)[0].manifest.training_data
    assert (data.kind, data.name) == ("topic", topic)
    assert data.offsets == [OffsetRange(0, 0, 80), OffsetRange(1, 0, 80)]
