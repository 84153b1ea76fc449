"""Single metrics of a running worker."""

import time
from collections.abc import Iterable

from tests.support.worker_process import WorkerProcess


def metric(worker: WorkerProcess, name: str) -> float:
    """The value of an unlabelled metric."""
    for line in worker.get("/metrics")[1].splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    raise KeyError(name)


def lag_labels(worker: WorkerProcess) -> list[str]:
    """The partitions that the metric of the lag names."""
    lines = worker.get("/metrics")[1].splitlines()
    return [line.split('"')[1] for line in lines if line.startswith("nextclick_consumer_lag{")]


def wait_for_lag_labels(worker: WorkerProcess, partitions: Iterable[int], timeout_s: float = 30.0) -> None:
    """Wait until the metric of the lag names these partitions and no others."""
    expected = sorted(str(partition) for partition in partitions)
    deadline_s = time.monotonic() + timeout_s
    while (found := sorted(lag_labels(worker))) != expected:
        assert time.monotonic() < deadline_s, f"lag is shown for {found}, {expected} expected"
        time.sleep(0.1)
