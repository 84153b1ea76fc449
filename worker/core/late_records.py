"""Which records of a changelog came too late, where nothing fenced their writer (at least once).

A worker that was frozen may wake after its partition has moved, and write what it knew then over what the new
owner has written since. Its records tell on themselves: a session's clicks are applied in the order of their
offsets, so a record of an older source offset than one before it is such a late one, and does not count.
"""

from collections.abc import Iterable

from worker.core.session_index import NO_ROW
from worker.core.session_table import SessionTable


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
        self._reached: dict[str, int] = {}  # source offsets of sessions that are not in the table: ended ones

    def is_late(self, session_id: str, source_offset: int | None) -> bool:
        """Whether a record comes too late; of one that is not, note how far its session is.

        Args:
            session_id: its key.
            source_offset: of the last click in it; None for a tombstone, which ends the session as it is.
        """
        before = self._reached.get(session_id)
        if before is None:
            before = self._restored_offset(session_id)
        if source_offset is None:
            if before >= 0:
                self._reached[session_id] = before
            return False
        if source_offset < before < self._clicks_end:
            return True
        self._reached[session_id] = source_offset
        return False

    def restored(self, session_ids: Iterable[str]) -> None:
        """The records of these sessions are in the table by now, which knows the rest of those that live."""
        for session_id in session_ids:
            if self._table.row(self._partition, session_id) != NO_ROW:
                self._reached.pop(session_id, None)

    def _restored_offset(self, session_id: str) -> int:
        row = self._table.row(self._partition, session_id)
        return -1 if row == NO_ROW else self._table.source_offset(row)
