"""Sends clicks to the clicks topic: bounded in memory, acknowledged by all in-sync replicas, counted."""

import time
from collections.abc import Mapping

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient

from deploy.topic_admin import TopicError, partitions_by_topic
from worker.shell.client_config import for_producer

DEFAULTS: Mapping[str, str | int] = {
    "client.id": "nextclick-produce",
    "acks": "all",
    "enable.idempotence": "true",  # keeps the order of a session across retries
    "partitioner": "murmur2_random",  # what Java's clients do: any producer puts a session where we do
    "linger.ms": 5,
    "compression.type": "lz4",
    # What is not acknowledged waits in memory, at most this much; then `send` waits.
    "queue.buffering.max.messages": 50_000,
    "queue.buffering.max.kbytes": 65_536,
    # Bound on an outage of the broker in mid-run. librdkafka's five minutes look like a hang.
    "message.timeout.ms": 30_000,
    "log_level": 0,  # what matters comes back as an error; `--kafka log_level=6` shows the rest
}
_POLL_S = 0.1  # a wait inside the client is deaf to Ctrl-C


class SendError(Exception):
    """A record was refused, or not acknowledged in time; the message says by whom and why."""


class ClickSender:
    """A producer for one topic, which must exist. One thread only.

    Attributes:
        sent: records handed over.
        delivered: records acknowledged.
        failed: records given up.
    """

    def __init__(self, client_config: Mapping[str, str], topic: str) -> None:
        """Reach the broker and look for the topic, which is never created by accident.

        Raises:
            TopicError: no broker answers within ten seconds, or the topic does not exist.
        """
        config = {**DEFAULTS, **for_producer(client_config)}
        self._topic = topic
        self._servers = client_config.get("bootstrap.servers", "")
        try:
            admin = AdminClient({"log_level": 0, **for_producer(client_config)})
            self._producer = Producer(config)
        except KafkaException as error:
            raise TopicError(f"bad Kafka setting: {error.args[0].str()}") from None
        if topic not in partitions_by_topic(admin, client_config):
            raise TopicError(
                f"there is no topic {topic} at {self._servers}: make it with `nextclick topics create`"
            )
        self.sent = self.delivered = self.failed = 0
        self._first_error: KafkaError | None = None

    def send(self, key: str | bytes | None, value: bytes | None) -> None:
        """Hand over one record; waits while the queue is full.

        Raises:
            SendError: an earlier record was given up, or this one cannot be sent.
        """
        while True:
            self._raise_if_failed()
            try:
                self._producer.produce(self._topic, value, key, on_delivery=self._acknowledged)
            except BufferError:
                self._producer.poll(_POLL_S)
            except KafkaException as error:
                self.failed += 1
                self._first_error = self._first_error or error.args[0]
            else:
                self.sent += 1
                self._producer.poll(0)
                return

    def wait(self, seconds: float) -> None:
        """Let so much time pass, in which deliveries are taken note of; at least look for them.

        Raises:
            SendError: as `send`.
        """
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            self._producer.poll(min(left_s, _POLL_S))
            self._raise_if_failed()
        self._producer.poll(0)
        self._raise_if_failed()

    def finish(self, timeout_s: float) -> None:
        """Wait for all acknowledgements, so long at most; what is left then is given up.

        Raises:
            SendError: not all that was sent has been acknowledged.
        """
        until_s = time.monotonic() + timeout_s
        while len(self._producer) and time.monotonic() < until_s:
            self._producer.poll(_POLL_S)
        if late := len(self._producer):
            self._producer.purge()
            self._producer.poll(0)
            raise SendError(f"{self._servers} acknowledged all but {late:,} records within {timeout_s:g} s")
        self._raise_if_failed()

    def _acknowledged(self, error: KafkaError | None, _: Message) -> None:
        if error is None:
            self.delivered += 1
        else:
            self.failed += 1
            self._first_error = self._first_error or error

    def _raise_if_failed(self) -> None:
        if self._first_error is not None:
            raise SendError(
                f"{self._topic} at {self._servers} did not take a record: {self._first_error.str()}"
            )
