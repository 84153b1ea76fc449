"""Records that a worker wrote when it had lost its partition do not outdate those of the new owner."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.session_history import NOT_TOLD, event_hash
from tests.core.driving import MINUTE_MS, NOW_MS, START_MS, Run, kept, new_run
from tests.core.reference import Limits
from worker.core import late_records
from worker.core.advance import History
from worker.core.late_records import LateRecords

END = 100


Record = tuple[str, int | None, int]


def restore(records: list[Record], at_once: int = 1_000) -> tuple[Run, list[int]]:
    """A table restored from records of (session, source offset or None for its end, and a number), and which
    of them were late. The number is the minute of the last activity, or the offset that a tombstone says.

    The items of a history say of which offset it is.
    """
    run = new_run(Limits(max_sessions=50, idle_timeout_ms=1_000 * MINUTE_MS))
    late = LateRecords(run.worker.table, 0, END)
    found = []
    for start in range(0, len(records), at_once):
        chunk: list[tuple[str, History | None]] = []
        for at, (session, offset, number) in enumerate(records[start : start + at_once], start):
            if offset is None:
                is_late, history = late.is_late_end(session, number), None
            else:
                active_ms = START_MS + number * MINUTE_MS
                is_late = late.is_late(session, offset, active_ms)
                history = History([f"i{offset}"], active_ms, offset, event_hash("e"))
            if is_late:
                found.append(at)
            else:
                chunk.append((session, history))
        histories = [kept(session, history) for session, history in chunk]
        run.worker.restore(0, [session for session, _ in chunk], histories, NOW_MS)
        late.restored(session for session, _ in chunk)
    return run, found


@pytest.mark.parametrize("at_once", [1, 2, 1_000])
def test_an_older_source_offset_is_late_whatever_the_chunks(at_once: int) -> None:
    records: list[Record] = [("a", 5, 1), ("b", 2, 1), ("a", 9, 2), ("a", 5, 1), ("b", 3, 2), ("a", 9, 2)]
    run, late = restore(records, at_once)
    assert late == [3]
    assert run.history("a") == ["i9"]
    assert run.history("b") == ["i3"]


@pytest.mark.parametrize("at_once", [1, 2, 1_000])
@pytest.mark.parametrize("told", [5, NOT_TOLD])
def test_an_ended_session_stays_ended_and_may_start_anew(at_once: int, told: int) -> None:
    ended: list[Record] = [("a", 5, 1), ("a", None, told), ("a", 4, 1)]
    run, late = restore([*ended, ("b", 7, 1), ("b", None, told and 7), ("b", 8, 2)], at_once)
    assert late == [2]
    assert run.live([(0, "a"), (0, "b")]) == {(0, "b")}
    assert run.history("b") == ["i8"]


@pytest.mark.parametrize("at_once", [1, 2, 1_000])
def test_an_end_of_an_older_source_offset_is_late(at_once: int) -> None:
    run, late = restore([("a", 5, 1), ("a", None, 5), ("a", 9, 2), ("a", None, 5)], at_once)
    assert late == [3]
    assert run.history("a") == ["i9"]


@pytest.mark.parametrize("at_once", [1, 1_000])
@pytest.mark.parametrize("old", [40, END + 40])
def test_a_topic_that_was_made_anew_counts_from_0_and_has_later_clicks(old: int, at_once: int) -> None:
    run, late = restore([("a", old, 1), ("a", 3, 2)], at_once)
    assert late == []
    assert run.history("a") == ["i3"]


def test_only_so_many_ended_sessions_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_records, "ENDED_KEPT", 2)
    ended: list[Record] = [record for name in "abc" for record in ((name, 5, 1), (name, None, 5))]
    run, late = restore([*ended, ("a", 4, 1), ("b", 4, 1), ("c", 4, 1)], at_once=6)
    assert late == [7, 8]
    assert run.live([(0, name) for name in "abc"]) == {(0, "a")}


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, END - 1)), max_size=30),
    st.integers(1, 10),
)
def test_each_session_ends_with_its_highest_offset(records: list[tuple[str, int]], at_once: int) -> None:
    run, _ = restore([(session, offset, offset) for session, offset in records], at_once)
    for session in {session for session, _ in records}:
        highest = max(offset for other, offset in records if other == session)
        assert run.history(session) == [f"i{highest}"]
