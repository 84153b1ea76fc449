"""Where clicks come from: the consumer, its group, its offsets."""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from worker.shell.client_config import client_logger, for_consumer
from worker.shell.failures import WorkerFailure

log = structlog.get_logger()

CONSUMER_DEFAULTS = {
    "client.id": "nextclick-worker",
    "enable.auto.commit": "false",  # offsets follow the acknowledged outputs, never the reading
    "auto.offset.reset": "earliest",
    "partition.assignment.strategy": "cooperative-sticky",
    "isolation.level": "read_committed",
    "fetch.wait.max.ms": "100",
    # Bounds of what is fetched ahead, per process: some seconds of clicks, not a backlog.
    "queued.max.messages.kbytes": "16384",
    "queued.min.messages": "20000",
}


class Source:
    """Reads micro-batches of the clicks topic as a member of a consumer group. One thread only.

    Args:
        client_config: librdkafka settings; they win over the defaults above, but not over the commit rule.
        group_id: of the consumer group.
        topic: the clicks topic.
        on_revoked: called with the partitions that are about to leave, before others may get them; it must
            bring outputs to an end, commit, and drop their sessions. Called with `lost=True` when they have
            left already: then it must not commit.
    """

    def __init__(
        self,
        client_config: Mapping[str, str],
        group_id: str,
        topic: str,
        on_revoked: Callable[[AbstractSet[int], bool], None],
    ) -> None:
        self._consumer = Consumer(
            {
                **CONSUMER_DEFAULTS,
                **for_consumer(client_config),
                "group.id": group_id,
                "enable.auto.commit": "false",
                "enable.auto.offset.store": "false",
                "on_commit": self._note_commit,
            },
            logger=client_logger(),
        )
        self._topic = topic
        self._on_revoked = on_revoked
        self.assigned: set[int] = set()
        self._acknowledged: dict[int, int] = {}
        self._committed: dict[int, int] = {}
        self._consumer.subscribe([topic], on_assign=self._assign, on_revoke=self._revoke, on_lost=self._lose)

    def poll_batch(self, max_records: int, timeout_s: float) -> list[Message]:
        """Wait up to `timeout_s` for a record, then take what is there already, up to `max_records`.

        So one click under light load leaves alone and at once, and under heavy load batches fill up by
        themselves. Rebalance callbacks run inside.

        Raises:
            WorkerFailure: the consumer is broken for good.
        """
        batch = self._consumer.consume(1, timeout_s)
        if batch and max_records > 1:
            batch += self._consumer.consume(max_records - 1, 0.0)
        # A partition can leave during the second call: what the first one read of it is its new owner's.
        return [
            record for record in batch if not self._is_error(record) and record.partition() in self.assigned
        ]

    def acknowledge(self, positions: Mapping[int, int]) -> None:
        """Note next offsets by partition up to which every output is safe: they may be committed now."""
        self._acknowledged |= {p: offset for p, offset in positions.items() if p in self.assigned}

    def commit(self, *, wait: bool) -> None:
        """Commit what is acknowledged and not committed yet; what fails is tried again by the next call.

        Raises:
            KafkaException: with `wait`, the commit failed; without, failures are logged.
        """
        offsets = [
            TopicPartition(self._topic, partition, offset)
            for partition, offset in self._acknowledged.items()
            if self._committed.get(partition) != offset
        ]
        if not offsets:
            return
        if not wait:
            self._consumer.commit(offsets=offsets, asynchronous=True)
            return
        for partition in self._consumer.commit(offsets=offsets, asynchronous=False) or ():
            if partition.error is not None:
                raise KafkaException(partition.error)

    def lag(self) -> dict[int, int]:
        """Records not yet read by assigned partition, from what the last fetches said; asks no broker."""
        lags = {}
        positions = self._consumer.position([TopicPartition(self._topic, p) for p in sorted(self.assigned)])
        for position in positions:
            known = self._consumer.get_watermark_offsets(position, cached=True)
            if known is not None and known[1] >= 0:
                start = position.offset if position.offset >= 0 else known[0]
                lags[position.partition] = max(known[1] - max(start, 0), 0)
        return lags

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self.assigned |= {partition.partition for partition in partitions}

    def _revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        gone = {partition.partition for partition in partitions}
        self._on_revoked(gone, False)
        self._forget(gone)

    def _lose(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        gone = {partition.partition for partition in partitions}
        self._forget(gone)
        self._on_revoked(gone, True)

    def _forget(self, partitions: set[int]) -> None:
        self.assigned -= partitions
        for partition in partitions:
            self._acknowledged.pop(partition, None)
            self._committed.pop(partition, None)

    def _note_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        failed = [part.partition for part in partitions if error is not None or part.error is not None]
        if failed:
            log.warning("commit_failed", partitions=failed, error=str(error), then="tried again")
        for part in partitions:
            if part.partition not in failed and part.partition in self.assigned:
                self._committed[part.partition] = part.offset

    @staticmethod
    def _is_error(record: Message) -> bool:
        """Whether this is an event rather than a record; librdkafka retries what can be retried."""
        error = record.error()
        if error is None:
            return False
        if error.fatal() or error.code() in _HOPELESS:
            raise WorkerFailure(f"reading clicks failed: {error.str()}")
        return True


_HOPELESS = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError._AUTHENTICATION,
}
