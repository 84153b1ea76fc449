"""A small simulated shop whose next click has an exactly known distribution.

Rules of this file: numpy only; no Kafka, no model, no clock. All that comes out is a function of the settings
and of the arguments, so two runs with one seed show the same shop, the same visitors and the same clicks.

How a visitor clicks. A session carries one hidden *habit*: the category that it came for. Its first item is
drawn from the habit's browsing mix; each later one, given the current item i and the habit h, from

    P(next | i, h)  is proportional to  follow * successors_i  +  browse * category_h  +  trend * popularity,

with P(i | i, h) = 0: nobody clicks the page that is open. `successors_i` is a short list of items that this
very item leads to (some of its own category, some of companion categories), `category_h` the popularity
within the habit's category, `popularity` a Zipf law over the whole shop. After its second click a session
ends with the same chance at each click, whatever was clicked. So the true distribution of every next click is
known in closed form, and the oracle that ranks by it bounds what any model can reach on average.

A first-order model sees the current item but not the habit; a model with memory can infer the habit too.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]

MIN_CLICKS = 2  # a session of one click has no next click to predict
MAX_GAP_MS = 299_999  # less than five minutes, well inside any sensible idle timeout
MAX_MEAN_GAP_MS = 60_000.0  # above this, the cut at MAX_GAP_MS would shorten the mean gap by over 0.7%
MAX_STREAM_BYTES = 64  # leaves room for the numbers in session and event ids, which may be 128 bytes long

# Sessions are drawn in blocks with a generator each: session 5,000 of a stream is the same however many were
# asked for at a time, so an endless stream needs no state. 1,024 spreads numpy's overhead thinly enough.
_BLOCK = 1024
_ORACLE_CHUNK = 16_384

# fmt: off
_CATEGORY_NAMES = (
    "trail shoes", "road shoes", "wool socks", "rain jackets", "down vests", "day packs", "tents", "paddles",
    "sleeping bags", "camp stoves", "headlamps", "water bottles", "trekking poles", "climbing ropes", "maps",
    "harnesses", "bike helmets", "bike lights", "inner tubes", "cycling gloves", "swim goggles", "towels",
    "yoga mats", "kettlebells", "jump ropes", "tennis balls", "ski gloves", "snow goggles", "thermal shirts",
    "running caps", "sunglasses", "sport watches", "picnic blankets", "hammocks", "pocket knives",
    "compasses", "energy bars", "coffee mugs", "lunch boxes", "dry bags",
)
# fmt: on


@dataclass(frozen=True, slots=True)
class ShopSettings:
    """What makes one shop. TypeError and ValueError name the setting that is wrong.

    With the defaults and 15,000 sessions to learn from, recall@20 is about 0.14 for popularity, 0.51 for
    first-order counts, 0.54 for a GRU and 0.72 for the oracle: learning has visible worth, and a ceiling.
    """

    seed: int = 7
    items: int = 2_000
    categories: int = 40  # at most as many as there are names for
    successors: int = 4  # far fewer than 20, so that a list of 20 has room for the habit as well
    mean_clicks: float = 6.0  # clicks a session, from 2 to a quarter of max_clicks
    max_clicks: int = 60  # a session is cut here; at a mean of 6 that happens to 2 in a million
    zipf_exponent: float = 0.9
    reach: float = 2.0  # places along the shelf over which an item's pull on what stands ahead fades
    follow: float = 0.30  # weight of the current item's successors
    browse: float = 0.56  # weight of the habit's category
    trend: float = 0.14  # weight of what the whole shop likes

    def __post_init__(self) -> None:
        for field in fields(self):
            kind = (int, float) if field.type == "float" else (int,)
            value = getattr(self, field.name)
            if not isinstance(value, kind) or isinstance(value, bool):
                raise TypeError(f"{field.name} must be of type {field.type}, not {value!r}")
        for name, low, high in (
            ("categories", 1, len(_CATEGORY_NAMES)),
            ("successors", 1, 64),
            # Every shelf must hold enough items to choose successors from; beyond 20,000 set-up is slow.
            ("items", self.categories * (self.successors + 1), 20_000),
            ("max_clicks", 4 * MIN_CLICKS, 1_000),
            ("mean_clicks", MIN_CLICKS, self.max_clicks / 4),  # so that the cut hardly moves the mean
            ("zipf_exponent", 0, 3),
            ("reach", 0.1, 1e6),
            *((weight, 1e-6, 1e6) for weight in ("follow", "browse", "trend")),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must lie in {low:g}..{high:g}, not {getattr(self, name)}")


@dataclass(frozen=True, slots=True, eq=False)
class SimSession:
    """One visit: `items` is int32 [clicks], read-only, at least `MIN_CLICKS` long; `habit` a category."""

    session_id: str
    habit: int
    items: Ints


class ClickEvent(NamedTuple):
    """One click of the stream; `item`, `habit` and `position` are the simulator's own knowledge of it."""

    session_id: str
    item_id: str
    timestamp_ms: int
    event_id: str
    item: int  # index of item_id
    habit: int
    position: int  # 0 for the first click of the session
    is_last: bool  # no click of this session follows


