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


class SendingFailedError(Exception):
    """The broker refused a record for good."""


class Sender:
    """A thread that sends until told to stop. Open loop: after a pause it catches up with its schedule.

    Attributes:
        clicks: good records sent so far.
        bad_records: others sent so far.
    """

    def __init__(self, bootstrap: str, topic: str, records: Iterator[Record], rate_per_s: float) -> None:
        self._producer = Producer({"bootstrap.servers": bootstrap, **PRODUCER_CONFIG})
        self._topic = topic
        self._records = records
        self.rate_per_s = rate_per_s
        self._stop = threading.Event()
        self._error: str | None = None
        self._thread = threading.Thread(target=self._send, name="clicks", daemon=True)
        self.clicks = 0
        self.bad_records = 0

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

    def _produce(self, record: Record) -> None:
        while True:
            try:
                self._producer.produce(self._topic, record.value, record.key, on_delivery=self._note)
            except BufferError:
                self._producer.poll(0.1)
                if self._stop.is_set():
                    return
            else:
                break
        self.clicks += record.event_id is not None
        self.bad_records += record.event_id is None

    def _note(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._error = f"a click was refused: {error.str()}"
