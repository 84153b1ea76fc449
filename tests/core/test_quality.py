"""Prequential judgement against a literal reference: each click against the last answer to its session."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.recommendation import Source
from worker.core.item_register import MAX_ITEMS, NUMBER_BYTES
from worker.core.quality import NOTHING_PUBLISHED, PublishedTable
from worker.shell.settings import WorkerSettings

TOP_K = 3
ROWS = 6
SOURCES: tuple[Source, ...] = ("model", "popular")
answers_of_a_click = st.lists(st.integers(1, 6), max_size=TOP_K, unique=True)
clicks = st.lists(
    st.tuples(
        st.integers(0, ROWS - 1),  # row
        st.integers(0, 3),  # 0: the session starts with this click
        st.integers(0, 6),  # item clicked; 0 is UNREGISTERED
        answers_of_a_click,
        st.booleans(),  # answered by a model
        st.booleans(),  # counts: was not judged before
    ),
    max_size=40,
)
Figures = list[dict[Source, float]]  # clicks judged, hits, sum of reciprocal ranks
Clicks = list[tuple[int, int, int, list[int], bool, bool]]


def published_table(rows: int = ROWS) -> PublishedTable:
    return PublishedTable(np.zeros((rows, TOP_K * NUMBER_BYTES), np.uint8), np.zeros(rows, np.uint8))


def judge(table: PublishedTable, batch: Clicks) -> Figures:
    padded = [found + [NOTHING_PUBLISHED] * (TOP_K - len(found)) for *_, found, _, _ in batch]
    judgement = table.judge(
        np.array([row for row, *_ in batch]),
        np.array([chance == 0 for _, chance, *_ in batch]),
        np.array([counts for *_, counts in batch]),
        np.array([item for _, _, item, *_ in batch]),
        np.array(padded, np.int32),
        np.array([by_model for *_, by_model, _ in batch]),
    )
    found = (judgement.judged, judgement.hits, judgement.reciprocal_ranks)
    return [{source: float(figures[source]) for source in SOURCES} for figures in found]


def literal(every: Clicks) -> Figures:
    judged, hits, ranks = (dict.fromkeys(SOURCES, 0.0) for _ in range(3))
    published: dict[int, tuple[list[int], Source]] = {}
    for row, chance, item, found, by_model, counts in every:
        if chance == 0:
            published.pop(row, None)
        recommended, source = published.get(row, ([], "popular"))
        if recommended and counts:
            judged[source] += 1
            if item in recommended:
                hits[source] += 1
                ranks[source] += 1 / (1 + recommended.index(item))
        published[row] = (found, "model" if by_model else "popular")
    return [judged, hits, ranks]


@given(clicks, st.sets(st.integers(1, 39), max_size=6))
@settings(deadline=None, max_examples=200)
def test_any_slicing_equals_the_literal_reference(every: Clicks, cuts: set[int]) -> None:
    table = published_table()
    bounds = [0, *sorted(cut for cut in cuts if cut < len(every)), len(every)]
    totals = [dict.fromkeys(SOURCES, 0.0) for _ in range(3)]
    for start, end in pairwise(bounds):
        if start == end:
            continue
        for total, part in zip(totals, judge(table, every[start:end]), strict=True):
            for source in SOURCES:
                total[source] += part[source]
    for total, expected in zip(totals, literal(every), strict=True):
        assert total == pytest.approx(expected)


def test_by_hand() -> None:
    """Nothing to judge; second place of a model's answer, a miss of popular items, first place, no answer."""
    table = published_table()
    assert judge(table, [(4, 0, 1, [2, 3, 5], True, True)])[0] == {"model": 0, "popular": 0}
    found = judge(
        table,
        [
            (4, 1, 3, [1, 2], False, True),
            (4, 1, 6, [1], True, True),
            (4, 1, 1, [], True, True),
            (4, 1, 1, [], True, True),
        ],
    )
    assert found == [
        {"model": 2, "popular": 1},
        {"model": 2, "popular": 0},
        {"model": 1.5, "popular": 0},
    ]


def test_a_fresh_session_is_not_judged_by_what_the_former_one_in_its_row_got() -> None:
    table = published_table()
    judge(table, [(0, 0, 1, [1, 2, 3], True, True)])
    for batch in ([(0, 0, 1, [1], True, True)], [(0, 1, 2, [4], True, True), (0, 0, 4, [4], True, True)]):
        judged, hits, _ = judge(table, batch)
        assert hits["model"] == 0
        assert judged["model"] == len(batch) - 1


def test_a_replayed_click_is_not_judged_and_its_answer_is_what_is_judged_next() -> None:
    table = published_table()
    judge(table, [(2, 0, 1, [1], True, True)])
    assert judge(table, [(2, 1, 1, [4, 5], False, False)])[0] == {"model": 0, "popular": 0}
    judged, hits, ranks = judge(table, [(2, 1, 5, [], True, True)])
    assert judged == hits == {"model": 0, "popular": 1}
    assert ranks == {"model": 0.0, "popular": 0.5}


@pytest.mark.parametrize("number", [255, 256, 65_536 + 7, MAX_ITEMS])
def test_the_highest_numbers_are_judged_too(number: int) -> None:
    table = published_table()
    judge(table, [(0, 0, 1, [1, number], True, True)])
    assert judge(table, [(0, 1, number, [], True, True)])[2]["model"] == 0.5
    judge(table, [(1, 0, 1, [number % 256 or 1], True, True)])
    assert judge(table, [(1, 1, number, [], True, True)])[1]["model"] == float(number < 256)


def test_settings_let_no_register_number_more_than_fits() -> None:
    assert WorkerSettings(max_items=MAX_ITEMS).max_items == MAX_ITEMS
    with pytest.raises(ValueError, match="max_items"):
        WorkerSettings(max_items=MAX_ITEMS + 1)
