"""`make soak`: a worker at half of its peak rate for a long time, with sessions that come and go.

The last line of standard output is one JSON object. The exit status is 1 when memory was not flat after the
warm-up, the lag not bounded, or a click not answered; `problems` then says what.
"""

import argparse
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import msgspec
import orjson
from rich.console import Console
from rich.live import Live

from deploy.local_broker import LocalBroker
from deploy.topic_admin import create_topics
from schemas.topics import TopicSpec, topic_specs
from tests.bench.drain import drained_clicks_per_s
from tests.bench.run import a_namespace
from tests.bench.workload import announce_model
from tests.soak.observe import resident_mb, sums_by_sample
from tests.soak.produce import CLICKS_PER_SESSION
from tests.soak.verdict import Sample, judge
from tests.support.worker_process import WorkerProcess, prefixed_topics

SHARE_OF_PEAK = 0.5
PEAK_CLICKS = 60_000
SAMPLE_S = 5.0
PARTITIONS = 4

IDLE_TIMEOUT_S = 60.0
"""Short, so that a session's whole life, expiry included, goes by many times in one run."""

THINK_S = 5.0
"""Mean time between two clicks of a session."""

ROOM = 1.25
"""Rows of the table over the sessions that are live in the steady state. A row gets memory when it is first
used and is used again after its session ended; so the churn must reach all the rows that it will ever reach
within the warm-up, and a table for a million sessions would say nothing else."""

LEAST_WARM_UP_S = 180.0
"""Three idle timeouts: the table has filled and turned over."""

CATCH_UP_S = 30.0

# Old segments go quickly, so that the disk does not fill in hours. Kept is far more than the lag allowed.
BROKER = {"log.retention.check.interval.ms": "10000", "log.cleaner.backoff.ms": "5000"}
SEGMENTS = {"segment.bytes": str(32 * 2**20), "file.delete.delay.ms": "1000"}
DELETED = {**SEGMENTS, "retention.bytes": str(128 * 2**20)}
COMPACTED = {**SEGMENTS, "delete.retention.ms": "30000", "max.compaction.lag.ms": "60000"}


