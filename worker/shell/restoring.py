"""Taking up partitions: their sessions from the changelog, then where to read on in the clicks."""

import time
from collections.abc import Set as AbstractSet
from typing import Literal

import msgspec
import structlog
from confluent_kafka import KafkaException, Message

from schemas.session_history import (
    SessionHistory,
    UnsupportedFormatError,
    decode_session_histories,
    ended_at,
)
from worker.core.advance import Recommender
from worker.core.late_records import LateRecords
from worker.shell.changelog import Bounds, ChangelogReader, Chunk
from worker.shell.failures import ChangelogTooNew, InputLost, WorkerFailure
from worker.shell.log import TroubleLog
from worker.shell.metrics import WorkerMetrics
from worker.shell.records import headers_of
from worker.shell.sink import Explain

log = structlog.get_logger()

OnLostInput = Literal["fail", "skip"]


class CorruptRecordError(ValueError):
    """A record of the changelog that is no session history; it is skipped."""


class PartitionRestorer:
    """Applies the changelog of newly assigned partitions to the session table. One thread only.

    Args:
        reader: that reads the changelog.
        recommender: whose table is filled.
        metrics: of the worker.
        on_lost_input: what to do where clicks were deleted before they were read.
        exactly_once: whether changelog and offsets were committed together.
        explain: for messages.

    Attributes:
        restoring: partitions that are not restored yet.
    """

    def __init__(
        self,
        reader: ChangelogReader,
        recommender: Recommender,
        metrics: WorkerMetrics,
        on_lost_input: OnLostInput,
        exactly_once: bool,
        explain: Explain,
    ) -> None:
        self._reader = reader
        self._recommender = recommender
        self._metrics = metrics
        self._on_lost_input = on_lost_input
        self._exactly_once = exactly_once
        self._explain = explain
        self._trouble = TroubleLog()
        self._late: dict[int, LateRecords] = {}
        self.restoring: set[int] = set()

    def begin(self, partitions: AbstractSet[int]) -> None:
        """Start to restore these partitions."""
        self.cancel(partitions)
        self.restoring |= partitions
        self._reader.start(partitions)

    def cancel(self, partitions: AbstractSet[int]) -> None:
        """These have left, restored or not."""
        self.restoring -= partitions
        for partition in partitions:
            self._late.pop(partition, None)
        self._reader.cancel(partitions)

    def turn(self, timeout_s: float) -> tuple[int, int] | None:
        """Apply the next records, waiting for them for so long; the partition that is complete by them, if
        any, and the offset from which on its clicks are to be read.

        Raises:
            WorkerFailure: the changelog cannot be read or is too new, or input was lost and that shall fail.
        """
        try:
            chunk = self._reader.take(timeout_s)
        except KafkaException as error:
            raise WorkerFailure(
                f"the changelog cannot be read: {self._explain(error.args[0], None)}"
            ) from None
        if chunk is None:
            return None
        self._apply(chunk)
        self._metrics.restored_records.inc(len(chunk.records))
        if not chunk.is_last:
            return None
        self.restoring.discard(chunk.partition)
        self._late.pop(chunk.partition, None)
        log.info("partition_restored", partition=chunk.partition, sessions=len(self._recommender.table))
        return chunk.partition, self._where_to_read_on(chunk.partition, chunk.bounds)

    def _where_to_read_on(self, partition: int, bounds: Bounds) -> int:
        self._recommender.table.forget_source_offsets(partition, bounds.end)  # of a topic of the same name
        if bounds.committed < 0:
            if self._exactly_once:  # offsets went with their topic, or were reset: everything is applied anew
                self._recommender.table.forget_source_offsets(partition, 0)
            return bounds.first
        if bounds.committed > bounds.end:  # the topic was made anew: its offsets count from 0 again
            self._recommender.table.forget_source_offsets(partition, 0)
        elif bounds.committed >= bounds.first:
            return bounds.committed
        return self._go_on_without(partition, bounds)

    def _go_on_without(self, partition: int, bounds: Bounds) -> int:
        """What was to be read next is not there: where to go on instead."""
        lost = max(bounds.first - bounds.committed, 0)
        said = {
            "partition": partition,
            "position": bounds.committed,
            "first": bounds.first,
            "end": bounds.end,
        }
        log.error("input_lost", **said, records=lost, on_lost_input=self._on_lost_input)
        self._metrics.lost_input_records.inc(lost)
        if self._on_lost_input == "fail":
            raise InputLost(
                f"clicks of partition {partition} are lost: offset {bounds.committed} is next, but the topic "
                f"holds {bounds.first} to {bounds.end} (retention was faster, or the topic was made anew). "
                "To go on with what is there: --on-lost-input skip"
            )
        return bounds.first

    def _apply(self, chunk: Chunk) -> None:
        now_ms = time.time_ns() // 1_000_000
        late = self._late_records(chunk)
        records = chunk.records
        try:
            session_ids, histories = _read(chunk.partition, records)
        except (*_UNREADABLE, UnsupportedFormatError, CorruptRecordError):
            records, session_ids, histories = self._read_one_by_one(chunk)
        if late is not None:
            timely = [
                at
                for at, record in enumerate(records)
                if not _is_late(late, session_ids[at], histories[at], record, now_ms)
            ]
            self._metrics.late_changelog_records.inc(len(records) - len(timely))
            session_ids = [session_ids[at] for at in timely]
            histories = [histories[at] for at in timely]
        self._recommender.restore(chunk.partition, session_ids, histories, now_ms)
        if late is not None:
            late.restored(session_ids)

    def _read_one_by_one(self, chunk: Chunk) -> tuple[list[Message], list[str], list[SessionHistory | None]]:
        """What can be read of a chunk; each record that cannot is told of and skipped."""
        records, session_ids, histories = [], [], []
        for record in chunk.records:
            try:
                [session_id], [history] = _read(chunk.partition, [record])
            except UnsupportedFormatError as error:
                raise ChangelogTooNew(f"partition {chunk.partition}: {error}. Upgrade this worker") from None
            except (*_UNREADABLE, CorruptRecordError) as error:
                self._skip(chunk, record, error)
                continue
            records.append(record)
            session_ids.append(session_id)
            histories.append(history)
        return records, session_ids, histories

    def _late_records(self, chunk: Chunk) -> LateRecords | None:
        """None with transactions: brokers refuse what a worker writes that has lost its partitions."""
        if self._exactly_once:
            return None
        if chunk.partition not in self._late:
            self._late[chunk.partition] = LateRecords(
                self._recommender.table, chunk.partition, chunk.bounds.end
            )
        return self._late[chunk.partition]

    def _skip(self, chunk: Chunk, record: Message, error: Exception) -> None:
        self._metrics.corrupt_changelog_records.inc()
        self._trouble.warning(
            "changelog_record_skipped",
            "corrupt",
            partition=chunk.partition,
            offset=record.offset(),
            error=str(error),
        )


