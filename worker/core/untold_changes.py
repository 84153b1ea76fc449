"""Whom the changelog must learn of: sessions that changed since it was told, each at its last change."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from itertools import islice

ENDS_TOLD_AT_ONCE = 2_000
"""Of sessions for which there was no room in a restore: so many per batch, as all of them could be a million
tombstones in one transaction."""

LEFT_OUT_KEPT = 100_000
"""Of them remembered at most, some 20 MB; that many are told within fifty batches."""

Changed = dict[tuple[int, str], int]
"""Partition and session id, and the source offset of the last click of one that has ended, else NOT_TOLD."""


class UntoldChanges:
    """Changes from before the batch at hand; those of the batch itself are the journal's.

    Attributes:
        are_told: `due` was asked for since the last `settle`, and nothing was taken back.
    """

    def __init__(self) -> None:
        self._owed: Changed = {}  # no more than changed between two settlings
        self._left_out: Changed = {}  # of those that a restore had no room for; no more than LEFT_OUT_KEPT
        self.are_told = False

    def due(self, journal: Iterable[tuple[tuple[int, str], int]]) -> Changed:
        """All that is to be told now, with what a journal holds: entries of a `Changed`, in order."""
        changed = dict(islice(self._left_out.items(), ENDS_TOLD_AT_ONCE)) | self._owed
        _note(changed, journal)
        self.are_told = True
        return changed

    def settle(self, journal: Iterable[tuple[tuple[int, str], int]]) -> None:
        """What was told is known; if nothing was, what the journal holds is told with the next changes."""
        if not self.are_told:
            _note(self._owed, journal)
            return
        self._owed.clear()
        for key in list(islice(self._left_out, ENDS_TOLD_AT_ONCE)):
            del self._left_out[key]
        self.are_told = False

    def leave_out(self, sessions: Iterable[tuple[tuple[int, str], int]]) -> None:
        """There was no room for these in a restore; beyond LEFT_OUT_KEPT the oldest are forgotten."""
        self._left_out.update(sessions)
        for key in list(islice(self._left_out, max(len(self._left_out) - LEFT_OUT_KEPT, 0))):
            del self._left_out[key]  # it stays on the changelog, and whoever restores it next drops it again

    def forget_partitions(self, partitions: AbstractSet[int]) -> None:
        """Tell nothing of these any more."""
        for changed in (self._owed, self._left_out):
            for key in [key for key in changed if key[0] in partitions]:
                del changed[key]


def _note(changed: Changed, journal: Iterable[tuple[tuple[int, str], int]]) -> None:
    """Add whom these entries are about, each at the place of its last one."""
    for key, ended_at in journal:
        changed.pop(key, None)
        changed[key] = ended_at
