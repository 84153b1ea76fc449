"""A group that does not take a worker in: it says so, and that a restart will not help."""

from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient

from deploy.local_broker import LocalBroker
from schemas.topics import TopicNames
from tests.support.worker_process import WarmWorkerProcess

ENDS_WITHIN_S = 60


@pytest.fixture(scope="module")
def bootstrap() -> Iterator[str]:
    """Of a broker that knows the older group protocol only."""
    with LocalBroker(properties={"group.coordinator.rebalance.protocols": "classic"}) as broker:
        yield broker.bootstrap


@pytest.fixture(scope="module")
def admin(bootstrap: str) -> AdminClient:
    """An admin client of it."""
    return AdminClient({"bootstrap.servers": bootstrap})


def test_a_broker_without_the_newer_protocol(bootstrap: str, topic_prefix: str, topics: TopicNames) -> None:
    with WarmWorkerProcess(bootstrap, topic_prefix, ["--group-protocol", "consumer"]) as worker:
        assert worker.process.wait(ENDS_WITHIN_S) == 1, worker.log()
        assert "--group-protocol classic" in worker.log()
        assert "Traceback" not in worker.log()


def test_another_program_has_the_group(bootstrap: str, topic_prefix: str, topics: TopicNames) -> None:
    other = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"{topic_prefix}group",
            "partition.assignment.strategy": "range",
        }
    )
    other.subscribe([topics.clicks])
    while not other.assignment():
        other.poll(0.1)
    with WarmWorkerProcess(bootstrap, topic_prefix) as worker:
        assert worker.process.wait(ENDS_WITHIN_S) == 1, worker.log()
        assert "Inconsistent group protocol" in worker.log()
        assert "no other program may use this --group-id" in worker.log()
    other.close()
