"""Which row a session has: open addressing with linear probing over row numbers.

A dictionary would hold a boxed integer, an entry and a reference for each session, about 70 bytes; a slot
here takes 8 to 16, and the session ids lie in a list that all partitions share. Python salts the hash of
strings anew in each process, so nobody outside can choose ids that collide. (Knuth, The Art of Computer
Programming, volume 3, section 6.4: algorithm L, and algorithm R for deletion without tombstones.)
"""

from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NO_ROW = -1
_EMPTY = -1
_SMALLEST = 16

_FEW = 16
"""So many are sooner done one by one than side by side."""

_PLACED_AT_ONCE = 8_192
"""A growing index places its rows in pieces: all at once would leave megabytes of freed memory behind."""


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

    def get_many(self, session_ids: Sequence[str]) -> NDArray[np.int32]:
        """The rows of these sessions int32[n], `NO_ROW` for those that are not there."""
        slots, ids, mask = self._view(), self._ids, self._mask
        found = np.full(len(session_ids), NO_ROW, np.int32)
        asking = np.arange(len(session_ids))
        at = _hashes(session_ids) & mask
        while len(asking) > _FEW:
            rows = slots[at]
            taken = rows != _EMPTY
            rows, asking, at = rows[taken], asking[taken], at[taken]
            pairs = zip(rows.tolist(), asking.tolist(), strict=True)
            same = np.array([ids[row] == session_ids[which] for row, which in pairs], np.bool_)
            found[asking[same]] = rows[same]
            asking, at = asking[~same], (at[~same] + 1) & mask
        for which in asking.tolist():
            found[which] = self.get(session_ids[which])
        return found

    def add(self, row: int) -> None:
        """Enter the session whose id stands at this row; it must not be there yet."""
        if 2 * (self._count + 1) > len(self._slots):
            self._grow(self._count + 1)
        self._place(row)
        self._count += 1

    def add_many(self, rows: NDArray[np.int32]) -> None:
        """As `add` for each of these rows, int32[n]; their ids must differ."""
        if 2 * (self._count + len(rows)) > len(self._slots):
            self._grow(self._count + len(rows))
        self._place_many(rows)
        self._count += len(rows)

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

    def rows(self) -> NDArray[np.int32]:
        """Rows of all sessions int32[n], in no order."""
        slots = self._view()
        rows: NDArray[np.int32] = slots[slots != _EMPTY]
        return rows

    def _place(self, row: int) -> None:
        slots, mask = self._slots, self._mask
        at = hash(self._ids[row]) & mask
        while slots[at] != _EMPTY:
            at = (at + 1) & mask
        slots[at] = row

    def _place_many(self, rows: NDArray[np.int32]) -> None:
        slots, mask, ids = self._view(), self._mask, self._ids
        at = _hashes([ids[row] for row in rows.tolist()]) & mask
        while len(rows) > _FEW:
            free = slots[at] == _EMPTY
            slots[at[free]] = rows[free]  # of several that want the same slot one gets it
            lost = slots[at] != rows
            rows, at = rows[lost], (at[lost] + 1) & mask
        for row in rows.tolist():
            self._place(row)

    def _grow(self, count: int) -> None:
        """Make room for so many sessions."""
        rows = np.sort(self.rows())  # ids lie in memory about as they came: half of the time is spent there
        size = len(self._slots)
        while 2 * count > size:
            size *= 2
        self._slots = array("i", [_EMPTY]) * size
        self._mask = size - 1
        for start in range(0, len(rows), _PLACED_AT_ONCE):
            self._place_many(rows[start : start + _PLACED_AT_ONCE])

    def _view(self) -> NDArray[np.int32]:
        """The slots, for many at once; short-lived."""
        return np.frombuffer(self._slots, np.int32)


def _hashes(session_ids: Sequence[str]) -> NDArray[np.int64]:
    return np.fromiter(map(hash, session_ids), np.int64, len(session_ids))