_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def _is_late(
    late: LateRecords, session_id: str, history: SessionHistory | None, record: Message, now_ms: int
) -> bool:
    if history is None:
        return late.is_late_end(session_id, ended_at(headers_of(record)))
    return late.is_late(session_id, history.source_offset, min(history.last_activity_ms, now_ms))


def _read(partition: int, records: list[Message]) -> tuple[list[str], list[SessionHistory | None]]:
    """What records of the changelog say: session ids, and their histories unless they have ended.

    All or none, and quick: a restart waits for this.

    Raises:
        UnsupportedFormatError: a newer version wrote one of them.
        CorruptRecordError: one is no session history of this partition.
        msgspec.DecodeError, UnicodeDecodeError, RecursionError: one is no session history at all.
    """
    session_ids = [key.decode() if isinstance(key := record.key(), bytes) else "" for record in records]
    if not all(session_ids):
        raise CorruptRecordError("no key")
    values = [record.value() for record in records]
    live = iter(decode_session_histories([value for value in values if value is not None]))
    histories = [None if value is None else next(live) for value in values]
    for session_id, history in zip(session_ids, histories, strict=True):
        if history is None:
            continue
        if history.session_id != session_id or history.source_partition != partition:
            raise CorruptRecordError(
                f"it is of partition {history.source_partition}, or of another session than its key says"
            )
    return session_ids, histories
