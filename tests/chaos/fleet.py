"""Worker processes of a chaos run: started, killed, frozen and asked to stop, each with a log of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import orjson

from schemas.topics import TopicNames
from tests.support.worker_process import topic_flags

ROOT = Path(__file__).parents[2]
LOG_TAIL_LINES = 40


class WorkerSpec(NamedTuple):
    """What all workers of a run have in common; `sabotage` names what to break on purpose, or is None."""

    bootstrap: str
    group_id: str
    topics: TopicNames
    arguments: Sequence[str]
    sabotage: str | None
    logs: Path


@dataclass
class Worker:
    """One process and what was done to it."""

    name: str
    instance_id: str | None
    process: subprocess.Popen[bytes]
    log_path: Path
    started_s: float = field(default_factory=time.monotonic)
    is_killed: bool = False
    stop_by_s: float | None = None
    """Once it was asked to stop: when it must have ended."""
    frozen_until_s: float | None = None

    def kill(self) -> None:
        """SIGKILL, and reap."""
        self.is_killed = True
        self.process.kill()
        self.process.wait()

    def freeze(self, until_s: float) -> None:
        """SIGSTOP: to the group it looks dead, to itself no time passes."""
        self.process.send_signal(signal.SIGSTOP)
        self.frozen_until_s = until_s

    def thaw(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)
        self.frozen_until_s = None

    def ask_to_stop(self, within_s: float) -> None:
        """SIGTERM."""
        self.stop_by_s = time.monotonic() + within_s
        self.process.terminate()

    def dump_stacks(self) -> None:
        """End it with SIGABRT, on which Python's fault handler writes all stacks to its log."""
        self.is_killed = True
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(signal.SIGABRT)
        self.process.wait()

    def log_tail(self) -> str:
        """The last lines of its log, under its name."""
        lines = self.log_path.read_text("utf-8", "replace").splitlines()[-LOG_TAIL_LINES:]
        return "\n".join([f"{self.name} ({self.log_path}):", *(f"  {line}" for line in lines)])

    def has_logged(self, text: str) -> bool:
        """Whether its log holds this text."""
        return text.encode() in self.log_path.read_bytes()

    @property
    def is_handling(self) -> bool:
        """Whether SIGTERM meets its handler: not while it still imports, nor when it ends anyway."""
        return self.has_logged("{") and not self.has_logged("error: ")

    @property
    def is_working(self) -> bool:
        """Whether it has been given partitions: killing it then says more than killing its imports."""
        return self.frozen_until_s is None and self.has_logged("partitions_came")


def start_worker(spec: WorkerSpec, name: str, instance_id: str | None) -> Worker:
    """Start a process that logs to `NAME.log`."""
    program = ["tests.chaos.sabotage", spec.sabotage] if spec.sabotage else ["deploy"]
    command = [
        *(sys.executable, "-m", *program, "worker", "--bootstrap", spec.bootstrap, "--http-port", "0"),
        *("--group-id", spec.group_id, *topic_flags(spec.topics), *spec.arguments),
        *(("--instance-id", instance_id) if instance_id else ()),
    ]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("NEXTCLICK_")}
    environment["PYTHONFAULTHANDLER"] = "1"
    log_path = spec.logs / f"{name}.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=ROOT
        )
    return Worker(name, instance_id, process, log_path)


def count_rebalances(logs: Path) -> int:
    """Bursts of partitions that came or left, over all workers; one second of quiet ends a burst."""
    lines = (line for path in logs.glob("worker-*.log") for line in path.read_bytes().splitlines())
    moved_at = sorted(
        datetime.fromisoformat(orjson.loads(line)["timestamp"]).timestamp()
        for line in lines
        if b'"partitions_came"' in line or b'"partitions_left"' in line
    )
    return sum(number == 0 or at - moved_at[number - 1] > 1.0 for number, at in enumerate(moved_at))
