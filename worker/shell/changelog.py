"""Restoring sessions from the changelog: a thread reads it, the worker takes what was read between batches.

A partition is restored when all is read that its committed offset stands for. So the order matters: first
the committed offset, which the broker withholds while a transaction is open that would move it; then the end
of the changelog as it is for everybody, open transactions included; then reading, committed records only,
until that end is passed. The end is told by librdkafka's event, because the last records may be control
records, aborted, or compacted away; and it is passed only once every transaction before it has ended.
"""

import queue
import threading
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.topics import TopicNames
from worker.shell.client_config import client_logger, for_consumer
from worker.shell.log import TroubleLog
from worker.shell.records import offset_of

log = structlog.get_logger()

CHUNK_RECORDS = 2_000
"""Applied between two batches of clicks: about 10 ms of a loop that others wait for."""

QUEUED_CHUNKS = 8
"""Read ahead of the worker: enough to keep it busy, a few megabytes."""

POLL_S = 0.1
ASK_S = 5.0
IDLE_S = 1.0
RETRY_S = 0.5
TIMEOUTS_IN_A_ROW = 3
"""Questions of `ASK_S` each, after which the clients are taken to be at fault rather than the brokers."""


class Bounds(NamedTuple):
    """Where the clicks of a partition begin and end, and where its group stands."""

    committed: int  # next offset to read, negative where nothing was ever committed
    first: int  # offset of the oldest click that is there
    end: int  # offset behind the newest


class Chunk(NamedTuple):
    """Some records of the changelog of one partition, in order."""

    partition: int
    ticket: int
    records: list[Message]
    bounds: Bounds
    is_last: bool


class _Restoring:
    """How far one partition is."""

    def __init__(self, ticket: int, bounds: Bounds, first: int, end: int) -> None:
        self.ticket = ticket
        self.bounds = bounds
        self.first = first
        self.end = end  # of the changelog
        self.position = first


