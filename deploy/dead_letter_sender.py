"""Sends chosen letters to the clicks topic; each is told as sent once all in-sync replicas have it."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from deploy.click_sender import DEFAULTS, SendError
from deploy.dead_letters import Position
from deploy.topic_admin import TopicError, admin_client, partitions_by_topic
from schemas.dead_letter import Header
from worker.shell.client_config import for_producer

# What "sent" stands on, and what keeps a session on its partition, wins over the operator's settings.
RULES: Mapping[str, str | int] = {
    "acks": "all",
    "enable.idempotence": "true",
    "partitioner": DEFAULTS["partitioner"],
    # Letters are chosen by hand, so a small queue is no loss, and Ctrl-C leaves little to wait for.
    "queue.buffering.max.messages": 5_000,
}
_POLL_S = 0.1  # a wait inside the client is deaf to Ctrl-C


class Outgoing(NamedTuple):
    """A record to send for a letter.

    Attributes:
        position: of the letter.
        source: where it came from, as topic-partition@offset.
        key, value, headers: of the record.
    """

    position: Position
    source: str
    key: bytes
    value: bytes | None
    headers: list[Header]


def check_target(client_config: Mapping[str, str], topic: str) -> None:
    """Look for the topic, which is never created by accident.

    Raises:
        TopicError: no broker answers within ten seconds, the topic does not exist, or a setting is bad.
    """
    try:
        found = partitions_by_topic(admin_client(client_config), client_config)
    except KafkaException as error:
        raise TopicError(f"bad Kafka setting: {error.args[0].str()}") from None
    if topic not in found:
        servers = client_config.get("bootstrap.servers", "")
        raise TopicError(f"there is no topic {topic} at {servers}: make it with `nextclick topics create`")


class LetterSender:
    """An idempotent producer for one topic. One thread only; stops at the first letter that is not taken."""

    def __init__(
        self,
        client_config: Mapping[str, str],
        topic: str,
        on_settled: Callable[[Outgoing, str | None], None],
    ) -> None:
        """Make the producer.

        Args:
            client_config: librdkafka settings.
            topic: to send to; see `check_target`.
            on_settled: told of each letter once it is acknowledged (None), or has failed (with the error);
                from within `send` and `finish`.

        Raises:
            TopicError: a setting is bad.
        """
        config = {**DEFAULTS, "client.id": "nextclick-replay", **for_producer(client_config), **RULES}
        try:
            self._producer = Producer(config)
        except KafkaException as error:
            raise TopicError(f"bad Kafka setting: {error.args[0].str()}") from None
        self._topic = topic
        self._on_settled = on_settled
        self._failed = 0
        self._first_error = ""

    def send(self, letter: Outgoing) -> None:
        """Hand over one letter; waits while the queue is full.

        Raises:
            SendError: this or an earlier letter was not taken.
        """

        def acknowledged(error: KafkaError | None, _: Message) -> None:
            self._settle(letter, error)

        while True:
            self._raise_if_failed()
            try:
                self._producer.produce(
                    self._topic, letter.value, letter.key, on_delivery=acknowledged, headers=letter.headers
                )
            except BufferError:
                self._producer.poll(_POLL_S)
            except KafkaException as error:
                self._settle(letter, error.args[0])
            else:
                self._producer.poll(0)
                return

    def finish(self, timeout_s: float) -> None:
        """Wait for all acknowledgements, so long at most; what is left then has failed.

        Raises:
            SendError: not all that was handed over has been acknowledged.
        """
        until_s = time.monotonic() + timeout_s
        while len(self._producer) and time.monotonic() < until_s:
            self._producer.poll(_POLL_S)
        if len(self._producer):
            self._producer.purge()
            self._producer.poll(0)
        self._raise_if_failed()

    def _settle(self, letter: Outgoing, error: KafkaError | None) -> None:
        if error is not None:
            self._failed += 1
            self._first_error = self._first_error or f"letter {letter.position}: {error.str()}"
        self._on_settled(letter, None if error is None else error.str())

    def _raise_if_failed(self) -> None:
        if self._failed:
            raise SendError(
                f"{self._topic} did not acknowledge {self._failed:,} letters, the first of them "
                f"{self._first_error}. Later ones were not sent; --json names each that was"
            )
