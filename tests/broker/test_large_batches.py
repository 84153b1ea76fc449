"""Batches whose outputs overflow the producer's queue: each click is answered once all the same."""

import re

from schemas.click import Click
from schemas.topics import TopicNames
from tests.broker.test_worker import ITEMS, NOW_MS
from tests.chaos.outcome import read_outcome
from tests.support.exactness import histories_as_clicked, wait_answered
from tests.support.kafka_io import send_clicks
from tests.support.worker_process import WarmWorkerProcess

SESSIONS = 25_000
QUEUED_AT_MOST = 10_000
"""Of the worker's producer, in records; each click of a session leaves an answer and a history."""


def test_a_backlog_of_sessions_goes_through_in_batches_larger_than_the_producers_queue(
    bootstrap: str, topic_prefix: str, topics: TopicNames
) -> None:
    """The largest batch that the settings allow, a click of another session each, exactly once."""
    clicks = [
        Click(f"e-{number}", f"s-{number}", ITEMS[number % len(ITEMS)], NOW_MS + number)
        for number in range(SESSIONS)
    ]
    send_clicks(bootstrap, topics.clicks, clicks)
    with WarmWorkerProcess(bootstrap, topic_prefix, ["--max-batch", "10000"]) as worker:
        worker.wait_for_metric("nextclick_clicks_total", SESSIONS)
        largest = largest_batch(worker)
        assert worker.terminate() == 0
        assert "batch_aborted" not in worker.log()
    assert 2 * largest > QUEUED_AT_MOST, "no batch was large enough to say anything"
    answers = wait_answered(bootstrap, topics, clicks)
    assert sorted(answer.event_id for answer in answers) == sorted(click.event_id for click in clicks)
    histories = read_outcome(bootstrap, topics).histories
    assert len(histories) == SESSIONS
    assert histories == histories_as_clicked(bootstrap, topics)


def largest_batch(worker: WarmWorkerProcess) -> float:
    """At least so many records were in the largest batch: the mean of those over 1,024, at the least."""
    metrics = worker.get("/metrics")[1]
    [total] = re.findall(r"^nextclick_batch_clicks_sum (\S+)$", metrics, re.MULTILINE)
    buckets = re.findall(r'^nextclick_batch_clicks_bucket{le="(\S+)"} (\S+)$', metrics, re.MULTILINE)
    below, small, large = 0.0, 0.0, 0.0
    for bound, batches in ((float(bound), float(up_to)) for bound, up_to in buckets):
        if bound <= 1_024:
            small += (batches - below) * bound
        else:
            large += batches - below
        below = batches
    return (float(total) - small) / large if large else 0.0
