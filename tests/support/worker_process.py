"""A worker as users run it: a process of its own, spoken to over Kafka, HTTP and signals."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from schemas.topics import TopicNames
from tests.support.warm_process import WarmProcess

START_S = 60.0


def prefixed_topics(prefix: str) -> TopicNames:
    """The five topics of one test."""
    names = TopicNames()
    return TopicNames(**{field: f"{prefix}{getattr(names, field)}" for field in names.__struct_fields__})


def topic_flags(topics: TopicNames) -> list[str]:
    """The flags that give a command these topics."""
    return [
        part
        for field in topics.__struct_fields__
        for part in (f"--{field.replace('_', '-')}-topic", str(getattr(topics, field)))
    ]


class WorkerProcess:
    """`nextclick worker` on a free HTTP port. Killed when the `with` block is left, if it still runs.

    Args:
        bootstrap: `host:port` of a broker.
        prefix: of topics and group.
        arguments: further ones of the command line.
        module: whose `main` takes the command line.
        environment: variables beside our own.
    """

    def __init__(
        self,
        bootstrap: str,
        prefix: str,
        arguments: Sequence[str] = (),
        module: str = "deploy",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        command = [
            *("worker", "--bootstrap", bootstrap, "--http-port", "0", "--group-id", f"{prefix}group"),
            *topic_flags(prefixed_topics(prefix)),
            *arguments,
        ]
        kept = {key: value for key, value in os.environ.items() if not key.startswith("NEXTCLICK_")}
        self._stderr = Path(tempfile.mkstemp(suffix=".log")[1])
        self.process = self._start(module, command, kept | dict(environment or {}))

    def _start(
        self, module: str, arguments: list[str], environment: dict[str, str]
    ) -> "subprocess.Popen[bytes] | WarmProcess":
        with self._stderr.open("wb") as stderr:
            command = [sys.executable, "-m", module, *arguments]
            return subprocess.Popen(command, stderr=stderr, env=environment)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._stderr.unlink()

    def log(self) -> str:
        """All that the worker wrote to standard error so far."""
        return self._stderr.read_text(encoding="utf-8")

    def wait_for_log(self, text: str, timeout_s: float = START_S) -> str:
        """Wait until the log holds this text; returns the log."""
        deadline_s = time.monotonic() + timeout_s
        while text not in (log := self.log()):
            assert self.process.poll() is None, f"the worker ended early:\n{log}"
            assert time.monotonic() < deadline_s, f"no {text!r} within {timeout_s} s:\n{log}"
            time.sleep(0.05)
        return log

    @property
    def http(self) -> str:
        """Base address of the worker's HTTP side."""
        port = re.search(r'"http_port":(\d+)', self.wait_for_log('"http_port"'))
        assert port is not None
        return f"http://127.0.0.1:{port[1]}"

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a GET request."""
        try:
            with urllib.request.urlopen(self.http + path, timeout=10) as answer:  # noqa: S310 - our own address
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def wait_ready(self, model_version: str | None = None, timeout_s: float = START_S) -> dict[str, Any]:
        """Wait until /readyz says yes (and, where named, that this model serves)."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            status, body = self.get("/readyz")
            found: dict[str, Any] = json.loads(body)
            if status == 200 and model_version in {None, found["model_version"]}:
                return found
            assert time.monotonic() < deadline_s, f"not ready: {body}\n{self.log()}"
            time.sleep(0.05)

    def wait_for_metric(self, name: str, value: float, timeout_s: float = 300.0) -> None:
        """Wait until the samples of a metric add up to at least this value."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            lines = self.get("/metrics")[1].splitlines()
            found = sum(float(line.rpartition(" ")[2]) for line in lines if re.match(rf"{name}[ {{]", line))
            if found >= value:
                return
            assert time.monotonic() < deadline_s, f"{name} = {found} after {timeout_s} s, {value} expected"
            time.sleep(0.2)

    def terminate(self, timeout_s: float = 15.0) -> int:
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)


class WarmWorkerProcess(WorkerProcess):
    """As `WorkerProcess`, seconds sooner, for all that does not ask how an interpreter starts and ends."""

    def _start(self, module: str, arguments: list[str], environment: dict[str, str]) -> WarmProcess:
        return WarmProcess(module, arguments, environment, self._stderr)
