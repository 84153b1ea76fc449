"""Where outputs go: what a sink is, and the one that delivers at least once.

At-least-once, pipelined: batches are sent without waiting, and an offset may be committed once every output
of its batch and of all batches before it is acknowledged by all in-sync replicas. (Exactly-once is in
`transactions.py`.)
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from worker.shell.brokers_answer import do_brokers_answer
from worker.shell.client_config import client_logger, for_producer
from worker.shell.failures import CannotStart, MustRestart, OutputLost, OutputTooLarge

Header = tuple[str, str | bytes | None]

PRODUCER_DEFAULTS = {
    "client.id": "nextclick-worker",
    "linger.ms": "0",  # a micro-batch is handed over at once and forms its own requests
    # What is unacknowledged stays in memory, so this bounds it: about 10 batches of the default size.
    "queue.buffering.max.messages": "10000",
    "queue.buffering.max.kbytes": "131072",
}

# What the delivery guarantees stand on wins over the operator's settings.
PRODUCER_RULES = {"acks": "all", "enable.idempotence": "true"}

FULL_QUEUE_WAIT_S = 0.05

STALLED_S = 60.0
"""At least once: how long none of the outputs that wait may be acknowledged while brokers answer. A leader is
elected, and a producer has found it, in less."""

Explain = Callable[[KafkaError, str | None], str]
"""What an error means and what mends it, in words; the topic where one is known."""


class Sink(Protocol):
    """Takes the outputs of one batch after the other. One thread only."""

    def __len__(self) -> int:
        """Outputs that are not acknowledged yet."""
        ...

    def open(self) -> None:
        """Get ready; blocks until brokers answer.

        Raises:
            CannotStart: they refuse us.
            StopRequested: asked to stop before they answered.
        """
        ...

    def send(
        self,
        topic: str,
        partition: int,
        key: bytes | str | None,
        value: bytes | None,
        headers: list[Header],
    ) -> None:
        """Hand one output of the open batch to the producer; blocks while its queue is full.

        Raises:
            OutputTooLarge: this one is larger than the client's `message.max.bytes`; nothing was sent.
            OutputLost: this or an earlier output was refused for good.
            MustRestart: none is acknowledged any more, though brokers answer.
            BatchAborted: the transaction of the batch has failed.
            StopRequested: asked to stop, and the queue stays full.
        """
        ...

    def end_batch(self, positions: Mapping[int, int]) -> None:
        """Close the open batch.

        Args:
            positions: next offset to read by partition of the clicks topic, once this batch is through.

        Raises:
            OutputLost, BatchAborted, StopRequested, MustRestart: as their docstrings say.
        """
        ...

    def abort(self) -> None:
        """Take back the open batch, after a `BatchAborted`; not every sink can."""
        ...

    def committable(self) -> dict[int, int]:
        """Next offsets by partition up to which all is acknowledged and not committed; each is told once.

        Raises:
            OutputLost, MustRestart: as of `send`.
        """
        ...

    def forget_partitions(self, partitions: AbstractSet[int]) -> None:
        """Hold offsets of these partitions no longer: they are another worker's to commit."""
        ...

    def drop_unsent(self) -> None:
        """Do not send what still waits: all partitions were lost, and others answer for them."""
        ...

    def flush(self, timeout_s: float) -> bool:
        """Wait for all acknowledgements; False if the time was not enough."""
        ...

    def close(self, timeout_s: float) -> None:
        """Let go of what is open, so that it holds nobody up; as far as the time allows."""
        ...


class _BatchInFlight:
    """Outputs of one batch that are on their way, and the offsets that they hold back."""

    __slots__ = ("errors", "pending", "positions")

    def __init__(self, errors: list[tuple[str, KafkaError]]) -> None:
        self.pending = 0
        self.positions: Mapping[int, int] = {}
        self.errors = errors

    def acknowledge(self, error: KafkaError | None, message: Message) -> None:
        """Delivery report of one output."""
        self.pending -= 1
        if error is None or error.code() == KafkaError._PURGE_QUEUE:  # as `drop_unsent` wanted
            return
        if len(self.errors) < 10:  # the first one ends the worker
            self.errors.append((message.topic() or "", error))


