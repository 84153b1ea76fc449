"""The simulated shop: its clicks obey the law that it states, and its oracle is the best that can be done."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from deploy.demo.shop import MAX_GAP_MS, ClickEvent, Floats, Ints, Shop, ShopSettings, SimSession

START_MS = 1_700_000_000_000
SMALL = ShopSettings(items=60, categories=3)
GOLDEN = [51, 36, 54, 25, 54]  # items of the first "past" session of SMALL


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop()


@pytest.fixture(scope="module")
def past(shop: Shop) -> list[SimSession]:
    return shop.sessions(15_000, "past")


@pytest.fixture(scope="module")
def live(shop: Shop) -> list[SimSession]:
    return shop.sessions(4_000, "live")


def transitions(sessions: Sequence[SimSession]) -> tuple[Ints, Ints]:
    """Current and next items of all transitions: int32 [n], int32 [n]."""
    return np.concatenate([s.items[:-1] for s in sessions]), np.concatenate([s.items[1:] for s in sessions])


def counts(shop: Shop, sessions: Sequence[SimSession]) -> Floats:
    """Clicks of each item: float64 [items]."""
    every = np.concatenate([s.items for s in sessions])
    return np.bincount(every, minlength=shop.settings.items).astype(np.float64)


def popularity_recall(shop: Shop, train: Sequence[SimSession], test: Sequence[SimSession], k: int) -> float:
    top = np.argsort(-counts(shop, train), kind="stable")[:k]
    return float(np.isin(transitions(test)[1], top).mean())


def markov_recall(shop: Shop, train: Sequence[SimSession], test: Sequence[SimSession], k: int) -> float:
    """First-order counts, filled up with popularity below them."""
    n = shop.settings.items
    pairs = np.zeros((n, n))
    np.add.at(pairs, transitions(train), 1.0)
    pairs += 1e-3 * counts(shop, train) / counts(shop, train).sum()
    top = np.argsort(-pairs, axis=1, kind="stable")[:, :k]
    current, following = transitions(test)
    return float((top[current] == following[:, None]).any(axis=1).mean())


def flat(sessions: Sequence[SimSession]) -> list[tuple[str, int, list[int]]]:
    return [(s.session_id, s.habit, s.items.tolist()) for s in sessions]


def test_one_seed_is_one_shop_and_another_seed_another() -> None:
    first, again, other = Shop(SMALL), Shop(SMALL), Shop(ShopSettings(seed=8, items=60, categories=3))
    assert flat(first.sessions(300, "past")) == flat(again.sessions(300, "past"))
    assert flat(first.sessions(300, "past")) != flat(other.sessions(300, "past"))
    events = [list(s.clicks(s.sessions(50, "live"), START_MS, 100.0, 20)) for s in (first, again)]
    assert events[0] == events[1]
    np.testing.assert_array_equal(first.transition_probabilities(5, 1), again.transition_probabilities(5, 1))


def test_a_fixed_seed_gives_the_same_clicks_in_every_process() -> None:
    """Guards against anything that differs from run to run, as Python's own string hash does."""
    assert Shop(SMALL).sessions(1, "past")[0].items.tolist() == GOLDEN


def test_a_session_does_not_depend_on_how_many_are_asked_for() -> None:
    shop = Shop(SMALL)
    whole = flat(shop.sessions(2_100, "past"))
    assert flat(shop.sessions(7, "past")) == whole[:7]
    assert flat(shop.sessions(1_100, "past", first=1_000)) == whole[1_000:]
    assert flat(list(itertools.islice(shop.session_stream("past", 1_023), 3))) == whole[1_023:1_026]
    assert shop.sessions(0, "past") == []


def test_streams_differ_in_clicks_and_session_ids(past: list[SimSession], live: list[SimSession]) -> None:
    ids = [s.session_id for s in past + live]
    assert len(set(ids)) == len(ids)
    assert [s.items.tolist() for s in past[:50]] != [s.items.tolist() for s in live[:50]]


