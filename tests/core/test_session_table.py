"""The session table: its bound, who goes first, when a session ends, and its rings of clicks."""

from collections import deque
from itertools import count

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.session_history import event_hash
from worker.core.hidden_states import StateLayout
from worker.core.session_index import NO_ROW
from worker.core.session_records import NO_GENERATION, NOTHING_KNOWN
from worker.core.session_table import (
    CONTINUES,
    DUPLICATE,
    REPLAYED,
    STARTS,
    Change,
    SessionTable,
)

IDLE_MS = 1_000
NOW_MS = 1_000_000
GENERATION = 7
offsets = count()


def table(max_sessions: int = 3, history_length: int = 4, duplicate_window: int = 3) -> SessionTable:
    return SessionTable(max_sessions, history_length, IDLE_MS, duplicate_window, top_k=2)


def touch(
    of: SessionTable,
    session: str,
    time_ms: int,
    partition: int = 0,
    now_ms: int = NOW_MS,
    event: str = "",
    offset: int | None = None,
) -> tuple[int, int]:
    """The next click of its partition, with an event of its own."""
    offset = next(offsets) if offset is None else offset
    return of.touch(partition, session, event_hash(event or f"at {offset}"), offset, time_ms, now_ms)


def click(
    of: SessionTable, session: str, time_ms: int, item: int = 1, partition: int = 0, now_ms: int = NOW_MS
) -> bool:
    """One click, as `advance` would do it; returns whether the session started with it."""
    row, kind = touch(of, session, time_ms, partition, now_ms)
    rows = np.array([row])
    if kind == STARTS:
        of.reset(rows, GENERATION)
    of.records.append(rows, np.array([item]))
    return kind == STARTS


def settle(of: SessionTable) -> None:
    """What changed so far is in the changelog."""
    of.changes()
    of.begin()


def live(of: SessionTable, *sessions: str, partition: int = 0) -> list[str]:
    return [session for session in sessions if of.row(partition, session) != NO_ROW]


def history(of: SessionTable, session: str, partition: int = 0) -> list[int]:
    items, counts = of.records.histories(np.array([of.row(partition, session)]))
    return [int(item) for item in items[0, : counts[0]]]


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
    rows: dict[tuple[int, str], int] = {}
    for session, gap_ms, chance in clicks:
        time_ms += gap_ms
        if chance == 0:
            sessions.forget_partitions({0})
        key = (chance % 2, session)
        row, kind = touch(sessions, session, time_ms, chance % 2)
        assert 0 <= row < max_sessions
        assert len(sessions) <= max_sessions
        assert sessions.row(*key) == row
        assert kind == STARTS or rows[key] == row, "a session that goes on stays where it is"
        rows[key] = row
        held = [sessions.row(*key) for key in rows if sessions.row(*key) != NO_ROW]
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
    assert sessions.counts.evicted == 2
    assert click(sessions, "b", 14), "an evicted session starts anew"


def test_a_late_click_keeps_its_session_but_does_not_turn_back_its_time() -> None:
    sessions = table(max_sessions=2)
    click(sessions, "a", 1_000)
    click(sessions, "b", 1_000)
    assert not click(sessions, "a", 500)
    assert sessions.counts.late_clicks == 1
    click(sessions, "c", 1_000)
    assert live(sessions, *"abc") == ["a", "c"], "a late click is activity"
    assert not click(sessions, "a", 2_000), "1,000 ms after its latest click, not 1,500"


@pytest.mark.parametrize(("gap_ms", "fresh"), [(0, False), (IDLE_MS, False), (IDLE_MS + 1, True)])
def test_a_session_ends_after_the_idle_time(gap_ms: int, fresh: bool) -> None:
    sessions = table()
    click(sessions, "a", 5_000, item=1)
    assert click(sessions, "a", 5_000 + gap_ms, item=2) is fresh
    assert history(sessions, "a") == ([2] if fresh else [1, 2])
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
    assert (live(sessions, *"abcd"), sessions.counts.expired, sessions.counts.evicted) == (["c", "d"], 2, 0)


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
    assert live(sessions, "live") == ["live"]
    assert live(sessions, "old", partition=1) == ["old"]


def test_the_first_of_a_partition_with_the_earliest_activity_is_evicted() -> None:
    """Not the earliest of all: "late" stands behind another one. Of equal ones the lower partition's goes."""
    sessions = table(max_sessions=4)
    click(sessions, "a", 2_000, partition=5)
    click(sessions, "b", 1_800, partition=2)
    click(sessions, "c", 2_000, partition=3)
    click(sessions, "late", 1_500, partition=3)
    settle(sessions)
    for name in "vwxy":
        click(sessions, name, 2_500, partition=9)
    gone = [(change.partition, change.session_id) for change in sessions.changes() if change.row == NO_ROW]
    assert gone == [(2, "b"), (3, "c"), (3, "late"), (5, "a")]


