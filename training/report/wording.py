"""Figures as people read them."""

from datetime import UTC, datetime

K = "20"


def count(value: float) -> str:
    """A whole number with thousands apart: 70,278."""
    return f"{value:,.0f}"


def score(value: float) -> str:
    """A share or a mean to three digits, which is what the sampling error leaves meaningful: 0.715."""
    return f"{value:.3f}"


def percent(value: float) -> str:
    """A share in percent, one digit under ten."""
    return f"{value:.0%}" if value >= 0.1 or value == 0 else f"{value:.1%}"


def seconds(value: float) -> str:
    """A duration: 0.42 s, 4.2 s, 3 min 20 s, 2 h 5 min."""
    if value < 60:
        return f"{value:.1f} s" if value >= 1 else f"{value:.2f} s"
    minutes, left = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {left} s"


def span(duration_ms: int) -> str:
    """A span of event time: 36 hours, 6.2 days, 8.1 months."""
    hours = duration_ms / 3_600_000
    if hours < 1:
        return f"{hours * 60:.0f} minutes"
    if hours < 48:
        return f"{hours:.1f} hours"
    return f"{hours / 24:.1f} days" if hours < 24 * 90 else f"{hours / 24 / 30.44:.1f} months"


def instant(at_ms: int) -> str:
    """A time in UTC to the minute; what no calendar holds as a plain number."""
    try:
        return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return f"{at_ms} ms"