def test_sessions_end_and_have_a_next_click(shop: Shop, past: list[SimSession]) -> None:
    lengths = np.array([len(s.items) for s in past])
    assert lengths.min() == 2
    assert lengths.max() <= shop.settings.max_clicks
    # Standard error of the mean is 0.037 here.
    assert abs(lengths.mean() - shop.settings.mean_clicks) < 0.2
    # Geometric: of the sessions that reach a click, the same share ends there.
    for click in (2, 3, 4, 5):
        assert abs((lengths == click).sum() / (lengths >= click).sum() - 0.2) < 0.02


def test_clicked_items_are_of_the_shop_and_never_repeat_at_once(shop: Shop, past: list[SimSession]) -> None:
    current, following = transitions(past)
    assert not (current == following).any()
    both = np.concatenate([s.items for s in past])
    assert both.dtype == np.int32
    assert both.min() >= 0
    assert both.max() < shop.settings.items
    with pytest.raises(ValueError, match="read-only"):
        past[0].items[0] = 1


def test_long_sessions_are_cut() -> None:
    shop = Shop(ShopSettings(items=60, categories=3, mean_clicks=4, max_clicks=16))
    assert max(len(s.items) for s in shop.sessions(5_000, "past")) == 16


def test_probabilities_sum_to_one_and_leave_out_the_open_page(shop: Shop) -> None:
    for item, habit in [(0, 0), (17, 3), (1_999, 39)]:
        row = shop.transition_probabilities(item, habit)
        assert row.shape == (2_000,)
        assert row.dtype == np.float64
        assert abs(row.sum() - 1.0) < 1e-12
        assert row[item] == 0.0
        assert (np.delete(row, item) > 0.0).all()


def test_generated_transitions_follow_the_stated_law() -> None:
    """Chi-square of every (item, habit) row with enough draws, pooled: a wrong weight anywhere shows."""
    shop = Shop(SMALL)
    sessions = shop.sessions(40_000, "past")
    current, following = transitions(sessions)
    habits = np.repeat([s.habit for s in sessions], [len(s.items) - 1 for s in sessions])
    observed = np.zeros((60, 3, 60))
    np.add.at(observed, (current, habits, following), 1.0)
    statistic, freedom = 0.0, 0
    for item, habit in itertools.product(range(60), range(3)):
        expected = shop.transition_probabilities(item, habit) * observed[item, habit].sum()
        enough = expected >= 5.0
        if enough.sum() < 2:
            continue
        # All rare cells count as one.
        seen = np.append(observed[item, habit][enough], observed[item, habit][~enough].sum())
        wanted = np.append(expected[enough], expected[~enough].sum())
        good = wanted > 0
        statistic += float(((seen - wanted)[good] ** 2 / wanted[good]).sum())
        freedom += int(good.sum()) - 1
    assert freedom > 3_000
    # Mean `freedom`, deviation sqrt(2 * freedom): five deviations.
    assert abs(statistic - freedom) < 5 * np.sqrt(2 * freedom)


def test_first_clicks_and_habits_follow_their_shares() -> None:
    shop = Shop(SMALL)
    sessions = shop.sessions(30_000, "past")
    s = shop.settings
    for habit in range(3):
        firsts = np.array([x.items[0] for x in sessions if x.habit == habit])
        inside = shop.category == habit
        expected = (s.browse * inside * shop.popularity / shop.popularity[inside].sum()) + (
            s.trend * shop.popularity
        )
        expected /= expected.sum()
        share = np.bincount(firsts, minlength=60) / len(firsts)
        # Total variation of n draws over 60 items is about sqrt(60 / (2 pi n)): 0.03 for the rarest habit.
        assert 0.5 * np.abs(share - expected).sum() < 0.06


def test_popularity_has_a_heavy_tail(shop: Shop, past: list[SimSession]) -> None:
    clicked = np.sort(counts(shop, past))[::-1]
    top_tenth = clicked[:200].sum() / clicked.sum()
    assert 0.35 < top_tenth < 0.65  # evenly spread would be 0.10, and the tail still has a good half
    assert clicked[0] > 20 * np.median(clicked)
    assert (clicked > 0).mean() > 0.98


