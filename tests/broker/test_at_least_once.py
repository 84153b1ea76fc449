"""Without transactions: what a worker does that loses its partitions while brokers are away."""

from deploy.local_broker import LocalBroker
from schemas.topics import TopicNames
from tests.broker.test_worker import make_clicks
from tests.support.exactness import assert_histories_as_clicked, wait_answered
from tests.support.kafka_io import send_clicks
from tests.support.own_broker import admin, bootstrap, own_broker, stopped
from tests.support.worker_process import WarmWorkerProcess

__all__ = ["admin", "bootstrap", "own_broker"]

AT_LEAST_ONCE = (
    *("--processing-guarantee", "at_least_once"),
    *("--kafka", "session.timeout.ms=6000", "--kafka", "heartbeat.interval.ms=500"),
)


def test_outputs_of_lost_partitions_are_dropped_while_brokers_are_away(
    bootstrap: str, own_broker: LocalBroker, topic_prefix: str, topics: TopicNames
) -> None:
    """Its queue is full, so it waits in the middle of a batch; what waited would be sent by a stranger."""
    clicks = make_clicks(20_000, sessions=500, seed=35)
    send_clicks(bootstrap, topics.clicks, clicks)
    with WarmWorkerProcess(bootstrap, topic_prefix, [*AT_LEAST_ONCE, "--max-batch", "64"]) as worker:
        worker.wait_for_metric("nextclick_clicks_total", 1)
        with stopped(own_broker):
            log = worker.wait_for_log('"lost":true')
        assert '"partitions":[0,1,2],"lost":true' in log
        worker.wait_ready()
        wait_answered(bootstrap, topics, clicks)
        assert worker.terminate() == 0
    assert_histories_as_clicked(bootstrap, topics)
