"""A table that is rebuilt from its changelog goes on as if nothing had happened."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.session_history import event_hash
from tests.core.driving import (
    MINUTE_MS,
    NOW_MS,
    START_MS,
    Changelog,
    Run,
    Step,
    Swap,
    batches_of,
    check_answer,
    check_same_answers,
    keys_of,
    new_run,
    streams,
)
from tests.core.reference import HOUR_MS, Click, Expected, Limits, PlainModel
from tests.core.resuming import MODELS, check_same_run_off, check_same_step, step_both
from worker.core import untold_changes
from worker.core.advance import History, SessionChange
from worker.core.session_index import NO_ROW

LONG = 200
"""History of all clicks: from a shorter one a longer session would be re-encoded from its last clicks."""

roomy = st.builds(
    Limits,
    max_sessions=st.just(12),  # all ten sessions and two more
    history_length=st.just(LONG),
    duplicate_window=st.sampled_from([0, 1, 3, 8]),
)
tight = st.builds(Limits, max_sessions=st.sampled_from([1, 2, 3, 5]), history_length=st.just(LONG))
cuts = st.sets(st.integers(0, 50), max_size=8)
chunks = st.sampled_from([1, 2, 7, 1_000])

histories = st.builds(
    History,
    st.lists(st.sampled_from([f"i{number}" for number in range(10)]), max_size=12),
    st.sampled_from([0, 0, 0, 1, 20, -20, -40]).map(lambda minutes: START_MS + minutes * MINUTE_MS),
    st.integers(0, 9),
    st.integers(0, 12).map(lambda count: b"".join(event_hash(str(number)) for number in range(count))),
)


def two_minutes_apart(records: list[SessionChange]) -> list[SessionChange]:
    """The same records, further on in time from one to the next."""
    return [
        record._replace(
            history=record.history
            and record.history._replace(
                last_activity_ms=record.history.last_activity_ms + 2 * number * MINUTE_MS
            )
        )
        for number, record in enumerate(records)
    ]


records_of_all_kinds = st.lists(
    st.builds(
        SessionChange,
        st.integers(0, 1),
        st.integers(0, 20).map(lambda number: f"s{number}"),
        histories | histories | histories | st.none(),
    ),
    min_size=20,
    max_size=50,
).map(two_minutes_apart)


def restored(limits: Limits, records: list[SessionChange], model: int | None, at_once: int = 1_000) -> Run:
    run = new_run(limits)
    run.restore(records, at_once)
    if model is not None:
        run.adopt(MODELS[model])
    return run


def fed_and_logged(run: Run, batches: list[list[Click] | Swap]) -> tuple[Changelog, int | None]:
    """The changelog of these batches, and the last model among them."""
    changelog, model = Changelog(), None
    for batch in batches:
        if isinstance(batch, Swap):
            assert run.adopt(MODELS[batch.model])
            model = batch.model
        else:
            run.advance(batch)
            changelog.write(run.worker)
    return changelog, model


def goes_on_alike(
    limits: Limits, steps: list[Step], cuts: set[int], number: int, compact: bool, at_once: int = 1_000
) -> None:
    batches = batches_of(steps, sorted(cuts))
    number %= len(batches)
    original, keys = new_run(limits), keys_of(steps)
    changelog, model = fed_and_logged(original, batches[: number + 1])
    copy = restored(limits, changelog.compacted() if compact else changelog.records, model, at_once)
    assert copy.worker.changes() == [], "it is as the changelog has it"
    assert copy.live(keys) == original.live(keys)
    for batch in batches[number + 1 :]:
        step_both(original, copy, batch)
        if not isinstance(batch, Swap):
            check_same_step(original, copy, keys)
    check_same_run_off(original, copy, keys)


@given(roomy, streams(models=2, size=50), cuts, st.integers(0, 8), st.booleans(), chunks)
@settings(deadline=None, max_examples=120)
def test_it_goes_on_alike_from_any_log(
    given_limits: Limits, steps: list[Step], given_cuts: set[int], number: int, compact: bool, at_once: int
) -> None:
    """With duplicates, replays, expiry and late clicks before and after, compacted or not."""
    goes_on_alike(given_limits, steps, given_cuts, number, compact, at_once)


@given(tight, streams(models=2, size=50, gaps_ms=(0, 0, 1, 1_000)), cuts, st.integers(0, 8))
@settings(deadline=None, max_examples=80)
def test_it_goes_on_alike_where_sessions_were_evicted(
    given_limits: Limits, steps: list[Step], given_cuts: set[int], number: int
) -> None:
    """Within the idle time: an evicted session can take with it what its partition knew of the time."""
    goes_on_alike(given_limits, steps, given_cuts, number, compact=True)


@given(records_of_all_kinds, st.integers(0, 15), st.sampled_from([2, 5, 50]), st.sampled_from([3, 100]))
@settings(deadline=None, max_examples=100)
def test_how_the_log_is_cut_does_not_matter(
    records: list[SessionChange], first: int, at_once: int, max_sessions: int
) -> None:
    """Sessions that come again, end, end and come again, or are over already, in a table that has some. Where
    some have to go for want of room, each session has one record: else it matters when it is known.
    """
    if max_sessions == 3:
        latest = {record.session_id: record for record in records if record.history}
        records = [record._replace(partition=0) for record in latest.values()]
    given_limits = Limits(max_sessions=max_sessions, history_length=5, duplicate_window=3)
    one_by_one, cut = (restored(given_limits, records[:first], 0) for _ in range(2))
    one_by_one.restore(records[first:], 1)
    cut.restore(records[first:], at_once)
    keys = {(record.partition, record.session_id) for record in records}
    check_same_step(one_by_one, cut, keys)
    rows = [[run.worker.table.row(*key) for key in sorted(cut.live(keys))] for run in (one_by_one, cut)]
    kept = [list(run.worker.table.kept(at)) for run, at in zip((one_by_one, cut), rows, strict=True)]
    assert kept[0] == kept[1]
    assert one_by_one.worker.table.watermark_ms == cut.worker.table.watermark_ms
    check_same_run_off(one_by_one, cut, keys)


@given(streams(size=40), cuts, st.integers(1, 4), st.booleans())
@settings(deadline=None, max_examples=60)
def test_a_smaller_table_takes_the_latest_and_tells_who_had_to_go(
    steps: list[Step], given_cuts: set[int], max_sessions: int, again: bool
) -> None:
    original = new_run(Limits(max_sessions=12))
    in_one = [replace(step, partition=0) for step in steps if isinstance(step, Click)]
    changelog, _ = fed_and_logged(original, batches_of(in_one, sorted(given_cuts)))
    records = changelog.compacted()
    copy = restored(Limits(max_sessions=max_sessions), records, None)
    told = copy.worker.changes()
    kept, gone = records[-max_sessions:], records[: max(len(records) - max_sessions, 0)]
    keys = {(0, record.session_id) for record in records}
    assert copy.live(keys) >= {(0, record.session_id) for record in kept[1:]}
    assert len(copy.worker.table) == len(kept)
    assert {(0, change.session_id) for change in told} == keys - copy.live(keys)
    assert [change.history for change in told] == [None] * len(gone)
    assert copy.worker.table.counts.evicted == len(gone)
    if again:  # the transaction that told it failed
        copy.worker.table.rollback()
        assert copy.worker.changes() == told
    copy.advance([])
    assert copy.worker.changes() == [], "told once"


def test_only_so_many_are_remembered_of_those_who_had_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest stays on the changelog, for the next one who restores it."""
    monkeypatch.setattr(untold_changes, "LEFT_OUT_KEPT", 2)
    source = new_run(Limits(max_sessions=9))
    source.feed([Click(name, "i1", START_MS, 1) for name in "abcde"])
    run = restored(Limits(max_sessions=1), source.worker.changes(), None)
    assert [change.session_id for change in run.worker.changes()] == ["c", "d"]


