"""Recently popular items: what a session gets in which no model knows anything.

Each click counts one and loses half of its weight per half-life of event time. The ranking is refreshed at
fixed click counts rather than per batch, so that it does not depend on how clicks were cut into batches.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.core.item_register import UNREGISTERED

REFRESH_AFTER_AT_MOST = 1_024
"""Clicks between two refreshes of a warm ranking: ranking a million items takes milliseconds."""

REFRESH_SHARE = 16
"""A young ranking is refreshed whenever it has grown by one sixteenth: at every click up to 32 clicks."""


class Ranking(NamedTuple):
    """Popular items, best first."""

    items: NDArray[np.int64]  # [k], item numbers
    scores: NDArray[np.float32]  # [k], decayed counts


class PopularItems:
    """Decayed click counts by item number.

    Attributes:
        ranking: as of the last refresh.
    """

    def __init__(self, top_k: int, half_life_ms: int) -> None:
        self._top_k = top_k
        self._half_life_ms = half_life_ms
        self._weights: NDArray[np.float64] = np.zeros(1_024)
        self._clicks = 0
        self._pending_items: list[NDArray[np.int64]] = []  # clicks since the last refresh,
        self._pending_ms: list[int] = []  # and when they came
        self._next_refresh = 1
        self._decayed_to_ms = 0
        self.ranking = Ranking(np.empty(0, np.int64), np.empty(0, np.float32))

    def count(self, items: NDArray[np.int64], event_time_ms: list[int], numbers_in_use: int) -> list[Ranking]:
        """Count clicks, in order.

        Args:
            items: int64[n], item numbers; `UNREGISTERED` is counted but never ranked.
            event_time_ms: the event-time watermark at each click; it falls only where a batch was taken back.
            numbers_in_use: all numbers lie below it.

        Returns:
            The ranking in force after each click.
        """
        self._grow(numbers_in_use)
        rankings: list[Ranking] = []
        while (start := len(rankings)) < len(items):
            taken = min(len(items) - start, self._next_refresh - self._clicks)
            self._pending_items.append(items[start : start + taken])
            self._pending_ms += event_time_ms[start : start + taken]
            self._clicks += taken
            rankings += [self.ranking] * (taken - 1)
            if self._clicks == self._next_refresh:
                self._refresh()
                self._next_refresh += min(max(self._clicks // REFRESH_SHARE, 1), REFRESH_AFTER_AT_MOST)
            rankings.append(self.ranking)
        return rankings

    def _grow(self, size: int) -> None:
        if size > len(self._weights):
            grown = np.zeros(max(size, 2 * len(self._weights)))
            grown[: len(self._weights)] = self._weights
            self._weights = grown

    def _refresh(self) -> None:
        # A batch that was taken back may have been ahead of this click; weights only ever shrink.
        now_ms = max(self._decayed_to_ms, *self._pending_ms)
        if self._decayed_to_ms:
            self._weights *= 0.5 ** ((now_ms - self._decayed_to_ms) / self._half_life_ms)
        ages_ms = now_ms - np.array(self._pending_ms)
        np.add.at(self._weights, np.concatenate(self._pending_items), 0.5 ** (ages_ms / self._half_life_ms))
        self._pending_items, self._pending_ms = [], []
        self._decayed_to_ms = now_ms
        self._weights[UNREGISTERED] = 0.0
        best = self._heaviest()
        self.ranking = Ranking(best, self._weights[best].astype(np.float32))

    def _heaviest(self) -> NDArray[np.int64]:
        """Numbers of the k heaviest items, heaviest first; of equal ones those that were seen first."""
        weights = self._weights
        k = min(self._top_k, len(weights) - 1)
        least = np.partition(weights, -k)[-k]
        above = np.flatnonzero(weights > least)
        level = np.flatnonzero(weights == least)[: k - len(above)] if least > 0 else above[:0]
        return np.concatenate([above[np.argsort(-weights[above], kind="stable")], level])
