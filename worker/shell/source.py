"""Where clicks come from: the consumer, its group, its offsets.

A partition that is assigned is not read at once: first its sessions are restored, then `start` says from
which offset on. Until then, and after it has left, none of its records is handed out.
"""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from worker.shell.client_config import client_logger, for_consumer
from worker.shell.failures import BatchAborted, CannotStart, MustRestart, WorkerFailure
from worker.shell.log import TroubleLog
from worker.shell.sink import Explain

log = structlog.get_logger()

CONSUMER_DEFAULTS = {
    "client.id": "nextclick-worker",
    "isolation.level": "read_committed",
    "fetch.wait.max.ms": "100",
    # Bounds of what is fetched ahead, per process: some seconds of clicks, not a backlog.
    "queued.max.messages.kbytes": "16384",
    "queued.min.messages": "20000",
}

MAX_POLL_INTERVAL_MS = 60_000
"""How long a rebalance waits for a member that is alive and does not join again: brokers take this interval
for that, and the client's own five minutes would be five minutes without partitions for all others. A worker
joins again within milliseconds, and whatever it waits for, it polls meanwhile."""

# What the delivery guarantees stand on wins over the operator's settings.
CONSUMER_RULES = {
    "enable.auto.commit": "false",  # offsets follow the outputs, never the reading
    "enable.auto.offset.store": "false",
    "auto.offset.reset": "error",  # where to start is decided here, and lost input is never skipped silently
}


def group_config(
    client_config: Mapping[str, str], group_id: str, instance_id: str, group_protocol: str
) -> dict[str, str]:
    """Consumer settings of a member of the group.

    Args:
        client_config: librdkafka settings.
        group_id: of the group.
        instance_id: for static membership (KIP-345), "" for none.
        group_protocol: "classic", with cooperative-sticky assignment, or "consumer" (KIP-848).
    """
    asked = for_consumer(client_config)
    config = {**CONSUMER_DEFAULTS, **asked, **CONSUMER_RULES, "group.id": group_id}
    config.setdefault("max.poll.interval.ms", _max_poll_interval_ms(asked.get("session.timeout.ms", "")))
    if group_protocol == "consumer":
        config["group.protocol"] = "consumer"
    else:
        config["partition.assignment.strategy"] = "cooperative-sticky"
    if instance_id:
        config["group.instance.id"] = instance_id
    return config