class AtLeastOnceSink:
    """Sends outputs and tells which source offsets are safe to commit.

    Args:
        client_config: librdkafka settings.
        source_topic: asked for, when it has to be told whether brokers are there.
        while_waiting: called again and again while the queue is full; it keeps the group membership alive,
            and raises `StopRequested` when it is time to go.
        explain: for the messages of `OutputLost`.
    """

    def __init__(
        self,
        client_config: Mapping[str, str],
        source_topic: str,
        while_waiting: Callable[[], None],
        explain: Explain,
    ) -> None:
        self._client_config = client_config
        self._source_topic = source_topic
        self._while_waiting = while_waiting
        self._explain = explain
        settings = {
            **PRODUCER_DEFAULTS,
            # For ever: while brokers are away nothing is given up, the full queue stops consumption.
            "message.timeout.ms": "0",
            **for_producer(client_config),
            **PRODUCER_RULES,
        }
        try:
            self._producer = Producer(settings, logger=client_logger())
        except KafkaException as error:
            raise CannotStart(f"a Kafka setting is wrong: {error.args[0].str()}") from None
        self._batches: deque[_BatchInFlight] = deque()  # each holds an output or more of the bounded queue
        self._errors: list[tuple[str, KafkaError]] = []
        self._sent = self._delivered = 0
        self._delivered_at_s = time.monotonic()
        self._open = _BatchInFlight(self._errors)

    def __len__(self) -> int:
        """Outputs that are not acknowledged yet."""
        return len(self._producer)

    def open(self) -> None:
        """Nothing to do: the producer connects by itself."""

    def send(
        self,
        topic: str,
        partition: int,
        key: bytes | str | None,
        value: bytes | None,
        headers: list[Header],
    ) -> None:
        """As of `Sink`; never `BatchAborted`."""
        while True:
            try:
                self._producer.produce(topic, value, key, partition, self._open.acknowledge, headers=headers)
            except BufferError:
                self._producer.poll(FULL_QUEUE_WAIT_S)
                self._raise_if_lost()
                self._raise_if_stalled()
                self._while_waiting()
            except KafkaException as error:
                raise refused_at_once(topic, error.args[0]) from None
            else:
                self._open.pending += 1
                self._sent += 1
                return

    def end_batch(self, positions: Mapping[int, int]) -> None:
        """As of `Sink`; blocks for nothing and raises nothing."""
        self._open.positions = positions
        self._batches.append(self._open)
        self._open = _BatchInFlight(self._errors)
        self._producer.poll(0)

    def abort(self) -> None:
        """What was sent was sent: its clicks will be answered again."""

    def committable(self) -> dict[int, int]:
        """As of `Sink`."""
        self._producer.poll(0)
        self._raise_if_lost()
        self._raise_if_stalled()
        safe: dict[int, int] = {}
        while self._batches and self._batches[0].pending == 0:
            safe.update(self._batches.popleft().positions)
        return safe

    def forget_partitions(self, partitions: AbstractSet[int]) -> None:
        """As of `Sink`."""
        for batch in self._batches:
            batch.positions = {p: at for p, at in batch.positions.items() if p not in partitions}

    def drop_unsent(self) -> None:
        """As of `Sink`. What is on its way already cannot be called back: its fate would be unknown."""
        self._producer.purge(in_queue=True, in_flight=False)
        self._producer.poll(0)

    def flush(self, timeout_s: float) -> bool:
        """As of `Sink`."""
        return int(self._producer.flush(timeout_s)) == 0

    def close(self, timeout_s: float) -> None:
        """Nothing is open."""

    def _raise_if_stalled(self) -> None:
        """After brokers were away an idempotent producer may wait for ever for what it needs to go on."""
        now_s, waiting = time.monotonic(), len(self._producer)
        delivered = self._sent - waiting
        if not waiting or delivered > self._delivered:  # `waiting` has the client's own events in it, too
            self._delivered, self._delivered_at_s = delivered, now_s
        elif now_s - self._delivered_at_s > STALLED_S:
            if do_brokers_answer(self._client_config, self._source_topic):
                raise MustRestart(f"no output was acknowledged for {STALLED_S:.0f} s though brokers answer")
            self._delivered_at_s = now_s  # they are away: once they are back, it has as long again

    def _raise_if_lost(self) -> None:
        if self._errors:
            topic, error = self._errors[0]
            raise OutputLost(self._explain(error, topic))


def refused_at_once(topic: str, error: KafkaError) -> OutputLost:
    """What a producer says of an output before it sends it."""
    if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
        return OutputTooLarge(f"an output for {topic} is too large to send")
    return OutputLost(f"the producer failed: {error.str()}")
