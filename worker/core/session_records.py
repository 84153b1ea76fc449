"""What is known of a session beside its hidden state, row by row, in one record each.

One record, so that taking a copy of it before a batch changes it is one slice. The memory of a row is backed
by the operating system only once it is touched.
"""

import numpy as np
from numpy.typing import NDArray

from schemas.session_history import EVENT_HASH_BYTES
from worker.core.item_register import NUMBER_BYTES
from worker.core.kept_sessions import KeptSessions, last_of_each

NO_GENERATION = -1
NOTHING_KNOWN = -1


class SessionRecords:
    """Records of N = `max_sessions` rows; L = `history_length`, E = `duplicate_window`, k = `top_k`.

    Some fields are there twice: an array for many rows at once, and a view for a single one, which is five
    times as quick at that.

    Attributes:
        last_activity_ms: a view; event time of the latest click.
        source_offset: a view; of the last click that was applied, -1 for none of this topic.
        source_offsets: the same, int64 [N].
        generation: int16 [N], of the model that computed the hidden row.
        last_item: int32 [N], row in the catalogue of the last item that the model knew, or NOTHING_KNOWN.
        published: uint8 [N, NUMBER_BYTES · k], see `quality`.
        published_by_model: uint8 [N], as well.
    """

    def __init__(self, max_sessions: int, history_length: int, duplicate_window: int, top_k: int) -> None:
        records = np.zeros(max_sessions, _record_type(history_length, duplicate_window, top_k))
        self._raw = records.view(np.uint8).data
        self.bytes_per_record = records.dtype.itemsize
        self._history_length = history_length
        self._events = duplicate_window
        self._events_at = _offset_of(records, "event_hashes")
        self.last_activity_ms = records["last_activity_ms"].data
        self.source_offset = records["source_offset"].data
        self._seen = records["seen"].data
        self._last_activities_ms = records["last_activity_ms"]
        self.source_offsets = records["source_offset"]
        self._event_hashes = records["event_hashes"]
        self._seen_counts = records["seen"]
        self._history = records["history"]
        self._clicks = records["clicks"]
        self.generation = records["generation"]
        self.last_item = records["last_item"]
        self.published = records["published"]
        self.published_by_model = records["published_by_model"]

    def image(self, row: int) -> bytes:
        """A copy of the record."""
        start = row * self.bytes_per_record
        return bytes(self._raw[start : start + self.bytes_per_record])

    def put_back(self, row: int, image: bytes) -> None:
        """The record as it was when `image` was taken; its hidden row is stale."""
        start = row * self.bytes_per_record
        self._raw[start : start + self.bytes_per_record] = image
        self.generation[row] = NO_GENERATION

    def event_ring(self, row: int) -> bytes:
        """The events that the row still holds, EVENT_HASH_BYTES each, as they lie."""
        start = row * self.bytes_per_record + self._events_at
        return bytes(self._raw[start : start + min(self._seen[row], self._events) * EVENT_HASH_BYTES])

    def note_event(self, row: int, event_hash: bytes) -> None:
        """Add an event, in place of the oldest one where there are E."""
        if self._events:
            start = row * self.bytes_per_record + self._events_at
            start += self._seen[row] % self._events * EVENT_HASH_BYTES
            self._raw[start : start + EVENT_HASH_BYTES] = event_hash
            self._seen[row] += 1

    def forget_events(self, row: int) -> None:
        """Hold no event any more."""
        self._seen[row] = 0

    def last_events(self, row: int) -> bytes:
        """The events that the row still holds, oldest first."""
        ring = self.event_ring(row)
        newest = self._seen[row] % self._events * EVENT_HASH_BYTES if self._events else 0
        return ring[newest:] + ring[:newest] if self._seen[row] > self._events else ring

    def reset(self, rows: NDArray[np.int64], generation: int) -> None:
        """No history; the hidden rows are those of this generation."""
        self._clicks[rows] = 0
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

    def fill(self, rows: NDArray[np.int32], sessions: KeptSessions, at: NDArray[np.int64]) -> None:
        """Write these of the sessions, int64[n], to these rows, int32[n]; the rows must differ."""
        items, clicks = last_of_each(sessions.items, sessions.item_counts, self._history_length)
        events, seen = last_of_each(sessions.event_hashes, sessions.event_counts, self._events)
        self._last_activities_ms[rows] = sessions.last_activity_ms[at]
        self.source_offsets[rows] = sessions.source_offset[at]
        self._event_hashes[rows] = events.view(np.uint8)[at]
        self._history[rows] = items[at]
        self._seen_counts[rows] = seen[at]
        self._clicks[rows] = clicks[at]
        self.generation[rows] = NO_GENERATION
        self.last_item[rows] = NOTHING_KNOWN
        self.published[rows, :NUMBER_BYTES] = 0


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
