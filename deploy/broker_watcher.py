"""The small process between a program and the Java machine of its local broker: when the program goes, so
does the broker.

It is the Java machine's parent, and holds the reading end of a pipe whose writing end only the program has.
However the program ends, SIGKILL included, the kernel closes that end, and the watcher reads end-of-file.
Why not PR_SET_PDEATHSIG alone, set in the Java machine by the program: that signal is bound to the *thread*
that started the child (a thread pool's worker that ends would take the broker along) and exists on Linux
only. Why not the pipe alone: a child that the program forked without exec (multiprocessing does) keeps the
pipe's end open after the program's death; so the watcher also looks whether its parent is still the same.
If the watcher itself is killed, PR_SET_PDEATHSIG takes the Java machine along: here it is safe, because the
watcher has one thread.

Run by path, on the standard library alone, so that it starts in a few milliseconds:
`python -I broker_watcher.py OWNER_PID LOG_PATH REMOVE_DIR COMMAND…`, its input the pipe. It writes the Java
machine's pid to its output, one line. Orders on the pipe: `s` = SIGTERM, and SIGKILL after ten seconds;
`k` = SIGKILL. It ends when the Java machine has ended, with status 0. REMOVE_DIR (or an empty string) is a
temporary folder, which nobody else can remove once the owner is dead.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable

POLL_S = 0.1  # how soon a dead Java machine, or a dead owner whose pipe lives on, is noticed
STOP_GRACE_S = 10.0  # a clean stop of one node takes 0.2 to 0.4 s; ten is for a machine that swaps
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(argv: list[str]) -> int:
    """Run the command until it ends, is ordered to end, or its owner is gone."""
    owner_pid, log_path, remove_dir, command = int(argv[0]), argv[1], argv[2], argv[3:]
    with open(log_path, "ab") as log:  # noqa: PTH123 - pathlib would double this program's start time
        java = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=_die_with_watcher(),  # noqa: PLW1509 - this process has one thread
        )
    told_to_stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told_to_stop.append(number))
    os.write(1, f"{java.pid}\n".encode())
    order = _wait_for_order(java, owner_pid, told_to_stop)
    if order == "k" or (order == "orphaned" and remove_dir):
        java.kill()  # what is about to be removed needs no clean end
    _end(java)
    if order == "orphaned" and remove_dir:
        shutil.rmtree(remove_dir, ignore_errors=True)
    return 0


def _wait_for_order(java: subprocess.Popen[bytes], owner_pid: int, told_to_stop: list[int]) -> str:
    """`s`, `k`, `ended` (the Java machine by itself) or `orphaned` (the owner is gone)."""
    while java.poll() is None:
        readable, _, _ = select.select([0], [], [], POLL_S)
        if readable:
            return os.read(0, 1).decode() or "orphaned"
        if os.getppid() != owner_pid:
            return "orphaned"
        if told_to_stop:
            return "s"
    return "ended"


def _end(java: subprocess.Popen[bytes]) -> None:
    java.terminate()
    try:
        java.wait(STOP_GRACE_S)
    except subprocess.TimeoutExpired:
        java.kill()
        java.wait()


def _die_with_watcher() -> Callable[[], None] | None:
    """What the child does between fork and exec so that it dies with this process; None where unknown."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    watcher_pid = os.getpid()

    def in_child() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != watcher_pid:  # died between the fork and the line above
            os._exit(1)

    return in_child


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
