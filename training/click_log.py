"""A click log in memory: one row per click in three arrays (16 bytes), identifiers kept once each."""

from array import array
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from schemas.model_manifest import OffsetRange
from training.identifiers import IdColumn, Identifiers

MAX_EVENTS = 100_000_000
"""Bound of a log: to read and sessionise it takes 8 GB (deploy/decisions/0009-large-logs.md). More than this
is a job for a narrower range."""
BLOCK_CLICKS = 100_000
"""Clicks that the builder holds as Python text before they become numbers: 20 MB."""


@dataclass(frozen=True, eq=False)
class ClickLog:
    """N clicks in the order in which they were logged.

    Attributes:
        session: int32 [N], index into `session_ids`.
        item: int32 [N], index into `item_ids`.
        timestamp_ms: int64 [N], event time; ms since the epoch, or of a made-up clock.
        session_ids: one entry per session, sorted.
        item_ids: one entry per item, sorted.
    """

    session: NDArray[np.int32]
    item: NDArray[np.int32]
    timestamp_ms: NDArray[np.int64]
    session_ids: Identifiers
    item_ids: list[str]

    def __len__(self) -> int:
        return len(self.session)


@dataclass(frozen=True, eq=False)
class LoadedLog:
    """A click log and where it came from.

    Attributes:
        clicks: the log.
        kind: as in the manifest.
        name: of the topic, or of the file without its folder.
        skipped: records left out, by reason; empty where every record was a click.
        remarks: what was assumed on reading, sentences for the user.
        offsets: the range of each partition that was read, empty for a file.
        file_sha256: of the file as it lies on disk, None for a topic.
    """

    clicks: ClickLog
    kind: Literal["topic", "file"]
    name: str
    skipped: dict[str, int] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    offsets: list[OffsetRange] = field(default_factory=list)
    file_sha256: str | None = None


class ClickLogBuilder:
    """Collects clicks one by one into compact arrays."""

    def __init__(self) -> None:
        self._sessions = IdColumn()
        self._items = IdColumn()
        self._timestamp_ms = array("q")
        self._new_sessions: list[str] = []
        self._new_items: list[str] = []

    def __len__(self) -> int:
        return len(self._timestamp_ms)

    def add(self, session_id: str, item_id: str, timestamp_ms: int) -> None:
        """Append one click; the caller keeps the number under `MAX_EVENTS`."""
        self._new_sessions.append(session_id)
        self._new_items.append(item_id)
        self._timestamp_ms.append(timestamp_ms)
        if len(self._new_items) == BLOCK_CLICKS:
            self._flush()

    def build(self) -> ClickLog:
        """Return what was added. To be called once."""
        self._flush()
        session, session_ids = self._sessions.build()
        item, item_ids = self._items.build()
        return ClickLog(session, item, np.array(self._timestamp_ms, np.int64), session_ids, list(item_ids))

    def _flush(self) -> None:
        self._sessions.add(pl.Series(self._new_sessions, dtype=pl.String))
        self._items.add(pl.Series(self._new_items, dtype=pl.String))
        self._new_sessions.clear()
        self._new_items.clear()