def test_who_had_to_go_is_told_after_a_batch_that_changed_nothing() -> None:
    """The changes of that batch were told; what comes between it and the next one was not."""
    source = new_run(Limits(max_sessions=9))
    source.feed([Click(name, "i1", START_MS, 1) for name in "abc"])
    run = new_run(Limits(max_sessions=2))
    run.feed([Click("s", "i1", START_MS, 0, 0)])
    run.worker.changes()
    run.feed([Click("s", "i1", START_MS, 0, 0)])
    assert run.worker.changes() == []
    run.restore(source.worker.changes())
    (answer,) = run.feed([Click("c", "i2", START_MS, 1, 9)])
    assert [
        (change.partition, change.session_id, change.history is None) for change in run.worker.changes()
    ] == [
        (0, "s", True),
        (1, "a", True),
        (1, "c", False),
    ]
    assert answer.source == "popular"


def test_who_had_to_go_after_the_others_were_told_is_told_too() -> None:
    """No batch comes between: a transaction of its own tells of those who had to go."""
    source = new_run(Limits(max_sessions=9))
    source.feed([Click(name, "i1", START_MS, 1) for name in "abc"])
    records = source.worker.changes()
    run = new_run(Limits(max_sessions=1))
    gone = []
    for record in records:
        run.restore([record])
        gone.append([change.session_id for change in run.worker.changes()])
    assert gone == [[], ["a"], ["b"]]
    run.feed([Click("c", "i2", START_MS, 1, 9)])
    assert [change.session_id for change in run.worker.changes()] == ["c"]


