"""Announcing models: the models topic, written and read. The newest announcement names the model to serve.

A model is verified in full before it is announced, and an announcement counts only once the broker has
acknowledged it. Announcing an older version again rolls back to it.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from schemas.announcement import FORMAT_VERSION, ModelAnnouncement, decode_announcement, encode_announcement
from schemas.model_artefact import Artefact, BrokenArtefactError, unpack_artefact

DEFAULT_TIMEOUT_S = 10.0
MAX_VERSIONS = 10_000  # a model an hour for a year; beyond, the oldest are forgotten
MAX_FOREIGN_SHOWN = 20


class ModelsTopicError(Exception):
    """The models topic cannot be used; the message says why and what to do."""


class AnnouncementLog(msgspec.Struct, frozen=True):
    """What the models topic holds.

    Attributes:
        announcements: one per model version, the newest last.
        foreign: what was found that is no announcement, "offset N: reason", the first few.
        foreign_count: how many such records there were.
    """

    announcements: list[ModelAnnouncement]
    foreign: list[str]
    foreign_count: int

    @property
    def serving(self) -> ModelAnnouncement | None:
        """The announcement in force: the newest; None where nothing was announced."""
        return self.announcements[-1] if self.announcements else None


def folder_of(uri: str) -> Path:
    """The folder that an announcement names: a plain path or a file:// URI.

    Raises:
        ValueError: the URI is of another scheme, or of another host.
    """
    if "://" not in uri:
        return Path(uri)
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc not in {"", "localhost"}:
        raise ValueError(f"{uri!r} is no local folder: only paths and file:// URIs can be read")
    return Path(unquote(parts.path))


def verify(folder: Path, manifest_sha256: str | None = None) -> Artefact:
    """Read and check every file of a model folder.

    Raises:
        BrokenArtefactError: it is no model that can be served; the message names the folder and the reason.
    """
    try:
        return unpack_artefact(lambda name: _read(folder / name), manifest_sha256)
    except BrokenArtefactError as error:
        raise BrokenArtefactError(f"{folder}: {error}") from None


def _read(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise OSError("it is no plain file")  # a pipe would never end
    return path.read_bytes()


def announce(
    client_config: Mapping[str, str],
    models_topic: str,
    folder: Path,
    *,
    note: str = "",
    scores: Mapping[str, float] | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> ModelAnnouncement:
    """Verify the model in `folder` and announce it to the workers; blocks until the broker has it for good.

    Args:
        client_config: librdkafka settings of any client.
        models_topic: compacted topic of one partition.
        folder: the model; workers must find it under the same absolute path.
        note: free text for whoever reads the list.
        scores: on the slice that the decision was made on; None: those of the manifest.
        timeout_s: bound on each of look-up and delivery.

    Raises:
        BrokenArtefactError: the folder holds no model that can be served.
        ModelsTopicError: the broker is unreachable, the topic missing or mislaid, or delivery failed.
    """
    artefact = verify(folder)
    manifest = artefact.manifest
    announcement = ModelAnnouncement(
        format_version=FORMAT_VERSION,
        model_version=manifest.model_version,
        uri=str(folder.resolve()),
        manifest_sha256=artefact.manifest_sha256,
        announced_at_ms=time.time_ns() // 1_000_000,
        scores=dict(manifest.scores if scores is None else scores),
        note=note,
    )
    value = encode_announcement(announcement)
    try:
        decode_announcement(value)  # a note or path over its bound must fail here, not in every worker
    except msgspec.DecodeError as error:
        raise ModelsTopicError(f"this cannot be announced: {error}") from None
    check_topic(client_config, models_topic, timeout_s)
    _deliver(client_config, models_topic, manifest.model_version.encode(), value, timeout_s)
    return announcement


def check_topic(client_config: Mapping[str, str], topic: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
    """See that the models topic is there and has one partition, without ever creating it.

    Raises:
        ModelsTopicError: it is not, or the broker cannot be asked.
    """
    errors = _LastError()
    admin = None
    try:
        admin = AdminClient(_config(client_config, errors))
        future = admin.describe_topics(TopicCollection([topic]), request_timeout=timeout_s)[topic]
        partitions = len(future.result().partitions)
    except KafkaException as error:
        if admin is not None:
            admin.poll(0)  # hands over why, if anything was said about the connection
        raise _translate(error, client_config, topic, errors) from None
    except ValueError as error:
        raise ModelsTopicError(f"topic {topic!r}: {error}") from None
    if partitions != 1:
        raise ModelsTopicError(
            f"topic {topic} has {partitions} partitions; announcements need one, or their order is lost. "
            "Delete it and run `nextclick topics create`"
        )


def read_announcements(
    client_config: Mapping[str, str], topic: str, timeout_s: float = DEFAULT_TIMEOUT_S
) -> AnnouncementLog:
    """Read the models topic to its end, as compaction would leave it: one announcement per version.

    Records that are no announcement are listed in the result and otherwise passed over. A tombstone withdraws
    its version.

    Raises:
        ModelsTopicError: the broker is unreachable, the topic missing or mislaid, or the end was not reached
            within `timeout_s`.
    """
    check_topic(client_config, topic, timeout_s)
    errors = _LastError()
    reading = _Reading()
    settings = {
        # Assigned by hand, never committed: the group exists only because librdkafka wants a name.
        "group.id": "nextclick-models-reader",
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        # The end is an event, not an offset: compaction and transaction markers leave gaps at the end.
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
        # The broker holds back an empty answer, and so the end, for so long.
        "fetch.wait.max.ms": 10,
    }
    try:
        consumer = Consumer({**_config(client_config, errors), **settings})
    except KafkaException as error:
        raise _translate(error, client_config, topic, errors) from None
    try:
        # Not OFFSET_BEGINNING, whose look-up waits half a second; where 0 is gone, the reset takes over.
        consumer.assign([TopicPartition(topic, 0, 0)])
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            message = consumer.poll(0.2)
            if message is None:
                continue
            if (fault := message.error()) is not None:
                if fault.code() == KafkaError._PARTITION_EOF:
                    return reading.log()
                raise _translate(KafkaException(fault), client_config, topic, errors)
            reading.take(message)
    finally:
        consumer.close()
    raise ModelsTopicError(f"the end of topic {topic} was not reached within {timeout_s:g} s{errors.said()}")


class _Reading:
    """Announcements by version, in the order of their offsets."""

    def __init__(self) -> None:
        self._by_version: dict[str, ModelAnnouncement] = {}
        self._foreign: list[str] = []
        self._foreign_count = 0

    def take(self, message: Message) -> None:
        key, value = message.key(), message.value()
        if value is None:
            self._by_version.pop(bytes(key or b"").decode(errors="replace"), None)
            return
        try:
            announcement = decode_announcement(bytes(value))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._report(message.offset(), str(error))
            return
        if key is None or bytes(key) != announcement.model_version.encode():
            self._report(message.offset(), f"key {key!r} is not the version {announcement.model_version!r}")
            return
        self._by_version.pop(announcement.model_version, None)  # so that it moves to the end
        self._by_version[announcement.model_version] = announcement
        if len(self._by_version) > MAX_VERSIONS:
            del self._by_version[next(iter(self._by_version))]

    def _report(self, offset: int | None, reason: str) -> None:
        self._foreign_count += 1
        if len(self._foreign) < MAX_FOREIGN_SHOWN:
            self._foreign.append(f"offset {offset}: {reason}")

    def log(self) -> AnnouncementLog:
        return AnnouncementLog(list(self._by_version.values()), self._foreign, self._foreign_count)


class _LastError:
    """What a client said last about its connection; librdkafka reports it beside the call that then fails."""

    def __init__(self) -> None:
        self.text = ""

    def __call__(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN or not self.text:
            self.text = error.str()

    def said(self) -> str:
        return f" ({self.text})" if self.text else ""


def _config(client_config: Mapping[str, str], errors: Callable[[KafkaError], None]) -> dict[str, Any]:
    return {"log_level": 0, **client_config, "error_cb": errors}


def _deliver(
    client_config: Mapping[str, str], topic: str, key: bytes, value: bytes, timeout_s: float
) -> None:
    errors = _LastError()
    outcome: list[KafkaError | None] = []
    try:
        producer = Producer(
            {
                **_config(client_config, errors),
                # Not idempotent, which costs half a second here: announced twice in a row is announced once.
                "acks": "all",
                "message.timeout.ms": int(timeout_s * 1_000),
                "linger.ms": 0,
            }
        )
        producer.produce(topic, value, key, partition=0, on_delivery=lambda error, _: outcome.append(error))
    except (KafkaException, BufferError) as error:
        raise _translate(error, client_config, topic, errors) from None
    producer.flush(timeout_s + 1.0)
    if not outcome:
        raise ModelsTopicError(f"the announcement was not acknowledged within {timeout_s:g} s{errors.said()}")
    if outcome[0] is not None:
        raise _translate(KafkaException(outcome[0]), client_config, topic, errors)


_UNREACHABLE = {
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
    KafkaError._MSG_TIMED_OUT,
}
_NO_TOPIC = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}


def _translate(
    error: Exception, client_config: Mapping[str, str], topic: str, errors: _LastError
) -> ModelsTopicError:
    cause = error.args[0] if error.args else error
    if isinstance(cause, KafkaError):
        if cause.code() in _NO_TOPIC:
            return ModelsTopicError(f"there is no topic {topic}: run `nextclick topics create`")
        if cause.code() in _UNREACHABLE:
            servers = client_config.get("bootstrap.servers", "the broker")
            return ModelsTopicError(
                f"{servers} does not answer{errors.said()}: is the broker up, the address right?"
            )
        return ModelsTopicError(f"topic {topic}: {cause.str()}{errors.said()}")
    return ModelsTopicError(f"topic {topic}: {error}{errors.said()}")
