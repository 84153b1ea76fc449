"""The log in a few figures and three histograms."""

import numpy as np
from numpy.typing import NDArray

from training.click_log import LoadedLog
from training.report.data import Bin, LogSummary
from training.report.wording import instant
from training.sessions import MIN_CLICKS, Sessions, Split

LONGEST_SHOWN = 20
"""Sessions with more clicks share one column; 95% of the sessions of public logs are shorter."""
TIMELINE_BINS = 48
"""Half an hour each for a day, half a day for a month: enough to see nights, weekends and gaps."""


def summarise(loaded: LoadedLog, split: Split) -> LogSummary:
    """Summarise a log and its two parts; a few passes over arrays, no copy of the log."""
    clicks, train, test = loaded.clicks, split.train, split.test
    clicks_per_session = np.bincount(clicks.session, minlength=len(clicks.session_ids))
    support = np.bincount(train.items, minlength=len(split.item_ids))
    lengths = np.concatenate([train.lengths, test.lengths])
    return LogSummary(
        events=len(clicks),
        sessions=len(clicks.session_ids),
        items=len(clicks.item_ids),
        one_click_sessions=int((clicks_per_session < MIN_CLICKS).sum()),
        items_train=len(split.item_ids),
        events_train=len(train.items),
        events_test=len(test.items),
        sessions_train=len(train),
        sessions_test=len(test),
        first_ms=int(np.min(clicks.timestamp_ms)),
        last_ms=int(np.max(clicks.timestamp_ms)),
        learned_until_ms=int(train.last_ms.max()),
        median_length=float(np.median(lengths)),
        longest=int(lengths.max()),
        half_items_share=half_items_share(support),
        lengths=length_bins(train.lengths, test.lengths),
        item_clicks=doubling_bins(support),
        timeline=timeline_bins(train, test),
        skipped=dict(loaded.skipped),
        remarks=list(loaded.remarks),
    )


def half_items_share(support: NDArray[np.int64]) -> float:
    """Share of the items that, most clicked first, hold half of the clicks."""
    most_first = np.cumsum(np.sort(support)[::-1])
    return float((np.searchsorted(most_first, most_first[-1] / 2) + 1) / len(support))


def length_bins(train: NDArray[np.int64], test: NDArray[np.int64]) -> list[Bin]:
    """Sessions by their number of clicks, from two up; the last column holds all longer ones."""
    counted = [
        np.bincount(np.minimum(part, LONGEST_SHOWN + 1), minlength=LONGEST_SHOWN + 2)
        for part in (train, test)
    ]
    longest = min(LONGEST_SHOWN + 1, int(max(train.max(initial=0), test.max(initial=0))))
    return [
        Bin(
            f"{length}" if length <= LONGEST_SHOWN else f">{LONGEST_SHOWN}",
            float(counted[0][length]),
            float(counted[1][length]),
        )
        for length in range(MIN_CLICKS, longest + 1)
    ]


def doubling_bins(support: NDArray[np.int64]) -> list[Bin]:
    """Items by their number of clicks, each column twice as wide as the one before: 1, 2-3, 4-7, …"""
    power = np.frexp(support.astype(np.float64))[1] - 1  # floor of log2, exact
    counted = np.bincount(power[support > 0])
    return [
        Bin("1" if low == 1 else f"{low}–{2 * low - 1}", float(count))
        for low, count in ((1 << index, count) for index, count in enumerate(counted.tolist()))
    ]


def timeline_bins(train: Sessions, test: Sessions) -> list[Bin]:
    """Clicks by the time at which their session ended; a label is the start of its span."""
    first = int(min(train.last_ms.min(), test.last_ms.min()))
    last = int(max(train.last_ms.max(), test.last_ms.max()))
    edges = np.linspace(first, max(last, first + 1), TIMELINE_BINS + 1)
    counted = [np.histogram(part.last_ms, edges, weights=part.lengths)[0] for part in (train, test)]
    return [
        Bin(instant(int(edge)), float(train_clicks), float(test_clicks))
        for edge, train_clicks, test_clicks in zip(edges[:-1], *counted, strict=True)
    ]
