"""`WorkerProcess` of a worker that follows the script in its clicks, see `crashing_worker`."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.worker_process import WorkerProcess, prefixed_topics, topic_flags

FIRE_S = 60.0


class CrashingProcess(WorkerProcess):
    """As `WorkerProcess`; `marks` is the folder in which what has fired leaves a file of its name."""

    def __init__(self, bootstrap: str, prefix: str, marks: Path, arguments: Sequence[str] = ()) -> None:
        self._marks = marks
        self._stderr = Path(tempfile.mkstemp(suffix=".log")[1])
        command = [
            *(sys.executable, "-m", "tests.support.crashing_worker", "worker", "--bootstrap", bootstrap),
            *("--http-port", "0", "--group-id", f"{prefix}group", *topic_flags(prefixed_topics(prefix))),
            *arguments,
        ]
        kept = {key: value for key, value in os.environ.items() if not key.startswith("NEXTCLICK_")}
        with self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(command, stderr=stderr, env={**kept, "CRASH_MARKS": str(marks)})

    def wait_fired(self, cue: str) -> None:
        """Wait until this cue has fired: `crash-…` has ended the process then, `freeze-…` stopped it."""
        deadline_s = time.monotonic() + FIRE_S
        while not (self._marks / cue).exists():
            crashed = self.process.poll() == -signal.SIGKILL  # by this cue, or by another one
            assert crashed or self.process.poll() is None, f"the worker ended early:\n{self.log()}"
            assert time.monotonic() < deadline_s, f"{cue} did not happen:\n{self.log()}"
            time.sleep(0.02)
        if cue.startswith("crash-"):
            assert self.process.wait(FIRE_S) == -signal.SIGKILL
        else:
            while _state(self.process.pid) != "T":
                assert time.monotonic() < deadline_s, f"{cue} did not stop the process"
                time.sleep(0.02)

    def thaw(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)


def _state(pid: int) -> str:
    """One letter, as of Linux' /proc; T is stopped by a signal."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
