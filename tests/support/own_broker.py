"""A broker of their own for the tests of one module: import `bootstrap` and `admin` over the shared ones.

Its transactions time out when they should (brokers look every 10 s by default), and it may be stopped.
"""

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from deploy.local_broker import LocalBroker

PROMPT = {
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "200",
    "group.consumer.min.session.timeout.ms": "3000",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.heartbeat.interval.ms": "200",
    "group.consumer.heartbeat.interval.ms": "500",
}

# For what stops the broker for some seconds (`stopped`): with the usual 3 s it would wake up shut out of its
# own cluster, and tell clients that there is no broker: librdkafka may not recover from that (decision 0006).
HUNG = {**PROMPT, "broker.session.timeout.ms": "30000"}

# For what restarts the broker: if it ends a timed-out transaction before it is up again, that transaction
# stays open (decision 0006).
RESTARTED = {**PROMPT, "transaction.abort.timed.out.transaction.cleanup.interval.ms": "10000"}


@contextmanager
def running_broker(properties: dict[str, str]) -> Iterator[LocalBroker]:
    """A broker whose data outlive a stop, as `gone` asks."""
    with (
        tempfile.TemporaryDirectory(prefix="nextclick-own-broker-") as folder,
        LocalBroker(data_dir=Path(folder), properties=properties) as broker,
    ):
        yield broker


@pytest.fixture(scope="module")
def own_broker() -> Iterator[LocalBroker]:
    """A broker for the tests of one module."""
    with running_broker(HUNG) as broker:
        yield broker


@pytest.fixture(scope="module")
def bootstrap(own_broker: LocalBroker) -> str:
    """`host:port` of it."""
    return own_broker.bootstrap


@pytest.fixture(scope="module")
def admin(own_broker: LocalBroker) -> AdminClient:
    """An admin client of it."""
    return AdminClient({"bootstrap.servers": own_broker.bootstrap})


@contextmanager
def stopped(broker: LocalBroker) -> Iterator[None]:
    """The broker does not answer meanwhile, as if its machine hung."""
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(broker.pid, signal.SIGCONT)


@contextmanager
def gone(broker: LocalBroker) -> Iterator[None]:
    """Nobody listens at the broker's address meanwhile; it comes back with its data.

    Stopped cleanly: one that is killed does not always come back with its groups.
    """
    broker.stop()
    try:
        yield
    finally:
        broker.start()