class ChangelogReader:
    """Reads the changelog of partitions that were assigned.

    Args:
        client_config: librdkafka settings.
        group_id: whose committed offsets count.
        topics: the topic names.
    """

    def __init__(self, client_config: Mapping[str, str], group_id: str, topics: TopicNames) -> None:
        self._topics = topics
        self._client_config = client_config
        self._group_id = group_id
        self._consumer, self._ends = self._new_clients()
        self._timeouts = 0  # in a row, of questions
        self._chunks: queue.Queue[Chunk] = queue.Queue(QUEUED_CHUNKS)
        self._lock = threading.Lock()
        self._wanted: dict[int, int] = {}  # partition → ticket
        self._begun: dict[int, int] = {}  # the same, of what this thread has taken up
        self._restoring: dict[int, _Restoring] = {}
        self._tickets = 0
        self._trouble = TroubleLog(interval_s=10.0)
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="changelog", daemon=True)
        self._thread.start()

    def _new_clients(self) -> tuple[Consumer, Consumer]:
        """One to read with, and one that shows where topics end, open transactions or not."""
        common = {
            **for_consumer(self._client_config),
            "group.id": self._group_id,  # to ask for its offsets; never joined
            "enable.auto.commit": "false",
        }
        reader = {
            "client.id": "nextclick-restore",
            "isolation.level": "read_committed",
            "enable.auto.offset.store": "false",
            "enable.partition.eof": "true",
            "auto.offset.reset": "earliest",  # where the start was compacted away
            "queued.max.messages.kbytes": "16384",
            "fetch.queue.backoff.ms": "5",  # once that is full; a second is the client's default
        }
        ends = {"client.id": "nextclick-restore-ends", "isolation.level": "read_uncommitted"}
        return (
            Consumer({**common, **reader}, logger=client_logger()),
            Consumer({**common, **ends}, logger=client_logger()),
        )

    def start(self, partitions: AbstractSet[int]) -> None:
        """Begin to read the changelog of these partitions; what was begun for them before is void."""
        with self._lock:
            for partition in partitions:
                self._tickets += 1
                self._wanted[partition] = self._tickets
        self._wake.set()

    def cancel(self, partitions: AbstractSet[int]) -> None:
        """Read these no further; their chunks that are under way are void."""
        with self._lock:
            for partition in partitions:
                self._wanted.pop(partition, None)
        self._wake.set()

    def take(self, timeout_s: float) -> Chunk | None:
        """The next chunk that is not void, if there is one in time.

        Raises:
            KafkaException: the changelog cannot be read. Another error of the thread, if it met one.
        """
        if self.failure is not None:
            raise self.failure
        try:
            chunk = self._chunks.get(timeout=timeout_s) if timeout_s > 0 else self._chunks.get_nowait()
        except queue.Empty:
            return None
        with self._lock:
            if self._wanted.get(chunk.partition) != chunk.ticket:
                return None
            if chunk.is_last:
                del self._wanted[chunk.partition]
        return chunk

    @property
    def has_more(self) -> bool:
        """Whether `take` would find something at once."""
        return not self._chunks.empty()

    def progress(self) -> tuple[int, int]:
        """Records read and to be read of all that is being restored, by offsets: compacted ones count."""
        going = list(self._restoring.values())
        return sum(one.position - one.first for one in going), sum(one.end - one.first for one in going)

    def close(self) -> None:
        """Stop reading."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout=2)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._follow_wishes()
                if self._restoring:
                    self._read()
                else:
                    self._wake.wait(IDLE_S)
                    self._wake.clear()
        except Exception as error:  # noqa: BLE001 - `take` raises it where somebody listens
            self.failure = error
        finally:
            self._ends.close()
            self._consumer.close()

    def _follow_wishes(self) -> None:
        with self._lock:
            wanted = dict(self._wanted)
        for partition, one in list(self._restoring.items()):
            if wanted.get(partition) != one.ticket:
                self._end(partition)
        new = {p: ticket for p, ticket in wanted.items() if self._begun.get(p) != ticket}
        if new:
            self._begin(new)

    def _begin(self, new: Mapping[int, int]) -> None:
        try:
            bounds = self._bounds(new.keys())
            ends = self._offsets(self._topics.session_histories, new.keys())
        except KafkaException as error:
            cause = error.args[0]
            if cause.fatal() or cause.code() in _HOPELESS:
                raise
            self._trouble.warning("restore_waits", cause.name(), reason=cause.str(), partitions=sorted(new))
            self._timeouts = self._timeouts + 1 if cause.code() == KafkaError._TIMED_OUT else 0
            if self._timeouts == TIMEOUTS_IN_A_ROW:
                self._renew_clients()
            self._stopping.wait(RETRY_S)
            self._refresh_metadata()
            return
        self._timeouts = 0
        self._begun |= new
        for partition, ticket in new.items():
            one = _Restoring(ticket, bounds[partition], *ends[partition])
            self._restoring[partition] = one
            if one.end > one.first:
                at = TopicPartition(self._topics.session_histories, partition, one.first)
                self._consumer.incremental_assign([at])
            else:
                self._finish(partition, one, assigned=False)

    def _renew_clients(self) -> None:
        """Go on with new ones: a client can wait for ever for a broker that has long come back."""
        log.warning(
            "restore_clients_renewed", reason=f"{self._timeouts} questions in a row were not answered"
        )
        for old in (self._consumer, self._ends):  # aside, because to close it can take for ever, too
            threading.Thread(target=old.close, name="close-restore-client", daemon=True).start()
        self._consumer, self._ends = self._new_clients()
        self._timeouts = 0
        topic = self._topics.session_histories
        going = [TopicPartition(topic, number, one.position) for number, one in self._restoring.items()]
        self._consumer.incremental_assign(going)

    def _refresh_metadata(self) -> None:
        """A broker that came back has a new epoch, of which the client learns only by asking anew."""
        try:
            self._ends.list_topics(timeout=ASK_S)
        except KafkaException as error:
            self._trouble.warning("restore_waits", "no_metadata", reason=error.args[0].str())

    def _bounds(self, partitions: AbstractSet[int]) -> dict[int, Bounds]:
        clicks = self._topics.clicks
        asked = [TopicPartition(clicks, partition) for partition in sorted(partitions)]
        committed = {}
        for found in self._consumer.committed(asked, timeout=ASK_S):
            if found.error is not None:
                raise KafkaException(found.error)
            committed[found.partition] = found.offset
        ends = self._offsets(clicks, partitions)
        return {partition: Bounds(committed[partition], *ends[partition]) for partition in partitions}

    def _offsets(self, topic: str, partitions: AbstractSet[int]) -> dict[int, tuple[int, int]]:
        """First offset and the one behind the last, by partition, as brokers know them now."""
        ends = {}
        for partition in sorted(partitions):
            found = self._ends.get_watermark_offsets(TopicPartition(topic, partition), ASK_S)
            if found is None:  # how this call says that the time was up
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            ends[partition] = found
        return ends

    def _read(self) -> None:
        records: dict[int, list[Message]] = {}
        ends: dict[int, int] = {}
        for record in self._consumer.consume(CHUNK_RECORDS, POLL_S):
            partition = record.partition()
            if partition is None or partition not in self._restoring:
                continue
            if (error := record.error()) is None:
                records.setdefault(partition, []).append(record)
            elif error.code() == KafkaError._PARTITION_EOF:
                ends[partition] = offset_of(record)
            elif error.fatal() or error.code() in _HOPELESS:
                raise KafkaException(error)
            else:
                self._trouble.warning(
                    "reading_changelog", error.name(), reason=error.str(), partition=partition
                )
        for partition, found in records.items():
            one = self._restoring[partition]
            one.position = offset_of(found[-1]) + 1
            self._put(Chunk(partition, one.ticket, found, one.bounds, is_last=False))
        for partition in records.keys() | ends.keys():
            one = self._restoring[partition]
            one.position = max(one.position, ends.get(partition, 0))
            if one.position >= one.end:
                self._finish(partition, one, assigned=True)
            elif partition in ends:
                self._trouble.warning(
                    "restore_waits",
                    f"transaction on {partition}",
                    reason="a transaction on the changelog is open",
                    then="goes on once it ends: brokers abort that of a worker that died",
                    partition=partition,
                    offset=one.position,
                    end=one.end,
                )

    def _finish(self, partition: int, one: _Restoring, *, assigned: bool) -> None:
        self._put(Chunk(partition, one.ticket, [], one.bounds, is_last=True))
        if assigned:
            self._end(partition)
        else:
            del self._restoring[partition]

    def _end(self, partition: int) -> None:
        del self._restoring[partition]
        self._consumer.incremental_unassign([TopicPartition(self._topics.session_histories, partition)])

    def _put(self, chunk: Chunk) -> None:
        """Hand over, waiting for room; not for longer than somebody wants it."""
        while not self._stopping.is_set():
            with self._lock:
                if self._wanted.get(chunk.partition) != chunk.ticket:
                    return
            try:
                self._chunks.put(chunk, timeout=POLL_S)
            except queue.Full:
                continue
            return


_HOPELESS = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}
