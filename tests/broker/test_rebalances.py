"""Members come, go, and come back: sessions move with their partitions, and only with those that move."""

import time
from pathlib import Path

import pytest

from schemas.topics import TopicNames
from tests.broker.test_worker import ITEMS, announce, make_clicks
from tests.support.artefacts import write_random_model
from tests.support.exactness import assert_as_if_uninterrupted, wait_answered
from tests.support.kafka_io import send_clicks
from tests.support.scrape import metric, wait_for_lag_labels
from tests.support.worker_process import WarmWorkerProcess

PROTOCOLS = {
    "classic": ("--kafka", "session.timeout.ms=6000", "--kafka", "heartbeat.interval.ms=500"),
    "consumer": ("--group-protocol", "consumer"),
}
EXIT_RESTART = 75


@pytest.fixture
def model(bootstrap: str, topics: TopicNames, tmp_path: Path) -> Path:
    """The folder of an announced model."""
    folder = write_random_model(tmp_path / "m1", ITEMS, hidden_size=32, seed=1, version="m1")
    announce(bootstrap, topics, folder, "m1")
    return folder


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_sessions_move_with_their_partitions(
    protocol: str, bootstrap: str, topic_prefix: str, topics: TopicNames, model: Path
) -> None:
    """One worker, then two, then the other one; rows and metrics of what moved are gone where it left."""
    clicks = make_clicks(900, sessions=60, seed=51)
    sessions = {click.session_id for click in clicks}
    flags = PROTOCOLS[protocol]
    with WarmWorkerProcess(bootstrap, topic_prefix, flags) as first:
        send_clicks(bootstrap, topics.clicks, clicks[:300])
        wait_answered(bootstrap, topics, clicks[:300])
        with WarmWorkerProcess(bootstrap, topic_prefix, flags) as second:
            second.wait_ready("m1")
            send_clicks(bootstrap, topics.clicks, clicks[300:600])
            wait_answered(bootstrap, topics, clicks[:600])
            second.wait_for_metric("nextclick_consumer_lag", 0)
            parts = [worker.wait_ready()["partitions"] for worker in (first, second)]
            live = [metric(worker, "nextclick_sessions_live") for worker in (first, second)]
            assert sorted(parts[0] + parts[1]) == [0, 1, 2]
            assert all(parts)
            assert sum(live) == len(sessions)
            assert all(live)
            for worker, partitions in zip((first, second), parts, strict=True):
                wait_for_lag_labels(worker, partitions)
            assert "partitions_left" not in second.log()
            assert first.terminate() == 0
            send_clicks(bootstrap, topics.clicks, clicks[600:])
            wait_answered(bootstrap, topics, clicks)
            assert second.terminate() == 0
    assert_as_if_uninterrupted(bootstrap, topics, clicks, model)


def wait_shared(one: WarmWorkerProcess, other: WarmWorkerProcess, timeout_s: float = 60.0) -> list[int]:
    """Wait until the three partitions are shared by these two; returns those of the second."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        parts: list[list[int]] = [worker.wait_ready()["partitions"] for worker in (one, other)]
        if all(parts) and sorted(parts[0] + parts[1]) == [0, 1, 2]:
            return parts[1]
        assert time.monotonic() < deadline_s, f"they have {parts}"
        time.sleep(0.1)


def test_a_static_member_comes_back_unnoticed_and_its_double_fences_it(
    bootstrap: str, topic_prefix: str, topics: TopicNames, model: Path
) -> None:
    clicks = make_clicks(900, sessions=60, seed=52)
    flags = ("--kafka", "session.timeout.ms=30000", "--kafka", "heartbeat.interval.ms=500", "--instance-id")
    with WarmWorkerProcess(bootstrap, topic_prefix, [*flags, "a"]) as other:
        with WarmWorkerProcess(bootstrap, topic_prefix, [*flags, "b"]) as member:
            member.wait_ready()
            send_clicks(bootstrap, topics.clicks, clicks[:300])
            wait_answered(bootstrap, topics, clicks[:300])
            owned = wait_shared(other, member)
            before = other.log().count("partitions_")
            member.process.kill()
            member.process.wait()
        send_clicks(bootstrap, topics.clicks, clicks[300:600])
        with WarmWorkerProcess(bootstrap, topic_prefix, [*flags, "b"]) as back:
            wait_answered(bootstrap, topics, clicks[:600])
            assert back.wait_ready()["partitions"] == owned
            with WarmWorkerProcess(bootstrap, topic_prefix, [*flags, "b"]) as double:
                assert back.process.wait(60) == EXIT_RESTART, back.log()
                assert "Traceback" not in back.log()
                send_clicks(bootstrap, topics.clicks, clicks[600:])
                wait_answered(bootstrap, topics, clicks)
                assert other.log().count("partitions_") == before, other.log()
                assert double.terminate() == other.terminate() == 0
    assert_as_if_uninterrupted(bootstrap, topics, clicks, model)
