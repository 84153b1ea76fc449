"""How a batch is cut must not matter, and any cut must give what the plain, one-by-one reference gives."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.driving import (
    NOW_MS,
    Run,
    Step,
    Swap,
    check_answer,
    check_same_answers,
    in_batches,
    keys_of,
    new_run,
    streams,
)
from tests.core.models import random_model
from tests.core.reference import Limits, PlainWorker
from worker.core.session_index import NO_ROW
from worker.core.session_table import TableCounts

MODELS = [
    random_model([f"i{item}" for item in range(10)], hidden_size=4, seed=1),
    random_model([f"i{item}" for item in range(13, 4, -1)], hidden_size=4, seed=2),
    random_model([*(f"i{item}" for item in range(0, 12, 2)), "new1", "new2"], hidden_size=7, seed=3),
    random_model([f"i{item}" for item in range(10)], 3, seed=4, cell="lstm", layers=2, score="dot"),
    random_model(
        [f"i{item}" for item in range(12)],
        hidden_size=5,
        seed=5,
        cell="rnn",
        item_embedding="none",
        last_click_query=False,
    ),
]

limits = st.builds(
    Limits,
    max_sessions=st.sampled_from([1, 2, 3, 8]),
    history_length=st.sampled_from([1, 3, 6]),
    max_items=st.sampled_from([12, 14, 16, 100]),
    top_k=st.sampled_from([1, 3, 20]),
    half_life_ms=st.sampled_from([1_000, 10 * 60_000, 10**12]),
    duplicate_window=st.sampled_from([0, 1, 3, 8]),
)
steps = streams(models=len(MODELS))
cuts = st.sets(st.integers(0, 65), max_size=8)
thorough = settings(deadline=None, max_examples=200)


def fed(given_limits: Limits, given_steps: list[Step], given_cuts: set[int]) -> tuple[Run, list[bool]]:
    run = new_run(given_limits)
    taken = in_batches(run, given_steps, MODELS, sorted(given_cuts))
    return run, taken


@given(limits, steps, cuts)
@thorough
def test_slicing_does_not_matter(given_limits: Limits, given_steps: list[Step], given_cuts: set[int]) -> None:
    whole, taken = fed(given_limits, given_steps, set())
    for each_cut in (given_cuts, set(range(len(given_steps)))):
        sliced, taken_sliced = fed(given_limits, given_steps, each_cut)
        assert taken_sliced == taken
        identical = check_same_answers(whole.answers, sliced.answers)
        table, table_sliced = whole.worker.table, sliced.worker.table
        live = whole.live(keys_of(given_steps))
        assert live == sliced.live(keys_of(given_steps))
        for partition, name in live:
            assert whole.history(name, partition) == sliced.history(name, partition)
        assert (table.counts, table.watermark_ms) == (table_sliced.counts, table_sliced.watermark_ms)
        assert whole.worker.reencoded == sliced.worker.reencoded
        assert whole.worker.register.refused == sliced.worker.register.refused
        assert whole.judged == sliced.judged
        if identical:  # else a tie may have fallen on the other side
            assert whole.hits == sliced.hits
            assert whole.reciprocal_ranks == pytest.approx(sliced.reciprocal_ranks)


@given(limits, steps, cuts)
@thorough
def test_any_slicing_equals_the_plain_reference(
    given_limits: Limits, given_steps: list[Step], given_cuts: set[int]
) -> None:
    run, taken = fed(given_limits, given_steps, given_cuts)
    plain = PlainWorker(given_limits)
    expected, plainly_taken = [], []
    for step in given_steps:
        if isinstance(step, Swap):
            plainly_taken.append(plain.adopt(MODELS[step.model]))
        else:
            expected.append(plain.click(step, NOW_MS))
    assert taken == plainly_taken
    assert len(run.answers) == len(expected)
    for answer, wanted in zip(run.answers, expected, strict=True):
        check_answer(answer, wanted)
    assert run.live(keys_of(given_steps)) == set(plain.live())
    assert len(run.worker.table) == len(plain.live())
    for partition, line in plain.lines.items():
        for session in line:
            last = session.history[-given_limits.history_length :]
            assert run.history(session.name, partition) == [item or "" for item in last]
    assert run.worker.table.counts == TableCounts(
        plain.late, plain.evicted, plain.expired, plain.replayed, plain.duplicates
    )
    assert run.worker.table.watermark_ms == plain.watermark_ms
    assert run.judged == plain.judged
    same_items = all(
        answer is None or wanted is None or answer.items == wanted.best
        for answer, wanted in zip(run.answers, expected, strict=True)
    )
    if same_items:  # else a tie may have fallen on the other side
        assert run.hits == plain.hits
        assert run.reciprocal_ranks == pytest.approx(plain.reciprocal_ranks)


def test_the_streams_reach_what_they_are_for() -> None:
    """A property is worth what its examples contain."""
    seen: dict[str, int] = {}

    @given(limits, steps)
    @settings(deadline=None, max_examples=80, derandomize=True, database=None)
    def look(given_limits: Limits, given_steps: list[Step]) -> None:
        run, taken = fed(given_limits, given_steps, set())
        table, register = run.worker.table, run.worker.register
        last = run.answers[-1]
        facts = {
            "evicted": table.counts.evicted,
            "expired": table.counts.expired,
            "late": table.counts.late_clicks,
            "replayed": table.counts.replayed,
            "duplicates": table.counts.duplicates,
            "one id in two partitions": any(
                table.row(0, f"s{n}") != NO_ROW != table.row(1, f"s{n}") for n in range(5)
            ),
            "refused items": register.refused,
            "refused models": taken.count(False),
            "swapped": taken.count(True) > 1,
            "re-encoded": run.worker.reencoded,
            "hits of the model": run.hits["model"],
            "hits of popular items": run.hits["popular"],
            "popular beside a model": bool(taken) and all(taken) and last and last.source == "popular",
        }
        for fact, value in facts.items():
            seen[fact] = seen.get(fact, 0) + bool(value)

    look()
    assert {fact: times for fact, times in seen.items() if times < 3} == {}
