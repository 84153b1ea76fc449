"""SIGTERM and SIGINT, noticed at once whatever the main thread is doing.

Python runs signal handlers in the main thread, between two of its instructions. A call into the Kafka client
whose brokers do not answer can keep it from them for longer than a supervisor waits, and two signals that
come meanwhile are one to it. So a thread of their own reads the numbers that the interpreter writes to a pipe
the moment they arrive.
"""

import math
import os
import select
import signal
import threading
import time
from types import FrameType

import structlog

log = structlog.get_logger()


class StopSignals:
    """Whether the process was asked to stop, and the one who ends it where it does not end by itself.

    To end at any moment loses nothing: what is not committed is read again.

    Attributes:
        number: of the first signal, None until it came.
        at_s: when that was, in seconds of `time.monotonic`; infinite until then.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.at_s = math.inf
        self._grace_s: float | None = None

    def watch(self) -> None:
        """Begin to listen; called by the main thread. For now a signal ends the process at once, with 0."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _noted_elsewhere)
        threading.Thread(target=self._listen, args=(reading,), name="signals", daemon=True).start()

    def give_time(self, grace_s: float) -> None:
        """From now on there are clients to take leave of, and the main thread does so when it sees `number`.

        Args:
            grace_s: so long after the first signal the process is ended with exit code 0 if it still runs.
                A second signal ends it at once, with 128 + its number.
        """
        self._grace_s = grace_s

    def _listen(self, reading: int) -> None:
        number = os.read(reading, 1)[0]
        self.at_s = time.monotonic()
        self.number = number
        if self._grace_s is None:
            log.info("stopped", signal=signal.Signals(number).name, before="it had started")
            os._exit(0)
        if select.select([reading], [], [], self._grace_s)[0]:
            os._exit(128 + os.read(reading, 1)[0])
        log.warning("left_without_goodbye", reason="brokers did not answer", then="read again")
        os._exit(0)


def _noted_elsewhere(number: int, frame: FrameType | None) -> None:
    """A handler that has to be there for the number to be written to the pipe."""
