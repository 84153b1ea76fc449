"""The demo's child processes: the trainer and the worker, as users would start them."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from deploy import broker_watcher
from deploy.settings import ENV_CONFIG, ENV_DEBUG, ENV_PREFIX, Connection

START_S = 90.0  # usual: 4 s; a busy machine imports torch slowly
STOP_S = 5.0
LOG_TAIL_LINES = 15
LOG_TAIL_BYTES = 64 * 1024
NEXTCLICK = (sys.executable, "-m", "deploy")


class ChildError(Exception):
    """A child failed; the message says which, and shows the last lines of its log."""


def write_settings(path: Path, connection: Connection) -> None:
    """Write the settings file that all children read: credentials do not belong on command lines."""
    topics = connection.topics()
    lines = [f"bootstrap = {_quoted(connection.bootstrap)}", "[topics]"]
    lines += [f"{field} = {_quoted(getattr(topics, field))}" for field in topics.__struct_fields__]
    entries = dict(entry.split("=", 1) for entry in connection.kafka)
    lines += ["[kafka]", *(f"{_quoted(key)} = {_quoted(value)}" for key, value in entries.items())]
    with os.fdopen(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
    ) as file:
        file.write("\n".join(lines) + "\n")


def _quoted(text: str) -> str:
    """A TOML basic string; the escapes that orjson writes are TOML's, too."""
    return orjson.dumps(text).decode().replace("\x7f", "\\u007f")


def child_environment(settings: Path) -> dict[str, str]:
    """Our environment, in which `settings` is all that nextclick finds."""
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(ENV_PREFIX) or key == ENV_DEBUG
    }
    return {**kept, ENV_CONFIG: str(settings)}


def run_trainer(arguments: Sequence[str], settings: Path) -> dict[str, Any]:
    """Train; its progress goes where ours goes, its last line of JSON is returned.

    Raises:
        ChildError: it failed; what it said stands on standard error already.
    """
    process = subprocess.Popen(
        [*NEXTCLICK, "train", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=child_environment(settings),
        start_new_session=True,  # Ctrl-C in the terminal is for us, who then end it
    )
    try:
        output, _ = process.communicate()
    finally:
        if process.poll() is None:
            _end_group(process)
    lines = output.splitlines()
    if process.returncode != 0 or not lines:
        raise ChildError(f"the trainer failed (exit code {process.returncode}); it said why above")
    result: dict[str, Any] = orjson.loads(lines[-1])
    return result


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


class WorkerChild:
    """`nextclick worker` on a free HTTP port, as a context manager.

    A watcher stands between (`deploy.broker_watcher`): even if we are killed, the worker ends, and the
    temporary folder goes.
    """

    def __init__(self, arguments: Sequence[str], settings: Path, log_path: Path, temporary: Path) -> None:
        self._log_path = log_path
        log_path.touch()
        command = [*NEXTCLICK, "worker", "--http-port", "0", *arguments]
        owner = [str(os.getpid()), str(log_path), str(temporary)]
        self._watcher = subprocess.Popen(
            [sys.executable, "-I", "-S", str(broker_watcher.__file__), *owner, *command],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=child_environment(settings),
            start_new_session=True,
        )
        self._readyz = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._order(b"s")

    def wait_ready(self, model_version: str) -> None:
        """Return when it has partitions to read and serves this model.

        Raises:
            ChildError: it ended, or was not ready in time.
        """
        deadline_s = time.monotonic() + START_S
        while not self._is_ready(model_version):
            self.check()
            if time.monotonic() > deadline_s:
                raise ChildError(self._with_log(f"the worker was not ready within {START_S:.0f} s"))
            time.sleep(0.1)

    def check(self) -> None:
        """Raise ChildError if the worker has ended."""
        if self._watcher.poll() is not None:
            raise ChildError(self._with_log("the worker ended by itself"))

    def _is_ready(self, model_version: str) -> bool:
        if not self._readyz:
            port = re.search(rb'"http_port":(\d+)', self._log_path.read_bytes())
            if port is None:
                return False
            self._readyz = f"http://127.0.0.1:{int(port[1])}/readyz"
        try:
            with urllib.request.urlopen(self._readyz, timeout=2) as answer:  # noqa: S310 - our own address
                return bool(orjson.loads(answer.read())["model_version"] == model_version)
        except (urllib.error.URLError, TimeoutError, ConnectionError):  # 503 is an HTTPError, a URLError
            return False

    def failed(self, message: str) -> ChildError:
        """An error with the worker's last log lines."""
        return ChildError(self._with_log(message))

    def _with_log(self, message: str) -> str:
        with self._log_path.open("rb") as log:
            log.seek(max(log.seek(0, os.SEEK_END) - LOG_TAIL_BYTES, 0))
            lines = log.read().decode("utf-8", "replace").splitlines()[-LOG_TAIL_LINES:]
        return "\n".join([f"{message}; the last lines of its log:", *(f"  {line}" for line in lines)])

    def _order(self, order: bytes) -> None:
        assert self._watcher.stdin is not None  # noqa: S101 - by construction, for the type checker
        with contextlib.suppress(BrokenPipeError):  # it has ended already
            self._watcher.stdin.write(order)
        try:
            self._watcher.wait(broker_watcher.STOP_GRACE_S + STOP_S)
        except subprocess.TimeoutExpired:
            self._watcher.kill()  # takes the worker along
        self._watcher.communicate()  # reaps, and closes the pipes