def main() -> int:
    """Measure the peak, soak, judge; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--guarantee", choices=["exactly_once", "at_least_once"], default="exactly_once")
    options = parser.parse_args()
    arguments = ["--processing-guarantee", options.guarantee]
    console = Console(stderr=True)
    with LocalBroker(properties=BROKER) as broker:
        console.print(f"peak, {options.guarantee}, from a backlog of {PEAK_CLICKS:,} clicks")
        with a_namespace(broker.bootstrap) as prefix:
            peak = drained_clicks_per_s(broker.bootstrap, prefix, PEAK_CLICKS, arguments)
        rate = peak * SHARE_OF_PEAK
        console.print(f"{peak:,.0f} clicks/s; soaking at {rate:,.0f} for {options.minutes:g} minutes")
        sent, samples, problems = soak(broker.bootstrap, rate, options.minutes * 60, arguments, console)
    warm_up_s = max(LEAST_WARM_UP_S, 0.2 * options.minutes * 60)
    figures, wrong = judge(samples, warm_up_s, rate)
    result = {
        "minutes": options.minutes,
        "guarantee": options.guarantee,
        "clicks": sent,
        "peak_clicks_per_s": round(peak),
        **figures,
        "warm_up_s": round(warm_up_s),
        "problems": problems + wrong,
    }
    sys.stdout.write(orjson.dumps(result).decode() + "\n")
    return 1 if result["problems"] else 0


def soak(
    bootstrap: str, rate: float, seconds: float, arguments: list[str], console: Console
) -> tuple[int, list[Sample], list[str]]:
    """Clicks at `rate` per second to a worker; how many were sent, what was seen, and what went wrong."""
    prefix = f"soak-{uuid.uuid4().hex[:8]}-"
    topics = prefixed_topics(prefix)
    specs = [_bounded(spec) for spec in topic_specs(topics, PARTITIONS, clicks_retention_ms=-1)]
    create_topics({"bootstrap.servers": bootstrap}, specs, replication=1)
    live_sessions = rate * (THINK_S + IDLE_TIMEOUT_S / CLICKS_PER_SESSION)
    table = ("--max-sessions", str(round(live_sessions * ROOM)))
    timeout = ("--idle-timeout-ms", str(round(IDLE_TIMEOUT_S * 1000)))
    with tempfile.TemporaryDirectory() as folder:
        announce_model(bootstrap, topics, Path(folder) / "model")
        with WorkerProcess(bootstrap, prefix, [*arguments, *table, *timeout]) as worker:
            worker.wait_ready("bench")
            command = [sys.executable, "-m", "tests.soak.produce", bootstrap, topics.clicks]
            command += map(str, (rate, seconds, THINK_S))
            with subprocess.Popen(command, stdout=subprocess.PIPE) as producer:
                try:
                    samples = _watch(worker, producer, console)
                finally:
                    producer.kill()  # has ended by itself when all is well
                said = producer.communicate()[0]
            if worker.process.poll() is not None:
                return 0, samples, [f"the worker ended amid the clicks: {worker.log()[-1_000:]}"]
            if producer.returncode != 0:
                return 0, samples, [f"the producer ended with {producer.returncode}"]
            sent = int(said)
            problems = _unanswered(worker, sent)
            if (exit_code := worker.terminate(60)) != 0:
                problems.append(f"the worker ended with {exit_code}: {worker.log()[-1_000:]}")
    return sent, samples, problems


def _bounded(spec: TopicSpec) -> TopicSpec:
    bounds = COMPACTED if spec.config["cleanup.policy"] == "compact" else DELETED
    return msgspec.structs.replace(spec, config={**spec.config, **bounds})


def _watch(worker: WorkerProcess, producer: "subprocess.Popen[bytes]", console: Console) -> list[Sample]:
    """Samples until the producer has sent all, or the worker has ended."""
    samples: list[Sample] = []
    started_s = time.monotonic()
    with Live(console=console, auto_refresh=False) as view:
        while producer.poll() is None and worker.process.poll() is None:
            try:
                samples.append(_sample(worker, time.monotonic() - started_s))
            except OSError:
                if worker.process.poll() is None:  # it lives, and does not answer within ten seconds
                    raise
                break
            view.update(_line(samples[-1]), refresh=True)
            due_s = started_s + len(samples) * SAMPLE_S
            while time.monotonic() < due_s and producer.poll() is None:
                time.sleep(0.1)
    return samples


def _sample(worker: WorkerProcess, at_s: float) -> Sample:
    sums = sums_by_sample(worker.get("/metrics")[1])
    return Sample(
        at_s=at_s,
        rss_mb=resident_mb(worker.process.pid),
        lag=sums.get("nextclick_consumer_lag", 0.0),
        sessions_live=sums["nextclick_sessions_live"],
        sessions_expired=sums["nextclick_sessions_expired_total"],
        sessions_evicted=sums["nextclick_sessions_evicted_total"],
        answered=sums["nextclick_recommendations_total"],
    )


def _line(sample: Sample) -> str:
    return (
        f"{sample.at_s / 60:5.1f} min  {sample.answered:,.0f} answered  {sample.rss_mb:,.1f} MB  "
        f"lag {sample.lag:,.0f}  {sample.sessions_live:,.0f} live, {sample.sessions_expired:,.0f} expired"
    )


def _unanswered(worker: WorkerProcess, sent: int) -> list[str]:
    """Wait for the last answers; one line if they do not come, or if there are too many."""
    deadline_s = time.monotonic() + CATCH_UP_S
    counted: dict[str, Any] = {}
    while time.monotonic() < deadline_s:
        counted = sums_by_sample(worker.get("/metrics")[1])
        if counted["nextclick_recommendations_total"] >= sent:
            break
        time.sleep(0.2)
    answered = counted["nextclick_recommendations_total"]
    return [] if answered == sent else [f"{answered:.0f} answers to {sent} clicks"]


if __name__ == "__main__":
    sys.exit(main())
