"""Ctrl-C and SIGTERM as one exception, so that a command can end in good order."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """SIGINT or SIGTERM came; no `except Exception` on the way swallows it."""


class StopSignals:
    """What came of the two signals inside `stop_signals`.

    Attributes:
        requested: one of them came.
    """

    def __init__(self) -> None:
        self.requested = False
        self._deferred = False

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, a signal only sets `requested`: for work that an exception in mid-step would spoil."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def handle(self, number: int, _: FrameType | None) -> None:
        """The signal handler. Raises Stopped, once, where the main thread is."""
        for each in _NUMBERS:
            signal.signal(each, signal.SIG_IGN)
        self.requested = True
        if not self._deferred:
            raise Stopped(signal.Signals(number).name)


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Raise Stopped when the first of the two signals comes. For the main thread only.

    Further signals are ignored inside the block, so that an impatient second Ctrl-C does not cut the clean
    end short; what is done at the end must therefore be bounded in time.
    """
    signals = StopSignals()
    previous = {number: signal.signal(number, signals.handle) for number in _NUMBERS}
    try:
        yield signals
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
