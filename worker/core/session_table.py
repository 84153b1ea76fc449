"""The session table: which sessions are live, what they clicked last, and their hidden states.

Rows are preallocated; the operating system backs them with memory only once they are touched, so an empty
table of a million sessions costs few megabytes. What a row holds is in `session_records` and `hidden_states`,
who stands in which order in `partition_sessions`; here it is decided who gets a row, who loses it, and how
all of that is taken back.

Rules:
- A session belongs to the partition that its clicks come from; partitions know nothing of each other. So
  what a session is answered does not depend on which partitions its worker has.
- At most `max_sessions` live; the least recently active one goes first: of the sessions that stand first in
  their partitions, the one with the earliest last activity.
- A session ends when it had no click for `idle_timeout_ms` of event time: its row is freed once the watermark
  of its partition (the latest event time seen there, never ahead of the wall clock) says so, and a click that
  comes so long after the last one finds a fresh session, that knows no events of the former one. One whose
  click leaves it idle for longer than that already is the next to be freed.
- A click at or before the source offset of its session has been applied before: it is `REPLAYED`. One whose
  event is among the last few of its session is a `DUPLICATE`. Neither changes anything.
- Hidden rows are a cache of the histories. A row whose `generation` is not the model's is stale.
- `rollback` takes the table back to the last `begin`; only hidden rows do not come back, they become stale.

`touch` decides about rows click by click and `reset` empties them wave by wave: within one batch, a row can
be taken from a session whose earlier clicks still have to be answered.
"""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.session_history import NOT_TOLD
from worker.core.hidden_states import HiddenStates
from worker.core.kept_sessions import KeptSessions
from worker.core.partition_sessions import PartitionSessions, new_links
from worker.core.session_index import NO_ROW
from worker.core.session_records import SessionRecords
from worker.core.untold_changes import UntoldChanges

GENERATIONS = 2**15
"""Generations are counted modulo this; a row that sleeps through exactly so many models does not exist."""

EXPIRED_AT_ONCE = 16
"""Sessions that one click frees at most. The first click after a quiet night would free all of its partition,
a million tombstones in one transaction; so the clicks after it do their share, sooner than rows run out."""

STARTS, CONTINUES, REPLAYED, DUPLICATE = range(4)
"""What a click is to its session; below REPLAYED it is applied."""


class Change(NamedTuple):
    """A session that is not as the changelog has it; `row` is NO_ROW where it has ended.

    `ended_at` is then the source offset of its last click, where that is known; else NOT_TOLD.
    """

    partition: int
    session_id: str
    row: int
    ended_at: int


class Kept(NamedTuple):
    """What the table knows of a live session, for the changelog."""

    items: list[int]  # item numbers, oldest first
    last_activity_ms: int
    source_offset: int
    event_hashes: bytes  # of the last few events, EVENT_HASH_BYTES each, oldest first


@dataclass
class TableCounts:
    """What happened since the start, without what was rolled back."""

    late_clicks: int = 0
    """Clicks that were older than their session's latest; applied."""
    evicted: int = 0
    """Sessions that went because the table was full."""
    expired: int = 0
    """Sessions that went because they were idle."""
    replayed: int = 0
    """Clicks that had been applied before."""
    duplicates: int = 0
    """Clicks whose event was among the last few of their session."""


class _Moved(NamedTuple):
    """A session went to the end of its partition, or to its front."""

    partition: int
    session_id: str
    row: int
    before: int  # the row that stood before it


class _Added(NamedTuple):
    partition: int
    session_id: str
    row: int


class _Dropped(NamedTuple):
    """The first session of its partition went."""

    partition: int
    session_id: str
    row: int
    source_offset: int


_Journal = list[_Moved | _Added | _Dropped]


