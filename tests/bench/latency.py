"""From the moment at which a click was due to be sent to the moment at which its recommendation was read.

Open loop: a producer in one process sends on schedule, whether or not answers come; a read_committed consumer
in another process notes when they do. Both clocks are CLOCK_MONOTONIC of one machine.

    python -m tests.bench.latency produce|consume BOOTSTRAP TOPIC COUNT RATE
"""

import subprocess
import sys
import time

import numpy as np
import orjson
from confluent_kafka import Consumer, Producer, TopicPartition

from schemas.click import encode_click
from schemas.recommendation import decode_recommendation
from schemas.topics import TopicNames
from tests.bench.workload import clicks
from tests.support.worker_process import WorkerProcess, prefixed_topics

WARM_UP_S = 120
"""Left out: a broker that just started compiles its own code for so long, on the cores that all share.

p50 / p99 of each 20 s of one run, exactly once: 11.6 / 51 ms after 40 s, 13.6 / 54 after 60, 13.0 / 48 after
100, then 10.1 to 11.7 / 44 to 50; at least once 3.1 / 23, 3.0 / 17, 2.8 / 12, then 2.7 to 3.5 / 10 to 15.
"""


ECHO_WARM_UP_S = 20
"""Of the echo, which is measured on a broker that the worker has warmed up."""

Percentiles = dict[str, float]


def latency_ms(bootstrap: str, prefix: str, rate: int, seconds: int, arguments: list[str]) -> Percentiles:
    """Latency percentiles in ms at `rate` clicks/s for `seconds`, after a warm-up that is left out."""
    with WorkerProcess(bootstrap, prefix, arguments) as worker:
        worker.wait_ready("bench")
        found = _measure(bootstrap, prefixed_topics(prefix), rate, seconds, WARM_UP_S)
        assert worker.terminate() == 0
    return found


def echo_latency_ms(bootstrap: str, prefix: str, rate: int, seconds: int, guarantee: str) -> Percentiles:
    """The same of a worker that computes nothing, see `tests.bench.echo`."""
    command = [sys.executable, "-m", "tests.bench.echo", bootstrap, prefix, guarantee]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            found = _measure(bootstrap, prefixed_topics(prefix), rate, seconds, ECHO_WARM_UP_S)
        finally:
            process.terminate()
    assert process.returncode == 0
    return found


def _measure(bootstrap: str, topics: TopicNames, rate: int, seconds: int, warm_up_s: int) -> Percentiles:
    count = rate * (seconds + warm_up_s)
    consumer = _start("consume", bootstrap, topics.recommendations, count, rate)
    assert consumer.stdout is not None
    assert consumer.stdout.readline() == b"ready\n"
    producer = _start("produce", bootstrap, topics.clicks, count, rate)
    sent, _ = producer.communicate(timeout=60 + warm_up_s + seconds)
    received, _ = consumer.communicate(timeout=60)
    due_ns = orjson.loads(sent) + np.arange(count) * (1_000_000_000 // rate)
    latencies = (np.array(orjson.loads(received)) - due_ns)[rate * warm_up_s :] / 1e6
    return {f"p{q}": round(float(np.percentile(latencies, q)), 2) for q in (50, 90, 99)}


def _start(role: str, bootstrap: str, topic: str, count: int, rate: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", __name__, role, bootstrap, topic, str(count), str(rate)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def produce(bootstrap: str, topic: str, count: int, rate: int) -> None:
    """Send on schedule; print the time at which the first click was due."""
    producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "linger.ms": 0})
    ready = [(click.session_id, encode_click(click)) for click in clicks(count, seed=2)]
    started_ns = time.monotonic_ns() + 500_000_000
    for number, (key, value) in enumerate(ready):
        wait_s = (started_ns + number * (1_000_000_000 // rate) - time.monotonic_ns()) / 1e9
        if wait_s > 0:
            time.sleep(wait_s)
        producer.produce(topic, value, key)
        producer.poll(0)
    assert producer.flush(30) == 0
    sys.stdout.buffer.write(orjson.dumps(started_ns))


def consume(bootstrap: str, topic: str, count: int) -> None:
    """Print, by event number, when each recommendation was read."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "bench-unused",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    ends = [
        TopicPartition(topic, number, consumer.get_watermark_offsets(TopicPartition(topic, number))[1])
        for number in partitions
    ]
    consumer.assign(ends)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    received_ns = [0] * count
    values: list[tuple[int, bytes]] = []
    while len(values) < count:
        record = consumer.poll(30)
        assert record is not None, f"only {len(values)} of {count} recommendations came"
        now_ns = time.monotonic_ns()
        values.append((now_ns, record.value() or b""))
    for now_ns, value in values:
        received_ns[int(decode_recommendation(value).event_id)] = now_ns
    sys.stdout.buffer.write(orjson.dumps(received_ns))


if __name__ == "__main__":
    role, servers, name, number, per_second = sys.argv[1:]
    if role == "produce":
        produce(servers, name, int(number), int(per_second))
    else:
        consume(servers, name, int(number))