class Shop:
    """The catalogue and the habits of its visitors; see the head of the file for the law of a click."""

    def __init__(self, settings: ShopSettings | None = None) -> None:
        s = self.settings = settings if settings is not None else ShopSettings()
        rng = self._rng("catalogue")
        self.popularity = _zipf(rng, s.items, s.zipf_exponent)
        """float64 [items], sums to 1: what visitors without a reason look at."""
        self.category = rng.permutation(np.arange(s.items, dtype=np.int32) % np.int32(s.categories))
        """int32 [items]: the category of each item; sizes differ by one at most."""
        shelves = [np.flatnonzero(self.category == c).astype(np.int32) for c in range(s.categories)]
        self._names = _names(shelves)
        self._ids = [f"sku-{item:05d}" for item in range(s.items)]
        self._index_of_id = {item_id: item for item, item_id in enumerate(self._ids)}
        # Habits are milder than items: a shop has favourite departments, not one department.
        habit_weights = _zipf(rng, s.categories, 0.5 * s.zipf_exponent)
        self._draw_habit = _Rows([np.arange(s.categories, dtype=np.int32)], [habit_weights])
        self._successors, self._successor_weights = _successor_lists(rng, self.popularity, shelves, s)
        self._draw_popular = _Rows([np.arange(s.items, dtype=np.int32)], [self.popularity])
        self._draw_on_shelf = _Rows(shelves, [self.popularity[shelf] for shelf in shelves])
        self._draw_successor = _Rows(self._successors, [self._successor_weights] * s.items)
        # base[h] is all of the law that does not depend on the current item.
        in_category = np.where(self.category == np.arange(s.categories)[:, None], self.popularity, 0.0)
        in_category /= in_category.sum(axis=1, keepdims=True)
        self._base: Floats = s.browse * in_category + s.trend * self.popularity
        self.popularity.flags.writeable = self.category.flags.writeable = False
        self._base_order = np.argsort(-self._base, axis=1, kind="stable").astype(np.int32)
        self._cached_top_k = lru_cache(maxsize=65_536)(self._top_k_of_one)

    def item_id(self, item: int) -> str:
        """The id that stands in clicks for item index `item`. Raises IndexError outside 0..items-1."""
        return self._ids[self._check(item)]

    def item_name(self, item: int) -> str:
        """A name for people, unique in the shop. Raises IndexError outside 0..items-1."""
        return self._names[self._check(item)]

    def item_index(self, item_id: str) -> int:
        """The item index of an id. Raises KeyError for an id that is not of this shop."""
        return self._index_of_id[item_id]

    def category_name(self, category: int) -> str:
        """The name of a category, which is also a habit. Raises IndexError for one that the shop lacks."""
        self._check(habit=category)
        return _CATEGORY_NAMES[category]

    def sessions(self, n: int, rng_stream: str | int, first: int = 0) -> list[SimSession]:
        """Sessions number `first` to `first + n - 1` of a stream, the same ones at every call.

        Streams are independent of each other and have distinct session ids ("past-000017"); the int 1 and
        the string "1" name one stream. Raises ValueError for a negative number or an unusable stream name.
        """
        if n < 0:
            raise ValueError(f"n must not be negative, not {n}")
        return list(itertools.islice(self.session_stream(rng_stream, first), n))

    def session_stream(self, rng_stream: str | int, first: int = 0) -> Iterator[SimSession]:
        """All sessions of a stream from number `first` on, without end; `sessions` tells the rest."""
        stream = str(rng_stream)
        if first < 0 or not 0 < len(stream.encode()) <= MAX_STREAM_BYTES:
            raise ValueError(f"needs a stream name of 1..{MAX_STREAM_BYTES} bytes and first not negative")
        for block in itertools.count(first // _BLOCK):
            lengths, habits, clicked = self._block(stream, block)
            for row in range(max(first - block * _BLOCK, 0), _BLOCK):
                session_id = f"{stream}-{block * _BLOCK + row:06d}"
                yield SimSession(session_id, int(habits[row]), clicked[row, : lengths[row]])

    def clicks(
        self, sessions: Iterable[SimSession], start_ms: int, clicks_per_s: float, concurrency: int
    ) -> Iterator[ClickEvent]:
        """The sessions as one stream of clicks, interleaved, in order of time.

        Sessions start as a Poisson process from `start_ms` on, in the given order; gaps within a session are
        exponential, 1 to `MAX_GAP_MS` ms. Both rates follow from the wanted clicks a second (of event time)
        and the wanted mean number of sessions under way, by Little's law; the stream begins and ends with
        fewer. Lazy: holds the sessions under way and no more, so an endless `session_stream` is welcome.
        Raises ValueError, at the call, when the wish makes gaps of over a minute on average.
        """
        if clicks_per_s <= 0 or concurrency < 1 or start_ms < 0:
            raise ValueError("clicks_per_s and concurrency must be positive, start_ms not negative")
        mean = self.settings.mean_clicks
        # Little: concurrency = starts a second * seconds a session; a session of m clicks has m - 1 gaps.
        mean_gap_ms = 1000.0 * concurrency * mean / (clicks_per_s * (mean - 1))
        if mean_gap_ms > MAX_MEAN_GAP_MS:
            pause = f"{mean_gap_ms / 1000:.0f} s between clicks (at most {MAX_MEAN_GAP_MS / 1000:.0f})"
            raise ValueError(f"sessions would pause {pause}: lower concurrency or raise clicks_per_s")
        return self._interleave(iter(sessions), start_ms, 1000.0 * mean / clicks_per_s, mean_gap_ms)

    def transition_probabilities(self, item: int, habit: int) -> Floats:
        """P(next | item, habit, the session goes on): float64 [items], sums to 1, zero at `item`."""
        self._check(item, habit)
        row: Floats = self._base[habit].copy()
        row[self._successors[item]] += self.settings.follow * self._successor_weights
        row[item] = 0.0
        row /= row.sum()
        return row

    def oracle_top_k(self, current_item: int, habit: int, k: int) -> Ints:
        """The k likeliest next items, likeliest first (ties: lower index first): int32 [k], read-only.

        Cached. Raises IndexError for an unknown item or habit, ValueError for a k outside 1..items-1.
        """
        self._check(current_item, habit, k)
        return self._cached_top_k(int(current_item), int(habit), k)

    def oracle_top_k_many(self, current_items: Ints, habits: Ints, k: int) -> Ints:
        """`oracle_top_k` for many pairs at once: int32 [n], int32 [n] -> int32 [n, k]; raises likewise."""
        self._check(k=k)
        for end in (np.min, np.max) if len(current_items) else ():
            self._check(int(end(current_items)), int(end(habits)))
        ranked = np.empty((len(current_items), k), dtype=np.int32)
        for at in range(0, len(ranked), _ORACLE_CHUNK):
            part = slice(at, at + _ORACLE_CHUNK)
            ranked[part] = self._top_k(current_items[part], habits[part], k)
        return ranked

    def recall_of_oracle(self, sessions: Sequence[SimSession], k: int = 20) -> float:
        """Share of next clicks that stand in the oracle's k items. Raises ValueError without sessions."""
        current = np.concatenate([s.items[:-1] for s in sessions])
        following = np.concatenate([s.items[1:] for s in sessions])
        habits = np.concatenate([np.full(len(s.items) - 1, s.habit, dtype=np.int32) for s in sessions])
        ranked = self.oracle_top_k_many(current, habits, k)
        return float((ranked == following[:, None]).any(axis=1).mean())

    def _rng(self, *purpose: str | int) -> np.random.Generator:
        """One independent generator a purpose; a digest, as Python's own hash differs from run to run."""
        text = "\x1f".join(map(str, (self.settings.seed, *purpose)))
        return np.random.default_rng(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest()))

    def _check(self, item: int = 0, habit: int = 0, k: int = 1) -> int:
        s = self.settings
        if not 0 <= item < s.items:
            raise IndexError(f"item {item} is not in 0..{s.items - 1}")
        if not 0 <= habit < s.categories:
            raise IndexError(f"category {habit} is not in 0..{s.categories - 1}")
        if not 1 <= k < s.items:
            raise ValueError(f"k must lie in 1..{s.items - 1}, not {k}")
        return item

    def _draw_mix(self, rng: np.random.Generator, items: Ints | None, habits: Ints) -> Ints:
        """One draw a row from the law before P(i | i, h) = 0; without `items`, from the rest of it."""
        s = self.settings
        follow = s.follow if items is not None else 0.0
        u = rng.random(len(habits)) * (follow + s.browse + s.trend)
        drawn = self._draw_popular(rng, np.zeros_like(habits))
        browsing = u < follow + s.browse
        drawn[browsing] = self._draw_on_shelf(rng, habits[browsing])
        if items is not None:
            following = u < follow
            drawn[following] = self._draw_successor(rng, items[following])
        return drawn

    def _draw_next(self, rng: np.random.Generator, items: Ints, habits: Ints) -> Ints:
        """One next item a row; drawing again whenever it is the current one is what renormalising means."""
        drawn = self._draw_mix(rng, items, habits)
        while (again := np.flatnonzero(drawn == items)).size:
            drawn[again] = self._draw_mix(rng, items[again], habits[again])
        return drawn

    def _block(self, stream: str, block: int) -> tuple[Ints, Ints, Ints]:
        """Lengths [_BLOCK], habits [_BLOCK] and items [_BLOCK, longest] of one block; beyond a length, -1."""
        s = self.settings
        rng = self._rng("sessions", stream, block)
        more = rng.geometric(1.0 / (s.mean_clicks - MIN_CLICKS + 1), _BLOCK) - 1
        lengths = np.minimum(MIN_CLICKS + more, s.max_clicks).astype(np.int32)
        habits = self._draw_habit(rng, np.zeros(_BLOCK, dtype=np.int32))
        clicked = np.full((_BLOCK, int(np.max(lengths))), -1, dtype=np.int32)
        clicked[:, 0] = self._draw_mix(rng, None, habits)
        for step in range(1, clicked.shape[1]):
            live = np.flatnonzero(lengths > step)
            clicked[live, step] = self._draw_next(rng, clicked[live, step - 1], habits[live])
        clicked.flags.writeable = False
        return lengths, habits, clicked

    def _interleave(
        self, sessions: Iterator[SimSession], start_ms: int, start_gap_ms: float, click_gap_ms: float
    ) -> Iterator[ClickEvent]:
        rng = self._rng("clicks", start_ms)
        number = itertools.count()  # breaks ties of time, so that sessions are never compared
        opens_ms = float(start_ms)
        under_way: list[tuple[int, int, int, SimSession]] = []  # time, number, position, session
        waiting = next(sessions, None)
        while waiting is not None or under_way:
            if waiting is not None and (not under_way or opens_ms <= under_way[0][0]):
                heapq.heappush(under_way, (int(opens_ms), next(number), 0, waiting))
                opens_ms += rng.exponential(start_gap_ms)
                waiting = next(sessions, None)
                continue
            at_ms, _, position, session = heapq.heappop(under_way)
            item = int(session.items[position])
            is_last = position + 1 == len(session.items)
            if not is_last:
                gap_ms = min(1 + int(rng.exponential(click_gap_ms)), MAX_GAP_MS)
                heapq.heappush(under_way, (at_ms + gap_ms, next(number), position + 1, session))
            event_id = f"{session.session_id}.{position}"
            yield ClickEvent(
                session.session_id, self._ids[item], at_ms, event_id, item, session.habit, position, is_last
            )

    def _top_k_of_one(self, item: int, habit: int, k: int) -> Ints:
        one: Ints = self._top_k(np.array([item], np.int32), np.array([habit], np.int32), k)[0]
        one.flags.writeable = False
        return one

    def _top_k(self, items: Ints, habits: Ints, k: int) -> Ints:
        """int32 [n], [n] -> [n, k]. All but the current item and its successors rank as in `_base_order`, so
        the best k are among the successors and the first k + successors + 1 of that order."""
        width = self.settings.successors
        followers = self._successors[items]  # [n, width]
        others = self._base_order[habits, : k + width + 1]  # [n, <= k + width + 1]
        gone = (others[:, :, None] == followers[:, None, :]).any(axis=2) | (others == items[:, None])
        boosted = self._base[habits[:, None], followers] + self.settings.follow * self._successor_weights
        weights = np.concatenate([boosted, np.where(gone, -1.0, self._base[habits[:, None], others])], axis=1)
        candidates = np.concatenate([followers, others], axis=1)
        best = np.lexsort((candidates, -weights), axis=-1)[:, :k]
        return np.take_along_axis(candidates, best, axis=1)


