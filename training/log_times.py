"""What the timestamps of a log file mean: dates, seconds, milliseconds, or numbers that order the events.

That is known only when the last of them was seen, so they are collected block by block.
"""

from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from schemas.click import MIN_TIMESTAMP_MS
from training.errors import UnreadableLogError

Unit = Literal["s", "ms", "order"]
TimestampUnit = Literal["auto"] | Unit

ORDER_BELOW = 1e8
"""Where more than half of the numbers are smaller, they count events: as seconds they would lie in the first
years of the epoch."""
SECONDS_BELOW = 1e11
"""As seconds this is the year 5138, as milliseconds March 1973: no click log holds either."""
ORDER_STEP_MS = 1_000

_TAKEN_FOR: dict[Unit, str] = {
    "s": "Timestamps were taken for seconds since the epoch (--timestamp-unit).",
    "ms": "Timestamps were taken for milliseconds since the epoch (--timestamp-unit).",
    "order": "Timestamps were taken for order numbers: events one second apart, from the year 2000 on"
    " (--timestamp-unit s or ms if they are times).",
}


class TimeColumn:
    """The timestamps of all clicks, taken in block by block.

    Text is taken for numbers if any of it is one, in whatever block, and else for dates of one pattern.
    """

    def __init__(self, log_name: str) -> None:
        self._log_name = log_name
        self._blocks: list[NDArray[np.float64]] = []
        self._date_blocks: list[int] = []
        self._numbers_seen = False
        self._a_date = pl.Series(dtype=pl.String)  # polars takes the pattern from the first: one of the log's

    def add(self, column: pl.Series) -> None:
        """Take the timestamps of the next clicks, nulls allowed.

        Raises:
            UnreadableLogError: they are neither text, nor numbers, nor dates.
        """
        if column.dtype == pl.Datetime:
            self._date_blocks.append(len(self._blocks))
            self._blocks.append(_float64(column.dt.epoch("ms")))
        elif column.dtype == pl.String:
            self._add_text(column.str.strip_chars())
        elif column.dtype.is_numeric():
            self._numbers_seen = True
            self._blocks.append(_float64(column))
        else:
            raise UnreadableLogError(
                f"{self._log_name}: the timestamp is of type {column.dtype}, neither number nor date"
            )

    def _add_text(self, column: pl.Series) -> None:
        numbers = column.cast(pl.Float64, strict=False)
        self._numbers_seen |= numbers.null_count() < len(numbers)
        if not self._numbers_seen:
            self._date_blocks.append(len(self._blocks))
            with_pattern = pl.concat([self._a_date, column])
            dates = with_pattern.str.to_datetime(time_zone="UTC", time_unit="ms", strict=False)
            numbers = dates[len(self._a_date) :].dt.epoch("ms")
            if not len(self._a_date):
                self._a_date = column.filter(dates.is_not_null()).head(1)
        self._blocks.append(_float64(numbers))

    def build(self, unit: TimestampUnit) -> tuple[list[NDArray[np.float64]], str]:
        """Return the times in ms, block by block, NaN where there is none, and what they were taken for.

        To be called once.
        """
        if not self._numbers_seen:
            return self._blocks, "Timestamps are dates."
        for at in self._date_blocks:
            self._blocks[at][:] = np.nan
        for values in self._blocks:
            values[~np.isfinite(values)] = np.nan
        if unit == "auto":
            unit = self._likely_unit()
        self._blocks = [_in_ms(values, unit) for values in self._blocks]
        return self._blocks, _TAKEN_FOR[unit]

    def _likely_unit(self) -> Unit:
        if self._most_below(ORDER_BELOW):
            return "order"
        return "s" if self._most_below(SECONDS_BELOW) else "ms"

    def _most_below(self, bound: float) -> bool:
        """Whether more than half of the numbers are smaller than this."""
        below = sum(int((values < bound).sum()) for values in self._blocks)
        return 2 * below > sum(int((~np.isnan(values)).sum()) for values in self._blocks)


def _in_ms(values: NDArray[np.float64], unit: Unit) -> NDArray[np.float64]:
    """The times, in the place of the numbers."""
    if unit != "ms":
        values *= ORDER_STEP_MS if unit == "order" else 1000
    if unit == "order":
        values += MIN_TIMESTAMP_MS
    return values


def _float64(column: pl.Series) -> NDArray[np.float64]:
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy().copy()
