"""Transactions that fail and workers that are thought dead: each click is answered once all the same."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from msgspec.structs import replace

from deploy.local_broker import LocalBroker
from schemas.click import Click
from schemas.topics import TopicNames
from tests.broker.test_worker import ITEMS, announce, make_clicks
from tests.support.artefacts import write_random_model
from tests.support.crashing_process import CrashingProcess
from tests.support.exactness import ANSWER_S, assert_as_if_uninterrupted, read_answers, wait_answered
from tests.support.kafka_io import send_clicks
from tests.support.own_broker import admin, bootstrap, own_broker, stopped
from tests.support.scrape import lag_labels, metric
from tests.support.worker_process import WarmWorkerProcess

__all__ = ["admin", "bootstrap", "own_broker"]

SOON_MISSED = ("--kafka", "session.timeout.ms=6000", "--kafka", "heartbeat.interval.ms=500")
SOON_ABORTED = ("--kafka", "transaction.timeout.ms=2000")
EXIT_RESTART = 75


@pytest.fixture
def model(bootstrap: str, topics: TopicNames, tmp_path: Path) -> Path:
    """The folder of an announced model."""
    folder = write_random_model(tmp_path / "m1", ITEMS, hidden_size=32, seed=1, version="m1")
    announce(bootstrap, topics, folder, "m1")
    return folder


def with_cues(clicks: list[Click], *cues: str) -> list[Click]:
    """The clicks, spread over them those whose event ids are these cues; one session, hence one partition."""
    scripted = list(clicks)
    for number, cue in enumerate(cues, 1):
        at = number * len(clicks) // (len(cues) + 1)
        scripted[at] = replace(clicks[at], event_id=cue, session_id="s-scripted")
    return scripted


def test_a_worker_whose_transaction_timed_out_asks_to_be_restarted(
    bootstrap: str, topic_prefix: str, topics: TopicNames, model: Path, tmp_path: Path
) -> None:
    """It stands still within a batch for longer than transactions may take, and the broker aborts it."""
    cues = ["freeze-between-produce-and-offsets", "freeze-between-offsets-and-commit"]
    clicks = with_cues(make_clicks(600, sessions=60, seed=41), *cues)
    flags = ("--instance-id", "one", "--max-batch", "32", *SOON_ABORTED)
    send_clicks(bootstrap, topics.clicks, clicks)
    for cue in cues:
        with CrashingProcess(bootstrap, topic_prefix, tmp_path, flags) as worker:
            worker.wait_fired(cue)
            time.sleep(3)
            worker.thaw()
            assert worker.process.wait(30) == EXIT_RESTART, worker.log()
            assert "Traceback" not in worker.log()
    with WarmWorkerProcess(bootstrap, topic_prefix, flags) as worker:
        worker.wait_ready("m1")
        wait_answered(bootstrap, topics, clicks)
        assert worker.terminate() == 0
    assert_as_if_uninterrupted(bootstrap, topics, clicks, model)


def test_a_zombie_undoes_its_batch_and_drops_what_is_no_longer_its_own(
    bootstrap: str, topic_prefix: str, topics: TopicNames, model: Path, tmp_path: Path
) -> None:
    """It stands still within a batch until the group has given its partitions away; the group refuses it."""
    clicks = with_cues(make_clicks(900, sessions=60, seed=42), "freeze-between-produce-and-offsets")
    flags = ("--max-batch", "32", *SOON_MISSED, "--kafka", "transaction.timeout.ms=60000")
    send_clicks(bootstrap, topics.clicks, clicks[:600])
    with CrashingProcess(bootstrap, topic_prefix, tmp_path, flags) as zombie, ExitStack() as ends_first:
        zombie.wait_fired("freeze-between-produce-and-offsets")
        heir = ends_first.enter_context(WarmWorkerProcess(bootstrap, topic_prefix, flags))
        heir.wait_for_log('"partitions":[0,1,2],"event":"partitions_came"')
        zombie.thaw()
        zombie.wait_for_metric("nextclick_aborted_batches_total", 1, timeout_s=30)
        assert '"partitions":[0,1,2],"lost":true' in zombie.wait_for_log("partitions_left")
        wait_answered(bootstrap, topics, clicks[:600])
        send_clicks(bootstrap, topics.clicks, clicks[600:])
        wait_answered(bootstrap, topics, clicks)
        wait_shared((zombie, heir), partitions=3, sessions=len({click.session_id for click in clicks}))
        assert zombie.terminate() == heir.terminate() == 0
    assert_as_if_uninterrupted(bootstrap, topics, clicks, model)


def wait_shared(workers: Sequence[WarmWorkerProcess], partitions: int, sessions: int) -> None:
    """Wait until all of these are live with one worker each; gauges are a second old, partitions may move."""
    deadline_s = time.monotonic() + 30
    while True:
        lags = [lag_labels(worker) for worker in workers]
        live = [metric(worker, "nextclick_sessions_live") for worker in workers]
        if sum(map(len, lags)) == partitions and sum(live) == sessions:
            return
        assert time.monotonic() < deadline_s, f"partitions {lags}, sessions {live}"
        time.sleep(0.3)


def test_a_zombie_whose_transaction_was_aborted_for_it_is_fenced(
    bootstrap: str, topic_prefix: str, topics: TopicNames, model: Path, tmp_path: Path
) -> None:
    """Another worker has answered all that it had in hand before it wakes up."""
    clicks = with_cues(make_clicks(600, sessions=60, seed=43), "freeze-between-offsets-and-commit")
    flags = ("--max-batch", "32", *SOON_MISSED, *SOON_ABORTED)
    send_clicks(bootstrap, topics.clicks, clicks)
    with CrashingProcess(bootstrap, topic_prefix, tmp_path, flags) as zombie:
        zombie.wait_fired("freeze-between-offsets-and-commit")
        with WarmWorkerProcess(bootstrap, topic_prefix, flags) as heir:
            wait_answered(bootstrap, topics, clicks)
            zombie.thaw()
            assert zombie.process.wait(30) == EXIT_RESTART, zombie.log()
            assert heir.terminate() == 0
    assert_as_if_uninterrupted(bootstrap, topics, clicks, model)


def test_a_batch_whose_outputs_cannot_be_sent_is_undone_and_done_again(
    own_broker: LocalBroker, topic_prefix: str, topics: TopicNames, model: Path, tmp_path: Path
) -> None:
    """The broker hangs for longer than the producer tries, but not for longer than transactions may take."""
    bootstrap = own_broker.bootstrap
    clicks = with_cues(make_clicks(600, sessions=60, seed=45), "freeze-before-produce")
    patience = ("--kafka", "message.timeout.ms=1000", "--kafka", "transaction.timeout.ms=60000")
    flags = ("--instance-id", "one", "--max-batch", "16", *patience)
    send_clicks(bootstrap, topics.clicks, clicks)
    with CrashingProcess(bootstrap, topic_prefix, tmp_path, flags) as worker:
        worker.wait_fired("freeze-before-produce")
        with stopped(own_broker):
            worker.thaw()
            time.sleep(4)
        worker.wait_for_metric("nextclick_aborted_batches_total", 1, timeout_s=30)
        wait_answered_or_ended(worker, bootstrap, topics, clicks)
    with WarmWorkerProcess(bootstrap, topic_prefix, flags) as worker:
        worker.wait_ready("m1")
        wait_answered(bootstrap, topics, clicks)
        assert worker.terminate() == 0
    assert_as_if_uninterrupted(bootstrap, topics, clicks, model)


def wait_answered_or_ended(
    worker: WarmWorkerProcess, bootstrap: str, topics: TopicNames, clicks: Sequence[Click]
) -> None:
    """Wait until all is answered; or until the worker, after its client hung, asks to be restarted.

    Now and then librdkafka does not come back from a call once it was told of a cluster without brokers,
    which a single broker that was hung for seconds tells when it wakes up (its issue 5511).
    """
    deadline_s = time.monotonic() + ANSWER_S
    while worker.process.poll() is None and len(read_answers(bootstrap, topics)) < len(clicks):
        assert time.monotonic() < deadline_s, f"neither answered nor ended:\n{worker.log()}"
        time.sleep(0.5)
    assert worker.process.poll() in {None, EXIT_RESTART}, worker.log()


def test_a_broker_that_hangs_for_longer_than_a_transaction_may_take(
    own_broker: LocalBroker, topic_prefix: str, topics: TopicNames, model: Path
) -> None:
    """The worker goes on by itself, or says that it has to be restarted; nothing is lost or doubled."""
    bootstrap = own_broker.bootstrap
    clicks = make_clicks(6_000, sessions=600, seed=44)
    flags = ("--instance-id", "one", "--max-batch", "16", "--kafka", "transaction.timeout.ms=3000")
    with WarmWorkerProcess(bootstrap, topic_prefix, flags) as worker:
        worker.wait_ready("m1")
        send_clicks(bootstrap, topics.clicks, clicks)
        worker.wait_for_metric("nextclick_clicks_total", 100)
        with stopped(own_broker):
            assert metric(worker, "nextclick_clicks_total") < len(clicks), "too late to say anything"
            time.sleep(5)
        wait_answered_or_ended(worker, bootstrap, topics, clicks)
    with WarmWorkerProcess(bootstrap, topic_prefix, flags) as worker:
        worker.wait_ready("m1")
        wait_answered(bootstrap, topics, clicks)
        assert worker.terminate() == 0
    assert_as_if_uninterrupted(bootstrap, topics, clicks, model)
