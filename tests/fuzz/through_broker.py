"""Hostile records through a real broker to a worker process, and an account of every one of them."""

import time
from collections.abc import Callable
from typing import NamedTuple

from confluent_kafka import KafkaError, Message, Producer

from schemas.click import Reason
from schemas.dead_letter import Letter
from schemas.recommendation import decode_recommendation
from schemas.topics import TopicNames
from tests.fuzz.account import Counted, Place, Sent, problems_of, verdict_on
from tests.fuzz.hostile import LARGEST_BYTES, Hostile, Record
from tests.soak.observe import by_label, resident_mb, sums_by_sample
from tests.support.kafka_io import read_records
from tests.support.worker_process import WorkerProcess, prefixed_topics

WORKER_ARGUMENTS = (
    *("--dead-letter-max-ratio", "1"),  # most of it is bad, on purpose
    # Bounds that the first records reach, so that what grows later is no table that fills.
    *("--max-sessions", "1000", "--max-items", "12000"),
)

WARM_UP_SHARE = 0.4
"""Of the records: until then tables, buffers and the allocator's pools fill."""

PORTIONS = 20
"""Sent and handled one after the other; memory is looked at after each."""

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")

CLOCK_SLACK_MS = 3_600_000
"""A record that an hour turns from bad to good says nothing here: the worker reads it later than we do."""

PORTION_TIMEOUT_S = 120.0

DEAD = "nextclick_dead_letters_total"
APPLIED = "nextclick_clicks_total"
DUPLICATE = "nextclick_duplicate_clicks_total"
ANSWERED = "nextclick_recommendations_total"


class BrokerFigures(NamedTuple):
    """What came of a run; `problems` is empty when every record is accounted for."""

    records: int
    applied: int
    duplicates: int
    answered: int
    dead_lettered: int
    by_reason: dict[str, int]
    rss_mb: float
    rss_growth_mb: float
    records_per_s: float
    problems: list[str]


class Feed:
    """Sends hostile records, with every compression codec in turn, and remembers where each one lies."""

    def __init__(self, bootstrap: str, topic: str, seed: int) -> None:
        self.now_ms = int(time.time() * 1000)
        self.places: dict[Place, int] = {}
        self._topic = topic
        self._hostile = Hostile(seed, self.now_ms)
        self._next = 0
        self._errors: list[KafkaError] = []
        self._producers = [
            Producer(
                {
                    "bootstrap.servers": bootstrap,
                    "partitioner": "murmur2_random",
                    "linger.ms": 5,
                    "compression.type": codec,
                    "message.max.bytes": LARGEST_BYTES * 2,
                    # So that no batch is larger than what brokers take, but for a record that unfolds.
                    "batch.size": 500_000,
                }
            )
            for codec in CODECS
        ]

    def send(self, count: int) -> None:
        """Send so many further records and wait until the broker has them all."""
        sent = 0
        while sent < count:
            number, self._next = self._next, self._next + 1
            record = self.record(number)
            if verdict_on(record, self.now_ms) == verdict_on(record, self.now_ms + CLOCK_SLACK_MS):
                self._produce(number, record)
                sent += 1
        for producer in self._producers:
            assert producer.flush(60) == 0, "the broker takes no records"
        assert not self._errors, f"the broker refused a record: {self._errors[0].str()}"

    def record(self, number: int) -> Record:
        """What was sent under this number."""
        return self._hostile.record(number)

    def _produce(self, number: int, record: Record) -> None:
        compressing = CODECS[1:] if record.kind == "unfolding" else CODECS
        producer = self._producers[CODECS.index(compressing[number % len(compressing)])]

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self._errors.append(error)
            else:
                self.places[message.partition() or 0, message.offset() or 0] = number

        producer.produce(self._topic, record.value, record.key, on_delivery=delivered, headers=record.headers)
        producer.poll(0)


def through_broker(
    bootstrap: str, prefix: str, seed: int, count: int, report: Callable[[int], None] = lambda _: None
) -> BrokerFigures:
    """Send `count` hostile records to a worker on the topics of `prefix` and account for each.

    Args:
        bootstrap: brokers.
        prefix: of topics that exist and are empty, but for the models topic.
        seed: of the records.
        count: how many.
        report: told how many have been handled so far.

    Raises:
        AssertionError: the worker ended, or did not handle a portion in time.
    """
    topics = prefixed_topics(prefix)
    feed = Feed(bootstrap, topics.clicks, seed)
    resident: list[float] = []
    with WorkerProcess(bootstrap, prefix, WORKER_ARGUMENTS) as worker:
        worker.wait_ready()
        started_s = time.monotonic()
        for portion in range(1, PORTIONS + 1):
            wanted = count * portion // PORTIONS
            feed.send(wanted - len(feed.places))
            _wait_until_handled(worker, wanted)
            resident.append(resident_mb(worker.process.pid))
            report(wanted)
        took_s = time.monotonic() - started_s
        metrics = worker.get("/metrics")[1]
        problems = [] if worker.get("/healthz")[0] == 200 else ["the worker is not healthy at the end"]
        exit_code = worker.terminate(60)
        if exit_code != 0:
            problems.append(f"the worker ended with {exit_code}: {worker.log()[-500:]}")
    sums = sums_by_sample(metrics)
    problems += _problems(bootstrap, topics, feed, sums)
    return BrokerFigures(
        records=len(feed.places),
        applied=int(sums[APPLIED]),
        duplicates=int(sums.get(DUPLICATE, 0)),
        answered=int(sums[ANSWERED]),
        dead_lettered=int(sums[DEAD]),
        by_reason={reason: int(value) for reason, value in by_label(metrics, DEAD, "reason").items()},
        rss_mb=round(resident[-1], 1),
        rss_growth_mb=round(resident[-1] - resident[int(PORTIONS * WARM_UP_SHARE) - 1], 1),
        records_per_s=round(count / took_s),
        problems=problems,
    )


def _wait_until_handled(worker: WorkerProcess, count: int) -> None:
    deadline_s = time.monotonic() + PORTION_TIMEOUT_S
    while True:
        assert worker.process.poll() is None, f"the worker died:\n{worker.log()[-3_000:]}"
        sums = sums_by_sample(worker.get("/metrics")[1])
        handled = sums[APPLIED] + sums[DEAD] + sums.get(DUPLICATE, 0)
        if handled >= count:
            return
        assert time.monotonic() < deadline_s, f"{handled:.0f} of {count} records handled, then no more"
        time.sleep(0.1)


def _problems(bootstrap: str, topics: TopicNames, feed: Feed, sums: dict[str, float]) -> list[str]:
    sent = Sent(feed.places, feed.record, feed.now_ms)
    bad = sum(isinstance(verdict, Reason) for verdict in sent.verdicts.values())
    answers = read_records(bootstrap, topics.recommendations, int(sums[ANSWERED]))
    letters = read_records(bootstrap, topics.dead_letters, bad)
    counted = Counted(int(sums[APPLIED]), int(sums.get(DUPLICATE, 0)), int(sums[DEAD]))
    event_ids = [decode_recommendation(record.value() or b"").event_id for record in answers]
    return problems_of(sent, counted, event_ids, [_letter(letter) for letter in letters], topics.clicks)


def _letter(message: Message) -> Letter:
    headers = message.headers()
    return Letter(message.key(), message.value(), headers if isinstance(headers, list) else [])
