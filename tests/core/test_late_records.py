"""Records that a worker wrote when it had lost its partition do not outdate those of the new owner."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.session_history import event_hash
from tests.core.driving import START_MS, Run, new_run
from tests.core.reference import Limits
from worker.core.advance import History
from worker.core.late_records import LateRecords

END = 100


def restore(records: list[tuple[str, int | None]], at_once: int = 1_000) -> tuple[Run, list[int]]:
    """A table restored from records of (session, source offset or None for its end), and which were late.

    The items of a history say of which offset it is.
    """
    run = new_run(Limits(max_sessions=50))
    late = LateRecords(run.worker.table, 0, END)
    found = []
    for start in range(0, len(records), at_once):
        chunk = []
        for at, (session, offset) in enumerate(records[start : start + at_once], start):
            if late.is_late(session, offset):
                found.append(at)
            else:
                event = event_hash("e")
                history = None if offset is None else History([f"i{offset}"], START_MS, offset, event)
                chunk.append((session, history))
        run.worker.restore(0, [session for session, _ in chunk], [history for _, history in chunk])
        late.restored(session for session, _ in chunk)
    return run, found


@pytest.mark.parametrize("at_once", [1, 2, 1_000])
def test_an_older_source_offset_is_late_whatever_the_chunks(at_once: int) -> None:
    run, late = restore([("a", 5), ("b", 2), ("a", 9), ("a", 5), ("b", 3), ("a", 9)], at_once)
    assert late == [3]
    assert run.history("a") == ["i9"]
    assert run.history("b") == ["i3"]


@pytest.mark.parametrize("at_once", [1, 2, 1_000])
def test_an_ended_session_stays_ended_and_may_start_anew(at_once: int) -> None:
    run, late = restore([("a", 5), ("a", None), ("a", 4), ("b", 7), ("b", None), ("b", 8)], at_once)
    assert late == [2]
    assert run.live([(0, "a"), (0, "b")]) == {(0, "b")}
    assert run.history("b") == ["i8"]


def test_offsets_of_a_topic_that_was_made_anew_outdate_nothing() -> None:
    run, late = restore([("a", END + 40), ("a", 3)])
    assert late == []
    assert run.history("a") == ["i3"]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, END - 1)), max_size=30),
    st.integers(1, 10),
)
def test_each_session_ends_with_its_highest_offset(records: list[tuple[str, int]], at_once: int) -> None:
    run, _ = restore([(session, offset) for session, offset in records], at_once)
    for session in {session for session, _ in records}:
        highest = max(offset for other, offset in records if other == session)
        assert run.history(session) == [f"i{highest}"]
