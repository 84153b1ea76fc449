"""The sessions of one partition, least recently active first: a list linked through the rows of the table."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.core.session_index import NO_ROW, SessionIndex


class Links(NamedTuple):
    """Neighbours by row, views of int32 [N]; all partitions share them, as each row is in one list at most.

    `after` of a free row is the next free one.
    """

    before: memoryview
    after: memoryview


def new_links(rows: int) -> Links:
    """Links of so many rows; memory backs only what is written."""
    return Links(np.zeros(rows, np.int32).data, np.zeros(rows, np.int32).data)


class PartitionSessions:
    """Who is live in one partition, and in which order.

    Attributes:
        index: session id → row.
        first: the row that was active least recently, or NO_ROW.
        last: the row that was active most recently, or NO_ROW.
        watermark_ms: the latest event time seen in the partition, never ahead of the wall clock.
    """

    __slots__ = ("_after", "_before", "first", "index", "last", "watermark_ms")

    def __init__(self, ids: list[str], links: Links) -> None:
        self.index = SessionIndex(ids)
        self.first = NO_ROW
        self.last = NO_ROW
        self.watermark_ms = 0
        self._before, self._after = links

    def before(self, row: int) -> int:
        """The row that stands before this one, or NO_ROW."""
        return int(self._before[row])

    def link(self, row: int, before: int) -> None:
        """Put a row behind another one, first where that is NO_ROW."""
        after = self.first if before == NO_ROW else self._after[before]
        self._join(before, row)
        self._join(row, after)

    def link_last(self, rows: NDArray[np.int32]) -> None:
        """Put these rows behind all others, in this order."""
        if not len(rows):
            return
        before, after = np.asarray(self._before), np.asarray(self._after)
        before[rows[1:]] = rows[:-1]
        after[rows[:-1]] = rows[1:]
        first, last = int(rows[0]), int(rows[-1])
        before[first], after[last] = self.last, NO_ROW
        if self.last == NO_ROW:
            self.first = first
        else:
            after[self.last] = first
        self.last = last

    def unlink(self, row: int) -> None:
        """Take a row out."""
        self._join(self._before[row], self._after[row])

    def _join(self, before: int, after: int) -> None:
        """Make these two neighbours; NO_ROW stands for the end on its side."""
        if before == NO_ROW:
            self.first = after
        else:
            self._after[before] = after
        if after == NO_ROW:
            self.last = before
        else:
            self._before[after] = before
