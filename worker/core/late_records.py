"""Which records of a changelog came too late, where nothing fenced their writer (at least once).

A worker that was frozen may wake after its partition has moved, and write what it knew then over what the new
owner has written since. Its records tell on themselves: a session's clicks are applied in the order of their
offsets, so a record of an older source offset than one before it, and not of a later click, is such a late
one, and does not count. Tombstones say of which offset the session that they end was.
"""

from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

from schemas.session_history import NOT_TOLD
from worker.core.session_index import NO_ROW
from worker.core.session_table import SessionTable

ENDED_KEPT = 100_000
"""Sessions that ended are remembered so many at a time, some 20 MB: what comes late comes soon."""


class _Reached(NamedTuple):
    """How far a session was."""

    source_offset: int
    last_activity_ms: int


_NOWHERE = _Reached(NOT_TOLD, 0)


class LateRecords:
    """Tells the late records of one partition, in the order of the changelog, while it is restored.

    Args:
        table: that the others are restored into.
        partition: of the clicks topic.
        clicks_end: offset behind the newest click. What is said to come from there on came from a topic of
            the same name that is gone, and outdates nothing.
    """

    def __init__(self, table: SessionTable, partition: int, clicks_end: int) -> None:
        self._table = table
        self._partition = partition
        self._clicks_end = clicks_end
        self._reached: dict[str, _Reached] = {}  # by sessions that are not in the table: ended ones

    def is_late(self, session_id: str, source_offset: int, last_activity_ms: int) -> bool:
        """Whether a history comes too late; of one that does not, note how far its session is.

        Args:
            session_id: its key.
            source_offset: of the last click in it.
            last_activity_ms: event time of the latest click in it. A topic that was made anew counts its
                offsets from 0 again; but its clicks are later ones.
        """
        before = self._before(session_id)
        if self._is_older(source_offset, before) and last_activity_ms <= before.last_activity_ms:
            return True
        self._note(session_id, _Reached(source_offset, last_activity_ms))
        return False

    def is_late_end(self, session_id: str, source_offset: int) -> bool:
        """The same of a tombstone, which ends the session as it was at this source offset, or `NOT_TOLD`."""
        before = self._before(session_id)
        if source_offset != NOT_TOLD and self._is_older(source_offset, before):
            return True
        if before is not _NOWHERE:
            self._note(session_id, before)
        return False

    def restored(self, session_ids: Iterable[str]) -> None:
        """The records of these sessions are in the table by now, which knows the rest of those that live."""
        for session_id in session_ids:
            if self._table.row(self._partition, session_id) != NO_ROW:
                self._reached.pop(session_id, None)
        for session_id in list(islice(self._reached, max(len(self._reached) - ENDED_KEPT, 0))):
            del self._reached[session_id]

    def _is_older(self, source_offset: int, before: _Reached) -> bool:
        return source_offset < before.source_offset < self._clicks_end

    def _before(self, session_id: str) -> _Reached:
        if (before := self._reached.get(session_id)) is not None:
            return before
        row = self._table.row(self._partition, session_id)
        if row == NO_ROW:
            return _NOWHERE
        return _Reached(self._table.source_offset(row), self._table.last_activity_ms(row))

    def _note(self, session_id: str, reached: _Reached) -> None:
        self._reached.pop(session_id, None)  # goes to the end: the first ones are forgotten first
        self._reached[session_id] = reached
