"""Sends the simulator's records at a steady rate, whatever becomes of workers and broker."""

import threading
import time
from collections.abc import Iterator

from confluent_kafka import KafkaError, Message, Producer

from tests.chaos.workload import Record

PRODUCER_CONFIG: dict[str, str | int | bool] = {
    "enable.idempotence": True,  # a broker that comes back must not get a click twice, or two swapped
    "message.timeout.ms": 0,
    "partitioner": "murmur2_random",
    "linger.ms": 5,
    "reconnect.backoff.max.ms": 500,
    "log_level": 0,
    "queue.buffering.max.messages": 100_000,  # minutes of a broker that is away; beyond it we wait
}
FLUSH_S = 60.0

STALLED_S = 40.0
"""Far longer than a broker stays away. A producer that has been told of no delivery for so long waits for
ever: seen once in some hours of restarts, with librdkafka 2.16.1."""


class SendingFailedError(Exception):
    """The broker refused a record for good."""


class Sender:
    """A thread that sends until told to stop. Open loop: after a pause it catches up with its schedule.

    A producer that stalls is given up with all that waits in it: what is on the topic is what both runs read,
    so nothing is missing there; but whatever was sent again might be there twice.

    Attributes:
        clicks: good records sent so far.
        bad_records: others sent so far.
    """

    def __init__(self, bootstrap: str, topic: str, records: Iterator[Record], rate_per_s: float) -> None:
        self._config = {"bootstrap.servers": bootstrap, **PRODUCER_CONFIG}
        self._producer = Producer(self._config)
        self._delivered_at_s = time.monotonic()
        self._given_up: list[Producer] = []
        self._topic = topic
        self._records = records
        self.rate_per_s = rate_per_s
        self._stop = threading.Event()
        self._error: str | None = None
        self._thread = threading.Thread(target=self._send, name="clicks", daemon=True)
        self.clicks = 0
        self.bad_records = 0

    @property
    def stalls(self) -> int:
        """Producers that were given up."""
        return len(self._given_up)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def check(self) -> None:
        """Raise SendingFailedError if a record was refused, or the thread has died."""
        if self._error is not None:
            raise SendingFailedError(self._error)
        if self._thread.ident is not None and not self._thread.is_alive() and not self._stop.is_set():
            raise SendingFailedError("the thread that sends clicks has died")

    def finish(self) -> None:
        """Stop, and wait until all that was sent is on the topic.

        Raises:
            SendingFailedError: a record was refused, or the broker took them too slowly.
        """
        self.check()
        self._stop.set()
        self._thread.join()
        unsent = self._producer.flush(FLUSH_S)
        self.check()
        if unsent:
            raise SendingFailedError(f"{unsent} records were not taken within {FLUSH_S:.0f} s")

    def _send(self) -> None:
        started_s = time.monotonic()
        sent = 0
        while not self._stop.wait(0.02):
            due = int((time.monotonic() - started_s) * self.rate_per_s)
            while sent < due and not self._stop.is_set():
                self._produce(next(self._records))
                sent += 1
            self._producer.poll(0)
            self._replace_if_stalled()

    def _replace_if_stalled(self) -> None:
        now_s = time.monotonic()
        if not len(self._producer):
            self._delivered_at_s = now_s
        elif now_s - self._delivered_at_s > STALLED_S:
            self._producer.purge()
            self._given_up.append(self._producer)  # to end one that hangs would hang, too
            self._producer = Producer(self._config)
            self._delivered_at_s = now_s

    def _produce(self, record: Record) -> None:
        while True:
            try:
                self._producer.produce(self._topic, record.value, record.key, on_delivery=self._note)
            except BufferError:
                self._producer.poll(0.1)
                self._replace_if_stalled()
                if self._stop.is_set():
                    return
            else:
                break
        self.clicks += record.event_id is not None
        self.bad_records += record.event_id is None

    def _note(self, error: KafkaError | None, _: Message) -> None:
        if error is None:
            self._delivered_at_s = time.monotonic()
        elif error.code() not in _PURGED:
            self._error = f"a click was refused: {error.str()}"


_PURGED = {KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT}
