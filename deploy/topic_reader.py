"""Reads topics from a fixed point on, outside of any consumer group: for eyes, not for work."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from deploy.topic_admin import REACH_BROKER_S, TopicError
from worker.shell.client_config import for_consumer

_SETTINGS: Mapping[str, str | int | bool] = {
    "group.id": "nextclick-reader",  # the client wants one; it is never joined
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "isolation.level": "read_committed",
    "auto.offset.reset": "earliest",  # where retention has overtaken us
    "fetch.wait.max.ms": 100,
    "queued.max.messages.kbytes": 16_384,
}
_TROUBLE_INTERVAL_S = 10.0


def _ignore(_: str) -> None:
    """The default for whoever does not want to hear of a broker that is away."""


class TopicReader:
    """All partitions of some topics, as a context manager. Committed records only.

    Partitions that are added later are not seen.
    """

    def __init__(
        self,
        client_config: Mapping[str, str],
        topics: Sequence[str],
        *,
        from_beginning: bool,
        on_trouble: Callable[[str], None] = _ignore,
    ) -> None:
        """Fix the points to read from: all that is written after this returns will be read.

        Args:
            client_config: librdkafka settings.
            topics: to read.
            from_beginning: from the oldest record on; otherwise only what comes from now on.
            on_trouble: told, from within `read`, when no broker is left. It tries again by itself.

        Raises:
            TopicError: no broker answers within ten seconds, or a topic does not exist.
        """
        self._servers = client_config.get("bootstrap.servers", "")
        self._on_trouble = on_trouble
        self._silent_until_s = math.inf  # while it starts, trouble is an exception
        config = {"log_level": 0, **for_consumer(client_config), **_SETTINGS}
        try:
            self._consumer = Consumer({**config, "error_cb": self._on_error})
        except KafkaException as error:
            raise TopicError(f"bad Kafka setting: {error.args[0].str()}") from None
        try:
            self._assign(topics, from_beginning)
        except KafkaException as error:
            self._consumer.close()
            raise TopicError(
                f"no Kafka broker answered at {self._servers} within {REACH_BROKER_S:.0f} s "
                f"({error.args[0].str()}). Is it running, and is --bootstrap right?"
            ) from None
        except BaseException:  # Ctrl-C too: whoever gets no reader cannot close it
            self._consumer.close()
            raise
        self._silent_until_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self, max_records: int, timeout_s: float) -> list[Message]:
        """What comes within the time, at most so many; returns early with what is there.

        Raises:
            TopicError: the topic is gone, or may not be read.
        """
        records = self._consumer.consume(1, timeout_s)
        if records and max_records > 1:
            records += self._consumer.consume(max_records - 1, 0.0)
        return [record for record in records if self._is_record(record)]

    def close(self) -> None:
        """Leave the brokers."""
        self._consumer.close()

    def _assign(self, topics: Sequence[str], from_beginning: bool) -> None:
        found = self._consumer.list_topics(timeout=REACH_BROKER_S).topics
        if missing := [topic for topic in topics if topic not in found]:
            raise TopicError(
                f"there is no topic {', '.join(missing)} at {self._servers}: "
                "make it with `nextclick topics create`"
            )
        starts = []
        for topic in topics:
            for partition in sorted(found[topic].partitions):
                at = TopicPartition(topic, partition)
                # Asked for now, not left to the client: its "end" is where the first fetch happens to come.
                low, high = self._consumer.get_watermark_offsets(at, REACH_BROKER_S)
                starts.append(TopicPartition(topic, partition, low if from_beginning else high))
        self._consumer.assign(starts)

    def _on_error(self, error: KafkaError) -> None:
        """Pass on that no broker is left, now and then: the client says so many times a second."""
        now_s = time.monotonic()
        if error.code() == KafkaError._ALL_BROKERS_DOWN and now_s >= self._silent_until_s:
            self._silent_until_s = now_s + _TROUBLE_INTERVAL_S
            self._on_trouble(f"no broker answers at {self._servers}; trying again")

    @staticmethod
    def _is_record(record: Message) -> bool:
        error = record.error()
        if error is None:
            return True
        if error.fatal() or error.code() in _HOPELESS:
            raise TopicError(f"topic {record.topic()} cannot be read: {error.str()}")
        return False


_HOPELESS = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED}