def test_learning_has_visible_worth(shop: Shop, past: list[SimSession], live: list[SimSession]) -> None:
    popular = popularity_recall(shop, past, live, 20)
    markov = markov_recall(shop, past, live, 20)
    oracle = shop.recall_of_oracle(live)
    assert 0.10 <= popular <= 0.16
    assert 0.45 <= markov <= 0.60
    assert 0.65 <= oracle <= 0.75
    assert popular + 0.3 < markov < oracle - 0.1


def test_the_oracle_recalls_what_its_own_probabilities_promise(shop: Shop, live: list[SimSession]) -> None:
    some = live[:600]
    promised = [
        shop.transition_probabilities(item, s.habit)[shop.oracle_top_k(item, s.habit, 20)].sum()
        for s in some
        for item in s.items[:-1].tolist()
    ]
    # About 3,000 transitions: one standard error is 0.008.
    assert abs(float(np.mean(promised)) - shop.recall_of_oracle(some)) < 0.035


@pytest.mark.parametrize("k", [1, 20, 59])
def test_oracle_top_k_equals_an_exhaustive_sort(k: int) -> None:
    shop = Shop(SMALL)
    pairs = np.array(list(itertools.product(range(60), range(3))), dtype=np.int32)
    many = shop.oracle_top_k_many(pairs[:, 0], pairs[:, 1], k)
    assert many.shape == (180, k)
    assert many.dtype == np.int32
    for (item, habit), got in zip(pairs.tolist(), many, strict=True):
        row = shop.transition_probabilities(item, habit)
        assert len(set(got.tolist())) == k
        assert item not in got
        np.testing.assert_allclose(row[got], -np.sort(-row)[:k], rtol=1e-12)
        np.testing.assert_array_equal(shop.oracle_top_k(item, habit, k), got)


def test_oracle_top_k_equals_an_exhaustive_sort_in_the_full_shop(shop: Shop) -> None:
    rng = np.random.default_rng(0)
    items = rng.integers(0, 2_000, 300).astype(np.int32)
    habits = rng.integers(0, 40, 300).astype(np.int32)
    for item, habit, got in zip(items, habits, shop.oracle_top_k_many(items, habits, 20), strict=True):
        row = shop.transition_probabilities(int(item), int(habit))
        np.testing.assert_allclose(row[got], -np.sort(-row)[:20], rtol=1e-12)


def test_ids_and_names_are_unique_and_lead_back(shop: Shop) -> None:
    n = shop.settings.items
    assert len({shop.item_id(i) for i in range(n)}) == n
    assert len({shop.item_name(i) for i in range(n)}) == n
    assert all(shop.item_index(shop.item_id(i)) == i for i in range(n))
    assert all(shop.item_name(i).startswith(shop.category_name(int(shop.category[i]))) for i in range(n))


def events_of(shop: Shop, n: int, clicks_per_s: float, concurrency: int) -> list[ClickEvent]:
    return list(shop.clicks(shop.sessions(n, "live"), START_MS, clicks_per_s, concurrency))


def test_clicks_are_the_sessions_interleaved_in_order_of_time(shop: Shop) -> None:
    sessions = shop.sessions(2_000, "live")
    events = events_of(shop, 2_000, 500.0, 300)
    stamps = np.array([e.timestamp_ms for e in events])
    assert stamps[0] == START_MS
    assert (np.diff(stamps) >= 0).all()
    assert len({e.event_id for e in events}) == len(events) == sum(len(s.items) for s in sessions)
    by_session: dict[str, list[ClickEvent]] = {}
    for e in events:
        by_session.setdefault(e.session_id, []).append(e)
    for s in sessions:
        mine = by_session[s.session_id]
        assert [e.item for e in mine] == s.items.tolist()
        assert [e.item_id for e in mine] == [shop.item_id(i) for i in s.items.tolist()]
        assert [e.position for e in mine] == list(range(len(mine)))
        assert [e.is_last for e in mine] == [False] * (len(mine) - 1) + [True]
        assert {e.habit for e in mine} == {s.habit}
        assert all(b.timestamp_ms > a.timestamp_ms for a, b in itertools.pairwise(mine))


