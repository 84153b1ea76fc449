"""Where outputs go: the producer, and what it takes for a batch's offsets to be committable.

At-least-once, pipelined: batches are sent without waiting, and an offset may be committed once every output
of its batch and of all batches before it is acknowledged by all in-sync replicas. (Exactly-once replaces this
file's class by one that wraps a batch in a transaction; nothing else needs to know.)
"""

from collections import deque
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from worker.shell.client_config import client_logger, for_producer
from worker.shell.failures import OutputLost, OutputTooLarge

Header = tuple[str, str | bytes | None]

PRODUCER_DEFAULTS = {
    "client.id": "nextclick-worker",
    "linger.ms": "0",  # a micro-batch is handed over at once and forms its own requests
    # What is unacknowledged stays in memory, so this bounds it: about 20 batches of the default size.
    "queue.buffering.max.messages": "10000",
    "queue.buffering.max.kbytes": "131072",
    # For ever: while brokers are away nothing is given up, the full queue stops consumption instead.
    "message.timeout.ms": "0",
}

# What the delivery guarantee stands on wins over the operator's settings.
PRODUCER_RULES = {"acks": "all", "enable.idempotence": "true"}


class _BatchInFlight:
    """Outputs of one batch that are on their way, and the offsets that they hold back."""

    __slots__ = ("errors", "pending", "positions")

    def __init__(self, errors: list[KafkaError]) -> None:
        self.pending = 0
        self.positions: Mapping[int, int] = {}
        self.errors = errors

    def acknowledge(self, error: KafkaError | None, _: Message) -> None:
        """Delivery report of one output."""
        self.pending -= 1
        if error is not None:
            self.errors.append(error)


class AtLeastOnceSink:
    """Sends outputs and tells which source offsets are safe to commit. One thread only.

    Args:
        client_config: librdkafka settings.
        give_up: asked while the queue is full: whether to stop waiting for room.
    """

    def __init__(self, client_config: Mapping[str, str], give_up: Callable[[], bool]) -> None:
        self._give_up = give_up
        self._producer = Producer(
            {**PRODUCER_DEFAULTS, **for_producer(client_config), **PRODUCER_RULES}, logger=client_logger()
        )
        self._batches: deque[_BatchInFlight] = deque()
        self._errors: list[KafkaError] = []
        self._open = _BatchInFlight(self._errors)

    def __len__(self) -> int:
        """Outputs that are not acknowledged yet."""
        return len(self._producer)

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
            OutputLost: this or an earlier output was refused for good, or we are to stop and the queue
                stays full.
        """
        while True:
            try:
                self._producer.produce(topic, value, key, partition, self._open.acknowledge, headers=headers)
            except BufferError:
                self._producer.poll(0.05)
                self._raise_if_lost()
                if self._give_up():
                    raise OutputLost("stopped while brokers took no outputs; restart reads on") from None
            except KafkaException as error:
                if error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE:
                    raise OutputTooLarge(f"an output for {topic} is too large to send") from None
                raise OutputLost(f"the producer failed: {error.args[0].str()}") from None
            else:
                self._open.pending += 1
                return

    def end_batch(self, positions: Mapping[int, int]) -> None:
        """Close the open batch.

        Args:
            positions: next offset to read by partition of the clicks topic, once this batch is acknowledged.
        """
        self._open.positions = positions
        self._batches.append(self._open)
        self._open = _BatchInFlight(self._errors)
        self._producer.poll(0)

    def committable(self) -> dict[int, int]:
        """Next offsets by partition up to which all is acknowledged; each is told once.

        Raises:
            OutputLost: an output was refused for good.
        """
        self._producer.poll(0)
        self._raise_if_lost()
        safe: dict[int, int] = {}
        while self._batches and self._batches[0].pending == 0:
            safe.update(self._batches.popleft().positions)
        return safe

    def forget_partitions(self, partitions: AbstractSet[int]) -> None:
        """Hold offsets of these partitions no longer: they are another worker's to commit."""
        for batch in self._batches:
            batch.positions = {p: at for p, at in batch.positions.items() if p not in partitions}

    def flush(self, timeout_s: float) -> bool:
        """Wait for all acknowledgements; False if the time was not enough."""
        return int(self._producer.flush(timeout_s)) == 0

    def _raise_if_lost(self) -> None:
        if self._errors:
            raise OutputLost(f"Kafka refused an output: {self._errors[0].str()}")
