"""Announcing models and reading the announcements back, on the real broker."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.announcement import encode_announcement
from schemas.model_artefact import BrokenArtefactError
from tests.broker.fake_trainer import write_model
from tests.conftest import CreateTopic
from training.announce import (
    ModelsTopicError,
    announce,
    check_topic,
    folder_of,
    read_announcements,
    verify,
)


@pytest.fixture
def config(bootstrap: str) -> dict[str, str]:
    return {"bootstrap.servers": bootstrap}


@pytest.fixture
def models_topic(create_topic: CreateTopic, topic_prefix: str) -> str:
    return create_topic(f"{topic_prefix}models", 1, {"cleanup.policy": "compact"})


def produce_raw(config: dict[str, str], topic: str, records: list[tuple[bytes, bytes | None]]) -> None:
    errors: list[object] = []
    producer = Producer({**config, "acks": "all"})
    for key, value in records:
        producer.produce(topic, value, key, on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(15) == 0
    assert errors == [None] * len(records)


def test_an_empty_topic_serves_nothing(config: dict[str, str], models_topic: str) -> None:
    found = read_announcements(config, models_topic)
    assert (found.announcements, found.foreign, found.serving) == ([], [], None)


def test_what_was_announced_is_read_back(config: dict[str, str], models_topic: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model ä", "v1", 0.4)
    announced = announce(config, models_topic, folder, note="by hand")
    assert announced.scores == {"recall@20": 0.4, "mrr@20": 0.2}
    assert announced.note == "by hand"
    found = read_announcements(config, models_topic)
    assert found.announcements == [announced]
    assert folder_of(announced.uri) == folder.resolve()
    assert verify(folder_of(announced.uri), announced.manifest_sha256).manifest.model_version == "v1"


def test_announcing_an_older_version_again_rolls_back(
    config: dict[str, str], models_topic: str, tmp_path: Path
) -> None:
    for version in ("v1", "v2", "v1"):
        folder = tmp_path / version
        announce(config, models_topic, folder if folder.exists() else write_model(folder, version))
    found = read_announcements(config, models_topic)
    assert [one.model_version for one in found.announcements] == ["v2", "v1"]
    assert found.serving is not None
    assert found.serving.model_version == "v1"


def break_weights(folder: Path) -> None:
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes().replace(b"\x00", b"\x01"))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (break_weights, "altered"),
        (lambda folder: (folder / "items.json").unlink(), "items.json cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json"),
    ],
)
def test_a_broken_model_is_refused_and_not_announced(
    config: dict[str, str],
    models_topic: str,
    tmp_path: Path,
    damage: Callable[[Path], object],
    reason: str,
) -> None:
    folder = write_model(tmp_path / "model", "v1")
    damage(folder)
    with pytest.raises(BrokenArtefactError, match=reason) as raised:
        announce(config, models_topic, folder)
    assert str(folder) in str(raised.value)
    assert read_announcements(config, models_topic).serving is None


def test_a_note_that_no_worker_would_accept_is_refused(
    config: dict[str, str], models_topic: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelsTopicError, match="cannot be announced"):
        announce(config, models_topic, write_model(tmp_path / "model", "v1"), note="x" * 2_000)
    assert read_announcements(config, models_topic).serving is None


def test_foreign_records_are_reported_and_passed_over(
    config: dict[str, str], models_topic: str, tmp_path: Path
) -> None:
    announced = announce(config, models_topic, write_model(tmp_path / "model", "v1"))
    value = encode_announcement(announced)
    produce_raw(
        config,
        models_topic,
        [
            (b"x", b"not json"),
            (b"", b"{}"),
            (b"other", value),
            (b"\xff", b"\xff\xfe"),
            (b"v9", value.replace(b'"format_version":1', b'"format_version":9')),
            (b"deep", b"[" * 100_000),
        ],
    )
    found = read_announcements(config, models_topic)
    assert found.announcements == [announced]
    assert found.foreign_count == 6
    assert found.foreign[0].startswith("offset 1: ")
    assert "format 9" in found.foreign[4]


def test_a_tombstone_withdraws_its_version(config: dict[str, str], models_topic: str, tmp_path: Path) -> None:
    first = announce(config, models_topic, write_model(tmp_path / "v1", "v1"))
    announce(config, models_topic, write_model(tmp_path / "v2", "v2"))
    produce_raw(config, models_topic, [(b"v2", None), (b"never there", None)])
    assert read_announcements(config, models_topic).announcements == [first]


def test_what_an_aborted_transaction_announced_is_not_read(
    config: dict[str, str], models_topic: str, topic_prefix: str, tmp_path: Path
) -> None:
    """Its records and its marker stand at the end of the log, where an offset count would wait for ever."""
    announced = announce(config, models_topic, write_model(tmp_path / "v1", "v1"))
    producer = Producer({**config, "transactional.id": f"{topic_prefix}tx"})
    producer.init_transactions(15)
    producer.begin_transaction()
    producer.produce(models_topic, encode_announcement(announced).replace(b"v1", b"v2"), b"v2")
    assert producer.flush(15) == 0
    producer.abort_transaction(15)
    assert read_announcements(config, models_topic).announcements == [announced]


def test_a_log_that_no_longer_begins_at_zero(
    config: dict[str, str], create_topic: CreateTopic, topic_prefix: str, admin: AdminClient, tmp_path: Path
) -> None:
    topic = create_topic(f"{topic_prefix}short", 1, {"cleanup.policy": "compact,delete"})
    announce(config, topic, write_model(tmp_path / "v1", "v1"))
    second = announce(config, topic, write_model(tmp_path / "v2", "v2"))
    (gone,) = admin.delete_records([TopicPartition(topic, 0, 1)]).values()
    assert gone.result(15).low_watermark == 1
    assert read_announcements(config, topic).announcements == [second]


def test_a_missing_topic_is_named_and_never_made(
    config: dict[str, str], topic_prefix: str, admin: AdminClient, tmp_path: Path
) -> None:
    topic = f"{topic_prefix}none"
    with pytest.raises(ModelsTopicError, match="nextclick topics create"):
        announce(config, topic, write_model(tmp_path / "model", "v1"))
    with pytest.raises(ModelsTopicError, match=topic):
        read_announcements(config, topic)
    assert topic not in admin.list_topics(timeout=10).topics


def test_a_topic_of_several_partitions_is_refused(
    config: dict[str, str], create_topic: CreateTopic, topic_prefix: str
) -> None:
    with pytest.raises(ModelsTopicError, match="2 partitions"):
        check_topic(config, create_topic(f"{topic_prefix}two", 2))


def test_an_unreachable_broker_is_said_within_bounds(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    config = {"bootstrap.servers": f"127.0.0.1:{port}"}
    with pytest.raises(ModelsTopicError, match=f"127.0.0.1:{port} does not answer.*refused"):
        announce(config, "models", write_model(tmp_path / "model", "v1"), timeout_s=1.0)
    with pytest.raises(ModelsTopicError, match="does not answer"):
        read_announcements(config, "models", timeout_s=1.0)


def test_a_bad_client_setting_is_named() -> None:
    with pytest.raises(ModelsTopicError, match=r"no\.such\.setting"):
        check_topic({"bootstrap.servers": "localhost:1", "no.such.setting": "1"}, "models")


@pytest.mark.parametrize(
    ("uri", "path"),
    [("/m/v1", "/m/v1"), ("file:///m/v%201", "/m/v 1"), ("file://localhost/m", "/m")],
)
def test_folders_of_announcements(uri: str, path: str) -> None:
    assert folder_of(uri) == Path(path)


@pytest.mark.parametrize("uri", ["s3://bucket/v1", "file://other-host/m"])
def test_what_is_no_local_folder_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="no local folder"):
        folder_of(uri)


# By the command line.


def nextclick(config: dict[str, str], topic: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    where = ("--bootstrap", config["bootstrap.servers"], "--models-topic", topic)
    return subprocess.run(
        [sys.executable, "-m", "deploy", "models", *arguments, *where],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_commands(config: dict[str, str], models_topic: str, tmp_path: Path) -> None:
    store = tmp_path / "models"
    write_model(store / "v2", "v2")
    (store / "half").mkdir()
    done = nextclick(
        config, models_topic, "announce", str(write_model(store / "v1", "v1")), "--note", "[x] y"
    )
    assert (done.returncode, done.stdout) == (0, f"announced v1 on {models_topic}\n")
    listed = json.loads(nextclick(config, models_topic, "list", "--json", "--models", str(store)).stdout)
    assert listed["serving"] == "v1"
    assert [one["model_version"] for one in listed["announced"]] == ["v1"]
    assert [Path(one["folder"]).name for one in listed["stored"]] == ["half", "v1", "v2"]
    assert "manifest.json" in listed["stored"][0]["trouble"]
    table = nextclick(config, models_topic, "list", "--models", str(store)).stdout
    rows = {line.split()[0]: line for line in table.splitlines()}
    assert "serving" in rows["v1"]
    assert "[x] y" in rows["v1"]
    assert "local" in rows["v2"]
    assert "broken" in rows["half"]
    refused = nextclick(config, models_topic, "announce", str(store / "half"))
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: {store / 'half'}: manifest.json cannot be read")
