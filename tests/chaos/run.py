"""`make chaos`: workers and broker are killed while clicks flow; then the outputs are held against those of a
run that nothing happened to.

    python -m tests.chaos.run --rounds 200 --seed 1 --guarantee exactly_once

The last line on standard output is one JSON line. Exit code 0 if nothing was lost, duplicated, different or
reordered, 1 if something was (worker logs are kept, and named), 3 if the run itself failed.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import msgspec
import orjson
from confluent_kafka import KafkaException
from rich.console import Console

from deploy.local_broker import BrokerUnavailableError, LocalBroker
from deploy.topic_admin import TopicError, create_topics
from schemas.announcement import ModelAnnouncement, encode_announcement
from schemas.model_artefact import sha256_hex
from schemas.model_manifest import MANIFEST_FILE
from schemas.topics import TopicNames, topic_specs
from tests.chaos import workload
from tests.chaos.director import STOP_S, ChaosError, Director
from tests.chaos.explain import explain
from tests.chaos.fleet import WorkerSpec, count_rebalances, start_worker
from tests.chaos.outcome import CommitProbe, UnreadableError, read_clicks, read_outcome
from tests.chaos.plan import steps
from tests.chaos.progress import ChaosView
from tests.chaos.sender import Sender, SendingFailedError
from tests.chaos.verdict import (
    Clicks,
    Guarantee,
    Outcome,
    Verdict,
    compare,
    why_reference_is_unfit,
)
from tests.support.artefacts import write_random_model
from tests.support.kafka_io import send_records
from tests.support.worker_process import prefixed_topics

EXIT_WRONG = 1
EXIT_RUN_FAILED = 3

SESSION_TIMEOUT_MS = 5_000
"""Kafka's default of 45 s would leave a dead worker's partitions alone for most of the run."""

TRANSACTION_TIMEOUT_MS = 5_000
REFERENCE_S = 600.0
HIDDEN_SIZE = 24
SESSIONS_SHOWN = 3

BROKER_PROPERTIES = {
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": str(SESSION_TIMEOUT_MS),
    "group.consumer.min.heartbeat.interval.ms": "500",
    "group.consumer.heartbeat.interval.ms": "500",
    # How often the broker looks for transactions whose worker has died; 10 s by default. Not much sooner: if
    # Kafka 4.3.0 was killed and ends a transaction before it is up again, the group's offsets stay pending.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "4000",
    "log.cleaner.backoff.ms": "1000",
}
CHANGELOG_CONFIG = {"segment.ms": "10000", "min.cleanable.dirty.ratio": "0.01"}
"""Compacted under the workers' hands: only closed segments are, and 7 days are long."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was asked for; `evidence` is where logs go."""

    rounds: int
    seed: int
    guarantee: Guarantee
    workers: int
    partitions: int
    rate: float
    group_protocol: str
    sabotage: str | None
    kafka: Sequence[str]
    broker_kills: bool
    evidence: Path


class ReferenceUnfitError(Exception):
    """The run that nothing happened to is wrong itself, so nothing can be held against it."""


RUN_FAILURES = (
    ChaosError,
    SendingFailedError,
    UnreadableError,
    ReferenceUnfitError,
    BrokerUnavailableError,
    TopicError,
    KafkaException,
)
"""They say that the run failed, and nothing of the worker; the last three are the machine's or Kafka's."""


def main() -> int:
    """Run it and say how it went; returns the exit code."""
    options, is_temporary = _options()
    console = Console(stderr=True)
    try:
        report, verdict = run(options, console)
    except RUN_FAILURES as error:
        console.print(f"the chaos run failed: {error}", markup=False, highlight=False, soft_wrap=True)
        console.print(f"logs and actions: {options.evidence}", markup=False, soft_wrap=True)
        return EXIT_RUN_FAILED
    except KeyboardInterrupt:
        console.print(f"interrupted; logs and actions: {options.evidence}", markup=False, soft_wrap=True)
        return 130
    print(orjson.dumps(report).decode(), flush=True)  # noqa: T201
    if not verdict.is_clean:
        return EXIT_WRONG
    if is_temporary:
        shutil.rmtree(options.evidence)
    return 0


