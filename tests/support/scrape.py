"""Single metrics of a running worker."""

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
