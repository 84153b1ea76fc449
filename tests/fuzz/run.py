"""`make fuzz`: hostile records through the decode path, and some of them through a broker to a worker.

The last line of standard output is one JSON object. The exit status is 1 when anything crashed, a record
is not accounted for, or memory grew; `problems` then says what.
"""

import argparse
import sys
import time

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.bench.run import a_broker, a_namespace
from tests.fuzz.examine import Tally
from tests.fuzz.hostile import Hostile, Record
from tests.fuzz.searched import search
from tests.fuzz.through_broker import BrokerFigures, through_broker
from tests.soak.observe import resident_mb

NOW_MS = 1_760_000_000_000
"""The clock of the decode path; fixed, so that a seed says all."""

SEARCHED_SHARE = 0.01
"""Of the records of the decode path, made up by hypothesis: a record of its takes 4 ms, one of ours 0.1."""

SHOWN_EVERY = 5_000

MAX_GROWTH_MB = 32.0
"""Of the worker, over the 60% of the records that follow the warm-up: half a kilobyte leaked per record would
come to 30 MB. What remains is the allocator's: buffers of megabytes and of bytes come and go in turn."""

MAX_DECODER_GROWTH_MB = 16.0
"""Of this process, over 80% of the records: 20 bytes per record of a million would already exceed it."""


def main(arguments: list[str] | None = None) -> int:
    """Run both parts; returns the exit status. Arguments are those of the command line unless given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000, help="through the decode path")
    parser.add_argument("--broker-records", type=int, default=100_000, help="through a broker, 0 for none")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    started_s = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tally, decoder_growth_mb = decoded(options.records, options.seed, bars)
        broker, death = brokered(options.broker_records, options.seed, bars)
    problems = found_problems(tally, options.records, decoder_growth_mb, broker) + death
    result = {
        "records": options.records,
        "searched": searched_of(options.records),
        "accepted": tally.accepted,
        "dead_lettered": tally.refused.total(),
        "crashed": tally.crashed + len(death),
        "rss_growth_mb": broker.rss_growth_mb if broker else decoder_growth_mb,
        "by_reason": {str(reason): count for reason, count in sorted(tally.refused.items())},
        "decoder_rss_growth_mb": decoder_growth_mb,
        "broker": broker and broker._asdict(),
        "seed": options.seed,
        "seconds": round(time.monotonic() - started_s),
        "problems": problems,
    }
    sys.stdout.write(orjson.dumps(result).decode() + "\n")
    return 1 if problems else 0


def decoded(records: int, seed: int, bars: Progress) -> tuple[Tally, float]:
    """Records through the decode path, at last those of hypothesis: what became of them, and by how many MB
    this process grew over the others.
    """
    hostile, tally = Hostile(seed, NOW_MS), Tally()
    task = bars.add_task("decode", total=records)
    ours = records - searched_of(records)
    warm_mb = resident_mb()
    for number in range(ours):
        tally.examine(number, hostile.record(number), NOW_MS)
        if number == ours // 5:
            warm_mb = resident_mb()
        if number % SHOWN_EVERY == 0:
            bars.update(task, completed=number)
    growth_mb = round(resident_mb() - warm_mb, 1)  # hypothesis' own memory is none of the decode path's
    bars.update(task, completed=ours)

    def examine(number: int, record: Record) -> None:
        tally.examine(ours + number, record, NOW_MS)
        bars.advance(task)

    search(searched_of(records), seed, NOW_MS, examine)
    return tally, growth_mb


def searched_of(records: int) -> int:
    """How many of so many records hypothesis makes up."""
    return int(records * SEARCHED_SHARE)


def brokered(records: int, seed: int, bars: Progress) -> tuple[BrokerFigures | None, list[str]]:
    """Records through a broker to a worker that a model serves: the figures, or how the worker ended."""
    if not records:
        return None, []
    task = bars.add_task("broker", total=records)
    with a_broker() as bootstrap, a_namespace(bootstrap) as prefix:
        try:
            figures = through_broker(
                bootstrap, prefix, seed, records, lambda handled: bars.update(task, completed=handled)
            )
        except (AssertionError, OSError) as error:  # OSError: it died while its metrics were asked for
            return None, [f"{type(error).__name__}: {error}"]
    return figures, []


def found_problems(
    tally: Tally, records: int, decoder_growth_mb: float, broker: BrokerFigures | None
) -> list[str]:
    """What must not be, in words; empty when all is well."""
    problems = list(tally.crashes)
    accounted = tally.accepted + tally.refused.total() + tally.crashed
    if accounted != records:
        problems.append(f"{accounted} of {records} records are accounted for")
    if decoder_growth_mb > MAX_DECODER_GROWTH_MB:
        problems.append(f"the decode path grew by {decoder_growth_mb} MB, {MAX_DECODER_GROWTH_MB} allowed")
    if broker is not None:
        problems += broker.problems
        if broker.rss_growth_mb > MAX_GROWTH_MB:
            problems.append(f"the worker grew by {broker.rss_growth_mb} MB, {MAX_GROWTH_MB} allowed")
    return problems


if __name__ == "__main__":
    sys.exit(main())