class SessionTable:
    """Rows of live sessions. N = `max_sessions`, L = `history_length`, k = `top_k`.

    Attributes:
        hidden: the hidden states; rows of fresh sessions are zero.
        records: what else is known of the sessions.
        watermark_ms: the latest event time seen anywhere.
        counts: what happened so far.
    """

    def __init__(
        self,
        max_sessions: int,
        history_length: int,
        idle_timeout_ms: int,
        duplicate_window: int = 8,
        top_k: int = 20,
    ) -> None:
        self._max_sessions = max_sessions
        self._idle_timeout_ms = idle_timeout_ms
        self.records = SessionRecords(max_sessions, history_length, duplicate_window, top_k)
        self._last_activity_ms = self.records.last_activity_ms
        self._source_offset = self.records.source_offset
        self.hidden = HiddenStates(max_sessions)
        self._ids: list[str] = []  # session id by row
        self._links = new_links(max_sessions)
        self._free = NO_ROW
        self._live = 0
        self._partitions: dict[int, PartitionSessions] = {}
        self.watermark_ms = 0
        self.counts = TableCounts()
        self._untold = UntoldChanges()
        self._journal: _Journal = []
        self.begin()

    def __len__(self) -> int:
        """How many sessions are live."""
        return self._live

    def row(self, partition: int, session_id: str) -> int:
        """The row of a session, or NO_ROW if it is not live."""
        found = self._partitions.get(partition)
        return NO_ROW if found is None else found.index.get(session_id)

    def source_offset(self, row: int) -> int:
        """Of the last click that was applied to the session in this row; -1 for none of this topic."""
        return int(self._source_offset[row])

    def last_activity_ms(self, row: int) -> int:
        """Event time of the latest click of the session in this row."""
        return int(self._last_activity_ms[row])

    def bytes_per_row(self) -> dict[str, float]:
        """What a session takes, by what it is for; its id, a string of its own, comes on top."""
        slots = sum(of.index.bytes() for of in self._partitions.values())
        return {
            "record": self.records.bytes_per_record,
            "hidden": self.hidden.bytes_per_row(),
            "links": sum(link.itemsize for link in self._links),
            "id_pointer": 8,
            "index": round(slots / max(self._live, 1), 1),
        }

    def begin(self) -> None:
        """What changed up to now is settled: `rollback` starts from here, and `changes` forgets what it told;
        what it was not asked for it will tell with the next changes.
        """
        self._untold.settle(_changed(self._journal))
        self._journal = []
        self._images: dict[int, bytes] = {}  # records as they were before this batch
        self._watermarks_before = {p: partition.watermark_ms for p, partition in self._partitions.items()}
        self._watermark_before_ms = self.watermark_ms
        self._counts_before = replace(self.counts)
        self._in_batch = True

    def touch(
        self, partition: int, session_id: str, event_hash: bytes, offset: int, timestamp_ms: int, now_ms: int
    ) -> tuple[int, int]:
        """The row for the next click of a session, and what the click is to it.

        An event time ahead of the wall clock counts as now: it would keep the session, and all that wait
        behind it to be freed, for as long as it is ahead. A row whose session `STARTS` still holds its former
        session until `reset`.

        Args:
            partition: of the clicks topic, as `offset`.
            session_id: of the click.
            event_hash: EVENT_HASH_BYTES that stand for the event id.
            offset: the click's place in the partition.
            timestamp_ms: event time.
            now_ms: wall clock.
        """
        of = self._partitions.get(partition) or self._take_up(partition)
        row = of.index.get(session_id)
        if row != NO_ROW:
            if offset <= self._source_offset[row]:
                self._keep_image(row)  # its answer will be noted there as published
                self.counts.replayed += 1
                return row, REPLAYED
            if event_hash in self.records.event_ring(row):
                self.counts.duplicates += 1
                return row, DUPLICATE
        timestamp_ms = min(timestamp_ms, now_ms)
        self._advance_time(of, timestamp_ms)
        if self._expire(partition, of) and row != NO_ROW:
            row = of.index.get(session_id)
        starts = row == NO_ROW
        if starts:
            row = self._add(partition, of, session_id, timestamp_ms)
        else:
            starts = self._continue(partition, of, session_id, row, timestamp_ms)
        self._source_offset[row] = offset
        self.records.note_event(row, event_hash)
        return row, STARTS if starts else CONTINUES

    def reset(self, rows: NDArray[np.int64], generation: int) -> None:
        """Empty the rows: no history, hidden state zero and up to date."""
        self.records.reset(rows, generation)
        self.hidden.zero(rows)

    def changes(self) -> list[Change]:
        """Sessions that changed since this was asked the last time, each at the place of its last change."""
        found = []
        for (partition, session_id), ended_at in self._untold.due(_changed(self._journal)).items():
            row = self.row(partition, session_id)
            found.append(Change(partition, session_id, row, ended_at if row == NO_ROW else NOT_TOLD))
        return found

    def kept(self, rows: list[int]) -> Iterator[Kept]:
        """What is known of the sessions in these rows."""
        items, counts = self.records.histories(np.array(rows, np.int64))
        for row, numbers, count in zip(rows, items.tolist(), counts.tolist(), strict=True):
            events = self.records.last_events(row)
            yield Kept(numbers[:count], self._last_activity_ms[row], self._source_offset[row], events)

    def restore(self, partition: int, sessions: KeptSessions) -> None:
        """Take up sessions as the changelog has them; a later record of a session replaces the earlier ones.

        Records must come in the order of the changelog, which is that of the sessions' last activity. Where
        the table is full the least recently active session goes, and `changes` tells of it.
        """
        if not len(sessions):
            return
        self._leave_batch()
        of = self._partitions.get(partition) or self._take_up(partition)
        latest = sessions.latest()
        rows = of.index.get_many([sessions.session_ids[at] for at in latest.tolist()])
        new = int(np.sum((rows == NO_ROW) & ~sessions.ended[latest]))
        if self._live + new > self._max_sessions:
            rows, latest = self._restore_in_order(partition, of, sessions)
        else:
            rows, latest = self._restore_at_once(of, sessions, latest, rows)
        self.records.fill(rows, sessions, latest)

    def _restore_at_once(
        self,
        of: PartitionSessions,
        sessions: KeptSessions,
        latest: NDArray[np.int64],
        rows: NDArray[np.int32],
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Line up sessions for which there is room: `latest` of these, which have these rows or none.

        Returns:
            int32[n] and int64[n], the rows to fill and what with.
        """
        for row, at in zip(rows[rows != NO_ROW].tolist(), latest[rows != NO_ROW].tolist(), strict=True):
            of.unlink(row)
            if sessions.ended[at]:
                self._release(of, sessions.session_ids[at], row)
        stays = ~sessions.ended[latest]
        rows, latest = rows[stays], latest[stays]
        new = rows == NO_ROW
        rows[new] = self._claim_many([sessions.session_ids[at] for at in latest[new].tolist()])
        of.index.add_many(rows[new])
        watermarks_ms = np.maximum(np.maximum.accumulate(sessions.last_activity_ms), of.watermark_ms)
        self._advance_time(of, int(watermarks_ms[-1]))
        over = (watermarks_ms - sessions.last_activity_ms > self._idle_timeout_ms)[latest]  # as `_line_up`
        for row in rows[over].tolist():
            of.link(row, NO_ROW)
        of.link_last(rows[~over])
        return rows, latest

    def _restore_in_order(
        self, partition: int, of: PartitionSessions, sessions: KeptSessions
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """As `_restore_at_once`, one by one, where some have to go to make room."""
        filled: dict[int, int] = {}  # row → whose
        for at, session_id in enumerate(sessions.session_ids):
            if (row := of.index.get(session_id)) != NO_ROW:
                of.unlink(row)
                self._release(of, session_id, row)
            if not sessions.ended[at]:
                last_activity_ms = int(sessions.last_activity_ms[at])
                self._advance_time(of, last_activity_ms)
                filled[self._add(partition, of, session_id, last_activity_ms)] = at
        # A restored session is as the changelog has it; one that had to make room for it is not.
        # How far it was is not told: of one that came in this very chunk it is not in its row yet.
        dropped = (entry for entry in self._journal if isinstance(entry, _Dropped))
        self._untold.leave_out(((entry.partition, entry.session_id), NOT_TOLD) for entry in dropped)
        self._journal.clear()
        self._images.clear()
        return np.array(list(filled), np.int32), np.array(list(filled.values()), np.int64)

    def forget_source_offsets(self, partition: int, from_offset: int) -> None:
        """Clicks of this partition from this offset on have not been applied, whatever its sessions say."""
        self._leave_batch()
        if (of := self._partitions.get(partition)) is not None:
            rows = of.index.rows()
            offsets = self.records.source_offsets
            offsets[rows[offsets[rows] >= from_offset]] = -1

    def forget_partitions(self, partitions: AbstractSet[int]) -> int:
        """Drop the sessions of these partitions of the clicks topic; returns how many. Between batches."""
        gone = 0
        self.begin()
        for partition in partitions & self._partitions.keys():
            of = self._partitions.pop(partition)
            gone += len(of.index)
            if of.first != NO_ROW:  # the list of the partition becomes the front of the list of free rows
                self._links.after[of.last] = self._free
                self._free = of.first
        self._live -= gone
        self._untold.forget_partitions(partitions)
        self.begin()
        return gone

    def rollback(self) -> None:
        """Take everything back to the last `begin`; the hidden rows that changed since become stale.

        What came between two batches (`restore` and the like) is not taken back.
        """
        self._untold.are_told = False
        if self._in_batch:
            self._take_back()
            self._journal.clear()
        self.begin()

    def _take_back(self) -> None:
        for row, image in self._images.items():
            self.records.put_back(row, image)
        for entry in reversed(self._journal):
            self._undo(entry)
        for partition in self._partitions.keys() - self._watermarks_before.keys():
            del self._partitions[partition]
        for partition, watermark_ms in self._watermarks_before.items():
            self._partitions[partition].watermark_ms = watermark_ms
        self.watermark_ms = self._watermark_before_ms
        self.counts = self._counts_before

    def _leave_batch(self) -> None:
        """The batch before is settled, and so are the changes that were told: others come outside of one."""
        if self._in_batch or self._untold.are_told:
            self.begin()
            self._in_batch = False

    def _undo(self, entry: _Moved | _Added | _Dropped) -> None:
        of = self._partitions[entry.partition]
        match entry:
            case _Moved(row=row, before=before):
                of.unlink(row)
                of.link(row, before)
            case _Added(session_id=session_id, row=row):
                of.unlink(row)
                self._release(of, session_id, row)
            case _Dropped(session_id=session_id):
                row = self._claim(session_id)  # the same one: free rows are taken last in, first out
                of.index.add(row)
                of.link(row, NO_ROW)

    def _take_up(self, partition: int) -> PartitionSessions:
        found = self._partitions[partition] = PartitionSessions(self._ids, self._links)
        return found

    def _advance_time(self, of: PartitionSessions, timestamp_ms: int) -> None:
        # Apart for each partition: one that lags, or is replayed, must not find its sessions long expired.
        of.watermark_ms = max(of.watermark_ms, timestamp_ms)
        self.watermark_ms = max(self.watermark_ms, timestamp_ms)

    def _expire(self, partition: int, of: PartitionSessions) -> bool:
        """Drop the sessions of this partition that have been idle too long; returns whether any were."""
        active_since_ms = of.watermark_ms - self._idle_timeout_ms
        dropped = False
        for _ in range(EXPIRED_AT_ONCE):
            if (row := of.first) == NO_ROW or self._last_activity_ms[row] >= active_since_ms:
                break
            self._drop_first(partition, of)
            self.counts.expired += 1
            dropped = True
        return dropped

    def _evict(self) -> None:
        """Drop the session that was active least recently, to make room."""
        firsts = (
            (self._last_activity_ms[of.first], partition)
            for partition, of in self._partitions.items()
            if of.first != NO_ROW
        )
        partition = min(firsts)[1]
        self._drop_first(partition, self._partitions[partition])
        self.counts.evicted += 1

    def _drop_first(self, partition: int, of: PartitionSessions) -> None:
        row = of.first
        session_id = self._ids[row]
        self._journal.append(_Dropped(partition, session_id, row, self._source_offset[row]))
        of.unlink(row)
        self._release(of, session_id, row)

    def _add(self, partition: int, of: PartitionSessions, session_id: str, timestamp_ms: int) -> int:
        if self._live == self._max_sessions:
            self._evict()
        row = self._claim(session_id)
        self._keep_image(row)
        self._journal.append(_Added(partition, session_id, row))
        of.index.add(row)
        self._last_activity_ms[row] = timestamp_ms
        self._line_up(of, row)
        self.records.forget_events(row)
        return row

    def _continue(
        self, partition: int, of: PartitionSessions, session_id: str, row: int, timestamp_ms: int
    ) -> bool:
        """Move a live session; returns whether it had been idle so long that it starts anew."""
        self._keep_image(row)
        self._journal.append(_Moved(partition, session_id, row, of.before(row)))
        idle_ms = timestamp_ms - self._last_activity_ms[row]
        if idle_ms < 0:
            self.counts.late_clicks += 1
        else:
            self._last_activity_ms[row] = timestamp_ms
        of.unlink(row)
        self._line_up(of, row)
        if starts := idle_ms > self._idle_timeout_ms:
            self.records.forget_events(row)
        return starts

    def _line_up(self, of: PartitionSessions, row: int) -> None:
        """Link a row behind the others of its partition, or first where it is idle for too long already.

        Last would keep it until all others before it have gone; and the changelog, in which it is the latest
        until it goes, could not tell the two apart.
        """
        over = of.watermark_ms - self._last_activity_ms[row] > self._idle_timeout_ms
        of.link(row, NO_ROW if over else of.last)

    def _claim(self, session_id: str) -> int:
        """Take a free row; there must be one."""
        self._live += 1
        if (row := self._free) != NO_ROW:
            self._free = self._links.after[row]
            self._ids[row] = session_id
            return row
        self._ids.append(session_id)
        return len(self._ids) - 1

    def _claim_many(self, session_ids: list[str]) -> NDArray[np.int32]:
        """As `_claim` for each of these."""
        reused: list[int] = []
        while self._free != NO_ROW and len(reused) < len(session_ids):
            reused.append(self._claim(session_ids[len(reused)]))
        first = len(self._ids)
        self._ids.extend(session_ids[len(reused) :])
        self._live += len(self._ids) - first
        return np.array([*reused, *range(first, len(self._ids))], np.int32)

    def _release(self, of: PartitionSessions, session_id: str, row: int) -> None:
        of.index.remove(session_id)
        self._links.after[row] = self._free
        self._free = row
        self._live -= 1

    def _keep_image(self, row: int) -> None:
        """Copy the record of a row before this batch changes it."""
        if row not in self._images:
            self._images[row] = self.records.image(row)


def _changed(journal: Sequence[_Moved | _Added | _Dropped]) -> Iterator[tuple[tuple[int, str], int]]:
    """Whom these entries are about, as of `untold_changes.Changed`."""
    for entry in journal:
        ended_at = entry.source_offset if isinstance(entry, _Dropped) else NOT_TOLD
        yield (entry.partition, entry.session_id), ended_at
