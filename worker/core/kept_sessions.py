"""Sessions as a changelog has them, many at once, by columns: how a table takes them up quickly."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", np.int64, np.uint64)


@dataclass(frozen=True, slots=True)
class KeptSessions:
    """n records of one partition, in the order of the changelog; a session can have several.

    Lists of items and events lie one after the other, those of a session oldest first. Of one that has ended
    all counts are 0, and so are its times.
    """

    session_ids: list[str]  # [n]
    ended: NDArray[np.bool_]  # [n]
    items: NDArray[np.int64]  # [sum of item_counts], item numbers
    item_counts: NDArray[np.int64]  # [n]
    last_activity_ms: NDArray[np.int64]  # [n]
    source_offset: NDArray[np.int64]  # [n]
    event_hashes: NDArray[np.uint64]  # [sum of event_counts], the EVENT_HASH_BYTES of each as they lie
    event_counts: NDArray[np.int64]  # [n]

    def __len__(self) -> int:
        """How many records."""
        return len(self.session_ids)

    def latest(self) -> NDArray[np.int64]:
        """Where the last record of each session stands: int64[sessions], ascending."""
        last = {session_id: at for at, session_id in enumerate(self.session_ids)}
        if len(last) == len(self.session_ids):
            return np.arange(len(last))
        return np.sort(np.fromiter(last.values(), np.int64, len(last)))


def last_of_each(
    values: NDArray[Number], counts: NDArray[np.int64], width: int
) -> tuple[NDArray[Number], NDArray[np.int64]]:
    """The last few of each list of numbers: [n, width], padded behind, and how many there are, int64[n].

    Args:
        values: the lists one after the other.
        counts: int64[n], numbers in each.
        width: how many at most.
    """
    kept = np.minimum(counts, width)
    begins = np.cumsum(counts) - kept
    columns = np.arange(width)
    valid = columns < kept[:, None]
    found = np.zeros((len(counts), width), values.dtype)
    found[valid] = values[(begins[:, None] + columns)[valid]]
    return found, kept
