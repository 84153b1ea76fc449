"""SIGTERM at the worst moments: the worker ends within ten seconds, and nothing is lost or doubled."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from confluent_kafka import Producer

from deploy.local_broker import LocalBroker
from schemas.announcement import ModelAnnouncement, encode_announcement
from schemas.click import Click
from schemas.session_history import FORMAT_VERSION, SessionHistory, encode_session_history
from schemas.topics import TopicNames
from tests.broker.test_worker import ITEMS, NOW_MS, announce, make_clicks
from tests.support.artefacts import write_random_model
from tests.support.exactness import (
    assert_as_if_uninterrupted,
    assert_histories_as_clicked,
    read_answers,
    wait_answered,
)
from tests.support.kafka_io import send_clicks, send_records
from tests.support.own_broker import RESTARTED, admin, bootstrap, gone, running_broker, stopped
from tests.support.scrape import metric
from tests.support.worker_process import WorkerProcess

__all__ = ["admin", "bootstrap"]

ENDS_WITHIN_S = 10.0
RETURNS_AT_ONCE = ("--instance-id", "one")
BACKLOG = {"exactly_once": 3_000, "at_least_once": 12_000}
"""Clicks: more than two workers get done before the broker is away."""

BALLAST = 60_000
"""Sessions on the changelog: more than the restorer reads ahead, some seconds of restoring."""


@pytest.fixture(scope="module")
def own_broker() -> Iterator[LocalBroker]:
    """A broker for these tests, that stands a restart."""
    with running_broker(RESTARTED) as broker:
        yield broker


@pytest.fixture
def model(bootstrap: str, topics: TopicNames, tmp_path: Path) -> Path:
    """The folder of an announced model."""
    folder = write_random_model(tmp_path / "m1", ITEMS, hidden_size=32, seed=1, version="m1")
    announce(bootstrap, topics, folder, "m1")
    return folder


def assert_rest_is_answered(
    bootstrap: str, prefix: str, topics: TopicNames, clicks: Sequence[Click], model: Path
) -> None:
    """The next worker leaves what an uninterrupted one would have left."""
    with WorkerProcess(bootstrap, prefix, RETURNS_AT_ONCE) as worker:
        worker.wait_ready("m1")
        wait_answered(bootstrap, topics, clicks)
        assert worker.terminate() == 0
    assert_as_if_uninterrupted(bootstrap, topics, clicks, model)


def test_sigterm_in_the_middle_of_a_backlog(
    bootstrap: str, topic_prefix: str, topics: TopicNames, model: Path
) -> None:
    clicks = make_clicks(2_000, sessions=200, seed=71)
    send_clicks(bootstrap, topics.clicks, clicks)
    with WorkerProcess(bootstrap, topic_prefix, [*RETURNS_AT_ONCE, "--max-batch", "4"]) as worker:
        worker.wait_for_metric("nextclick_clicks_total", 1)
        assert worker.terminate(ENDS_WITHIN_S) == 0
    assert 0 < len(read_answers(bootstrap, topics)) < len(clicks), "too late to say anything"
    assert_rest_is_answered(bootstrap, topic_prefix, topics, clicks, model)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_worker_has_started(
    bootstrap: str, topic_prefix: str, topics: TopicNames, tmp_path: Path, number: int
) -> None:
    """The cache of compiled code is empty, so it is busy for some seconds."""
    environment = {"NUMBA_CACHE_DIR": str(tmp_path)}
    with WorkerProcess(bootstrap, topic_prefix, environment=environment) as worker:
        worker.wait_for_log('"compiling"')
        worker.process.send_signal(number)
        assert worker.process.wait(ENDS_WITHIN_S) == 0
        assert '"before":"it had started"' in worker.log()
        assert '"compiled"' not in worker.log(), "too late to say anything"


def test_sigterm_while_sessions_are_restored(bootstrap: str, topic_prefix: str, topics: TopicNames) -> None:
    """The changelog is large, and what is read ahead of the worker waits in a full queue."""
    write_ballast(bootstrap, topics.session_histories)
    with WorkerProcess(bootstrap, topic_prefix) as worker:
        worker.wait_for_metric("nextclick_restored_records_total", 1)
        status, body = worker.get("/readyz")
        assert status == 503
        assert 0 <= json.loads(body)["restored_share"] < 1
        assert worker.terminate(ENDS_WITHIN_S) == 0
        assert '"partition":0' not in worker.log(), "too late to say anything"
    click = Click("e", "ballast-7", "item-2", NOW_MS)
    with WorkerProcess(bootstrap, topic_prefix) as worker:
        worker.wait_ready()
        worker.wait_for_metric("nextclick_sessions_live", BALLAST)
        send_clicks(bootstrap, topics.clicks, [click])
        wait_answered(bootstrap, topics, [click])
        assert metric(worker, "nextclick_sessions_live") in {BALLAST, BALLAST + 1}
        assert worker.terminate() == 0


def test_sigterm_while_the_first_model_is_loaded(
    bootstrap: str, topic_prefix: str, topics: TopicNames, tmp_path: Path
) -> None:
    """The announced folder lies on a disk that hangs: here a pipe that nobody writes to."""
    os.mkfifo(tmp_path / "manifest.json")
    announcement = ModelAnnouncement(1, "slow", str(tmp_path), "0" * 64, NOW_MS)
    send_records(bootstrap, topics.models, [("slow", encode_announcement(announcement))])
    clicks = make_clicks(50, sessions=5, seed=72)
    send_clicks(bootstrap, topics.clicks, clicks)
    with WorkerProcess(bootstrap, topic_prefix) as worker:
        worker.wait_for_log("partition_restored")
        time.sleep(0.5)
        assert worker.get("/readyz")[0] == 503
        assert worker.terminate(ENDS_WITHIN_S) == 0
    assert not read_answers(bootstrap, topics)


@pytest.mark.parametrize(
    ("guarantee", "away", "second"),
    [
        ("exactly_once", stopped, signal.SIGTERM),
        ("exactly_once", gone, None),
        ("at_least_once", stopped, signal.SIGINT),
        ("at_least_once", gone, None),
    ],
    ids=["exactly_once-hung", "exactly_once-gone", "at_least_once-hung", "at_least_once-gone"],
)
def test_sigterm_while_the_broker_is_away(
    own_broker: LocalBroker,
    topic_prefix: str,
    topics: TopicNames,
    model: Path,
    guarantee: str,
    away: Callable[[LocalBroker], AbstractContextManager[None]],
    second: signal.Signals | None,
) -> None:
    """With outputs on their way. Asked once a worker waits for a while, asked twice it ends at once."""
    bootstrap = own_broker.bootstrap
    clicks = make_clicks(BACKLOG[guarantee], sessions=300, seed=73)
    of_guarantee = (*RETURNS_AT_ONCE, "--processing-guarantee", guarantee)
    flags = (*of_guarantee, "--max-batch", "4")
    send_clicks(bootstrap, topics.clicks, clicks)
    with WorkerProcess(bootstrap, topic_prefix, flags) as worker:
        worker.wait_for_metric("nextclick_clicks_total", 1)
        with away(own_broker):
            assert worker.terminate(ENDS_WITHIN_S) == 0
    if second is not None:
        with WorkerProcess(bootstrap, topic_prefix, flags) as worker:
            worker.wait_for_metric("nextclick_clicks_total", 1)
            with away(own_broker):
                worker.process.terminate()
                time.sleep(0.5)
                assert worker.process.poll() is None
                worker.process.send_signal(second)
                assert worker.process.wait(ENDS_WITHIN_S) == 128 + second
    assert len({answer.event_id for answer in read_answers(bootstrap, topics)}) < len(clicks), "too late"
    if guarantee == "exactly_once":
        assert_rest_is_answered(bootstrap, topic_prefix, topics, clicks, model)
        return
    with WorkerProcess(bootstrap, topic_prefix, of_guarantee) as worker:
        wait_answered(bootstrap, topics, clicks)
        assert worker.terminate() == 0
    assert_histories_as_clicked(bootstrap, topics)


def write_ballast(bootstrap: str, topic: str) -> None:
    """Live sessions on partition 0 of the changelog."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "compression.type": "lz4"})
    for number in range(BALLAST):
        history = SessionHistory(FORMAT_VERSION, f"ballast-{number}", ITEMS[:32], NOW_MS, 0, 0)
        producer.produce(topic, encode_session_history(history), history.session_id, 0)
        if number % 10_000 == 0:
            producer.flush(30)
    assert producer.flush(30) == 0
