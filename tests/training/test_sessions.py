"""Sessions and their split: order, what is dropped, what is held out, what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.logs import START_MS, log_of
from training.click_log import ClickLog
from training.errors import SplitError
from training.grouping import SHORT
from training.sessions import (
    UNKNOWN,
    Sessions,
    TestLast,
    TestSessions,
    TestShare,
    rows_in,
    sessionise,
    split_log,
)


def as_lists(sessions: Sessions, log: ClickLog) -> dict[str, list[str]]:
    """Item ids by session id."""
    return {
        log.session_ids[sessions.ids[s]]: [
            log.item_ids[item] for item in sessions.items[sessions.starts[s] : sessions.starts[s + 1]]
        ]
        for s in range(len(sessions))
    }


def test_clicks_are_sorted_by_time_and_single_clicks_dropped() -> None:
    log = log_of(("b", "x", 9), ("a", "y", 2), ("c", "x", 1), ("a", "x", 1), ("b", "z", 8), ("a", "y", 3))
    assert as_lists(sessionise(log), log) == {"a": ["x", "y", "y"], "b": ["z", "x"]}


def test_clicks_of_one_instant_stay_in_the_order_of_the_log() -> None:
    log = log_of(("a", "q", 5), ("a", "p", 5), ("a", "r", 5), ("a", "o", 4))
    assert as_lists(sessionise(log), log) == {"a": ["o", "q", "p", "r"]}


def plain_sessions(clicks: list[tuple[str, str, int]]) -> list[tuple[str, list[str], int]]:
    """Session id, items and last time of the sessions of these clicks, as one would write it down."""
    by_hand: dict[str, list[tuple[int, str]]] = {}
    for session_id, item_id, at_s in clicks:
        by_hand.setdefault(session_id, []).append((at_s, item_id))
    sessions = [
        (session_id, sorted(some, key=lambda click: click[0]))
        for session_id, some in sorted(by_hand.items())
        if len(some) > 1
    ]
    sessions.sort(key=lambda session: session[1][-1][0])
    return [(session_id, [item for _, item in some], some[-1][0]) for session_id, some in sessions]


def found_sessions(sessions: Sessions, log: ClickLog) -> list[tuple[str, list[str], int]]:
    """The same of what was found."""
    return [
        (
            log.session_ids[sessions.ids[s]],
            [log.item_ids[item] for item in sessions.items[sessions.starts[s] : sessions.starts[s + 1]]],
            (int(sessions.last_ms[s]) - START_MS) // 1_000,
        )
        for s in range(len(sessions))
    ]


session_ids = st.sampled_from(["a", "b", "é", "😀", "10", "9"])
clicks = st.tuples(session_ids, st.sampled_from("uvwxyz"), st.integers(-5, 20))


@given(st.lists(clicks, min_size=1, max_size=60))
def test_sessions_equal_grouping_by_hand(drawn: list[tuple[str, str, int]]) -> None:
    log = log_of(*drawn)
    assert found_sessions(sessionise(log), log) == plain_sessions(drawn)


@pytest.mark.parametrize("order", ["log", "reversed", "shuffled"])
def test_long_sessions_equal_grouping_by_hand(order: str) -> None:
    rng = np.random.default_rng(5)
    length = 3 * SHORT
    some = [(f"s{s}", str(click), click // 3) for s in range(4) for click in range(length + s - 2)]
    some += [("one", "x", 5)]
    if order == "reversed":
        some.reverse()
    elif order == "shuffled":
        some = [some[at] for at in rng.permutation(len(some))]
    log = log_of(*some)
    assert found_sessions(sessionise(log), log) == plain_sessions(some)


@given(st.lists(st.integers(0, 6), max_size=12), st.integers(1, 4))
def test_sessions_are_taken_in_the_order_asked_for(wanted: list[int], at_once: int) -> None:
    some = [(f"s{s}", f"{s}-{click}", s) for s in range(7) for click in range(2 + s % 3)]
    log = log_of(*some)
    sessions = sessionise(log)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.sessions.TAKEN_AT_ONCE", at_once)
        taken = sessions.take(np.array(wanted, np.int64))
    everything = found_sessions(sessions, log)
    assert found_sessions(taken, log) == [everything[s] for s in wanted]
    assert taken.items.dtype == np.int32
    assert taken.starts.dtype == np.int64


LOG = log_of(
    *[("old", "x", 0), ("old", "y", 10), ("mid", "y", 50), ("mid", "x", 55), ("mid", "y", 60)],
    *[("new", "x", 5), ("new", "fresh", 95), ("new", "y", 100)],
)


def test_split_by_list() -> None:
    split = split_log(LOG, TestSessions(frozenset({"mid", "nobody"})))
    assert as_lists(split.test, LOG) == {"mid": ["y", "x", "y"]}
    assert split.train.transitions == 3


def test_split_by_time_looks_at_the_last_click() -> None:
    split = split_log(LOG, TestLast(45_000))
    assert set(as_lists(split.test, LOG)) == {"mid", "new"}
    assert set(as_lists(split_log(LOG, TestLast(40_000)).test, LOG)) == {
        "new"
    }  # mid ends 40 s before the end


def test_split_by_share_takes_the_newest() -> None:
    assert set(as_lists(split_log(LOG, TestShare(0.1)).test, LOG)) == {"new"}
    assert set(as_lists(split_log(LOG, TestShare(0.67)).test, LOG)) == {"mid", "new"}


def test_vocabulary_is_that_of_training_most_clicked_first() -> None:
    split = split_log(LOG, TestSessions(frozenset({"new"})))
    assert split.item_ids == ["y", "x"]
    assert split.rows[LOG.item_ids.index("fresh")] == UNKNOWN
    named = [split.item_ids[row] for row in split.train.items]
    assert named == ["x", "y", "y", "x", "y"]
    assert rows_in(["x", "fresh", "y"], ["y", "x"]).tolist() == [1, UNKNOWN, 0]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (TestSessions(frozenset({"nobody"})), "3 sessions to train on and 0 to test on"),
        (TestSessions(frozenset({"old", "mid", "new"})), "0 sessions to train on"),
        (TestLast(1_000_000), "say another --test-last"),
        (TestShare(1.0), "the log is too short"),
    ],
)
def test_an_empty_part_is_refused(rule: TestSessions | TestLast | TestShare, said: str) -> None:
    with pytest.raises(SplitError, match=said):
        split_log(LOG, rule)


def test_a_log_without_sessions_is_refused() -> None:
    with pytest.raises(SplitError, match="no session among 2 clicks"):
        split_log(log_of(("a", "x", 1), ("b", "x", 2)), TestShare())