def test_a_session_that_is_over_as_it_clicks_is_the_next_to_be_freed() -> None:
    sessions = table(max_sessions=9)
    click(sessions, "a", 5_000)
    click(sessions, "b", 5_000)
    click(sessions, "over", 5_000 - IDLE_MS - 1)
    assert live(sessions, "a", "b", "over") == ["a", "b", "over"]
    assert touch(sessions, "a", 5_000, event="again")[1] == CONTINUES
    assert live(sessions, "a", "b", "over") == ["a", "b"]
    assert (sessions.counts.expired, sessions.counts.evicted) == (1, 0)


def test_a_session_that_is_over_as_it_clicks_again_is_the_next_to_be_freed() -> None:
    sessions = table(max_sessions=9)
    click(sessions, "a", 5_000)
    click(sessions, "over", 4_100)
    click(sessions, "b", 5_500)  # "over" is idle for too long by now, and stands behind "a"
    assert not click(sessions, "over", 4_200)
    click(sessions, "b", 5_500)
    assert live(sessions, "a", "b", "over") == ["a", "b"]


def test_a_late_click_does_not_turn_back_the_time_of_its_partition() -> None:
    sessions = table()
    click(sessions, "a", 2_500)
    click(sessions, "late", 1_400)
    click(sessions, "a", 1_500)
    assert live(sessions, "a", "late") == ["a"]


def test_a_partition_that_is_taken_back_has_its_time_to_find_anew() -> None:
    """What others committed meanwhile may lie before what was read here."""
    sessions = table()
    click(sessions, "a", 50_000, partition=1)
    sessions.forget_partitions({1})
    click(sessions, "a", 1_000, partition=1)
    click(sessions, "b", 1_001, partition=1)
    assert live(sessions, "a", "b", partition=1) == ["a", "b"]


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
    assert sessions.counts.late_clicks == 0
    assert click(sessions, "a", 10_500 + IDLE_MS + 1, now_ms=20_000)


def test_forget_partitions() -> None:
    sessions = table(max_sessions=4)
    places = [(0, "a"), (1, "b"), (2, "c"), (1, "d")]
    for partition, name in places:
        click(sessions, name, 100, item=5, partition=partition)
    assert sessions.forget_partitions({1, 7}) == 2
    assert [sessions.row(*place) != NO_ROW for place in places] == [True, False, True, False]
    assert sessions.forget_partitions(set()) == 0
    assert (sessions.counts.evicted, sessions.counts.expired) == (0, 0)
    told = [change.session_id for change in sessions.changes()]
    assert told == ["a", "c"], "whoever has the partition now looks after its sessions"
    assert click(sessions, "b", 101, item=6, partition=1), "taken back, it starts anew"
    assert history(sessions, "b", 1) == [6]
    click(sessions, "e", 102, partition=2)
    assert len(sessions) == 4
    assert sessions.counts.evicted == 0, "the rows are free again"


def test_one_click_after_a_quiet_night_ends_a_few_sessions_and_the_next_ones_the_rest() -> None:
    sessions = table(max_sessions=100)
    for number in range(40):
        click(sessions, f"old{number}", 1_000)
    gone = []
    for number in range(4):
        sessions.begin()
        click(sessions, "new", 50_000 + number)
        gone.append(sum(change.row == NO_ROW for change in sessions.changes()))
    assert gone == [16, 16, 8, 0]
    assert sessions.counts.expired == 40


def test_one_id_in_two_partitions_is_two_sessions() -> None:
    sessions = table()
    assert click(sessions, "a", 100, item=1, partition=0)
    assert click(sessions, "a", 101, item=2, partition=3)
    assert (history(sessions, "a", 0), history(sessions, "a", 3)) == ([1], [2])
    assert sessions.forget_partitions({0}) == 1
    assert not click(sessions, "a", 102, item=4, partition=3)
    assert history(sessions, "a", 3) == [2, 4]


def test_a_click_at_or_before_the_last_applied_one_is_replayed() -> None:
    sessions = table()
    touch(sessions, "a", 5_000, offset=20)
    row, _ = touch(sessions, "b", 5_000, offset=30)
    settle(sessions)
    for offset in (29, 30):
        assert touch(sessions, "b", 9_000, offset=offset) == (row, REPLAYED)
    assert (sessions.counts.replayed, sessions.changes(), sessions.watermark_ms) == (2, [], 5_000)
    assert live(sessions, "a", "b") == ["a", "b"]
    assert touch(sessions, "b", 5_000, offset=31) == (row, CONTINUES)
    assert touch(sessions, "a", 5_000, offset=21)[1] == CONTINUES, "offsets count by session"


