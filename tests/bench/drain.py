"""How fast a worker drains a topic that was filled before it started."""

from tests.bench.workload import clicks
from tests.support.kafka_io import read_records, send_clicks
from tests.support.worker_process import WorkerProcess, prefixed_topics


def drained_clicks_per_s(bootstrap: str, prefix: str, count: int, arguments: list[str]) -> float:
    """Clicks per second between the first and the last recommendation, by their records' own timestamps.

    So neither the start of the process nor the reader of this benchmark counts, but the broker does: it runs
    on the same cores.
    """
    topics = prefixed_topics(prefix)
    send_clicks(bootstrap, topics.clicks, clicks(count, seed=1))
    with WorkerProcess(bootstrap, prefix, arguments) as worker:
        worker.wait_ready("bench")
        worker.wait_for_metric("nextclick_recommendations_total", count)
        records = read_records(bootstrap, topics.recommendations, count)
        assert worker.terminate() == 0
    assert len(records) == count
    appended_ms = sorted(record.timestamp()[1] for record in records)
    return count / (appended_ms[-1] - appended_ms[0]) * 1000
