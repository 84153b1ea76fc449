"""Which row a session has: open addressing with linear probing over row numbers.

A dictionary would hold a boxed integer, an entry and a reference for each session, about 70 bytes; a slot
here takes 8 to 16, and the session ids lie in a list that all partitions share. Python salts the hash of
strings anew in each process, so nobody outside can choose ids that collide. (Knuth, The Art of Computer
Programming, volume 3, section 6.4: algorithm L, and algorithm R for deletion without tombstones.)
"""

from array import array
from collections.abc import Iterator

NO_ROW = -1
_EMPTY = -1
_SMALLEST = 16


class SessionIndex:
    """Session id → row, for the live sessions of one partition.

    Args:
        ids: session id by row; whoever adds a session writes its id there first, and keeps it there while
            the session is in the index.
    """

    def __init__(self, ids: list[str]) -> None:
        self._ids = ids
        self._slots = array("i", [_EMPTY]) * _SMALLEST
        self._mask = _SMALLEST - 1
        self._count = 0

    def __len__(self) -> int:
        """How many sessions are in it."""
        return self._count

    def get(self, session_id: str) -> int:
        """The row of the session, or `NO_ROW`."""
        slots, ids, mask = self._slots, self._ids, self._mask
        at = hash(session_id) & mask
        while (row := slots[at]) != _EMPTY:
            if ids[row] == session_id:
                return row
            at = (at + 1) & mask
        return NO_ROW

    def add(self, row: int) -> None:
        """Enter the session whose id stands at this row; it must not be there yet."""
        if 2 * (self._count + 1) > len(self._slots):
            self._grow()
        self._place(row)
        self._count += 1

    def remove(self, session_id: str) -> None:
        """Take out a session that is there."""
        slots, ids, mask = self._slots, self._ids, self._mask
        hole = hash(session_id) & mask
        while ids[slots[hole]] != session_id:
            hole = (hole + 1) & mask
        at = (hole + 1) & mask
        while (row := slots[at]) != _EMPTY:
            home = hash(ids[row]) & mask
            if (at - home) & mask >= (at - hole) & mask:  # its probe sequence passes the hole
                slots[hole] = row
                hole = at
            at = (at + 1) & mask
        slots[hole] = _EMPTY
        self._count -= 1

    def bytes(self) -> int:
        """Memory of the slots."""
        return len(self._slots) * self._slots.itemsize

    def rows(self) -> Iterator[int]:
        """Rows of all sessions, in no order."""
        return (row for row in self._slots if row != _EMPTY)

    def _place(self, row: int) -> None:
        slots, mask = self._slots, self._mask
        at = hash(self._ids[row]) & mask
        while slots[at] != _EMPTY:
            at = (at + 1) & mask
        slots[at] = row

    def _grow(self) -> None:
        rows = list(self.rows())
        self._slots = array("i", [_EMPTY]) * (2 * len(self._slots))
        self._mask = len(self._slots) - 1
        for row in rows:
            self._place(row)
