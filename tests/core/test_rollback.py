"""A batch that is taken back leaves no trace: not in the sessions, and not in anything that comes after."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.driving import NOW_MS, START_MS, Run, Step, Swap, batches_of, keys_of, new_run, streams
from tests.core.reference import Click, Limits
from tests.core.resuming import MODELS, check_same_run_off, check_same_step, step_both
from worker.core.session_records import NO_GENERATION
from worker.core.session_table import Kept, TableCounts

FRESH = 1_000  # offsets from here on are beyond all that the streams have

NO_EXPIRY_MS = (0, 0, 1, 1_000)
"""Gaps after which sessions live on, so that the order in which they stand can come to matter."""

limits = st.builds(
    Limits,
    max_sessions=st.sampled_from([1, 2, 3, 12]),
    history_length=st.just(200),  # longer than any session: hidden rows do not come back, but histories do
    duplicate_window=st.sampled_from([0, 1, 3]),
)


@dataclass
class Picture:
    """All that is known of the sessions."""

    kept: dict[tuple[int, str], Kept]
    published: dict[tuple[int, str], list[int]]
    counts: TableCounts
    watermark_ms: int


def picture(run: Run, keys: set[tuple[int, str]]) -> Picture:
    table = run.worker.table
    live = sorted(run.live(keys))
    rows = [table.row(*key) for key in live]
    return Picture(
        dict(zip(live, table.kept(rows), strict=True)),
        {key: table.records.published[row].tolist() for key, row in zip(live, rows, strict=True)},
        replace(table.counts),
        table.watermark_ms,
    )


def elsewhere(steps: list[Step], beyond: int, fresh: bool) -> list[Click]:
    """These clicks in other partitions, and with offsets that nobody has seen."""
    return [
        replace(step, partition=step.partition + beyond, offset=(step.offset or 0) + FRESH * fresh)
        for step in steps
        if isinstance(step, Click)
    ]


@given(
    limits,
    streams(models=len(MODELS), size=40) | streams(models=len(MODELS), size=40, gaps_ms=NO_EXPIRY_MS),
    st.sets(st.integers(0, 40), max_size=8),
    st.integers(0, 8),
    st.lists(
        st.tuples(
            streams(size=25) | streams(size=25, gaps_ms=NO_EXPIRY_MS),
            st.sampled_from([0, 0, 1, 2]),
            st.booleans(),
        ),
        min_size=1,
        max_size=2,
    ),
)
@settings(deadline=None, max_examples=80)
def test_equals_a_table_that_never_saw_the_batch(
    given_limits: Limits,
    steps: list[Step],
    cuts: set[int],
    number: int,
    aborted: list[tuple[list[Step], int, bool]],
) -> None:
    steady, shaken = new_run(given_limits), new_run(given_limits)
    batches = batches_of(steps, sorted(cuts))
    number %= len(batches)
    for batch in batches[:number]:
        step_both(steady, shaken, batch)
    assert steady.worker.changes() == shaken.worker.changes()
    lost = [elsewhere(*each) for each in aborted]
    lost[-1] += [click for batch in batches[number:][:1] if not isinstance(batch, Swap) for click in batch]
    keys = keys_of(steps) | {key for clicks in lost for key in keys_of(clicks)}
    before = picture(shaken, keys)
    for clicks in lost:
        Run(shaken.worker).advance(clicks)  # another run keeps the tally, and is forgotten
        shaken.worker.table.rollback()
        assert picture(shaken, keys) == before
        assert shaken.worker.changes() == []
    for batch in batches[number:]:
        step_both(steady, shaken, batch)
        if not isinstance(batch, Swap):
            check_same_step(steady, shaken, keys)
    assert steady.judged == shaken.judged
    check_same_run_off(steady, shaken, keys)


@pytest.mark.parametrize(
    "clicks", ["a", "b", "c", "ab", "ba", "cab", "aab", "bdb", "da", "adcb", "deab", "defa"]
)
def test_the_order_in_which_sessions_go_comes_back(clicks: str) -> None:
    """Moved, added, evicted and come back: afterwards they are evicted in the order in which they stood."""
    run = new_run(Limits(max_sessions=3))
    for name in "abc":
        run.feed([Click(name, "i1", START_MS)])
    run.worker.changes()
    run.feed([Click(name, "i2", START_MS) for name in clicks])
    run.worker.table.rollback()
    gone = []
    for name in "xyz":
        run.feed([Click(name, "i1", START_MS)])
        gone += [change.session_id for change in run.worker.changes() if change.history is None]
    assert gone == ["a", "b", "c"]


def test_the_hidden_rows_become_stale() -> None:
    run = new_run(Limits(max_sessions=3))
    run.adopt(MODELS[0])
    run.feed([Click("a", "i1", START_MS), Click("b", "i1", START_MS)])
    run.feed([Click("a", "i2", START_MS)])
    table = run.worker.table
    table.rollback()
    assert table.records.generation[table.row(0, "a")] == NO_GENERATION
    assert table.records.generation[table.row(0, "b")] != NO_GENERATION, "it was not touched"
    assert run.history("a") == ["i1"]


def test_popular_items_outlive_a_batch_that_was_years_ahead() -> None:
    """What is counted stays counted, and the time of the table falls back behind it: by far more half-lives
    than a float could grow by.
    """
    run = new_run(Limits(half_life_ms=1_000))
    run.feed([Click("a", "old", START_MS)])
    ahead = [Click(f"b{number}", "new", NOW_MS) for number in range(40)]
    run.feed(ahead)
    run.worker.table.rollback()
    for number in range(40):
        (answer,) = run.feed([Click(f"a{number}", "old", START_MS + number)])
        assert answer.items == ["new"]
    assert answer.scores.tolist() == [40.0]
    assert run.feed(ahead)[-1].items == ["new"]


@pytest.mark.parametrize("told", [False, True])
def test_what_came_between_two_batches_is_not_taken_back(told: bool) -> None:
    """A transaction can fail in which there was no click at all, after a partition was restored."""
    source, run = new_run(), new_run()
    source.feed([Click("a", "i1", START_MS, 1)])
    (record,) = source.worker.changes()
    run.feed([Click("c", "i1", START_MS, 0)])
    run.worker.changes()
    run.restore([record])
    if told:
        assert run.worker.changes() == []
    run.worker.table.rollback()
    assert run.live({(1, "a"), (0, "c")}) == {(1, "a"), (0, "c")}
    (again,) = run.feed([Click("a", "i2", START_MS, 1, 7)])
    assert run.history("a", 1) == ["i1", "i2"]
    assert again.source == "popular"


def test_a_batch_that_follows_a_rolled_back_one_tells_its_own_changes_only() -> None:
    run = new_run(Limits(max_sessions=2))
    run.feed([Click("a", "i1", START_MS), Click("b", "i1", START_MS)])
    run.worker.changes()
    run.feed([Click("c", "i1", START_MS), Click("d", "i1", START_MS)])
    run.worker.table.rollback()
    run.feed([Click("b", "i2", START_MS)])
    (change,) = run.worker.changes()
    assert (change.session_id, change.history and change.history.items) == ("b", ["i1", "i2"])