@pytest.mark.parametrize("window", [0, 1, 3])
def test_an_event_among_the_last_few_of_its_session_is_a_duplicate(window: int) -> None:
    sessions = table(duplicate_window=window)
    for event in ("first", "second", "third", "fourth"):
        touch(sessions, "a", 5_000, event=event)
    touch(sessions, "b", 5_000, event="other")
    settle(sessions)
    for event in ["fourth", "third", "second", "first"][:window]:
        assert touch(sessions, "a", 9_000, event=event) == (sessions.row(0, "a"), DUPLICATE)
    assert (sessions.counts.duplicates, sessions.changes(), sessions.watermark_ms) == (window, [], 5_000)
    forgotten = ["fourth", "third", "second", "first"][window]
    assert touch(sessions, "a", 5_000, event=forgotten)[1] == CONTINUES
    assert touch(sessions, "a", 5_000, event="other")[1] == CONTINUES, "of another session"


def test_a_session_that_starts_anew_knows_no_events_of_the_former_one() -> None:
    """Neither where its row was freed before, nor where it was idle behind another session."""
    sessions = table()
    touch(sessions, "a", 5_000, event="x")
    touch(sessions, "b", 6_001)
    assert live(sessions, "a") == []
    touch(sessions, "late", 5_500, event="x")
    assert touch(sessions, "late", 6_501, event="y")[1] == STARTS
    assert touch(sessions, "late", 6_501, event="x")[1] == CONTINUES
    assert touch(sessions, "a", 6_501, event="x")[1] == STARTS


def test_changes_come_by_their_last_change_and_end_with_the_next_batch() -> None:
    sessions = table(max_sessions=2)
    first = next(offsets) + 1
    for name in "abacb":
        click(sessions, name, 5_000)
    assert [change.session_id for change in sessions.changes()] == ["c", "a", "b"]
    assert sessions.changes()[1] == Change(0, "a", NO_ROW, first + 2)
    assert {sessions.changes()[at].row for at in (0, 2)} == {0, 1}
    sessions.begin()
    assert sessions.changes() == []


def test_changes_that_nobody_asked_for_are_told_after_later_batches() -> None:
    """At least once, the changelog is written every few batches; what is rolled back leaves no trace."""
    sessions = table(max_sessions=9)
    for batch in (["a", "b"], ["c", "a"]):
        sessions.begin()
        for name in batch:
            click(sessions, name, 5_000)
    sessions.begin()
    click(sessions, "undone", 5_000)
    sessions.changes()
    sessions.rollback()
    assert [change.session_id for change in sessions.changes()] == ["b", "c", "a"]
    sessions.begin()
    click(sessions, "d", 5_000)
    assert [change.session_id for change in sessions.changes()] == ["d"]


@given(st.integers(0, 4), st.lists(st.integers(0, 2**31), max_size=12, unique=True))
@settings(deadline=None)
def test_what_is_kept_of_a_session(window: int, events: list[int]) -> None:
    sessions = table(duplicate_window=window, history_length=5)
    for number, event in enumerate(events):
        click(sessions, "other", 1_000)
        row, kind = touch(sessions, "a", 1_000 + number, event=str(event), offset=7 + 2 * number)
        if kind == STARTS:
            sessions.reset(np.array([row]), GENERATION)
        sessions.records.append(np.array([row]), np.array([number]))
    if events:
        (kept,) = sessions.kept([sessions.row(0, "a")])
        assert kept.items == list(range(len(events)))[-5:]
        assert (kept.last_activity_ms, kept.source_offset) == (999 + len(events), 5 + 2 * len(events))
        recent = events[-window:] if window else []
        assert kept.event_hashes == b"".join(event_hash(str(event)) for event in recent)


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2**31 - 1)), max_size=30),
)
@settings(deadline=None)
def test_a_history_holds_the_last_clicks_oldest_first(length: int, clicks: list[tuple[str, int]]) -> None:
    sessions = table(history_length=length)
    expected: dict[str, deque[int]] = {}
    for session, item in clicks:
        click(sessions, session, 100, item)
        expected.setdefault(session, deque(maxlen=length)).append(item)
        assert history(sessions, session) == list(expected[session])
    if len(expected) == 2:
        rows = np.array([sessions.row(0, name) for name in expected])
        items, counts = sessions.records.histories(rows)
        assert items.shape == (2, length)
        for row, kept in enumerate(expected.values()):
            assert items[row, : counts[row]].tolist() == list(kept)


def test_reset_empties_rows_and_marks_them_as_up_to_date() -> None:
    sessions = table()
    sessions.hidden.resize(StateLayout(2))
    for name in "ab":
        click(sessions, name, 100, item=3)
    sessions.hidden.store(np.array([0, 1]), torch.ones(2, 2))
    sessions.records.last_item[:] = 5
    sessions.records.generation[:] = NO_GENERATION
    sessions.reset(np.array([0]), GENERATION)
    assert sessions.hidden.load(np.array([0, 1])).tolist() == [[0.0, 0.0], [1.0, 1.0]]
    assert sessions.records.last_item[:2].tolist() == [NOTHING_KNOWN, 5]
    assert sessions.records.generation[:2].tolist() == [GENERATION, NO_GENERATION]
    assert (history(sessions, "a"), history(sessions, "b")) == ([], [3])
