"""The session table: which sessions are live, what they clicked last, and their hidden states.

Rows are preallocated arrays; the operating system backs most of them with memory only once they are touched,
so an empty table of a million sessions costs few megabytes. The index gives a session's row and, by its
order, the session that was active least recently.

Rules:
- At most `max_sessions` live; the least recently active one goes first.
- A session ends when it had no click for `idle_timeout_ms` of event time: its row is freed once the watermark
  of its partition (the latest event time seen there, never ahead of the wall clock) says so, and a click that
  comes so long after the last one finds a fresh session.
- Hidden rows are a cache of the histories. A row whose `generation` is not the model's is stale.

`touch` decides about rows click by click and `reset` empties them wave by wave: within one batch, a row can
be taken from a session whose earlier clicks still have to be answered.
"""

from array import array
from collections import OrderedDict
from collections.abc import Set as AbstractSet

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NO_GENERATION = -1
NOTHING_KNOWN = -1


class SessionTable:
    """Rows of live sessions. N = `max_sessions`, L = `history_length`, H = hidden size.

    Attributes:
        hidden: float32 [N, H], zero rows for fresh sessions; [N, 0] until a model serves.
        generation: int32 [N], of the model that computed the hidden row.
        last_item: int32 [N], row in the catalogue of the last item that the model knew, or NOTHING_KNOWN.
        late_clicks: clicks that were older than their session's latest.
        evicted: sessions that went because the table was full.
        expired: sessions that went because they were idle.
    """

    def __init__(self, max_sessions: int, history_length: int, idle_timeout_ms: int) -> None:
        self._max_sessions = max_sessions
        self._history_length = history_length
        self._idle_timeout_ms = idle_timeout_ms
        self._index: OrderedDict[str, int] = OrderedDict()
        self._free: list[int] = []
        self._rows_used = 0
        self._last_activity_ms = array("q", bytes(8 * max_sessions))
        self._partition = array("i", bytes(4 * max_sessions))
        self._history = np.zeros((max_sessions, history_length), np.int32)
        self._clicks = np.zeros(max_sessions, np.int64)
        self.hidden = _zeros(max_sessions, 0)
        self.generation = np.zeros(max_sessions, np.int32)
        self.last_item = np.zeros(max_sessions, np.int32)
        self._watermarks_ms: dict[int, int] = {}
        self.watermark_ms = 0
        self.late_clicks = 0
        self.evicted = 0
        self.expired = 0

    def __len__(self) -> int:
        """How many sessions are live."""
        return len(self._index)

    def __contains__(self, session_id: str) -> bool:
        """Whether the session is live."""
        return session_id in self._index

    def touch(self, session_id: str, timestamp_ms: int, partition: int, now_ms: int) -> tuple[int, bool]:
        """The row for the next click of a session, and whether the session starts with it.

        An event time ahead of the wall clock counts as now: it would keep the session, and all that wait
        behind it to be freed, for as long as it is ahead. A row that is said to be fresh still holds its
        former session until `reset`.
        """
        timestamp_ms = min(timestamp_ms, now_ms)
        self.watermark_ms = max(self.watermark_ms, timestamp_ms)
        # Apart for each partition: one that lags, or is replayed, must not find its sessions long expired.
        self._watermarks_ms[partition] = max(self._watermarks_ms.get(partition, 0), timestamp_ms)
        self._expire()
        row = self._index.get(session_id)
        if row is None:
            row = self._claim_row()
            self._index[session_id] = row
            self._last_activity_ms[row] = timestamp_ms
            self._partition[row] = partition
            return row, True
        self._index.move_to_end(session_id)
        idle_ms = timestamp_ms - self._last_activity_ms[row]
        if idle_ms < 0:
            self.late_clicks += 1
        else:
            self._last_activity_ms[row] = timestamp_ms
        self._partition[row] = partition
        return row, idle_ms > self._idle_timeout_ms

    def reset(self, rows: NDArray[np.int64], generation: int) -> None:
        """Empty the rows: no history, hidden state zero and up to date."""
        self._clicks[rows] = 0
        self.hidden[torch.from_numpy(rows)] = 0.0
        self.last_item[rows] = NOTHING_KNOWN
        self.generation[rows] = generation

    def append(self, rows: NDArray[np.int64], items: NDArray[np.int64]) -> None:
        """Append one item to the history of each row; the rows must differ. int64[n] each."""
        self._history[rows, self._clicks[rows] % self._history_length] = items
        self._clicks[rows] += 1

    def histories(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Item numbers int32[n, L], oldest first, padded behind; and their counts int64[n]."""
        counts = np.minimum(self._clicks[rows], self._history_length)
        start = self._clicks[rows] - counts
        positions = (start[:, None] + np.arange(self._history_length)) % self._history_length
        return self._history[rows[:, None], positions], counts

    def history(self, session_id: str) -> list[int]:
        """Item numbers of a live session, oldest first."""
        items, counts = self.histories(np.array([self._index[session_id]]))
        return [int(item) for item in items[0, : counts[0]]]

    def resize_hidden(self, hidden_size: int) -> None:
        """Make room for states of another width; contents are lost, which is what staleness is for."""
        if self.hidden.shape[1] != hidden_size:
            self.hidden = _zeros(self._max_sessions, hidden_size)

    def forget_partitions(self, partitions: AbstractSet[int]) -> int:
        """Drop the sessions of these partitions of the clicks topic; returns how many. Between batches."""
        gone = [session for session, row in self._index.items() if self._partition[row] in partitions]
        for session in gone:
            self._free.append(self._index.pop(session))
        for partition in partitions:
            self._watermarks_ms.pop(partition, None)
        return len(gone)

    def _expire(self) -> None:
        while self._index:
            session_id, row = next(iter(self._index.items()))
            idle_ms = self._watermarks_ms[self._partition[row]] - self._last_activity_ms[row]
            if idle_ms <= self._idle_timeout_ms:
                return
            del self._index[session_id]
            self._free.append(row)
            self.expired += 1

    def _claim_row(self) -> int:
        if self._free:
            return self._free.pop()
        if self._rows_used < self._max_sessions:
            self._rows_used += 1
            return self._rows_used - 1
        self.evicted += 1
        return self._index.popitem(last=False)[1]


def _zeros(rows: int, width: int) -> Tensor:
    """float32 zeros from numpy, whose untouched pages take no memory; torch would write them all."""
    return torch.from_numpy(np.zeros((rows, width), np.float32))
