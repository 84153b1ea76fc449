"""Input that is odd but good, and input that is so bad that something upstream must be broken."""

from collections.abc import Sequence

from confluent_kafka import Producer

from schemas.click import encode_click
from schemas.topics import TopicNames
from tests.broker.test_worker import make_clicks
from tests.chaos.outcome import read_outcome
from tests.support.exactness import wait_answered
from tests.support.kafka_io import send_clicks, send_records
from tests.support.partition_io import produce_to
from tests.support.scrape import metric
from tests.support.worker_process import WarmWorkerProcess

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


def send_compressed(bootstrap: str, topic: str, codec: str, records: Sequence[tuple[str, bytes]]) -> None:
    """Send records as one compressed batch for each partition."""
    producer = Producer({"bootstrap.servers": bootstrap, "compression.type": codec, "linger.ms": 100})
    for key, value in records:
        producer.produce(topic, value, key)
    assert producer.flush(30) == 0


def test_every_codec_any_key_and_repeated_events(
    bootstrap: str, topic_prefix: str, topics: TopicNames
) -> None:
    clicks = make_clicks(500, sessions=40, seed=61)
    for number, codec in enumerate(CODECS):
        part = clicks[number * 100 : number * 100 + 100]
        records = [(click.session_id, encode_click(click)) for click in part]
        send_compressed(bootstrap, topics.clicks, codec, records)
    odd = make_clicks(3, sessions=1, seed=62)
    for key, click in zip((None, "another session", odd[2].session_id), odd, strict=True):
        produce_to(bootstrap, topics.clicks, 0, key, encode_click(click))
    for _ in range(2):  # the last few of its session, all of them among the last eight
        for click in odd:
            produce_to(bootstrap, topics.clicks, 0, click.session_id, encode_click(click))
    with WarmWorkerProcess(bootstrap, topic_prefix) as worker:
        worker.wait_for_metric("nextclick_duplicate_clicks_total", 6)
        answers = wait_answered(bootstrap, topics, [*clicks, *odd])
        assert metric(worker, "nextclick_key_mismatches_total") == 2
        assert metric(worker, "nextclick_duplicate_clicks_total") == 6
        assert metric(worker, "nextclick_clicks_total") == 503
        assert worker.terminate() == 0
    assert len(answers) == 503
    history = read_outcome(bootstrap, topics).histories[odd[0].session_id]
    assert history is not None
    assert history.items == tuple(click.item_id for click in odd)


def test_too_many_bad_records_stop_the_worker_before_they_are_drained(
    bootstrap: str, topic_prefix: str, topics: TopicNames
) -> None:
    """A quarter of a hundred good ones may be bad; two hundred in a row mean a bad deploy upstream."""
    clicks = make_clicks(100, sessions=10, seed=63)
    capped = ("--dead-letter-burst", "10", "--dead-letter-max-ratio", "0.2")
    with WarmWorkerProcess(bootstrap, topic_prefix, capped) as worker:
        send_clicks(bootstrap, topics.clicks, clicks)
        send_records(bootstrap, topics.clicks, [(f"k{number}", b"bad") for number in range(10)])
        worker.wait_for_metric("nextclick_dead_letters_total", 10)
        send_records(bootstrap, topics.clicks, [(f"k{number}", b"worse") for number in range(200)])
        assert worker.process.wait(60) == 1
        assert "are no clicks, such as partition" in worker.log()
        assert "--dead-letter-max-ratio 1" in worker.log()
        assert "Traceback" not in worker.log()
    letters = read_outcome(bootstrap, topics).letters
    assert 10 <= len(letters) <= 25
    send_clicks(bootstrap, topics.clicks, more := make_clicks(10, sessions=10, seed=64))
    with WarmWorkerProcess(bootstrap, topic_prefix, ["--dead-letter-max-ratio", "1"]) as worker:
        assert len(wait_answered(bootstrap, topics, [*clicks, *more])) == 110
        assert worker.terminate() == 0
    letters = read_outcome(bootstrap, topics).letters
    assert len(letters) == len({(letter.partition, letter.offset) for letter in letters}) == 210
