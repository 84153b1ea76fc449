"""What is played to the system: past clicks to learn from, then live ones; of a simulated shop or a log."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from deploy.demo.shop import Shop, ShopSettings
from schemas.click import Click
from training.click_log import ClickLog, LoadedLog
from training.sessions import SplitRule, split_log

K = 20
_PAST_CLICKS_PER_S = 0.35  # of event time: the default past takes three days
_PAST_CONCURRENCY = 10  # half a minute between the clicks of a session
_LIVE_GAP_S = 2.0  # between the clicks of a session; long enough to watch, short enough to see it end


@dataclass(frozen=True, slots=True)
class LiveClick:
    """One click to come.

    Attributes:
        oracle: the K items that are in truth the likeliest to follow; None where nobody knows.
        is_last: no click of this session follows.
    """

    session_id: str
    item_id: str
    event_id: str
    is_last: bool
    oracle: frozenset[str] | None


@dataclass(frozen=True)
class Play:
    """The script of a demo.

    Attributes:
        title: for people.
        past: the clicks to learn from, in order of time.
        past_clicks, past_sessions: how many.
        popular: the K most clicked items of the past.
        live: the clicks to come; of a shop without end.
        live_clicks: how many; None without end.
        item_name: an item id's name for people.
    """

    title: str
    past: Iterator[Click]
    past_clicks: int
    past_sessions: int
    popular: frozenset[str]
    live: Iterator[LiveClick]
    live_clicks: int | None
    item_name: Callable[[str], str]


def shop_play(seed: int, past_sessions: int, clicks_per_s: float, now_ms: int) -> Play:
    """A simulated shop with some days of past.

    Args:
        seed: the same seed, the same shop, visitors and clicks.
        past_sessions: to learn from.
        clicks_per_s: of the live part.
        now_ms: where the past ends.
    """
    shop = Shop(ShopSettings(seed=seed))
    sessions = shop.sessions(past_sessions, "past")
    counts = np.bincount(np.concatenate([session.items for session in sessions]))
    total = int(counts.sum())
    # A tenth and an hour earlier than it takes on average: its length is random, and it must lie in the past.
    start_ms = now_ms - round(1_100 * total / _PAST_CLICKS_PER_S) - 3_600_000
    past = shop.clicks(sessions, start_ms, _PAST_CLICKS_PER_S, _PAST_CONCURRENCY)
    return Play(
        title=f"a simulated shop of {shop.settings.items:,} items",
        past=(Click(one.event_id, one.session_id, one.item_id, one.timestamp_ms) for one in past),
        past_clicks=total,
        past_sessions=past_sessions,
        popular=frozenset(shop.item_id(int(item)) for item in np.argsort(-counts, kind="stable")[:K]),
        live=_live_in_shop(shop, clicks_per_s, now_ms),
        live_clicks=None,
        item_name=lambda item_id: shop.item_name(shop.item_index(item_id)),
    )


def _live_in_shop(shop: Shop, clicks_per_s: float, now_ms: int) -> Iterator[LiveClick]:
    @lru_cache(maxsize=20_000)
    def oracle(item: int, habit: int) -> frozenset[str]:
        return frozenset(shop.item_id(one) for one in shop.oracle_top_k(item, habit, K).tolist())

    concurrency = max(1, round(clicks_per_s * _LIVE_GAP_S))
    for one in shop.clicks(shop.session_stream("live"), now_ms, clicks_per_s, concurrency):
        yield LiveClick(one.session_id, one.item_id, one.event_id, one.is_last, oracle(one.item, one.habit))


def log_play(loaded: LoadedLog, rule: SplitRule) -> Play:
    """A real click log: its training part is the past, its test sessions are played live.

    Raises:
        SplitError: one of the parts is empty.
    """
    log = loaded.clicks
    split = split_log(log, rule)
    past_rows = _rows_of(log, split.train.ids)
    live_rows = _rows_of(log, split.test.ids)
    counts = Counter(log.item[past_rows].tolist())
    return Play(
        title=f"the click log {loaded.name}",
        past=_past_of_log(log, past_rows),
        past_clicks=len(past_rows),
        past_sessions=len(split.train),
        popular=frozenset(log.item_ids[item] for item, _ in counts.most_common(K)),
        live=_live_of_log(log, live_rows),
        live_clicks=len(live_rows),
        item_name=lambda item_id: f"item {item_id}",
    )


def _rows_of(log: ClickLog, sessions: NDArray[np.int32]) -> NDArray[np.int64]:
    """Rows of these sessions' clicks in order of time: int64 [n]."""
    rows = np.flatnonzero(np.isin(log.session, sessions))
    return rows[np.argsort(log.timestamp_ms[rows], kind="stable")]


def _past_of_log(log: ClickLog, rows: NDArray[np.int64]) -> Iterator[Click]:
    for row in rows.tolist():
        yield Click(
            f"past-{row}",
            log.session_ids[log.session[row]],
            log.item_ids[log.item[row]],
            int(log.timestamp_ms[row]),
        )


def _live_of_log(log: ClickLog, rows: NDArray[np.int64]) -> Iterator[LiveClick]:
    left = Counter(log.session[rows].tolist())
    for row in rows.tolist():
        session = int(log.session[row])
        left[session] -= 1
        yield LiveClick(
            log.session_ids[session], log.item_ids[log.item[row]], f"live-{row}", left[session] == 0, None
        )
