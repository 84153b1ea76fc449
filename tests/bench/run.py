"""`make bench`: one table, and as the last line one JSON line.

The worker, the broker, the producer and the consumer share the machine, so compare ratios within one run.
"""

import argparse
import os
import platform
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import torch
from rich.console import Console
from rich.table import Table

from deploy.local_broker import LocalBroker
from deploy.topic_admin import create_topics
from schemas.topics import topic_specs
from tests.bench.backlog import resident_under_backlog
from tests.bench.drain import drained_clicks_per_s
from tests.bench.kernel import kernel_clicks_per_s
from tests.bench.latency import echo_latency_ms, latency_ms
from tests.bench.memory import bytes_per_session
from tests.bench.restart import ITEMS_PER_SESSION, ready_s
from tests.bench.workload import HIDDEN_SIZE, ITEMS, TOP_K, announce_model
from tests.support.worker_process import prefixed_topics

LATENCY_CLICKS_PER_S = 1_000
GUARANTEES = {"alo": "at_least_once", "eos": "exactly_once"}


def main() -> None:
    """Run all benchmarks against one broker."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clicks", type=int, default=200_000, help="clicks of the drain and of the kernel")
    parser.add_argument("--seconds", type=int, default=20, help="length of the latency run")
    parser.add_argument("--sessions", type=int, default=1_000_000, help="live sessions of restart and memory")
    parser.add_argument("--backlog", type=int, default=5_000_000, help="clicks that wait in the topic")
    parser.add_argument("--batch", type=int, default=512, help="clicks in a micro-batch at most")
    parser.add_argument("--threads", type=int, default=1, help="threads of one matrix product")
    options = parser.parse_args()
    arguments = ["--max-batch", str(options.batch), "--torch-threads", str(options.threads)]
    console = Console(stderr=True)
    with a_broker() as bootstrap:
        console.print(f"kernel: {options.clicks} clicks, batches of {options.batch}")
        kernel = kernel_clicks_per_s(options.clicks, options.batch, options.threads)
        drained: dict[str, float] = {}
        latency: dict[str, dict[str, float]] = {}
        for name, guarantee in GUARANTEES.items():
            flags = [*arguments, "--processing-guarantee", guarantee]
            console.print(f"drain, {guarantee}")
            with a_namespace(bootstrap) as prefix:
                drained[name] = drained_clicks_per_s(bootstrap, prefix, options.clicks, flags)
        for name, guarantee in GUARANTEES.items():
            flags = [*arguments, "--processing-guarantee", guarantee]
            console.print(f"latency at {LATENCY_CLICKS_PER_S} clicks/s, {guarantee}, {options.seconds} s")
            with a_namespace(bootstrap) as prefix:
                latency[name] = latency_ms(bootstrap, prefix, LATENCY_CLICKS_PER_S, options.seconds, flags)
        for name, guarantee in GUARANTEES.items():
            console.print(f"the same without a worker's work, {guarantee}, {options.seconds} s")
            with a_namespace(bootstrap) as prefix:
                latency[f"{name}_echo"] = echo_latency_ms(
                    bootstrap, prefix, LATENCY_CLICKS_PER_S, options.seconds, guarantee
                )
        console.print(f"restart with {options.sessions:,} live sessions")
        with a_namespace(bootstrap) as prefix:
            ready = ready_s(bootstrap, prefix, options.sessions, arguments)
        console.print(f"memory under a backlog of {options.backlog:,} clicks")
        with a_namespace(bootstrap) as prefix:
            backlog = resident_under_backlog(bootstrap, prefix, options.backlog, arguments)
    console.print(f"memory of {options.sessions:,} sessions")
    memory = bytes_per_session(options.sessions)
    result = {
        "kernel_clicks_per_s": round(kernel),
        "alo_clicks_per_s": round(drained["alo"]),
        "alo_over_kernel": round(drained["alo"] / kernel, 3),
        "eos_clicks_per_s": round(drained["eos"]),
        "eos_over_alo": round(drained["eos"] / drained["alo"], 3),
        "latency_ms": latency,
        "ready_s_1m_sessions" if options.sessions == 1_000_000 else "ready_s": ready,
        "bytes_per_session": memory,
        "backlog": backlog,
        "machine": machine(),
        "settings": {
            "clicks": options.clicks,
            "sessions": options.sessions,
            "items": len(ITEMS),
            "hidden_size": HIDDEN_SIZE,
            "top_k": TOP_K,
            "max_batch": options.batch,
            "torch_threads": options.threads,
            "latency_clicks_per_s": LATENCY_CLICKS_PER_S,
            "restart_clicks_per_session": ITEMS_PER_SESSION,
        },
    }
    show(result)
    print(orjson.dumps(result).decode())  # noqa: T201


def show(result: dict[str, object]) -> None:
    """Print the results as a table."""
    table = Table("benchmark", "value", title="nextclick")
    for name, value in result.items():
        table.add_row(name, str(value))
    Console().print(table)


@contextmanager
def a_broker() -> Iterator[str]:
    """The cluster of NEXTCLICK_BOOTSTRAP, else a broker of our own."""
    if given := os.environ.get("NEXTCLICK_BOOTSTRAP"):
        yield given
        return
    with LocalBroker() as broker:
        yield broker.bootstrap


@contextmanager
def a_namespace(bootstrap: str) -> Iterator[str]:
    """Topics of their own for one benchmark, with the model announced."""
    prefix = f"bench-{uuid.uuid4().hex[:8]}-"
    topics = prefixed_topics(prefix)
    create_topics({"bootstrap.servers": bootstrap}, topic_specs(topics, 4, -1), 1)
    with tempfile.TemporaryDirectory() as folder:
        announce_model(bootstrap, topics, Path(folder) / "model")
        yield prefix


def machine() -> str:
    """Processor, cores and versions, as far as the system tells."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        cpu = names[0] if names else cpu
    return f"{cpu}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}"


if __name__ == "__main__":
    main()
