"""The session table: its bound, who goes first, when a session ends, and its rings of clicks."""

from collections import deque

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.core.session_table import NO_GENERATION, NOTHING_KNOWN, SessionTable

IDLE_MS = 1_000
NOW_MS = 1_000_000
GENERATION = 7


def table(max_sessions: int = 3, history_length: int = 4) -> SessionTable:
    return SessionTable(max_sessions, history_length, IDLE_MS)


def click(
    of: SessionTable, session: str, time_ms: int, item: int = 1, partition: int = 0, now_ms: int = NOW_MS
) -> bool:
    """One click, as `advance` would do it; returns whether the session started with it."""
    row, fresh = of.touch(session, time_ms, partition, now_ms)
    rows = np.array([row])
    if fresh:
        of.reset(rows, GENERATION)
    of.append(rows, np.array([item]))
    return fresh


def live(of: SessionTable, *sessions: str) -> list[str]:
    return [session for session in sessions if session in of]


@given(
    st.integers(1, 4),
    st.lists(
        st.tuples(
            st.sampled_from("abcdefg"), st.sampled_from([0, 0, 1, 500, 1_001, -300]), st.integers(0, 9)
        ),
        max_size=60,
    ),
)
@settings(deadline=None)
def test_never_beyond_its_bound_and_no_row_is_shared(
    max_sessions: int, clicks: list[tuple[str, int, int]]
) -> None:
    sessions = table(max_sessions)
    time_ms = 10_000
    rows: dict[str, int] = {}
    for session, gap_ms, chance in clicks:
        time_ms += gap_ms
        if chance == 0:
            sessions.forget_partitions({0})
        row, fresh = sessions.touch(session, time_ms, chance % 2, NOW_MS)
        assert 0 <= row < max_sessions
        assert len(sessions) <= max_sessions
        assert session in sessions
        assert fresh or rows[session] == row, "a session that goes on stays where it is"
        rows[session] = row
        held = [rows[name] for name in rows if name in sessions]
        assert len(held) == len(set(held)) == len(sessions)


def test_the_least_recently_active_goes_first() -> None:
    sessions = table(max_sessions=3)
    for time_ms, name in enumerate("abc"):
        click(sessions, name, time_ms)
    click(sessions, "a", 10)
    click(sessions, "d", 11)
    assert live(sessions, *"abcd") == ["a", "c", "d"]
    click(sessions, "a", 12)
    click(sessions, "e", 13)
    assert live(sessions, *"abcde") == ["a", "d", "e"]
    assert sessions.evicted == 2
    assert click(sessions, "b", 14), "an evicted session starts anew"


def test_a_late_click_keeps_its_session_but_does_not_turn_back_its_time() -> None:
    sessions = table(max_sessions=2)
    click(sessions, "a", 1_000)
    click(sessions, "b", 1_000)
    assert not click(sessions, "a", 500)
    assert sessions.late_clicks == 1
    click(sessions, "c", 1_000)
    assert live(sessions, *"abc") == ["a", "c"], "a late click is activity"
    assert not click(sessions, "a", 2_000), "1,000 ms after its latest click, not 1,500"


@pytest.mark.parametrize(("gap_ms", "fresh"), [(0, False), (IDLE_MS, False), (IDLE_MS + 1, True)])
def test_a_session_ends_after_the_idle_time(gap_ms: int, fresh: bool) -> None:
    sessions = table()
    click(sessions, "a", 5_000, item=1)
    assert click(sessions, "a", 5_000 + gap_ms, item=2) is fresh
    assert sessions.history("a") == ([2] if fresh else [1, 2])
    assert len(sessions) == 1


def test_rows_of_idle_sessions_are_freed_by_the_clicks_of_others() -> None:
    sessions = table(max_sessions=3)
    click(sessions, "a", 5_000)
    click(sessions, "b", 5_500)
    click(sessions, "c", 5_000 + IDLE_MS)
    assert live(sessions, *"abc") == ["a", "b", "c"]
    click(sessions, "c", 5_001 + IDLE_MS)
    assert live(sessions, *"abc") == ["b", "c"]
    click(sessions, "d", 5_501 + IDLE_MS)
    assert (live(sessions, *"abcd"), sessions.expired, sessions.evicted) == (["c", "d"], 2, 0)


def test_the_watermark_never_falls_and_never_passes_the_wall_clock() -> None:
    sessions = table()
    for time_ms, now_ms, watermark_ms in [(100, 500, 100), (50, 500, 100), (900, 500, 500), (900, 800, 800)]:
        click(sessions, "a", time_ms, now_ms=now_ms)
        assert sessions.watermark_ms == watermark_ms


def test_a_partition_that_lags_keeps_its_sessions() -> None:
    """After a downtime, or an old log replayed beside live clicks: each partition has its own time."""
    sessions = table(max_sessions=9)
    assert click(sessions, "old", 1_000, partition=1)
    for step in range(1, 4):
        click(sessions, "live", 1_000_000 + step, partition=0)
        assert not click(sessions, "old", 1_000 + step, partition=1)
    assert live(sessions, "live", "old") == ["live", "old"]


