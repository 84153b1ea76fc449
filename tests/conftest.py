"""Shared fixtures: one real Kafka broker per test session, and topics that belong to one test each."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

# Before torch is imported, here and in what is started: else its threads spin, on cores that brokers need.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from deploy.local_broker import LocalBroker
from deploy.topic_admin import create_topics
from schemas.topics import TopicNames, topic_specs
from tests.support.end_offsets import end_offsets
from tests.support.worker_process import prefixed_topics

_BROKER_TESTS = Path(__file__).parent / "broker"
_ADMIN_TIMEOUT_S = 30.0


class CreateTopic(Protocol):
    """Makes a topic with exactly this name, waits until it can be used, and returns the name."""

    def __call__(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> str: ...


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All that lies in tests/broker is marked `broker`, so that `-m 'not broker'` leaves it out."""
    for item in items:
        if item.path.is_relative_to(_BROKER_TESTS):
            item.add_marker(pytest.mark.broker)


@pytest.fixture(scope="session")
def bootstrap() -> Iterator[str]:
    """`host:port` of a real broker: that of NEXTCLICK_BOOTSTRAP, else one started for this session.

    Without a broker the tests that ask for one end as errors, never as skipped.
    """
    given = os.environ.get("NEXTCLICK_BOOTSTRAP")
    if given:
        try:
            AdminClient({"bootstrap.servers": given}).list_topics(timeout=_ADMIN_TIMEOUT_S)
        except KafkaException as error:
            pytest.fail(f"NEXTCLICK_BOOTSTRAP={given} does not answer: {error}")
        yield given
    else:
        with LocalBroker() as broker:
            yield broker.bootstrap


@pytest.fixture(scope="session")
def admin(bootstrap: str) -> AdminClient:
    """One admin client for the session."""
    return AdminClient({"bootstrap.servers": bootstrap})


@pytest.fixture
def topic_prefix() -> str:
    """A prefix that no other test has, for the names of topics, groups and transactions: `t-<12 hex>-`."""
    return f"t-{uuid.uuid4().hex[:12]}-"


@pytest.fixture
def create_topic(bootstrap: str, admin: AdminClient) -> Iterator[CreateTopic]:
    """Makes topics, and deletes them when the test is over."""
    made: list[str] = []

    def create(name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=dict(config or {}))
        admin.create_topics([topic])[name].result(_ADMIN_TIMEOUT_S)
        made.append(name)
        end_offsets(bootstrap, name)
        return name

    yield create
    if made:
        for future in admin.delete_topics(made).values():
            try:
                future.result(_ADMIN_TIMEOUT_S)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:  # the test deleted it itself
                    raise


@pytest.fixture
def topics(bootstrap: str, topic_prefix: str, admin: AdminClient) -> Iterator[TopicNames]:
    """The five topics of one test, made as users make them: three partitions, deleted afterwards."""
    names = prefixed_topics(topic_prefix)
    specs = topic_specs(names, partitions=3, clicks_retention_ms=-1)
    create_topics({"bootstrap.servers": bootstrap}, specs, replication=1)
    for spec in specs:
        end_offsets(bootstrap, spec.name)
    yield names
    for future in admin.delete_topics([spec.name for spec in specs]).values():
        future.result(_ADMIN_TIMEOUT_S)