def expect(model: int, items: list[str]) -> Expected:
    scores = PlainModel(MODELS[model]).scores_after(items)
    return Expected("model", scores, sorted(scores, key=lambda item: -scores[item])[:3])


def two_partitions() -> tuple[Run, Changelog]:
    """Sessions "a" and "b" in both partitions, "a" of partition 1 the latest."""
    run, changelog = new_run(), Changelog()
    run.adopt(MODELS[0])
    for partition in (0, 1):
        run.feed([Click("b", "i4", START_MS + partition, partition)])
        changelog.write(run.worker)
        run.feed([Click("a", item, START_MS + partition, partition) for item in ("i1", f"i{2 + partition}")])
        changelog.write(run.worker)
    return run, changelog


def test_one_partition_is_restored_while_another_one_lives() -> None:
    source, changelog = two_partitions()
    run = new_run()
    run.adopt(MODELS[0])
    run.feed([Click("a", "i5", START_MS, 0), Click("z", "i5", START_MS, 0)])
    run.worker.changes()
    run.restore([record for record in changelog.compacted() if record.partition == 1])
    assert run.worker.changes() == []
    next_offset = source.next_offsets[1]
    answers = run.feed([Click("a", "i6", START_MS, 0), Click("a", "i7", START_MS, 1, next_offset)])
    check_answer(answers[0], expect(0, ["i5", "i6"]))
    check_answer(answers[1], expect(0, ["i1", "i3", "i7"]))
    assert run.worker.reencoded == 1, "only what was restored"
    assert {(change.partition, change.session_id) for change in run.worker.changes()} == {(0, "a"), (1, "a")}


def test_a_partition_that_was_forgotten_is_restored() -> None:
    run, changelog = two_partitions()
    steady, _ = two_partitions()
    assert run.worker.table.forget_partitions({1}) == 2
    run.restore([record for record in changelog.compacted() if record.partition == 1])
    keys = {(0, "a"), (0, "b"), (1, "a"), (1, "b")}
    assert run.live(keys) == keys
    step_both(run, steady, [Click("b", "i1", START_MS, 1), Click("b", "i1", START_MS, 0)])
    check_same_step(run, steady, keys)
    check_same_run_off(run, steady, keys)


def test_a_session_that_had_expired_vanishes_again_after_its_clicks_are_replayed() -> None:
    """At least once: the changelog is ahead of the committed offsets."""
    first = [
        Click("gone", "i1", START_MS, 0, 0),
        Click("gone", "i2", START_MS, 0, 1),
        Click("stays", "i3", START_MS + 31 * MINUTE_MS, 0, 2),
    ]
    original = new_run()
    original.adopt(MODELS[0])
    changelog, _ = fed_and_logged(original, [first[:2], first[2:]])
    assert original.live({(0, "gone"), (0, "stays")}) == {(0, "stays")}
    copy = restored(Limits(), changelog.compacted(), 0)
    answers = copy.feed(first)
    check_same_answers(answers[2:], original.answers[2:])
    assert copy.worker.table.counts.replayed == 1
    changelog.write(copy.worker)
    copy.feed([Click("stays", "i4", START_MS + 31 * MINUTE_MS, 0, 3)])
    changelog.write(copy.worker)
    assert copy.live({(0, "gone"), (0, "stays")}) == {(0, "stays")}
    assert copy.history("stays") == ["i3", "i4"]
    assert [record.session_id for record in changelog.compacted()] == ["stays"]


