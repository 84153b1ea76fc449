"""From a click log to sessions, oldest first, and their split into a training and a test part.

The vocabulary is what the training part holds. Test sessions keep their clicks on other items, as −1, so
that the evaluation can count them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.click_log import ClickLog
from training.errors import SplitError
from training.grouping import count_clicks, place_clicks

UNKNOWN = -1
MIN_CLICKS = 2
"""A session of one click has nothing to predict."""
TAKEN_AT_ONCE = 1 << 20
"""Sessions copied at once: of each click a position is held, twice as large as what is kept of the click."""


@dataclass(frozen=True, eq=False)
class Sessions:
    """S sessions with N clicks together, laid end to end; within a session in order of time.

    Attributes:
        items: int32 [N], item index of each click, or `UNKNOWN`.
        starts: int64 [S + 1]; session s has the clicks starts[s] to starts[s + 1].
        ids: int32 [S], index into the log's `session_ids`.
        last_ms: int64 [S], time of each session's last click.
    """

    items: NDArray[np.int32]
    starts: NDArray[np.int64]
    ids: NDArray[np.int32]
    last_ms: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Clicks of each session, int64 [S]."""
        return np.diff(self.starts)

    @property
    def transitions(self) -> int:
        """Pairs of a click and the one after it, in all sessions together."""
        return len(self.items) - len(self)

    def take(self, sessions: NDArray[np.int64]) -> "Sessions":
        """Return these sessions, by index and in that order."""
        starts = np.zeros(len(sessions) + 1, np.int64)
        np.cumsum(self.lengths[sessions], out=starts[1:])
        items = np.empty(starts[-1], np.int32)
        for at in range(0, len(sessions), TAKEN_AT_ONCE):
            some = sessions[at : at + TAKEN_AT_ONCE]
            begin = starts[at : at + len(some) + 1]
            clicks = np.arange(begin[0], begin[-1])
            clicks += np.repeat(self.starts[some] - begin[:-1], np.diff(begin))
            items[begin[0] : begin[-1]] = self.items[clicks]
        return Sessions(items, starts, self.ids[sessions], self.last_ms[sessions])

    def renamed(self, rows: NDArray[np.int32]) -> "Sessions":
        """Return the same sessions with each item index i replaced by rows[i]."""
        return Sessions(rows[self.items], self.starts, self.ids, self.last_ms)


@dataclass(frozen=True)
class TestSessions:
    """Hold out the sessions of these ids."""

    __test__ = False  # pytest takes the name for a test class

    ids: frozenset[str]


@dataclass(frozen=True)
class TestLast:
    """Hold out the sessions whose last click lies in the last `duration_ms` of the log."""

    __test__ = False

    duration_ms: int


@dataclass(frozen=True)
class TestShare:
    """Hold out this share of the sessions, the ones that ended last."""

    __test__ = False

    share: float = 0.1


SplitRule = TestSessions | TestLast | TestShare


@dataclass(frozen=True, eq=False)
class Split:
    """The two parts of a log.

    Attributes:
        train: item indices are rows of `item_ids`.
        test: item indices are those of the log.
        item_ids: the vocabulary, most clicked in training first, ties by id.
        rows: int32, row of `item_ids` for each item of the log, or `UNKNOWN`.
        log_item_ids: the items of the log.
    """

    train: Sessions
    test: Sessions
    item_ids: list[str]
    rows: NDArray[np.int32]
    log_item_ids: list[str]


def sessionise(log: ClickLog) -> Sessions:
    """Group the clicks of a log by session and sort each by time, ties in the order of the log.

    Sessions with one click are dropped. The sessions come in the order of their last clicks, ties by id.
    """
    clicks, last_ms = count_clicks(log.session, log.timestamp_ms, len(log.session_ids))
    long_enough = np.flatnonzero(clicks >= MIN_CLICKS)
    kept = long_enough[np.argsort(last_ms[long_enough], kind="stable")]
    starts = np.zeros(len(kept) + 1, np.int64)
    np.cumsum(clicks[kept], out=starts[1:])
    place = np.full(len(clicks), -1, np.int64)
    place[kept] = starts[:-1]
    items = place_clicks(log.session, log.timestamp_ms, log.item, place, starts)
    return Sessions(items, starts, kept.astype(np.int32), last_ms[kept])


def split_log(log: ClickLog, rule: SplitRule) -> Split:
    """Split a log.

    Raises:
        SplitError: one of the parts is empty.
    """
    sessions = sessionise(log)
    if not len(sessions):
        raise SplitError(
            f"no session among {len(log):,} clicks has two clicks: nothing to learn a next click from"
        )
    held_out = _held_out(sessions, log, rule)
    train_part, test = sessions.take(np.flatnonzero(~held_out)), sessions.take(np.flatnonzero(held_out))
    if not len(train_part) or not len(test):
        raise SplitError(_empty_part(rule, len(train_part), len(test)))
    item_ids, rows = _vocabulary(train_part, log.item_ids)
    return Split(train_part.renamed(rows), test, item_ids, rows, log.item_ids)


def rows_in(log_item_ids: list[str], item_ids: list[str]) -> NDArray[np.int32]:
    """Row of another model's vocabulary for each item of a log, `UNKNOWN` where it has none."""
    row = {item: index for index, item in enumerate(item_ids)}
    return np.array([row.get(item, UNKNOWN) for item in log_item_ids], np.int32)


def _held_out(sessions: Sessions, log: ClickLog, rule: SplitRule) -> NDArray[np.bool_]:
    """Which sessions are the test part, bool [S]."""
    if isinstance(rule, TestSessions):
        return log.session_ids.among(rule.ids)[sessions.ids]
    if isinstance(rule, TestLast):
        recent: NDArray[np.bool_] = sessions.last_ms > np.max(sessions.last_ms) - rule.duration_ms
        return recent
    newest = max(1, round(rule.share * len(sessions)))
    return np.arange(len(sessions)) >= len(sessions) - newest


def _vocabulary(train: Sessions, log_item_ids: list[str]) -> tuple[list[str], NDArray[np.int32]]:
    support = np.bincount(train.items, minlength=len(log_item_ids))
    seen: list[int] = np.flatnonzero(support).tolist()
    seen.sort(key=lambda item: (-support[item], log_item_ids[item]))
    rows = np.full(len(log_item_ids), UNKNOWN, np.int32)
    rows[seen] = np.arange(len(seen), dtype=np.int32)
    return [log_item_ids[item] for item in seen], rows


def _empty_part(rule: SplitRule, train: int, test: int) -> str:
    found = f"{train:,} sessions to train on and {test:,} to test on"
    if isinstance(rule, TestSessions):
        return f"the list of {len(rule.ids):,} test sessions leaves {found}: is it the list of this log?"
    if isinstance(rule, TestLast):
        return (
            f"holding out the last {rule.duration_ms / 1000:,.0f} s leaves {found}: say another --test-last"
        )
    return f"holding out {rule.share:.0%} leaves {found}: the log is too short"
