"""The baselines against their plainest form."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.logs import sessions_of
from training.baselines import compare, popularity, session_index
from training.baselines.item_knn import item_knn_ranks
from training.baselines.markov import markov_ranks
from training.baselines.popularity import popularity_ranks, recent, recent_popularity_ranks
from training.baselines.session_index import index_sessions
from training.baselines.vs_knn import vs_knn_ranks
from training.evaluate import MISSED, is_target
from training.progress import Progress, silent
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


def slow_targets(test: list[list[int]]) -> Iterator[tuple[list[int], int]]:
    """The known clicks before each target, and the target."""
    for items in test:
        for place in range(1, len(items)):
            yield [item for item in items[:place] if item != UNKNOWN], items[place]


def slow_rank(scores: dict[int, float], target: int) -> int:
    """What scores nothing is tied with all else that scores nothing."""
    return sum(scores.get(item, 0.0) >= scores.get(target, 0.0) for item in range(ITEMS))


@settings(deadline=None)  # it is compiled on the first call
@given(known, mixed)
def test_item_knn(train: list[list[int]], test: list[list[int]]) -> None:
    def similarity(one: int, other: int) -> float:
        if one == other:
            together = sum(items.count(one) > 1 for items in train)
        else:
            together = sum(one in items and other in items for items in train)
        with_other = sum(other in items for items in train)
        return together * float(1 / np.sqrt(float(with_other + 3)))

    expected = []
    for seen, target in slow_targets(test):
        scores = {item: similarity(seen[-1], item) for item in range(ITEMS)} if seen else {}
        expected.append(slow_rank(scores, target) if seen and target != UNKNOWN else MISSED)
    index = index_sessions(sessions_of(*train), ITEMS)
    assert item_knn_ranks(index, sessions_of(*test), damping=3).tolist() == expected


@settings(deadline=None)  # it is compiled on the first call
@given(known, mixed, st.integers(1, 6), st.integers(1, 4))
def test_vs_knn(train: list[list[int]], test: list[list[int]], candidates: int, neighbours: int) -> None:
    expected = []
    for seen, target in slow_targets(test):
        if not seen or target == UNKNOWN:
            expected.append(MISSED)
            continue
        weight = {item: Fraction(place, len(seen)) for place, item in enumerate(seen, start=1)}
        sharing = [items for items in reversed(train) if set(items) & set(seen)][:candidates]
        similar = [sum(weight[item] for item in set(items) & set(seen)) for items in sharing]
        nearest = sorted(range(len(sharing)), key=lambda at: -similar[at])[:neighbours]  # stable: newer first
        sums: dict[int, Fraction] = defaultdict(Fraction)
        for at in nearest:
            latest = max(weight[item] for item in set(sharing[at]) & set(seen))
            for item in set(sharing[at]):
                sums[item] += similar[at] * latest
        scores = {}
        for item, total in sums.items():
            holding = sum(item in items for items in train)
            whole = total * len(seen) ** 2  # no fraction any more, so that equal stays equal as a float
            scores[item] = float(whole) * float(np.log(np.array([len(train) / holding]))[0])
        expected.append(slow_rank(scores, target))
    index = index_sessions(sessions_of(*train), ITEMS)
    found = vs_knn_ranks(index, sessions_of(*test), candidates=candidates, neighbours=neighbours)
    assert found.tolist() == expected


def test_vs_knn_prefers_what_is_shared_with_the_last_click() -> None:
    train = [[0, 5], [1, 6], [7, 7]]
    ranks = vs_knn_ranks(index_sessions(sessions_of(*train), ITEMS), sessions_of([0, 1, 6], [0, 1, 5]))
    assert ranks[1] < ranks[3]


def test_a_long_running_session_counts_by_its_last_clicks() -> None:
    train = sessions_of([0, 5], [1, 6], [2, 2])
    index = index_sessions(train, ITEMS)
    filler = [1] * 100
    with_old = vs_knn_ranks(index, sessions_of([0, *filler, 5]))
    assert with_old[-1] == ITEMS  # the click on 0 is 101 clicks ago
    assert vs_knn_ranks(index, sessions_of([0, *filler[:-1], 5]))[-1] < ITEMS


@settings(deadline=None)  # it is compiled on the first call
@given(known)
def test_session_index(train: list[list[int]]) -> None:
    index = index_sessions(sessions_of(*train), ITEMS)
    for session, items in enumerate(train):
        found = index.items[index.starts[session] : index.starts[session + 1]].tolist()
        assert found == list(dict.fromkeys(reversed(items)))
    for item in range(ITEMS):
        holding = [session for session, items in enumerate(train) if item in items]
        assert index.sessions[index.item_starts[item] : index.item_starts[item + 1]].tolist() == holding
        assert index.support[item] == len(holding)
        assert index.twice[item] == sum(items.count(item) > 1 for items in train)


def test_of_a_robot_the_last_items_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_index, "MAX_ITEMS_PER_SESSION", 3)
    index = index_sessions(sessions_of([0, 1, 2, 3, 4, 3], [5, 5]), ITEMS)
    assert index.items.tolist() == [3, 4, 2, 5]
    assert index.starts.tolist() == [0, 3, 4]


def test_recent_popularity(monkeypatch: pytest.MonkeyPatch) -> None:
    train = sessions_of([0, 0, 0, 0, 0], [1, 1, 2], [2, 2])
    assert recent(train).items.tolist() == train.items.tolist()  # a small log is recent as a whole
    monkeypatch.setattr(popularity, "RECENT_MIN_CLICKS", 2)
    monkeypatch.setattr(
        popularity, "RECENT_SHARE", 0.3
    )  # of ten clicks three: the session of the third as well
    assert recent(train).items.tolist() == [1, 1, 2, 2, 2]
    monkeypatch.setattr(popularity, "RECENT_SHARE", 0.2)  # two: the last session has them, no other is needed
    assert recent(train).items.tolist() == [2, 2]
    monkeypatch.setattr(popularity, "RECENT_SHARE", 0.3)
    test = sessions_of([7, 2, 1, 0, UNKNOWN])
    assert recent_popularity_ranks(train, test, ITEMS).tolist() == [1, 2, ITEMS, MISSED]
    assert popularity_ranks(train, test, ITEMS).tolist() == [2, 3, 1, MISSED]


def test_a_last_session_longer_than_the_window_is_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(popularity, "RECENT_MIN_CLICKS", 2)
    assert recent(sessions_of([0, 1], [2] * 9)).items.tolist() == [2] * 9


@settings(deadline=None)  # it is compiled on the first call
@given(known, mixed)
def test_compare_counts_what_it_is_told_to(train: list[list[int]], test: list[list[int]]) -> None:
    sessions = sessions_of(*test)
    counted = np.arange(int(is_target(sessions).sum())) % 2 == 0
    found = compare(sessions_of(*train), sessions, ITEMS, counted, silent)
    assert list(found) == ["popularity", "recent popularity", "markov", "item-kNN", "VS-kNN"]
    assert {of_baseline.targets for of_baseline in found.values()} == {int(counted.sum())}


def test_progress_ends_where_it_should() -> None:
    told: list[Progress] = []
    sessions = sessions_of([0, 1], [1, 2])
    compare(sessions, sessions, ITEMS, np.ones(2, bool), told.append)
    assert (told[-1].stage, told[-1].done, told[-1].total) == ("baselines", 2_000, 2_000)
    assert [at.done for at in told] == sorted(at.done for at in told)