def test_duplicates_and_replays_are_known_after_a_restore() -> None:
    original = new_run()
    clicks = [Click("s", "i1", START_MS, 0, number, f"e{number}") for number in range(10)]
    changelog, _ = fed_and_logged(original, [clicks])
    copy = restored(Limits(duplicate_window=4), changelog.compacted(), None)
    assert copy.worker.table.counts.duplicates == 0
    repeated = [replace(clicks[number], offset=20 + number) for number in (9, 6)]
    assert copy.advance(repeated) == [None, None]
    assert copy.advance(clicks[8:]) != [None, None]
    assert copy.worker.table.counts.replayed == 2
    assert copy.advance([replace(clicks[5], offset=30)]) != [None], "longer ago than this table remembers"


def test_an_activity_in_the_far_future_expires_nobody() -> None:
    run = new_run(Limits(idle_timeout_ms=HOUR_MS))
    steady = SessionChange(0, "steady", History(["i1"], NOW_MS - 1, 0, b""))
    ahead = SessionChange(0, "ahead", History(["i2"], NOW_MS + 1_000 * HOUR_MS, 1, b""))
    run.restore([steady, ahead])
    assert run.live({(0, "steady"), (0, "ahead")}) == {(0, "steady"), (0, "ahead")}
    run.feed([Click("steady", "i3", NOW_MS, 0, 2)])
    assert run.history("steady") == ["i1", "i3"]


def test_a_session_that_has_ended_is_not_restored() -> None:
    run = new_run()
    changelog, _ = fed_and_logged(new_run(), [[Click("s", "i1", START_MS), Click("t", "i1", START_MS)]])
    run.restore(changelog.records)
    ended = [(0, "s"), (0, "never seen"), (5, "s")]
    run.restore([SessionChange(*session, None) for session in ended])
    assert run.live({(0, "s"), (0, "t")}) == {(0, "t")}
    assert run.worker.changes() == []


def test_a_longer_history_than_fits_is_cut_to_its_last_clicks() -> None:
    source = new_run(Limits(history_length=6))
    changelog, _ = fed_and_logged(source, [[Click("s", f"i{n}", START_MS, 0, n) for n in range(6)]])
    run = restored(Limits(history_length=4), changelog.compacted(), 0)
    assert run.history("s") == ["i2", "i3", "i4", "i5"]
    (answer,) = run.feed([Click("s", "i7", START_MS, 0, 6)])
    check_answer(answer, expect(0, ["i2", "i3", "i4", "i5", "i7"]))


def test_a_restored_session_has_nothing_of_the_one_whose_row_it_took() -> None:
    """Neither its state, nor what was recommended to it."""
    run = new_run(Limits(max_sessions=1))
    run.adopt(MODELS[0])
    changelog, _ = fed_and_logged(new_run(), [[Click("s", "i1", START_MS, 1)]])
    run.feed([Click("former", "i7", START_MS)])
    run.restore(changelog.compacted())
    (answer,) = run.feed([Click("s", "i2", START_MS, 1, 5)])
    check_answer(answer, expect(0, ["i1", "i2"]))
    assert run.judged == {"model": 0, "popular": 0}


@pytest.mark.parametrize("known", [True, False])
def test_offsets_that_start_anew(known: bool) -> None:
    """The clicks topic was made anew: its offsets are those of other clicks."""
    run = new_run()
    run.feed([Click("s", "i1", START_MS, 0, 50), Click("s", "i1", START_MS, 1, 50)])
    if known:
        run.worker.table.forget_source_offsets(0, 0)
        run.worker.table.forget_source_offsets(9, 0)
    clicks = [Click("s", "i2", START_MS, 0, 0, "x"), Click("s", "i2", START_MS, 1, 0, "x")]
    run.feed(clicks)
    assert run.history("s", 0) == (["i1", "i2"] if known else ["i1"])
    assert run.history("s", 1) == ["i1"]
    assert run.worker.table.row(9, "s") == NO_ROW


@pytest.mark.parametrize(("end", "applied"), [(50, True), (51, False)])
def test_an_offset_that_the_topic_does_not_have_is_forgotten(end: int, applied: bool) -> None:
    """What was applied lies before the end of the topic; else it was applied from another one."""
    run = new_run()
    run.feed([Click("s", "i1", START_MS, 0, 50)])
    run.worker.table.forget_source_offsets(0, end)
    run.feed([Click("s", "i2", START_MS, 0, 7, "x")])
    assert run.history("s", 0) == (["i1", "i2"] if applied else ["i1"])
