"""Whether a soak run was flat. Pure: samples in, figures and problems out."""

from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_RSS_SPREAD = 0.02
"""No sample after the warm-up may be further from their mean than this share of it."""

MAX_LAG_S = 2.0
"""99 of 100 samples of the lag stay below so many seconds' worth of clicks."""

MAX_PAUSE_S = 10.0
"""The greatest lag of all stays below this: a pause may happen, falling behind may not."""

MIN_SAMPLES = 5


@dataclass(frozen=True)
class Sample:
    """What was seen of the worker at one moment.

    Attributes:
        at_s: seconds since the clicks began to flow.
        rss_mb: resident memory.
        lag: clicks on the topic that it has not read.
        sessions_live, sessions_expired, sessions_evicted: of its table; live now, the others since its start.
        answered: recommendations since its start.
    """

    at_s: float
    rss_mb: float
    lag: float
    sessions_live: float
    sessions_expired: float
    sessions_evicted: float
    answered: float


def judge(samples: list[Sample], warm_up_s: float, clicks_per_s: float) -> tuple[dict[str, Any], list[str]]:
    """Figures over the samples after the warm-up, and what is wrong with them (empty: nothing).

    Args:
        samples: in order of time.
        warm_up_s: samples before it are left out.
        clicks_per_s: the rate at which clicks were sent.
    """
    warm = [sample for sample in samples if sample.at_s >= warm_up_s]
    if len(warm) < MIN_SAMPLES:
        return {}, [f"only {len(warm)} samples after the warm-up of {warm_up_s:.0f} s: run longer"]
    rss, lag = np.array([sample.rss_mb for sample in warm]), np.array([sample.lag for sample in warm])
    spread = float(np.abs(rss / rss.mean() - 1).max())
    first, last = warm[0], warm[-1]
    expired = last.sessions_expired - first.sessions_expired
    figures = {
        "clicks_per_s": round((last.answered - first.answered) / (last.at_s - first.at_s), 1),
        "rss_mb_after_warm_up": round(first.rss_mb, 1),
        "rss_min_mb": round(float(rss.min()), 1),
        "rss_mean_mb": round(float(rss.mean()), 1),
        "rss_max_mb": round(float(rss.max()), 1),
        "rss_spread": round(spread, 4),
        "lag_p50": round(float(np.percentile(lag, 50))),
        "lag_p99": round(float(np.percentile(lag, 99))),
        "lag_max": round(float(lag.max())),
        "sessions_live": round(last.sessions_live),
        "sessions_expired": round(last.sessions_expired),
        "sessions_evicted": round(last.sessions_evicted),
    }
    problems = []
    if spread > MAX_RSS_SPREAD:
        problems.append(f"memory strayed {spread:.1%} from its mean, {MAX_RSS_SPREAD:.0%} allowed")
    if (p99 := float(np.percentile(lag, 99))) > MAX_LAG_S * clicks_per_s:
        problems.append(f"lag of {p99:.0f} clicks at p99 is over {MAX_LAG_S} s' worth")
    if lag.max() > MAX_PAUSE_S * clicks_per_s:
        problems.append(f"lag of {lag.max():.0f} clicks is over {MAX_PAUSE_S} s' worth")
    if expired <= 0:
        problems.append("no session expired: the table is not in a steady state")
    return figures, problems
