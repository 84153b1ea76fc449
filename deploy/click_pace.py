"""When the next click of a file is due. Pure: time is passed in as seconds since the start."""

from dataclasses import dataclass, field


@dataclass
class Pace:
    """A steady rate, or the log's own clock made faster or slower; without both, as fast as possible.

    Attributes:
        rate: clicks per second.
        speed: log seconds per second; 1 is real time, 60 an hour a minute.
    """

    rate: float | None = None
    speed: float | None = None
    _number: int = field(default=0, init=False)
    _first_ms: int | None = field(default=None, init=False)

    def due_s(self, timestamp_ms: int | None) -> float:
        """Seconds after the start at which the next click is due.

        Args:
            timestamp_ms: event time of that click; None where it is not known, which only `speed` minds.
                A click older than the first one is due at once.
        """
        number, self._number = self._number, self._number + 1
        if self.rate is not None:
            return number / self.rate
        if self.speed is None or timestamp_ms is None:
            return 0.0
        if self._first_ms is None:
            self._first_ms = timestamp_ms
        return (timestamp_ms - self._first_ms) / 1000 / self.speed