class Source:
    """Reads micro-batches of the clicks topic as a member of a consumer group. One thread only.

    Args:
        config: of the consumer, see `group_config`.
        topic: the clicks topic.
        on_left: called with partitions that leave, before others may get them; it may commit. Called with
            `lost=True` when they have left already: then it must not commit.
        explain: for messages.

    Attributes:
        assigned: partitions of this member.
        active: those of them that are read.

    Raises:
        CannotStart: a setting is wrong.
    """

    def __init__(
        self,
        config: Mapping[str, str],
        topic: str,
        on_left: Callable[[AbstractSet[int], bool], None],
        explain: Explain,
    ) -> None:
        try:
            self._consumer = Consumer(
                {**config, "on_commit": self._note_commit, "error_cb": self._note_error},
                logger=client_logger(),
            )
        except KafkaException as error:
            raise CannotStart(f"a Kafka setting is wrong: {error.args[0].str()}") from None
        self._topic = topic
        self._trouble = TroubleLog(interval_s=10.0)
        self._fatal: KafkaError | None = None
        self._on_left = on_left
        self._explain = explain
        self.assigned: set[int] = set()
        self.active: set[int] = set()
        self._arrived: set[int] = set()
        self._out_of_range: set[int] = set()
        # What came while nothing was asked for: what the client had fetched when it was paused, see above.
        self._held: list[Message] = []
        self._is_paused = False
        self._in_batch = False
        self._is_rebalancing = False
        self._left_in_batch: list[tuple[set[int], bool]] = []
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
        self._resume()
        batch, self._held = self._held, []
        if not batch:
            batch = self._consumer.consume(1, timeout_s)
        if batch and len(batch) < max_records:
            batch += self._consumer.consume(max_records - len(batch), 0.0)
        batch = [record for record in batch if not self._is_error(record)]
        self._raise_if_fatal()
        # A partition can leave during the second call: what the first one read of it is its new owner's.
        return self.still_ours(batch)

    def still_ours(self, records: list[Message]) -> list[Message]:
        """The records of partitions that are being read here."""
        return [record for record in records if record.partition() in self.active]

    def keep_alive(self) -> None:
        """Stay in the group while a batch is under way that takes long; no record is lost.

        Partitions that leave meanwhile are out of `assigned` at once; `on_left` is called by `end_batch`.

        Raises:
            WorkerFailure: the consumer is broken for good.
        """
        if self._is_rebalancing:  # inside of a callback: the client must not be asked for another one
            return
        self._in_batch = True
        if not self._is_paused:
            self._consumer.pause(self._partitions(self.active))
            self._is_paused = True
        self._held += [record for record in self._consumer.consume(1, 0.0) if not self._is_error(record)]
        self._raise_if_fatal()

    def end_batch(self) -> None:
        """The batch at hand is done or undone: say which partitions left meanwhile."""
        self._in_batch = False
        for gone, lost in self._left_in_batch:
            self._on_left(gone, lost)
        self._left_in_batch.clear()

    def take_arrived(self) -> set[int]:
        """Partitions that were assigned and wait for `start`; each is told once."""
        arrived, self._arrived = self._arrived, set()
        return arrived

    def take_out_of_range(self) -> set[int]:
        """Partitions whose next record is not there any more; they wait for `start`. Each is told once."""
        found, self._out_of_range = self._out_of_range & self.active, set()
        if found:
            self._consumer.incremental_unassign(self._partitions(found))
            self.active -= found
        return found

    def start(self, partition: int, offset: int) -> None:
        """Read an assigned partition from this offset on."""
        if partition in self.assigned:
            at = TopicPartition(self._topic, partition, offset)
            self._consumer.incremental_assign([at])
            self._consumer.resume([at])  # the client remembers a pause from before it left
            self.active.add(partition)

    def group_metadata(self, partitions: AbstractSet[int]) -> object:
        """What ties a transaction to this member's place in the group (KIP-447).

        Raises:
            BatchAborted: not all of these partitions are read here any more.
        """
        if not partitions <= self.active:
            raise BatchAborted("partitions left in the middle of a batch")
        return self._consumer.consumer_group_metadata()

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
        """Records not yet read by active partition, from what the last fetches said; asks no broker."""
        lags = {}
        for position in self._consumer.position(self._partitions(self.active)):
            known = self._consumer.get_watermark_offsets(position, cached=True)
            if known is not None and known[1] >= 0:
                start = position.offset if position.offset >= 0 else known[0]
                lags[position.partition] = max(known[1] - max(start, 0), 0)
        return lags

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _partitions(self, numbers: AbstractSet[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, number) for number in sorted(numbers)]

    def _resume(self) -> None:
        if self._is_paused:
            self._consumer.resume(self._partitions(self.active))
            self._is_paused = False

    def _assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Take note only: without an explicit call the client would begin to read at once."""
        consumer.incremental_assign([])
        came = {partition.partition for partition in partitions}
        self.assigned |= came
        self._arrived |= came
        if came:
            log.info("partitions_came", partitions=sorted(came))

    def _revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._let_go(consumer, partitions, lost=False)

    def _lose(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._let_go(consumer, partitions, lost=True)

    def _let_go(self, consumer: Consumer, partitions: list[TopicPartition], *, lost: bool) -> None:
        gone = {partition.partition for partition in partitions}
        if self._in_batch:
            self._left_in_batch.append((gone, True))  # told when it is too late to commit anything for them
        else:
            self._is_rebalancing = True
            self._on_left(gone, lost)
            self._is_rebalancing = False
        consumer.incremental_unassign(self._partitions(gone & self.active))
        self.assigned -= gone
        self.active -= gone
        self._arrived -= gone
        self._held = [record for record in self._held if record.partition() not in gone]
        for partition in gone:
            self._acknowledged.pop(partition, None)
            self._committed.pop(partition, None)

    def _note_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        failed = [part.partition for part in partitions if error is not None or part.error is not None]
        if failed:
            log.warning("commit_failed", partitions=failed, error=str(error), then="tried again")
        for part in partitions:
            if part.partition not in failed and part.partition in self.assigned:
                self._committed[part.partition] = part.offset

    def _note_error(self, error: KafkaError) -> None:
        """What the client tells apart from records; only what is fatal is more than a line in its log."""
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._fatal = self._fatal or error

    def _raise_if_fatal(self) -> None:
        if self._fatal is None:
            return
        said = self._explain(self._fatal, self._topic)
        if any(text in said for text in _REFUSED_MEMBERSHIP):
            raise _not_taken_in(said)
        raise MustRestart(f"the consumer cannot go on: {said}")

    def _is_error(self, record: Message) -> bool:
        """Whether this is an event rather than a record; librdkafka retries what can be retried."""
        error = record.error()
        if error is None:
            return False
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._note_error(error)
            return True
        if error.code() == KafkaError.INCONSISTENT_GROUP_PROTOCOL:
            raise _not_taken_in(error.str())
        if error.code() in _HOPELESS:
            raise WorkerFailure(f"reading clicks failed: {self._explain(error, self._topic)}")
        partition = record.partition()
        if error.code() == KafkaError._AUTO_OFFSET_RESET and partition is not None:
            self._out_of_range.add(partition)
        else:
            self._trouble.warning(
                "reading_clicks",
                error.name(),
                reason=error.str(),
                partition=partition,
                offset=record.offset(),
                then="the client tries again",
            )
        return True


def _max_poll_interval_ms(session_timeout_ms: str) -> str:
    """Never below the session timeout: the client refuses that, and what is no number."""
    asked = int(session_timeout_ms) if session_timeout_ms.isdecimal() else 0
    return str(max(MAX_POLL_INTERVAL_MS, asked))


def _not_taken_in(said: str) -> WorkerFailure:
    return WorkerFailure(
        f"the group does not take this worker: {said}. All members of a group need one protocol and "
        "assignment, and brokers before 4.0 have the older protocol only: --group-protocol classic; no other "
        "program may use this --group-id"
    )


# By their texts: a fatal event has a code of its own and tells the cause in words.
_REFUSED_MEMBERSHIP = tuple(
    KafkaError(code).str() for code in (KafkaError.UNSUPPORTED_VERSION, KafkaError.UNSUPPORTED_ASSIGNOR)
)

_HOPELESS = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError._AUTHENTICATION,
}
