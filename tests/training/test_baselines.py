"""The baselines against their plainest form."""

from collections import Counter, defaultdict
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.training.logs import sessions_of
from training.baselines import markov_ranks, popularity_ranks
from training.evaluate import MISSED
from training.sessions import UNKNOWN

ITEMS = 8
known = st.lists(st.lists(st.integers(0, ITEMS - 1), min_size=2, max_size=7), min_size=1, max_size=12)
any_item = st.integers(UNKNOWN, ITEMS - 1)
mixed = st.lists(st.lists(any_item, min_size=2, max_size=7), min_size=1, max_size=6)


@given(known, mixed)
def test_popularity(train: list[list[int]], test: list[list[int]]) -> None:
    clicks = Counter(item for items in train for item in items)
    expected = []
    for items in test:
        for item in items[1:]:
            as_popular = sum(clicks[other] >= clicks[item] for other in range(ITEMS))
            expected.append(MISSED if item == UNKNOWN else as_popular)
    assert popularity_ranks(sessions_of(*train), sessions_of(*test), ITEMS).tolist() == expected


@given(known, mixed)
def test_markov(train: list[list[int]], test: list[list[int]]) -> None:
    followed: dict[int, Counter[int]] = defaultdict(Counter)
    for items in train:
        for item, after in pairwise(items):
            followed[item][after] += 1
    expected = []
    for items in test:
        last = UNKNOWN
        for place, item in enumerate(items):
            if place:
                listed = [other for other, _ in followed[last].most_common()]  # equal counts: first met first
                rank = listed.index(item) + 1 if item in listed else ITEMS
                expected.append(MISSED if UNKNOWN in (item, last) else rank)
            last = last if item == UNKNOWN else item
    assert markov_ranks(sessions_of(*train), sessions_of(*test), ITEMS).tolist() == expected
