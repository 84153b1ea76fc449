"""How long a worker takes from its start until it serves, with many live sessions in the changelog."""

import time
from collections.abc import Iterator

from confluent_kafka import Producer

from schemas.session_history import FORMAT_VERSION, SessionHistory, encode_session_history, event_hash
from tests.bench.workload import ITEMS, START_MS
from tests.support.worker_process import WorkerProcess, prefixed_topics

PARTITIONS = 4
ITEMS_PER_SESSION = 6
"""A usual session; restoring one of 32 takes about twice as long."""


def ready_s(bootstrap: str, prefix: str, sessions: int, arguments: list[str]) -> float:
    """Seconds from starting the process until /readyz says yes with the model and all sessions there."""
    topics = prefixed_topics(prefix)
    producer = Producer(
        {"bootstrap.servers": bootstrap, "linger.ms": 20, "queue.buffering.max.messages": 200_000}
    )
    for number, (partition, key, value) in enumerate(_records(sessions)):
        producer.produce(topics.session_histories, value, key, partition)
        if number % 50_000 == 0:
            producer.flush(60)
    assert producer.flush(60) == 0
    started_s = time.monotonic()
    with WorkerProcess(bootstrap, prefix, [*arguments, "--max-sessions", str(sessions)]) as worker:
        worker.wait_ready("bench", timeout_s=300)
        took_s = time.monotonic() - started_s
        worker.wait_for_metric("nextclick_sessions_live", sessions)
        assert worker.terminate() == 0
    return round(took_s, 2)


def _records(sessions: int) -> Iterator[tuple[int, str, bytes]]:
    hashes = "".join(event_hash(str(number)).hex() for number in range(ITEMS_PER_SESSION))
    for number in range(sessions):
        partition, session_id = number % PARTITIONS, f"session-{number:08}"
        items = [ITEMS[(7 * number + place) % len(ITEMS)] for place in range(ITEMS_PER_SESSION)]
        history = SessionHistory(FORMAT_VERSION, session_id, items, START_MS, partition, number, hashes)
        yield partition, session_id, encode_session_history(history)
