"""A child process under control: bounded in time and output, never left behind when we are cancelled."""

import asyncio
import contextlib
import os
import re
import signal
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

MAX_LINE_CHARS = 65_536
"""Of a longer line only the end is kept; a trainer's one JSON line is about 8,000."""

STDERR_LINES_KEPT = 5
GRACE_S = 5.0
"""From SIGTERM to SIGKILL: a trainer has nothing to save but a half-written folder, which nobody reads."""

_READ_BYTES = 16_384
_LINE_ENDS = re.compile(r"[\r\n]+")


class ChildResult(msgspec.Struct, frozen=True):
    """How a child ended.

    Attributes:
        exit_code: negative: the signal that ended it.
        last_line: of standard output, without blanks around it; empty where there was none.
        stderr_tail: the last few lines of standard error.
        timed_out: we ended it because its time was up.
    """

    exit_code: int | None
    last_line: str
    stderr_tail: list[str]
    timed_out: bool


async def run_child(
    command: Sequence[str], timeout_s: float, on_stderr: Callable[[str], None], grace_s: float = GRACE_S
) -> ChildResult:
    """Run a program to its end, or end it and its children when the time is up or we are cancelled.

    The end is when it has exited and nobody holds its pipes any more.

    Args:
        command: program and arguments; no shell.
        timeout_s: how long it may run.
        on_stderr: called with each line of its standard error as it comes.
        grace_s: from SIGTERM to SIGKILL.

    Raises:
        OSError: it cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # A group of its own: Ctrl-C in our terminal is ours to pass on, and its children go with it.
        start_new_session=True,
    )
    output: deque[str] = deque(maxlen=1)
    errors: deque[str] = deque(maxlen=STDERR_LINES_KEPT)

    def take_error(line: str) -> None:
        errors.append(line)
        on_stderr(line)

    async def watch() -> None:
        await asyncio.gather(
            _read_lines(process.stdout, output.append),
            _read_lines(process.stderr, take_error),
            process.wait(),
        )

    watching = asyncio.create_task(watch())
    timed_out = False
    try:
        await asyncio.wait({watching}, timeout=timeout_s)
    finally:
        if not watching.done():
            timed_out = True
            await _end(process, watching, grace_s)
    if watching.done():
        watching.result()
    return ChildResult(process.returncode, output[-1] if output else "", list(errors), timed_out)


async def _read_lines(stream: asyncio.StreamReader | None, take: Callable[[str], None]) -> None:
    """Call `take` with each line that is not blank; a carriage return, as progress bars use, ends one too."""
    if stream is None:
        return
    rest = ""
    while chunk := await stream.read(_READ_BYTES):
        *lines, rest = _LINE_ENDS.split(rest + chunk.decode(errors="replace"))
        rest = rest[-MAX_LINE_CHARS:]
        for line in lines:
            if line.strip():
                take(line.strip()[-MAX_LINE_CHARS:])
    if rest.strip():
        take(rest.strip())


async def _end(process: asyncio.subprocess.Process, watching: asyncio.Task[None], grace_s: float) -> None:
    """End the whole group: the program itself may be gone and a child of its hold on to the pipes."""
    _signal_group(process, signal.SIGTERM)
    try:
        await asyncio.wait({watching}, timeout=grace_s)
    finally:  # also when we are cancelled a second time while waiting
        _signal_group(process, signal.SIGKILL)
    await asyncio.wait({watching}, timeout=grace_s)  # so that the pipes are read out and closed
    if not watching.done():  # whoever left the group may still hold them
        watching.cancel()


def _signal_group(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
