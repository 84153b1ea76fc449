"""Memory of a worker that finds millions of clicks waiting: it must not fetch what it cannot handle yet."""

import time

from confluent_kafka import Producer

from tests.bench.workload import ITEMS, LIVE_SESSIONS, START_MS
from tests.soak.observe import resident_mb
from tests.support.worker_process import WorkerProcess, prefixed_topics

SETTLE_S = 15.0
"""Model, table and client queues are filled by then."""

WATCH_S = 20.0


def resident_under_backlog(bootstrap: str, prefix: str, count: int, arguments: list[str]) -> dict[str, float]:
    """Resident memory in MB soon after the start and at most in the `WATCH_S` after that, and what waited."""
    topics = prefixed_topics(prefix)
    _fill(bootstrap, topics.clicks, count)
    with WorkerProcess(bootstrap, prefix, arguments) as worker:
        worker.wait_ready("bench")
        time.sleep(SETTLE_S)
        before = resident_mb(worker.process.pid)
        most = before
        ends_s = time.monotonic() + WATCH_S
        while time.monotonic() < ends_s:
            time.sleep(0.5)
            most = max(most, resident_mb(worker.process.pid))
        assert worker.terminate() == 0
    return {"clicks": count, "rss_mb": round(before), "rss_growth_mb": round(most - before, 1)}


def _fill(bootstrap: str, topic: str, count: int) -> None:
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "partitioner": "murmur2_random",
            "linger.ms": 50,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    for number in range(count):
        session, item = f"session-{number * 7919 % LIVE_SESSIONS:08}", ITEMS[number * 31 % len(ITEMS)]
        value = (
            f'{{"event_id":"{number}","session_id":"{session}","item_id":"{item}",'
            f'"timestamp_ms":{START_MS + number // 10}}}'
        )
        producer.produce(topic, value, session)
        if number % 100_000 == 0:
            producer.flush(60)
    assert producer.flush(60) == 0
