"""The cap on dead letters: what it counts, against a plain list of all batches, and when it is exceeded."""

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.dead_letter_cap import MAX_SLOTS_HELD, DeadLetterCap

Batch = tuple[int, int]


@st.composite
def batches(draw: st.DrawFn, max_records: int = 40) -> list[Batch]:
    """Batches of records, with some dead letters in each."""
    sizes = draw(st.lists(st.integers(0, max_records), max_size=120))
    return [(records, draw(st.integers(0, records))) for records in sizes]


def newest(seen: list[Batch], window_records: int, slot_records: int) -> list[Batch]:
    """Sums of the newest batches that may be the window: at least as long as it, at most by a slot longer."""
    total = sum(records for records, _ in seen)
    slack = max([slot_records, *(records for records, _ in seen)])
    sums = []
    for start in range(len(seen) + 1):
        records = sum(count for count, _ in seen[start:])
        if min(total, window_records) <= records < window_records + slack:
            sums.append((records, sum(count for _, count in seen[start:])))
    return sums


@given(batches(), st.integers(1, 300), st.floats(0, 1), st.integers(0, 50))
def test_the_window_is_the_newest_batches_and_the_cap_holds_for_them(
    fed: list[Batch], window_records: int, max_ratio: float, burst: int
) -> None:
    cap = DeadLetterCap(max_ratio, window_records, burst)
    seen: list[Batch] = []
    for records, letters in fed:
        before = (cap.records, cap.letters, len(cap))
        said = cap.exceeded_by(records, letters)
        assert (cap.records, cap.letters, len(cap)) == before, "asking changes nothing"
        cap.note(records, letters)
        seen.append((records, letters))
        assert (cap.records, cap.letters) in newest(seen, window_records, ceil(window_records / 64))
        assert said == (cap.letters > burst and cap.letters > max_ratio * cap.records)
        assert len(cap) <= MAX_SLOTS_HELD


@given(st.lists(st.booleans(), max_size=300), st.integers(1, 64))
def test_of_single_records_the_window_is_exact_where_a_slot_is_one_record(
    bad: list[bool], window_records: int
) -> None:
    cap = DeadLetterCap(0.5, window_records, 0)
    for count, is_bad in enumerate(bad, start=1):
        cap.note(1, int(is_bad))
        naive = bad[max(count - window_records, 0) : count]
        assert (cap.records, cap.letters) == (len(naive), sum(naive))


@pytest.mark.parametrize("sizes", [[1], [2], [157], [1, 157], [156, 1], [80], [157, 157, 1], [512]])
def test_what_is_held_stays_small_however_the_batches_fall(sizes: list[int]) -> None:
    cap = DeadLetterCap(0.5, 10_000, 1_000)  # slots of 157
    for turn in range(30_000):
        cap.note(sizes[turn % len(sizes)], 0)
        assert len(cap) <= MAX_SLOTS_HELD
    assert 10_000 <= cap.records < 10_000 + max(157, *sizes, 0)


def test_a_burst_is_allowed_and_one_letter_more_is_not() -> None:
    cap = DeadLetterCap(0.5, 10_000, 1_000)
    assert not cap.exceeded_by(1_000, 1_000)
    assert cap.exceeded_by(1_001, 1_001)
    cap.note(1_000, 1_000)
    assert not cap.exceeded_by(0, 0)
    assert cap.exceeded_by(1, 1)
    assert not cap.exceeded_by(1_002, 1), "1,001 of 2,002 are half, not more"


def test_letters_below_the_ratio_never_exceed_however_many() -> None:
    cap = DeadLetterCap(0.5, 10_000, 1_000)
    for _ in range(1_000):
        assert not cap.exceeded_by(500, 250)
        cap.note(500, 250)
    assert cap.letters > 1_000


def test_old_good_records_do_not_excuse_a_producer_that_has_gone_bad() -> None:
    cap = DeadLetterCap(0.5, 10_000, 1_000)
    for _ in range(10_000):
        cap.note(500, 0)
    let_through = 0
    while not cap.exceeded_by(500, 500):
        cap.note(500, 500)
        let_through += 500
    assert let_through == 5_000


def test_it_recovers_once_the_bad_records_have_left_the_window() -> None:
    cap = DeadLetterCap(0.1, 100, 5)
    cap.note(50, 50)
    assert cap.exceeded_by(0, 0)
    for _ in range(100):
        cap.note(1, 0)
    assert not cap.exceeded_by(1, 1)


def test_a_ratio_of_one_never_exceeds_and_one_of_zero_allows_the_burst_alone() -> None:
    assert not DeadLetterCap(1.0, 10, 0).exceeded_by(1_000, 1_000)
    assert not DeadLetterCap(0.0, 10, 3).exceeded_by(1_000, 3)
    assert DeadLetterCap(0.0, 10, 3).exceeded_by(1_000, 4)


@pytest.mark.parametrize(
    ("max_ratio", "window_records", "burst", "says"),
    [
        (-0.1, 1, 0, "max_ratio"),
        (1.1, 1, 0, "max_ratio"),
        (float("nan"), 1, 0, "max_ratio"),
        (0.5, 0, 0, "window_records"),
        (0.5, 1, -1, "burst"),
    ],
)
def test_settings_out_of_range_are_refused(
    max_ratio: float, window_records: int, burst: int, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        DeadLetterCap(max_ratio, window_records, burst)


@pytest.mark.parametrize(("records", "letters"), [(1, 2), (-1, -1), (1, -1)])
def test_impossible_counts_are_refused(records: int, letters: int) -> None:
    cap = DeadLetterCap(0.5, 10, 0)
    for count in (cap.note, cap.exceeded_by):
        with pytest.raises(ValueError, match="cannot be counts"):
            count(records, letters)
