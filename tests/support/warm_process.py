"""Processes that start with torch and the worker's modules in memory: importing them takes seconds each time.

The fork server of `multiprocessing` imports them once for a test session. What is started so has a memory,
signals and an exit code of its own; only the start and the end of the interpreter are not those of users, so
tests of these start a worker from nothing.
"""

import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import TimeoutExpired

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["deploy.cli", "deploy.commands.worker", "worker.shell.run", "tests.support.warm_core"]
)


class WarmProcess:
    """`python -m module arguments`, as `subprocess.Popen` of it; ended by the end of its parent.

    Args:
        module: that is run as `__main__`.
        arguments: of the command line.
        environment: all of it.
        stderr: the file for both outputs.
    """

    def __init__(
        self, module: str, arguments: Sequence[str], environment: Mapping[str, str], stderr: Path
    ) -> None:
        self.args = [module, *arguments]
        self._process = _FORKS.Process(
            target=_run, args=(module, list(arguments), dict(environment), stderr), daemon=True
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """The exit code, minus the signal that ended it; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once there is one. Raises TimeoutExpired."""
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise TimeoutExpired(self.args, timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Nothing happens if it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def _run(module: str, arguments: list[str], environment: dict[str, str], stderr: Path) -> None:
    """In the new process."""
    output = os.open(stderr, os.O_WRONLY | os.O_APPEND)
    os.dup2(output, sys.stdout.fileno())
    os.dup2(output, sys.stderr.fileno())
    os.close(output)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
