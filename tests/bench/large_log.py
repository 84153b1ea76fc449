"""How time and memory grow with a click log: it is read from a file, then sessionised and split.

    python -m tests.bench.large_log --clicks 10000000 --formats parquet,csv

Prints one table and, as the last line, one JSON line with the figures of each format. Every step runs in a
process of its own; `peak_rss_mb` is the most that the process that reads and sessionises ever held.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import orjson
import polars as pl
from rich.console import Console
from rich.table import Table

CLICKS_PER_SESSION = 3.6
"""As in the whole yoochoose log: a geometric number, so 28% of the sessions are a single click."""
ITEMS = 200_000
ITEM_EXPONENT = 1.0
"""Of Zipf's law: the most clicked item gets 8% of the clicks, the middle one 0.00008%."""
MEAN_GAP_MS = 45_000
START_MS = 1_700_000_000_000
LOG_DAYS = 180
SEED = 11
FORMATS = ("parquet", "csv", "tsv")


def main() -> None:
    """Run one step, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clicks", type=int, default=10_000_000)
    parser.add_argument("--formats", default=",".join(FORMATS), help="some of parquet, csv and tsv")
    parser.add_argument("--folder", type=Path, help="for the log, up to 60 bytes a click; a temporary one")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write is not None:
        write_log(options.write, options.clicks)
    elif options.read is not None:
        sys.stdout.buffer.write(orjson.dumps(measure(options.read)))
    else:
        results = {name: run(name, options.clicks, options.folder) for name in options.formats.split(",")}
        show(results)
        print(orjson.dumps(results).decode())  # noqa: T201


def run(name: str, clicks: int, folder: Path | None) -> dict[str, float]:
    """Write a log in this format, measure, remove it."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="nextclick-") as there:
        path = Path(there) / f"log.{name}"
        _step("--write", path, clicks)
        found: dict[str, float] = {"clicks": clicks, "file_mb": round(path.stat().st_size / 1e6)}
        found.update(orjson.loads(_step("--read", path, clicks)))
        return found


def _step(step: str, path: Path, clicks: int) -> bytes:
    command = [sys.executable, "-m", "tests.bench.large_log", step, str(path), "--clicks", str(clicks)]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout


def measure(path: Path) -> dict[str, float]:
    """Read, sessionise and split a log in this process."""
    from training.log_file import read_click_log
    from training.sessions import TestShare, split_log

    before_mb = _peak_rss_mb()
    started_s = time.perf_counter()
    log = read_click_log(path, time.time_ns() // 1_000_000).clicks
    read_s, read_mb = time.perf_counter() - started_s, _peak_rss_mb()
    started_s = time.perf_counter()
    split = split_log(log, TestShare())
    return {
        "read_s": round(read_s, 2),
        "sessionise_s": round(time.perf_counter() - started_s, 2),
        "start_mb": round(before_mb),
        "read_peak_mb": round(read_mb),
        "peak_rss_mb": round(_peak_rss_mb()),
        "bytes_per_click": round((_peak_rss_mb() - before_mb) * 1e6 / len(log), 1),
        "sessions": len(split.train) + len(split.test),
        "session_ids": len(log.session_ids),
    }


def write_log(path: Path, clicks: int) -> None:
    """Write a log of so many clicks in the order of time, sessions mixed as they were going on."""
    rng = np.random.default_rng(SEED)
    lengths = rng.geometric(1 / CLICKS_PER_SESSION, int(clicks / CLICKS_PER_SESSION * 1.01) + 1_000)
    session = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)[:clicks]
    span_ms = LOG_DAYS * 86_400_000
    begin_ms = START_MS + rng.uniform(0, span_ms, len(lengths)).astype(np.int64)
    gap_ms = rng.exponential(MEAN_GAP_MS, clicks).astype(np.int32)
    first = np.flatnonzero(np.diff(session, prepend=-1))
    passed_ms = np.cumsum(gap_ms, dtype=np.int64)
    time_ms = begin_ms[session] + passed_ms - passed_ms[first][session]
    del passed_ms, gap_ms
    order = np.argsort(time_ms).astype(np.int32)
    session, time_ms = session[order], time_ms[order]
    del order
    chance = np.arange(1, ITEMS + 1) ** -ITEM_EXPONENT
    item = np.searchsorted(np.cumsum(chance) / chance.sum(), rng.random(clicks, np.float32)).astype(np.int32)
    table = pl.LazyFrame({"session_id": session, "item_id": item, "timestamp": time_ms}).select(
        # odd factors of a power of two: every number becomes another one, without any order
        session_id=("s" + ((pl.col("session_id").cast(pl.UInt64) * 0x9E3779B1) % 2**40).cast(pl.String)),
        item_id=((pl.col("item_id").cast(pl.UInt64) * 0x9E3779B1) % 2**32).cast(pl.String),
        timestamp="timestamp",
    )
    if path.suffix == ".parquet":
        table.sink_parquet(path)
    else:
        table.sink_csv(path, separator="\t" if path.suffix == ".tsv" else ",")


def show(results: dict[str, dict[str, float]]) -> None:
    """Print the results as a table."""
    table = Table("a large click log", *results)
    for name in next(iter(results.values())):
        table.add_row(name, *(f"{found[name]:,}" for found in results.values()))
    Console().print(table)


def _peak_rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    main()
