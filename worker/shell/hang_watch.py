"""Ends a process that a call into the Kafka client does not come back to.

The calls that we make wait for a second, and the client's own retries for some more. Seen with librdkafka
2.16.1 after a broker was killed: a commit that waits for ever for an answer of its own thread. Nothing but
the end of the process gets out of that, and nothing is lost by it: what is not committed is read again.
"""

import os
import threading
import time
from types import TracebackType
from typing import Self

import structlog

from worker.shell.failures import EXIT_RESTART

log = structlog.get_logger()

HUNG_AFTER_S = 25.0
"""Twice as long as any call was seen to take that came back, brokers or not."""

LOOKS_EVERY_S = 1.0


class HangWatch:
    """As a context manager around one call after the other; one thread only."""

    def __init__(self, hung_after_s: float = HUNG_AFTER_S) -> None:
        self._hung_after_s = hung_after_s
        self._since_s: float | None = None
        threading.Thread(target=self._watch, name="hang-watch", daemon=True).start()

    def __enter__(self) -> Self:
        self._since_s = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._since_s = None

    def _watch(self) -> None:
        while True:
            time.sleep(LOOKS_EVERY_S)
            since_s = self._since_s
            if since_s is not None and time.monotonic() - since_s > self._hung_after_s:
                log.error(
                    "kafka_client_hangs",
                    seconds=round(time.monotonic() - since_s),
                    then="ends with 75: restart",
                )
                os._exit(EXIT_RESTART)
