"""`WarmWorkerProcess` of a worker that follows the script in its clicks, see `crashing_worker`."""

import signal
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.worker_process import WarmWorkerProcess

FIRE_S = 60.0


class CrashingProcess(WarmWorkerProcess):
    """As `WarmWorkerProcess`; `marks` is the folder in which what has fired leaves a file of its name."""

    def __init__(self, bootstrap: str, prefix: str, marks: Path, arguments: Sequence[str] = ()) -> None:
        self._marks = marks
        module, environment = "tests.support.crashing_worker", {"CRASH_MARKS": str(marks)}
        super().__init__(bootstrap, prefix, arguments, module, environment)

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
