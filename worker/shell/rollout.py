"""How a new model reaches the worker: watch the models topic, verify, load beside the serving one, hand over.

All of it happens in a thread of its own; the worker takes the loaded model between two batches. A model that
is refused is reported and the one that serves goes on. At start, where the newest announced model is broken,
older announcements are tried, newest first.
"""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlparse

import msgspec
import structlog
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from schemas.announcement import ModelAnnouncement, decode_announcement
from schemas.model_artefact import BrokenArtefactError, unpack_artefact
from worker.core.session_model import SessionModel, session_model
from worker.shell.client_config import client_logger, for_consumer

log = structlog.get_logger()

POLL_S = 0.2
MAX_ANNOUNCEMENTS = 100
"""Announcements looked back on at start; a compacted topic holds one per version."""


def load_model(announcement: ModelAnnouncement) -> SessionModel:
    """Read, verify and lay out an announced model.

    Raises:
        BrokenArtefactError: it cannot be served; the message says why.
    """
    folder = _local_folder(announcement.uri)
    artefact = unpack_artefact(lambda name: (folder / name).read_bytes(), announcement.manifest_sha256)
    if artefact.manifest.model_version != announcement.model_version:
        raise BrokenArtefactError(
            f"announced as {announcement.model_version}, its manifest says {artefact.manifest.model_version}"
        )
    model = session_model(artefact)
    model.prepare()
    return model


def _local_folder(uri: str) -> Path:
    parsed = urlparse(uri)
    if parsed.scheme not in {"", "file"}:
        raise BrokenArtefactError(f"{uri}: only folders that this worker can read are supported")
    return Path(unquote(parsed.path) if parsed.scheme else uri)


class ModelWatcher:
    """Follows the models topic.

    Args:
        client_config: librdkafka settings.
        topic: the models topic, one partition.
        on_refused: called from the watcher's thread with a model that was refused and the reason.
    """

    def __init__(
        self,
        client_config: Mapping[str, str],
        topic: str,
        on_refused: Callable[[ModelAnnouncement, str], None],
    ) -> None:
        self._consumer = Consumer(
            {
                "isolation.level": "read_committed",
                **for_consumer(client_config),
                "group.id": "nextclick-models-unused",  # librdkafka wants one; nothing is ever committed
                "enable.auto.commit": "false",
                "enable.partition.eof": "true",
                "auto.offset.reset": "earliest",  # where the start was compacted or deleted away
            },
            logger=client_logger(),
        )
        self._start = TopicPartition(topic, 0, 0)
        self._on_refused = on_refused
        self._loaded: SessionModel | None = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self.caught_up = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="models", daemon=True)
        self._thread.start()

    def take(self) -> SessionModel | None:
        """The newest loaded model that was not taken yet."""
        with self._lock:
            model, self._loaded = self._loaded, None
        return model

    def close(self) -> None:
        """Stop watching; a load that is under way is left to the daemon thread."""
        self._stopping.set()
        self._thread.join(timeout=2)

    def _watch(self) -> None:
        try:
            self._consumer.assign([self._start])
            backlog = self._read_backlog()
            for announcement in reversed(backlog):
                if self._load(announcement):
                    break
            self.caught_up.set()
            while not self._stopping.is_set():
                if newest := self._newest(self._consumer.consume(MAX_ANNOUNCEMENTS, POLL_S)):
                    self._load(newest)
        except Exception as error:  # noqa: BLE001 - the worker goes on with the model that it has
            log.error("models_topic_unreadable", error=str(error), then="restart to follow models again")
        finally:
            self.caught_up.set()
            self._consumer.close()

    def _read_backlog(self) -> list[ModelAnnouncement]:
        """All announcements up to the end of the topic, oldest first, bounded; waits while brokers are away.

        The end is told by librdkafka's event: an offset would never be reached where the last records are
        control records or were compacted away.
        """
        backlog: list[ModelAnnouncement] = []
        while not self._stopping.is_set():
            for record in self._consumer.consume(MAX_ANNOUNCEMENTS, POLL_S):
                error = record.error()
                if error is not None and error.code() == KafkaError._PARTITION_EOF:
                    return backlog
                if announcement := self._newest([record]):
                    backlog = [a for a in backlog if a.model_version != announcement.model_version]
                    backlog = [*backlog, announcement][-MAX_ANNOUNCEMENTS:]
        return backlog

    def _newest(self, records: list[Message]) -> ModelAnnouncement | None:
        """The last good announcement among these records; bad ones are reported."""
        for record in reversed(records):
            error, value = record.error(), record.value()
            if error is not None:
                if error.code() != KafkaError._PARTITION_EOF:
                    log.warning("models_topic_trouble", error=error.str())
                continue
            if value is None:
                continue
            try:
                return decode_announcement(value)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                log.error("announcement_unreadable", offset=record.offset(), error=str(error))
        return None

    def _load(self, announcement: ModelAnnouncement) -> bool:
        started = time.monotonic()
        try:
            model = load_model(announcement)
        # ValueError: a URI that is none. RuntimeError: what torch raises when memory is short.
        except (ValueError, OSError, MemoryError, RuntimeError) as error:
            log.error("model_refused", model_version=announcement.model_version, reason=str(error))
            self._on_refused(announcement, str(error))
            return False
        with self._lock:
            self._loaded = model
        seconds = round(time.monotonic() - started, 3)
        log.info("model_loaded", model_version=model.version, items=len(model.items), seconds=seconds)
        return True
