"""Consumer settings of a member of the group."""

import pytest
from confluent_kafka import Consumer

from worker.shell.source import MAX_POLL_INTERVAL_MS, group_config

LONGER_MS = MAX_POLL_INTERVAL_MS + 30_000


@pytest.mark.parametrize(
    ("asked", "expected_ms"),
    [
        ({}, MAX_POLL_INTERVAL_MS),
        ({"session.timeout.ms": "6000"}, MAX_POLL_INTERVAL_MS),
        ({"session.timeout.ms": str(LONGER_MS)}, LONGER_MS),  # the client refuses a shorter interval
        ({"max.poll.interval.ms": "300000"}, 300_000),
    ],
)
def test_a_rebalance_waits_for_no_member_longer_than_a_minute_unless_asked_to(
    asked: dict[str, str], expected_ms: int
) -> None:
    config = group_config({"bootstrap.servers": "localhost:1", **asked}, "group", "", "classic")
    assert config["max.poll.interval.ms"] == str(expected_ms)
    Consumer(config).close()  # the client takes it


def test_a_session_timeout_that_is_no_number_is_left_to_the_client_to_refuse() -> None:
    config = group_config({"session.timeout.ms": "soon"}, "group", "", "classic")
    assert config["session.timeout.ms"] == "soon"
    assert config["max.poll.interval.ms"] == str(MAX_POLL_INTERVAL_MS)


def test_the_newer_protocol_takes_the_same_interval() -> None:
    config = group_config({"bootstrap.servers": "localhost:1"}, "group", "", "consumer")
    assert config["max.poll.interval.ms"] == str(MAX_POLL_INTERVAL_MS)
    Consumer(config).close()
