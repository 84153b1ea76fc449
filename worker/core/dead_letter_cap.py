"""When dead letters are too many to be single bad records: the cap above which a worker stops.

A producer that is deployed with a fault makes no click at all any more. Dead-lettering each of its records
would drain the clicks topic into the dead-letter topic; stopping leaves the records where they are, to be
read once either side is mended.
"""

from collections import deque
from math import ceil

_SLOTS = 64
"""The window is counted in slots of a 64th of it: that is how exactly it begins where it should."""

MAX_SLOTS_HELD = 2 * _SLOTS
"""Bound on what is held. Two neighbouring slots together hold more than a 64th of the window, else the second
would have been merged into the first; and all but the oldest together hold less than the window. So there are
at most 63 pairs beside the oldest, which is 127 slots, and 128 with an odd one at the end."""


class DeadLetterCap:
    """Says when the share of dead letters among the last records is above the cap. Pure, one thread.

    The window holds the last `window_records` records, and at most one slot more: a slot is a 64th of the
    window, or one batch where that is larger. Until so many were seen it holds all.

    Attributes:
        records: in the window now.
        letters: those of them that were dead-lettered.
    """

    def __init__(self, max_ratio: float, window_records: int, burst: int) -> None:
        """An empty window.

        Args:
            max_ratio: largest share of dead letters, 0 to 1. With 1 the cap is never exceeded.
            window_records: how far back is counted, at least 1.
            burst: so many dead letters in the window are always allowed, whatever their share: else the
                first bad record of a quiet topic would stop the worker.

        Raises:
            ValueError: an argument is out of its range.
        """
        if not 0.0 <= max_ratio <= 1.0:
            raise ValueError(f"max_ratio is {max_ratio}, it must lie between 0 and 1")
        if window_records < 1:
            raise ValueError(f"window_records is {window_records}, it must be at least 1")
        if burst < 0:
            raise ValueError(f"burst is {burst}, it must not be negative")
        self._max_ratio = max_ratio
        self._window_records = window_records
        self._burst = burst
        self._slot_records = ceil(window_records / _SLOTS)
        self._slots: deque[tuple[int, int]] = deque()  # (records, letters), oldest first
        self.records = self.letters = 0

    def __len__(self) -> int:
        """Slots held, at most `MAX_SLOTS_HELD`."""
        return len(self._slots)

    def exceeded_by(self, records: int, letters: int) -> bool:
        """Whether the cap is exceeded once these have come on top of the window; changes nothing.

        Args:
            records: read, the bad ones among them.
            letters: those of them to be dead-lettered.

        Raises:
            ValueError: the counts are negative, or there are more letters than records.
        """
        _check(records, letters)
        all_records, all_letters = self.records + records, self.letters + letters
        for slot_records, slot_letters in self._slots:
            if all_records - slot_records < self._window_records:
                break
            all_records -= slot_records
            all_letters -= slot_letters
        return all_letters > self._burst and all_letters > self._max_ratio * all_records

    def note(self, records: int, letters: int) -> None:
        """Count a batch whose outputs are committed; arguments and errors as of `exceeded_by`."""
        _check(records, letters)
        if not records:
            return
        if self._slots and self._slots[-1][0] + records <= self._slot_records:
            last_records, last_letters = self._slots.pop()
            self._slots.append((last_records + records, last_letters + letters))
        else:
            self._slots.append((records, letters))
        self.records += records
        self.letters += letters
        while self.records - self._slots[0][0] >= self._window_records:
            slot_records, slot_letters = self._slots.popleft()
            self.records -= slot_records
            self.letters -= slot_letters


def _check(records: int, letters: int) -> None:
    if not 0 <= letters <= records:
        raise ValueError(f"{letters} dead letters of {records} records: these cannot be counts")