def _zipf(rng: np.random.Generator, n: int, exponent: float) -> Floats:
    """Zipf weights over n things in random order: float64 [n], sums to 1."""
    weights: Floats = rng.permutation(np.arange(1, n + 1, dtype=np.float64) ** -exponent)
    weights /= weights.sum()
    return weights


class _Rows:
    """Random draws from many weighted lists at once; row r covers [r, r + 1) of one cumulative table."""

    def __init__(self, values: Iterable[Ints], weights: Iterable[Floats]) -> None:
        rows = list(values)
        self._values = np.concatenate(rows)
        self._last = np.cumsum([len(row) for row in rows]) - 1
        self._table = np.concatenate(
            [r + np.minimum(np.cumsum(w / w.sum()), 1.0) for r, w in enumerate(weights)]
        )

    def __call__(self, rng: np.random.Generator, rows: Ints) -> Ints:
        at = np.searchsorted(self._table, rows + rng.random(len(rows)), side="right")
        # A row's sum can round to just under 1, and row + u up to the next row: the last entry takes these.
        drawn: Ints = self._values[np.minimum(at, self._last[rows])]
        return drawn


def _names(shelves: Sequence[Ints]) -> dict[int, str]:
    """Item index -> name ("trail shoes 07"); the number is the place on the shelf."""
    width = len(str(max(map(len, shelves))))
    return {
        item: f"{_CATEGORY_NAMES[c]} {place:0{width}d}"
        for c, shelf in enumerate(shelves)
        for place, item in enumerate(shelf.tolist(), start=1)
    }