def run(options: Options, console: Console) -> tuple[dict[str, object], Verdict]:
    """The whole run; returns the report for the JSON line, and the verdict.

    Raises:
        one of RUN_FAILURES: it could not be brought to its end, so it says nothing about what is lost.
    """
    data_dir = options.evidence / "broker"
    broker = LocalBroker(data_dir=data_dir, properties=BROKER_PROPERTIES)
    try:
        broker.start()
        return _run_on(broker, options, console)
    finally:
        broker.stop()
        if (data_dir / "broker.log").exists():
            shutil.copy(data_dir / "broker.log", options.evidence / "broker.log")
        shutil.rmtree(data_dir, ignore_errors=True)  # large, and what matters of it has been read


def _run_on(broker: LocalBroker, options: Options, console: Console) -> tuple[dict[str, object], Verdict]:
    bootstrap = broker.bootstrap
    topics, reference_topics = _make_topics(bootstrap, options.partitions)
    _announce_model(bootstrap, topics, options.evidence / "model", options.seed)
    spec = WorkerSpec(bootstrap, "chaos", topics, _arguments(options), options.sabotage, options.evidence)
    sender = Sender(bootstrap, topics.clicks, iter(workload.Simulator(options.seed)), options.rate)
    probe = CommitProbe(bootstrap, spec.group_id, topics.clicks, options.partitions)
    director = Director(spec, options.workers, broker, sender, probe, options.broker_kills)
    try:
        with ChaosView(console, options.rounds) as view:
            _play(director, sender, options, view)
            view.say("the same clicks again, with nothing happening")
        _run_reference(spec, reference_topics, options.partitions)
    finally:
        director.close()
        probe.close()
    console.print("reading what both left", markup=False)
    clicks = read_clicks(bootstrap, topics.clicks, time.time_ns() // 1_000_000)
    reference = read_outcome(bootstrap, reference_topics)
    if reasons := why_reference_is_unfit(clicks, reference, workload.IDLE_TIMEOUT_MS):
        raise ReferenceUnfitError("the reference run proves nothing: " + "; ".join(reasons))
    found = read_outcome(bootstrap, topics, options.guarantee)
    verdict = compare(clicks, reference, found, options.guarantee, workload.IDLE_TIMEOUT_MS)
    if not verdict.is_clean:
        for line in explain(verdict, clicks, reference, found):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        console.print(f"worker logs, broker.log and actions.jsonl: {options.evidence}", soft_wrap=True)
    return _report(options, director, sender, clicks, reference, found, verdict), verdict


def _play(director: Director, sender: Sender, options: Options, view: ChaosView) -> None:
    plan = steps(options.seed, SESSION_TIMEOUT_MS / 1000)
    director.start_all()
    sender.start()
    view.say("waiting for the first worker to take up its work")
    director.wait_until_lag(int(options.rate))
    for _ in range(options.rounds):
        director.play(next(plan), view.say)
        view.advance(sender.clicks)
    director.finish(view.say)


def _run_reference(spec: WorkerSpec, topics: TopicNames, partitions: int) -> None:
    """One worker alone over the same clicks, with nothing happening to it."""
    alone = spec._replace(group_id="reference", topics=topics, sabotage=None)
    probe = CommitProbe(spec.bootstrap, alone.group_id, topics.clicks, partitions)
    worker = start_worker(alone, "reference", None)
    try:
        deadline_s = time.monotonic() + REFERENCE_S
        while (found := probe.ask()) is None or found.lag > 0:
            if worker.process.poll() is not None:
                raise ChaosError(f"the reference run ended early: {worker.log_tail()}")
            if time.monotonic() > deadline_s:
                raise ChaosError(f"the reference run is not done: {found}\n{worker.log_tail()}")
            time.sleep(0.2)
        worker.ask_to_stop(STOP_S)
        if worker.process.wait(STOP_S) != 0:
            raise ChaosError(f"the reference run ended badly: {worker.log_tail()}")
    finally:
        probe.close()
        if worker.process.poll() is None:
            worker.kill()


def _make_topics(bootstrap: str, partitions: int) -> tuple[TopicNames, TopicNames]:
    """Topics of the run, and those of the reference run: its own outputs, the same clicks and models."""
    topics = prefixed_topics("chaos-")
    reference = msgspec.structs.replace(
        prefixed_topics("reference-"), clicks=topics.clicks, models=topics.models
    )
    for names in (topics, reference):
        specs = [
            msgspec.structs.replace(spec, config={**spec.config, **CHANGELOG_CONFIG})
            if spec.name == names.session_histories
            else spec
            for spec in topic_specs(names, partitions, clicks_retention_ms=-1)
        ]
        create_topics({"bootstrap.servers": bootstrap}, specs, replication=1)
    return topics, reference


def _announce_model(bootstrap: str, topics: TopicNames, folder: Path, seed: int) -> None:
    write_random_model(folder, list(workload.ITEMS), HIDDEN_SIZE, seed, "chaos")
    announcement = ModelAnnouncement(
        format_version=1,
        model_version="chaos",
        uri=str(folder),
        manifest_sha256=sha256_hex((folder / MANIFEST_FILE).read_bytes()),
        announced_at_ms=workload.START_MS,
    )
    send_records(bootstrap, topics.models, [("chaos", encode_announcement(announcement))])


def _arguments(options: Options) -> list[str]:
    """Flags of every worker: as operators would set them, but quicker to miss each other."""
    kafka = {"transaction.timeout.ms": TRANSACTION_TIMEOUT_MS, "reconnect.backoff.max.ms": 1_000}
    if options.group_protocol == "classic":  # the newer protocol has it on the broker
        kafka |= {"session.timeout.ms": SESSION_TIMEOUT_MS, "heartbeat.interval.ms": 500}
    return [
        *("--processing-guarantee", options.guarantee),
        *("--group-protocol", options.group_protocol),
        *("--idle-timeout-ms", str(workload.IDLE_TIMEOUT_MS)),
        *(part for key, value in kafka.items() for part in ("--kafka", f"{key}={value}")),
        *(part for entry in options.kafka for part in ("--kafka", entry)),
    ]


def _report(
    options: Options,
    director: Director,
    sender: Sender,
    clicks: Clicks,
    reference: Outcome,
    found: Outcome,
    verdict: Verdict,
) -> dict[str, object]:
    counts = director.counts
    return {
        "rounds": counts["rounds"],
        "kills": counts["kills"],
        "rebalances": count_rebalances(options.evidence),
        "broker_restarts": counts["broker_restarts"],
        "clicks": len(clicks.offsets),
        "lost": verdict.lost,
        "duplicated": verdict.duplicated,
        "different": verdict.different,
        "reordered": verdict.reordered,
        "seed": options.seed,
        "guarantee": options.guarantee,
        "group_protocol": options.group_protocol,
        "workers": options.workers,
        "zombies": counts["zombies"],
        "added": counts["added"],
        "removed": counts["removed"],
        "restarts_on_75": counts["restarts_on_75"],
        "starts_without_broker": counts["starts_without_broker"],
        "pauses": counts["pauses"],
        "sender_stalls": sender.stalls,
        "sessions": len(clicks.sessions),
        "live_sessions": verdict.live_sessions,
        "left_behind": verdict.left_behind,
        "dead_letters": len(reference.letters),
        "second_answers": verdict.second_answers,
        "answered_later": verdict.answered_later,
        "late_records": found.late,
        "largest_score_difference": round(verdict.largest_score_difference, 7),
        **({"sabotage": options.sabotage} if options.sabotage else {}),
    }


def _options() -> tuple[Options, bool]:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--guarantee", choices=get_args(Guarantee), default="exactly_once")
    parser.add_argument(
        "--workers", type=int, default=3, help="processes at most; two at least, or one to sabotage"
    )
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--rate", type=float, default=400.0, help="clicks per second")
    parser.add_argument("--group-protocol", choices=("classic", "consumer"), default="classic")
    parser.add_argument(
        "--sabotage", default=None, help="break the worker on purpose: see tests.chaos.sabotage"
    )
    parser.add_argument(
        "--kafka", action="append", default=[], metavar="KEY=VALUE", help="for the workers: debug=eos"
    )
    parser.add_argument(
        "--broker-kills",
        action="store_true",
        help="also SIGKILL the broker: a single Kafka 4.3.0 now and then does not come back with its groups",
    )
    parser.add_argument(
        "--evidence", type=Path, default=None, help="folder for logs, kept; default: a temporary one"
    )
    given = parser.parse_args()
    if given.workers < (1 if given.sabotage else 2) or given.rounds < 1:
        parser.error("two workers and one round are the least that shows anything")
    evidence = given.evidence or Path(tempfile.mkdtemp(prefix="nextclick-chaos-"))
    evidence.mkdir(parents=True, exist_ok=True)
    fields = {**vars(given), "evidence": evidence.absolute()}
    return Options(**fields), given.evidence is None


if __name__ == "__main__":
    sys.exit(main())
