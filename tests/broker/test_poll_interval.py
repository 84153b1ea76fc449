"""`max.poll.interval.ms` is never at risk: whatever a worker waits for, it stays in its group meanwhile.

Kafka's five minutes are cut to six seconds here, and what is waited for takes longer than that. A member that
is not heard of in time loses its partitions, and another one would answer their clicks once more.
"""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from deploy.topic_admin import create_topics
from schemas.announcement import ModelAnnouncement, encode_announcement
from schemas.topics import TopicNames, topic_specs
from tests.broker.test_worker import NOW_MS, make_clicks
from tests.support.exactness import assert_histories_as_clicked, read_answers, wait_answered
from tests.support.kafka_io import send_clicks, send_records
from tests.support.open_transaction import open_transaction
from tests.support.scrape import metric
from tests.support.worker_process import WarmWorkerProcess

SOON_MISSED = ("--kafka", "max.poll.interval.ms=6000", "--kafka", "session.timeout.ms=6000")
"""As short as brokers allow by default."""

WAITED_S = 8.5
"""Longer than that, and shorter than what brokers allow the transaction of a batch."""

ADMIN_S = 30.0


def assert_stayed(worker: WarmWorkerProcess) -> None:
    """The group has not missed this worker, its client has not complained, and its loop turns."""
    log = worker.log()
    assert '"lost":true' not in log
    assert "MAXPOLL" not in log
    assert log.count('"partitions_came"') == 1, "it had to join again"
    assert worker.get("/healthz")[0] == 200


def test_a_worker_whose_restore_is_held_up_stays_in_its_group(
    bootstrap: str, topic_prefix: str, topics: TopicNames
) -> None:
    clicks = make_clicks(60, sessions=20, seed=91)
    send_clicks(bootstrap, topics.clicks, clicks)
    held_up = ExitStack()
    changelog = topics.session_histories
    held_up.enter_context(open_transaction(bootstrap, f"{topic_prefix}open", changelog, [0, 1, 2]))
    with held_up, WarmWorkerProcess(bootstrap, topic_prefix, SOON_MISSED) as worker:
        worker.wait_for_log("partitions_came")
        time.sleep(WAITED_S)
        assert worker.get("/readyz")[0] == 503, "it was not held up"
        assert not read_answers(bootstrap, topics)
        assert_stayed(worker)
        held_up.close()
        assert len(wait_answered(bootstrap, topics, clicks)) == len(clicks)
        assert_stayed(worker)
        assert worker.terminate() == 0


def test_a_worker_whose_model_folder_hangs_stays_in_its_group(
    bootstrap: str, topic_prefix: str, topics: TopicNames, tmp_path: Path
) -> None:
    """The folder lies on a disk that hangs, here a pipe that nobody writes to, and then gives rubbish."""
    manifest = tmp_path / "manifest.json"
    os.mkfifo(manifest)
    announcement = ModelAnnouncement(1, "slow", str(tmp_path), "0" * 64, NOW_MS)
    send_records(bootstrap, topics.models, [("slow", encode_announcement(announcement))])
    clicks = make_clicks(60, sessions=20, seed=92)
    send_clicks(bootstrap, topics.clicks, clicks)
    with WarmWorkerProcess(bootstrap, topic_prefix, SOON_MISSED) as worker:
        worker.wait_for_log("partition_restored")
        time.sleep(WAITED_S)
        assert worker.get("/readyz")[0] == 503, "it did not wait for the model"
        assert not read_answers(bootstrap, topics)
        assert_stayed(worker)
        manifest.write_bytes(b"rubbish")
        worker.wait_for_log("model_refused")
        assert len(wait_answered(bootstrap, topics, clicks)) == len(clicks)
        assert_stayed(worker)
        assert worker.terminate() == 0


@pytest.mark.parametrize(
    ("guarantee", "count"),
    [("exactly_once", 60), ("at_least_once", 12_000)],
    ids=["exactly_once", "at_least_once"],
)
def test_a_worker_whose_outputs_are_blocked_stays_in_its_group(
    bootstrap: str, topic_prefix: str, topics: TopicNames, admin: AdminClient, guarantee: str, count: int
) -> None:
    """The group's coordinator lives, but the recommendations topic is gone for a while.

    In a transaction any batch waits then; at least once, a worker waits when its queue of 10,000 is full.
    """
    clicks = make_clicks(count, sessions=200, seed=93)
    flags = (*SOON_MISSED, "--processing-guarantee", guarantee)
    with WarmWorkerProcess(bootstrap, topic_prefix, flags) as worker:
        worker.wait_ready()
        with topic_gone(bootstrap, admin, topics):
            send_clicks(bootstrap, topics.clicks, clicks)
            time.sleep(WAITED_S)
            assert metric(worker, "nextclick_clicks_total") < count, "it does not wait"
            assert_stayed(worker)
        assert len(wait_answered(bootstrap, topics, clicks)) == len(clicks)
        assert_stayed(worker)
        assert worker.terminate() == 0
    assert_histories_as_clicked(bootstrap, topics)


@contextmanager
def topic_gone(bootstrap: str, admin: AdminClient, topics: TopicNames) -> Iterator[None]:
    """Without the recommendations topic; made anew at the end."""
    name = topics.recommendations
    admin.delete_topics([name])[name].result(ADMIN_S)
    try:
        yield
    finally:
        specs = topic_specs(topics, partitions=3, clicks_retention_ms=-1)
        create_topics({"bootstrap.servers": bootstrap}, specs, replication=1)