def _successor_lists(
    rng: np.random.Generator, popularity: Floats, shelves: Sequence[Ints], settings: ShopSettings
) -> tuple[Ints, Floats]:
    """Successors int32 [items, successors], distinct, never the item itself; their weights [successors].

    A category's items stand on a shelf that closes to a ring, in order of their numbers. What follows one
    stands mostly a little further along its own shelf, or at the same height on one of two companion shelves
    (shoes, then socks). Such neighbourhoods are what an embedding can learn from few clicks, where a count of
    pairs needs each pair. The root of popularity keeps the tail heavy without sending all to the same items.
    """
    n, width = settings.items, settings.successors
    companions = rng.integers(0, settings.categories, (settings.categories, 2))
    lists = np.empty((n, width), dtype=np.int32)
    for c, own in enumerate(shelves):
        # An item on a companion shelf that is the own shelf, or the other companion, counts once.
        linked = [shelves[d] for d in sorted({c, *companions[c].tolist()})]
        places = np.concatenate([np.arange(len(shelf)) for shelf in linked])
        candidates = np.concatenate(linked)
        for place, item in enumerate(own):
            ahead = (places - place) % len(own)
            chance = np.sqrt(popularity[candidates]) * (np.exp(-ahead / settings.reach) + 1e-6)
            chance[candidates == item] = 0.0
            lists[item] = rng.choice(candidates, width, replace=False, p=chance / chance.sum())
    weights = np.arange(1, width + 1, dtype=np.float64) ** -0.7  # the first is about 2.6 times the fourth
    return lists, weights / weights.sum()