def test_a_late_click_does_not_turn_back_the_time_of_its_partition() -> None:
    sessions = table()
    click(sessions, "a", 2_500)
    click(sessions, "late", 1_400)
    for _ in range(2):  # now "late" is the least recently active, then it is looked at
        click(sessions, "a", 1_500)
    assert live(sessions, "a", "late") == ["a"]


def test_a_partition_that_is_taken_back_has_its_time_to_find_anew() -> None:
    """What others committed meanwhile may lie before what was read here."""
    sessions = table()
    click(sessions, "a", 50_000, partition=1)
    sessions.forget_partitions({1})
    click(sessions, "a", 1_000, partition=1)
    click(sessions, "b", 1_001, partition=1)
    assert live(sessions, "a", "b") == ["a", "b"]


def test_a_click_from_the_far_future_expires_nobody_and_holds_nobody_up() -> None:
    sessions = table(max_sessions=9)
    click(sessions, "ahead", 90_000, now_ms=10_000)
    click(sessions, "a", 9_900, now_ms=10_000)
    click(sessions, "further", 900_000, now_ms=10_100)
    assert live(sessions, "a", "ahead", "further") == ["a", "ahead", "further"]
    click(sessions, "b", 11_600, now_ms=11_600)  # an idle time after all of them
    assert live(sessions, "a", "b", "ahead", "further") == ["b"]


def test_a_session_ahead_of_the_clock_goes_on_with_clicks_on_time() -> None:
    sessions = table()
    click(sessions, "a", 90_000, now_ms=10_000)
    assert not click(sessions, "a", 10_500, now_ms=10_500)
    assert sessions.late_clicks == 0
    assert click(sessions, "a", 10_500 + IDLE_MS + 1, now_ms=20_000)


def test_forget_partitions() -> None:
    sessions = table(max_sessions=4)
    for name, partition in [("a", 0), ("b", 1), ("c", 2), ("d", 1)]:
        click(sessions, name, 100, item=5, partition=partition)
    assert sessions.forget_partitions({1, 7}) == 2
    assert live(sessions, *"abcd") == ["a", "c"]
    assert sessions.forget_partitions(set()) == 0
    assert (sessions.evicted, sessions.expired) == (0, 0)
    assert click(sessions, "b", 101, item=6, partition=1), "taken back, it starts anew"
    assert sessions.history("b") == [6]
    click(sessions, "e", 102, partition=2)
    assert live(sessions, *"abcde") == ["a", "b", "c", "e"]
    assert sessions.evicted == 0, "the rows are free again"


def test_a_session_belongs_to_the_partition_of_its_latest_click() -> None:
    sessions = table()
    click(sessions, "a", 100, partition=0)
    click(sessions, "a", 101, partition=3)
    assert sessions.forget_partitions({0}) == 0
    assert sessions.forget_partitions({3}) == 1


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2**31 - 1)), max_size=30),
)
def test_a_history_holds_the_last_clicks_oldest_first(length: int, clicks: list[tuple[str, int]]) -> None:
    sessions = table(history_length=length)
    expected: dict[str, deque[int]] = {}
    for session, item in clicks:
        click(sessions, session, 100, item)
        expected.setdefault(session, deque(maxlen=length)).append(item)
        assert sessions.history(session) == list(expected[session])
    if len(expected) == 2:
        rows = np.array([sessions.touch(name, 100, 0, NOW_MS)[0] for name in expected])
        items, counts = sessions.histories(rows)
        assert items.shape == (2, length)
        for row, kept in enumerate(expected.values()):
            assert items[row, : counts[row]].tolist() == list(kept)


def test_reset_empties_rows_and_marks_them_as_up_to_date() -> None:
    sessions = table()
    sessions.resize_hidden(2)
    for name in "ab":
        click(sessions, name, 100, item=3)
    sessions.hidden[:] = 1.0
    sessions.last_item[:] = 5
    sessions.generation[:] = NO_GENERATION
    sessions.reset(np.array([0]), GENERATION)
    assert sessions.hidden[:2].tolist() == [[0.0, 0.0], [1.0, 1.0]]
    assert sessions.last_item[:2].tolist() == [NOTHING_KNOWN, 5]
    assert sessions.generation[:2].tolist() == [GENERATION, NO_GENERATION]
    assert (sessions.history("a"), sessions.history("b")) == ([], [3])


def test_another_width_of_state() -> None:
    sessions = table(max_sessions=3)
    assert sessions.hidden.shape == (3, 0)
    sessions.resize_hidden(4)
    assert sessions.hidden.shape == (3, 4)
    assert sessions.hidden.dtype == torch.float32
    sessions.hidden[:] = 1.0
    sessions.resize_hidden(4)
    assert sessions.hidden.sum() == 12, "nothing to do"
    sessions.resize_hidden(2)
    assert sessions.hidden.shape == (3, 2)
