"""Ctrl-C that asks a long job to end early and keep what it has; a second one ends it at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def first_interrupt(say: Callable[[str], None], message: str) -> Iterator[Callable[[], bool]]:
    """Give a function that tells whether Ctrl-C came inside the block.

    The first one says `message`; from then on Ctrl-C is a KeyboardInterrupt again. Outside the main thread,
    which signals never reach, nothing is changed.

    Args:
        say: told the message. It runs where the main thread is, between two of its instructions.
        message: what happens next.
    """
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return

    def handle(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        came.set()
        say(message)

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGINT, previous)
