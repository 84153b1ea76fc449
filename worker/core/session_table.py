"""The session table: which sessions are live, what they clicked last, and their hidden states.

Rows are preallocated; the operating system backs them with memory only once they are touched, so an empty
table of a million sessions costs few megabytes. What is known of a session beside its hidden state lies in
one record, so that taking a copy of it before a batch changes it is one slice.

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
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.session_history import EVENT_HASH_BYTES, NOT_TOLD
from worker.core.hidden_states import HiddenStates
from worker.core.item_register import NUMBER_BYTES
from worker.core.kept_sessions import KeptSessions, last_of_each
from worker.core.session_index import NO_ROW, SessionIndex

NO_GENERATION = -1
GENERATIONS = 2**15
"""Generations are counted modulo this; a row that sleeps through exactly so many models does not exist."""

NOTHING_KNOWN = -1

EXPIRED_AT_ONCE = 16
"""Sessions that one click frees at most. The first click after a quiet night would free all of its partition,
a million tombstones in one transaction; so the clicks after it do their share, sooner than rows run out."""

ENDS_TOLD_AT_ONCE = 2_000
"""Of sessions for which there was no room in a restore: so many per batch, for the same reason."""

LEFT_OUT_KEPT = 100_000
"""Of them remembered at most, some 20 MB; that many are told within fifty batches."""

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


class _Partition:
    """The sessions of one partition, least recently active first, as a list linked through the rows."""

    __slots__ = ("first", "index", "last", "watermark_ms")

    def __init__(self, ids: list[str]) -> None:
        self.index = SessionIndex(ids)
        self.first = NO_ROW
        self.last = NO_ROW
        self.watermark_ms = 0


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


_Changed = dict[tuple[int, str], int]
"""Partition and session id, and the source offset of the last click of one that has ended, else NOT_TOLD."""


class SessionTable:
    """Rows of live sessions. N = `max_sessions`, L = `history_length`, k = `top_k`.

    Attributes:
        hidden: the hidden states; rows of fresh sessions are zero.
        generation: int16 [N], of the model that computed the hidden row.
        last_item: int32 [N], row in the catalogue of the last item that the model knew, or NOTHING_KNOWN.
        published: uint8 [N, NUMBER_BYTES · k], item numbers of the last answer, best first, 0 behind; and
        published_by_model: uint8 [N], whether a model made it. Both are the business of `quality`.
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
        self._history_length = history_length
        self._idle_timeout_ms = idle_timeout_ms
        self._events = duplicate_window
        records = np.zeros(max_sessions, _record_type(history_length, duplicate_window, top_k))
        self._raw = records.view(np.uint8).data
        self._record_bytes = records.dtype.itemsize
        self._events_at = _offset_of(records, "event_hashes")
        self._last_activity_ms = records["last_activity_ms"].data
        self._source_offset = records["source_offset"].data
        # Some fields twice: an array for many rows at once, and a view for a single one, which is
        # five times as quick at that.
        self._seen = records["seen"].data
        self._last_activities_ms = records["last_activity_ms"]
        self._source_offsets = records["source_offset"]
        self._event_hashes = records["event_hashes"]
        self._seen_counts = records["seen"]
        self._history = records["history"]
        self._clicks = records["clicks"]
        self.generation = records["generation"]
        self.last_item = records["last_item"]
        self.published = records["published"]
        self.published_by_model = records["published_by_model"]
        self.hidden = HiddenStates(max_sessions)
        self._ids: list[str] = []  # session id by row
        self._next = np.zeros(max_sessions, np.int32).data  # of the same partition, or the next free row
        self._before = np.zeros(max_sessions, np.int32).data
        self._free = NO_ROW
        self._live = 0
        self._partitions: dict[int, _Partition] = {}
        self.watermark_ms = 0
        self.counts = TableCounts()
        # Whom the changelog must learn of, from before `begin`; no more than changed between two settlings.
        self._owed: _Changed = {}
        # The same, of those that a restore had no room for; no more than LEFT_OUT_KEPT.
        self._left_out: _Changed = {}
        self._owed_are_told = False
        self._journal: list[_Moved | _Added | _Dropped] = []
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
            "record": self._record_bytes,
            "hidden": self.hidden.bytes_per_row(),
            "links": 2 * self._next.itemsize,
            "id_pointer": 8,
            "index": round(slots / max(self._live, 1), 1),
        }

    def begin(self) -> None:
        """What changed up to now is settled: `rollback` starts from here, and `changes` forgets what it told;
        what it was not asked for it will tell with the next changes.
        """
        if self._owed_are_told:
            self._owed.clear()
            for key in list(islice(self._left_out, ENDS_TOLD_AT_ONCE)):
                del self._left_out[key]
            self._owed_are_told = False
        else:
            _note(self._owed, self._journal)
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
            if event_hash in self._event_ring(row):
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
        self._note_event(row, event_hash)
        return row, STARTS if starts else CONTINUES

    def reset(self, rows: NDArray[np.int64], generation: int) -> None:
        """Empty the rows: no history, hidden state zero and up to date."""
        self._clicks[rows] = 0
        self.hidden.zero(rows)
        self.last_item[rows] = NOTHING_KNOWN
        self.generation[rows] = generation

    def append(self, rows: NDArray[np.int64], items: NDArray[np.int64]) -> None:
        """Append one item to the history of each row; the rows must differ. int64[n] each."""
        self._history[rows, self._clicks[rows] % self._history_length] = items
        self._clicks[rows] += 1

    def histories(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Item numbers int32[n, L], oldest first, padded behind; and their counts int64[n]."""
        clicks = self._clicks[rows].astype(np.int64)
        counts = np.minimum(clicks, self._history_length)
        positions = ((clicks - counts)[:, None] + np.arange(self._history_length)) % self._history_length
        return self._history[rows[:, None], positions], counts

    def changes(self) -> list[Change]:
        """Sessions that changed since this was asked the last time, each at the place of its last change."""
        changed = dict(islice(self._left_out.items(), ENDS_TOLD_AT_ONCE)) | self._owed
        _note(changed, self._journal)
        self._owed_are_told = True
        found = []
        for (partition, session_id), ended_at in changed.items():
            row = self.row(partition, session_id)
            found.append(Change(partition, session_id, row, ended_at if row == NO_ROW else NOT_TOLD))
        return found

    def kept(self, rows: list[int]) -> Iterator[Kept]:
        """What is known of the sessions in these rows."""
        items, counts = self.histories(np.array(rows, np.int64))
        for row, numbers, count in zip(rows, items.tolist(), counts.tolist(), strict=True):
            yield Kept(
                numbers[:count], self._last_activity_ms[row], self._source_offset[row], self._last_events(row)
            )

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
        self._fill(rows, sessions, latest)

    def _restore_at_once(
        self, of: _Partition, sessions: KeptSessions, latest: NDArray[np.int64], rows: NDArray[np.int32]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Line up sessions for which there is room: `latest` of these, which have these rows or none.

        Returns:
            int32[n] and int64[n], the rows to fill and what with.
        """
        for row, at in zip(rows[rows != NO_ROW].tolist(), latest[rows != NO_ROW].tolist(), strict=True):
            self._unlink(of, row)
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
            self._link(of, row, NO_ROW)
        self._link_last(of, rows[~over])
        return rows, latest

    def _restore_in_order(
        self, partition: int, of: _Partition, sessions: KeptSessions
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """As `_restore_at_once`, one by one, where some have to go to make room."""
        filled: dict[int, int] = {}  # row → whose
        for at, session_id in enumerate(sessions.session_ids):
            if (row := of.index.get(session_id)) != NO_ROW:
                self._unlink(of, row)
                self._release(of, session_id, row)
            if not sessions.ended[at]:
                last_activity_ms = int(sessions.last_activity_ms[at])
                self._advance_time(of, last_activity_ms)
                filled[self._add(partition, of, session_id, last_activity_ms)] = at
        # A restored session is as the changelog has it; one that had to make room for it is not.
        # How far it was is not told: of one that came in this very chunk it is not in its row yet.
        for entry in self._journal:
            if isinstance(entry, _Dropped):
                self._left_out[entry.partition, entry.session_id] = NOT_TOLD
        for key in list(islice(self._left_out, max(len(self._left_out) - LEFT_OUT_KEPT, 0))):
            del self._left_out[key]  # it stays on the changelog, and whoever restores it next drops it again
        self._journal.clear()
        self._images.clear()
        return np.array(list(filled), np.int32), np.array(list(filled.values()), np.int64)

    def forget_source_offsets(self, partition: int, from_offset: int) -> None:
        """Clicks of this partition from this offset on have not been applied, whatever its sessions say."""
        self._leave_batch()
        if (of := self._partitions.get(partition)) is not None:
            rows = of.index.rows()
            self._source_offsets[rows[self._source_offsets[rows] >= from_offset]] = -1

    def forget_partitions(self, partitions: AbstractSet[int]) -> int:
        """Drop the sessions of these partitions of the clicks topic; returns how many. Between batches."""
        gone = 0
        self.begin()
        for partition in partitions & self._partitions.keys():
            of = self._partitions.pop(partition)
            gone += len(of.index)
            if of.first != NO_ROW:  # the list of the partition becomes the front of the list of free rows
                self._next[of.last] = self._free
                self._free = of.first
        self._live -= gone
        for owed in (self._owed, self._left_out):
            for key in [key for key in owed if key[0] in partitions]:
                del owed[key]
        self.begin()
        return gone

    def rollback(self) -> None:
        """Take everything back to the last `begin`; the hidden rows that changed since become stale.

        What came between two batches (`restore` and the like) is not taken back.
        """
        self._owed_are_told = False
        if self._in_batch:
            self._take_back()
            self._journal.clear()
        self.begin()

    def _take_back(self) -> None:
        for row, image in self._images.items():
            start = row * self._record_bytes
            self._raw[start : start + self._record_bytes] = image
            self.generation[row] = NO_GENERATION
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
        if self._in_batch or self._owed_are_told:
            self.begin()
            self._in_batch = False

    def _undo(self, entry: _Moved | _Added | _Dropped) -> None:
        of = self._partitions[entry.partition]
        match entry:
            case _Moved(row=row, before=before):
                self._unlink(of, row)
                self._link(of, row, before)
            case _Added(session_id=session_id, row=row):
                self._unlink(of, row)
                self._release(of, session_id, row)
            case _Dropped(session_id=session_id):
                row = self._claim(session_id)  # the same one: free rows are taken last in, first out
                of.index.add(row)
                self._link(of, row, NO_ROW)

    def _take_up(self, partition: int) -> _Partition:
        found = self._partitions[partition] = _Partition(self._ids)
        return found

    def _advance_time(self, of: _Partition, timestamp_ms: int) -> None:
        # Apart for each partition: one that lags, or is replayed, must not find its sessions long expired.
        of.watermark_ms = max(of.watermark_ms, timestamp_ms)
        self.watermark_ms = max(self.watermark_ms, timestamp_ms)

    def _expire(self, partition: int, of: _Partition) -> bool:
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

    def _drop_first(self, partition: int, of: _Partition) -> None:
        row = of.first
        session_id = self._ids[row]
        self._journal.append(_Dropped(partition, session_id, row, self._source_offset[row]))
        self._unlink(of, row)
        self._release(of, session_id, row)

    def _add(self, partition: int, of: _Partition, session_id: str, timestamp_ms: int) -> int:
        if self._live == self._max_sessions:
            self._evict()
        row = self._claim(session_id)
        self._keep_image(row)
        self._journal.append(_Added(partition, session_id, row))
        of.index.add(row)
        self._last_activity_ms[row] = timestamp_ms
        self._line_up(of, row)
        self._seen[row] = 0
        return row

    def _continue(self, partition: int, of: _Partition, session_id: str, row: int, timestamp_ms: int) -> bool:
        """Move a live session; returns whether it had been idle so long that it starts anew."""
        self._keep_image(row)
        self._journal.append(_Moved(partition, session_id, row, self._before[row]))
        idle_ms = timestamp_ms - self._last_activity_ms[row]
        if idle_ms < 0:
            self.counts.late_clicks += 1
        else:
            self._last_activity_ms[row] = timestamp_ms
        self._unlink(of, row)
        self._line_up(of, row)
        if starts := idle_ms > self._idle_timeout_ms:
            self._seen[row] = 0
        return starts

    def _line_up(self, of: _Partition, row: int) -> None:
        """Link a row behind the others of its partition, or first where it is idle for too long already.

        Last would keep it until all others before it have gone; and the changelog, in which it is the latest
        until it goes, could not tell the two apart.
        """
        over = of.watermark_ms - self._last_activity_ms[row] > self._idle_timeout_ms
        self._link(of, row, NO_ROW if over else of.last)

    def _claim(self, session_id: str) -> int:
        """Take a free row; there must be one."""
        self._live += 1
        if (row := self._free) != NO_ROW:
            self._free = self._next[row]
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

    def _release(self, of: _Partition, session_id: str, row: int) -> None:
        of.index.remove(session_id)
        self._next[row] = self._free
        self._free = row
        self._live -= 1

    def _link(self, of: _Partition, row: int, before: int) -> None:
        """Put a row behind another one of its partition, first where that is NO_ROW."""
        after = of.first if before == NO_ROW else self._next[before]
        self._before[row], self._next[row] = before, after
        if before == NO_ROW:
            of.first = row
        else:
            self._next[before] = row
        if after == NO_ROW:
            of.last = row
        else:
            self._before[after] = row

    def _link_last(self, of: _Partition, rows: NDArray[np.int32]) -> None:
        """Put these rows behind all others of their partition, in this order."""
        if not len(rows):
            return
        before, after = np.asarray(self._before), np.asarray(self._next)
        before[rows[1:]] = rows[:-1]
        after[rows[:-1]] = rows[1:]
        first, last = int(rows[0]), int(rows[-1])
        before[first], after[last] = of.last, NO_ROW
        if of.last == NO_ROW:
            of.first = first
        else:
            after[of.last] = first
        of.last = last

    def _unlink(self, of: _Partition, row: int) -> None:
        before, after = self._before[row], self._next[row]
        if before == NO_ROW:
            of.first = after
        else:
            self._next[before] = after
        if after == NO_ROW:
            of.last = before
        else:
            self._before[after] = before

    def _keep_image(self, row: int) -> None:
        """Copy the record of a row before this batch changes it."""
        if row not in self._images:
            start = row * self._record_bytes
            self._images[row] = bytes(self._raw[start : start + self._record_bytes])

    def _fill(self, rows: NDArray[np.int32], sessions: KeptSessions, at: NDArray[np.int64]) -> None:
        """Write these of the sessions, int64[n], to these rows, int32[n]; the rows must differ."""
        items, clicks = last_of_each(sessions.items, sessions.item_counts, self._history_length)
        events, seen = last_of_each(sessions.event_hashes, sessions.event_counts, self._events)
        self._last_activities_ms[rows] = sessions.last_activity_ms[at]
        self._source_offsets[rows] = sessions.source_offset[at]
        self._event_hashes[rows] = events.view(np.uint8)[at]
        self._history[rows] = items[at]
        self._seen_counts[rows] = seen[at]
        self._clicks[rows] = clicks[at]
        self.generation[rows] = NO_GENERATION
        self.last_item[rows] = NOTHING_KNOWN
        self.published[rows, :NUMBER_BYTES] = 0

    def _event_ring(self, row: int) -> bytes:
        """The events that the row still holds, as they lie."""
        start = row * self._record_bytes + self._events_at
        return bytes(self._raw[start : start + min(self._seen[row], self._events) * EVENT_HASH_BYTES])

    def _note_event(self, row: int, event_hash: bytes) -> None:
        if self._events:
            start = row * self._record_bytes + self._events_at
            start += self._seen[row] % self._events * EVENT_HASH_BYTES
            self._raw[start : start + EVENT_HASH_BYTES] = event_hash
            self._seen[row] += 1

    def _last_events(self, row: int) -> bytes:
        ring = self._event_ring(row)
        newest = self._seen[row] % self._events * EVENT_HASH_BYTES if self._events else 0
        return ring[newest:] + ring[:newest] if self._seen[row] > self._events else ring


def _note(changed: _Changed, journal: Sequence[_Moved | _Added | _Dropped]) -> None:
    """Add whom these entries are about, each at the place of its last one."""
    for entry in journal:
        key = (entry.partition, entry.session_id)
        changed.pop(key, None)
        changed[key] = entry.source_offset if isinstance(entry, _Dropped) else NOT_TOLD


def _record_type(history_length: int, duplicate_window: int, top_k: int) -> "np.dtype[np.void]":
    """288 bytes at the defaults. The last three counters stay small or wrap where nothing can tell."""
    return np.dtype(
        [
            ("last_activity_ms", np.int64),
            ("source_offset", np.int64),
            ("event_hashes", np.uint8, (duplicate_window * EVENT_HASH_BYTES,)),
            ("history", np.int32, (history_length,)),
            ("published", np.uint8, (top_k * NUMBER_BYTES,)),
            ("last_item", np.int32),
            ("clicks", np.int32),  # since the session started; the history ring's place is counted from it
            ("seen", np.int32),  # events noted; the event ring's place is counted from it
            ("generation", np.int16),
            ("published_by_model", np.uint8),
        ],
        align=True,
    )


def _offset_of(records: "NDArray[np.void]", field: str) -> int:
    fields = records.dtype.fields
    assert fields is not None  # noqa: S101 - for the type checker
    return int(fields[field][1])
