"""Clicks that are gone before they were read: refused with a reason, or skipped and counted."""

import signal
import time

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from schemas.click import Click, encode_click
from schemas.topics import TopicNames
from tests.broker.test_worker import NOW_MS
from tests.support.exactness import read_answers, wait_answered
from tests.support.partition_io import delete_before, produce_to
from tests.support.scrape import metric
from tests.support.worker_process import WarmWorkerProcess

SKIP = ("--on-lost-input", "skip")
FETCH_S = 0.5
"""A fetch that was under way when a worker was stopped has been answered by then."""


def send(bootstrap: str, topics: TopicNames, start: int, count: int) -> list[Click]:
    """Clicks of one session on partition 0."""
    clicks = [Click(f"e-{at}", "s", f"item-{at}", NOW_MS + at) for at in range(start, start + count)]
    for click in clicks:
        produce_to(bootstrap, topics.clicks, 0, click.session_id, encode_click(click))
    return clicks


def test_clicks_that_are_deleted_while_no_worker_runs(
    bootstrap: str, topic_prefix: str, topics: TopicNames, admin: AdminClient
) -> None:
    first = send(bootstrap, topics, 0, 5)
    with WarmWorkerProcess(bootstrap, topic_prefix) as worker:
        wait_answered(bootstrap, topics, first)
        assert worker.terminate() == 0
    send(bootstrap, topics, 5, 4)
    delete_before(admin, topics.clicks, 0, 9)
    last = send(bootstrap, topics, 9, 3)
    with WarmWorkerProcess(bootstrap, topic_prefix) as worker:
        assert worker.process.wait(60) == 1
        assert_told(worker.log(), "offset 5 is next, but the topic holds 9 to 12")
    with WarmWorkerProcess(bootstrap, topic_prefix, SKIP) as worker:
        answers = wait_answered(bootstrap, topics, [*first, *last])
        assert metric(worker, "nextclick_lost_input_records_total") == 4
        assert '"event":"input_lost"' in worker.log()
        assert worker.terminate() == 0
    assert len(answers) == 8


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_clicks_that_are_deleted_under_a_worker_that_lags(
    policy: str, bootstrap: str, topic_prefix: str, topics: TopicNames, admin: AdminClient
) -> None:
    first = send(bootstrap, topics, 0, 5)
    with WarmWorkerProcess(bootstrap, topic_prefix, ["--on-lost-input", policy]) as worker:
        wait_answered(bootstrap, topics, first)
        worker.process.send_signal(signal.SIGSTOP)
        time.sleep(FETCH_S)
        send(bootstrap, topics, 5, 4)
        delete_before(admin, topics.clicks, 0, 9)
        last = send(bootstrap, topics, 9, 3)
        worker.process.send_signal(signal.SIGCONT)
        if policy == "fail":
            assert worker.process.wait(30) == 1
            assert_told(worker.log(), "offset 5 is next, but the topic holds 9 to 12")
            assert len(read_answers(bootstrap, topics)) == 5
        else:
            assert len(wait_answered(bootstrap, topics, [*first, *last])) == 8
            assert metric(worker, "nextclick_lost_input_records_total") == 4
            assert worker.wait_ready()["partitions"] == [0, 1, 2]
            assert worker.terminate() == 0


def test_a_clicks_topic_that_is_made_anew_starts_from_its_beginning(
    bootstrap: str, topic_prefix: str, topics: TopicNames, admin: AdminClient
) -> None:
    """The group has no offsets there any more. Sessions go on; no new click is taken for an applied one."""
    first = send(bootstrap, topics, 0, 5)
    with WarmWorkerProcess(bootstrap, topic_prefix) as worker:
        wait_answered(bootstrap, topics, first)
        assert worker.terminate() == 0
    admin.delete_topics([topics.clicks])[topics.clicks].result(30)
    make_again(admin, topics.clicks)
    last = send(bootstrap, topics, 5, 3)
    with WarmWorkerProcess(bootstrap, topic_prefix, SKIP) as worker:
        answers = wait_answered(bootstrap, topics, [*first, *last])
        assert metric(worker, "nextclick_replayed_clicks_total") == 0
        assert metric(worker, "nextclick_clicks_total") == 3
        assert worker.terminate() == 0
    assert len(answers) == 8


def make_again(admin: AdminClient, topic: str) -> None:
    """Create a topic whose deletion may still be under way."""
    deadline_s = time.monotonic() + 30
    while topic in admin.list_topics(timeout=10).topics:
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
    admin.create_topics([NewTopic(topic, num_partitions=3, replication_factor=1)])[topic].result(30)


def assert_told(log: str, what: str) -> None:
    """The failure is one line that says what happened and what to do."""
    assert what in log
    assert "To go on with what is there: --on-lost-input skip" in log
    assert "Traceback" not in log