def test_clicks_keep_to_the_wanted_rate_and_concurrency(shop: Shop) -> None:
    events = events_of(shop, 6_000, 500.0, 300)
    stamps = np.array([e.timestamp_ms for e in events])
    middle = (stamps > START_MS + 20_000) & (stamps < START_MS + 60_000)
    assert 450 < middle.sum() / 40.0 < 550
    opened = np.sort([e.timestamp_ms for e in events if e.position == 0])
    closed = np.sort([e.timestamp_ms for e in events if e.is_last])
    at = np.arange(START_MS + 20_000, START_MS + 60_000, 500)
    under_way = np.searchsorted(opened, at) - np.searchsorted(closed, at)
    assert 240 < under_way.mean() < 360


def test_gaps_stay_under_five_minutes(shop: Shop) -> None:
    last: dict[str, int] = {}
    gaps = []
    for e in events_of(shop, 3_000, 10.0, 450):
        if e.session_id in last:
            gaps.append(e.timestamp_ms - last[e.session_id])
        last[e.session_id] = e.timestamp_ms
    assert min(gaps) >= 1
    assert max(gaps) == MAX_GAP_MS  # the rate is low enough for the cut to be reached
    assert MAX_GAP_MS < 5 * 60_000


def test_clicks_are_lazy_over_endless_sessions(shop: Shop) -> None:
    endless = shop.clicks(shop.session_stream("live"), START_MS, 200.0, 50)
    taken = list(itertools.islice(endless, 5_000))
    assert len({e.event_id for e in taken}) == 5_000
    assert list(shop.clicks([], START_MS, 200.0, 50)) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"categories": 0}, "categories"),
        ({"categories": 41}, "categories"),
        ({"items": 199}, "items must lie in 200[.][.]20000"),
        ({"items": 20_001}, "items"),
        ({"items": True}, "items"),
        ({"successors": 0}, "successors"),
        ({"mean_clicks": 1.5}, "mean_clicks"),
        ({"mean_clicks": 15.5}, "mean_clicks"),
        ({"max_clicks": 1_001}, "max_clicks"),
        ({"zipf_exponent": -0.1}, "zipf_exponent"),
        ({"zipf_exponent": float("nan")}, "zipf_exponent"),
        ({"reach": 0.0}, "reach"),
        ({"follow": 0.0}, "follow"),
        ({"seed": "7"}, "seed"),
    ],
)
def test_settings_that_make_no_shop_are_refused(wrong: dict[str, int | float], said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        ShopSettings(**wrong)  # type: ignore[arg-type]  # wrong on purpose


def test_the_smallest_shops_can_be_built() -> None:
    for settings in (ShopSettings(items=200), ShopSettings(items=5, categories=1, mean_clicks=2)):
        shop = Shop(settings)
        assert all(len(s.items) >= 2 for s in shop.sessions(100, 1))
        assert abs(shop.transition_probabilities(0, 0).sum() - 1.0) < 1e-12
        assert shop.recall_of_oracle(shop.sessions(10, 1), k=settings.items - 1) == 1.0


def test_wrong_arguments_are_refused(shop: Shop) -> None:
    for call in (shop.item_id, shop.item_name):
        for item in (-1, 2_000):
            with pytest.raises(IndexError, match="item"):
                call(item)
    with pytest.raises(IndexError, match="category"):
        shop.oracle_top_k(0, 40, 20)
    with pytest.raises(IndexError, match="item"):
        shop.oracle_top_k_many(np.array([0, 2_000], np.int32), np.array([0, 0], np.int32), 20)
    with pytest.raises(ValueError, match="k must lie"):
        shop.oracle_top_k(0, 0, 2_000)
    with pytest.raises(KeyError):
        shop.item_index("sku-99999")
    with pytest.raises(ValueError, match="stream name"):
        shop.sessions(1, "")
    with pytest.raises(ValueError, match="first not negative"):
        shop.sessions(1, "past", first=-1)
    with pytest.raises(ValueError, match="n must not"):
        shop.sessions(-1, "past")
    with pytest.raises(ValueError, match="at least one"):
        shop.recall_of_oracle([])
    with pytest.raises(ValueError, match="lower concurrency"):
        shop.clicks([], START_MS, 1.0, 1_000)
    with pytest.raises(ValueError, match="must be positive"):
        shop.clicks([], START_MS, 0.0, 1)
