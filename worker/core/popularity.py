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
"""A young ranking is refreshed whenever it has grown by one sixteenth: at every click up to 16 clicks."""


class Ranking(NamedTuple):
    """Popular items, best first."""

    items: NDArray[np.int64]  # [k], item numbers
    scores: NDArray[np.float32]  # [k], decayed counts


class PopularItems:
    """Decayed click counts by item number, and their ranking as of the last refresh."""

    def __init__(self, top_k: int, half_life_ms: int) -> None:
        self._top_k = top_k
        self._half_life_ms = half_life_ms
        self._weights: NDArray[np.float64] = np.zeros(1_024)
        self._clicks = 0
        self._next_refresh = 1
        self._decayed_to_ms = 0
        self._ranking = Ranking(np.empty(0, np.int64), np.empty(0, np.float32))

    def count(self, items: NDArray[np.int64], event_time_ms: list[int], numbers_in_use: int) -> list[Ranking]:
        """Count clicks, in order.

        Args:
            items: int64[n], item numbers; `UNREGISTERED` is counted but never ranked.
            event_time_ms: the event-time watermark at each click, not falling.
            numbers_in_use: all numbers lie below it.

        Returns:
            The ranking in force after each click.
        """
        self._grow(numbers_in_use)
        rankings: list[Ranking] = []
        while (start := len(rankings)) < len(items):
            taken = min(len(items) - start, self._next_refresh - self._clicks)
            np.add.at(self._weights, items[start : start + taken], 1.0)
            self._clicks += taken
            rankings += [self._ranking] * (taken - 1)
            if self._clicks == self._next_refresh:
                self._refresh(event_time_ms[start + taken - 1])
                self._next_refresh += min(max(self._clicks // REFRESH_SHARE, 1), REFRESH_AFTER_AT_MOST)
            rankings.append(self._ranking)
        return rankings

    def _grow(self, size: int) -> None:
        if size > len(self._weights):
            grown = np.zeros(max(size, 2 * len(self._weights)))
            grown[: len(self._weights)] = self._weights
            self._weights = grown

    def _refresh(self, now_ms: int) -> None:
        if self._decayed_to_ms and now_ms > self._decayed_to_ms:
            self._weights *= 0.5 ** ((now_ms - self._decayed_to_ms) / self._half_life_ms)
        self._decayed_to_ms = max(now_ms, self._decayed_to_ms)
        self._weights[UNREGISTERED] = 0.0
        k = min(self._top_k, len(self._weights) - 1)
        best = np.argpartition(self._weights, -k)[-k:]
        best = best[np.lexsort((best, -self._weights[best]))]
        best = best[self._weights[best] > 0]
        self._ranking = Ranking(best, self._weights[best].astype(np.float32))
