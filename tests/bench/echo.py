"""A worker that computes nothing: what the Kafka client and the broker alone take of a latency.

It reads clicks and answers each with a recommendation and a history of the usual size, with the worker's own
client settings, in batches of what is there. At least once it does not even commit.

    python -m tests.bench.echo BOOTSTRAP PREFIX GUARANTEE
"""

import signal
import sys
import time
from types import FrameType

import numpy as np
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from schemas.click import decode_click
from schemas.recommendation import cloudevents_headers, encode_recommendation
from schemas.session_history import FORMAT_VERSION, SessionHistory, encode_session_history, event_hash
from schemas.topics import TopicNames
from tests.bench.workload import ITEMS, START_MS, TOP_K
from tests.support.worker_process import prefixed_topics
from worker.shell.records import offset_of
from worker.shell.sink import PRODUCER_DEFAULTS, PRODUCER_RULES
from worker.shell.source import group_config
from worker.shell.transactions import TRANSACTION_DEFAULTS

MAX_BATCH = 512
BEST = ITEMS[:TOP_K], np.linspace(9.9, 8.1, TOP_K, dtype=np.float32)
_HASHES = event_hash("a click").hex() * 6


def echo(bootstrap: str, topics: TopicNames, guarantee: str) -> None:
    """Answer until SIGTERM; says `ready` on standard output once it has its partitions."""
    stopping: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        stopping.append(number)

    signal.signal(signal.SIGTERM, stop)
    servers = {"bootstrap.servers": bootstrap}
    consumer = Consumer(group_config(servers, "bench-echo", "", "classic"))
    settings = {**PRODUCER_DEFAULTS, **servers, **PRODUCER_RULES}
    in_transactions = guarantee == "exactly_once"
    if in_transactions:
        settings |= {**TRANSACTION_DEFAULTS, "transactional.id": "bench-echo"}
    producer = Producer(settings)
    if in_transactions:
        producer.init_transactions()

    def begin(consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.incremental_assign([TopicPartition(p.topic, p.partition, 0) for p in partitions])
        print("ready", flush=True)  # noqa: T201

    consumer.subscribe([topics.clicks], on_assign=begin)
    while not stopping:
        batch = consumer.consume(1, 0.1)
        if batch:
            batch += consumer.consume(MAX_BATCH - len(batch), 0.0)
        records = [record for record in batch if record.error() is None]
        if records and in_transactions:
            _in_a_transaction(producer, consumer, topics, records)
        elif records:
            _answer(producer, topics, records)
            producer.poll(0)
    producer.flush(10)
    consumer.close()


def _in_a_transaction(
    producer: Producer, consumer: Consumer, topics: TopicNames, records: list[Message]
) -> None:
    producer.begin_transaction()
    _answer(producer, topics, records)
    next_offsets = {record.partition(): offset_of(record) + 1 for record in records}
    offsets = [TopicPartition(topics.clicks, partition or 0, at) for partition, at in next_offsets.items()]
    producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata())
    producer.commit_transaction()


def _answer(producer: Producer, topics: TopicNames, records: list[Message]) -> None:
    now_ms = time.time_ns() // 1_000_000
    for record in records:
        partition, click = record.partition() or 0, decode_click(record.value() or b"", now_ms)
        key, at_ms = click.session_id, click.timestamp_ms
        value = encode_recommendation(key, click.event_id, *BEST, "bench", "model", at_ms, now_ms)
        headers = cloudevents_headers(click.event_id, None)
        producer.produce(topics.recommendations, value, key, partition, headers=headers)
        history = SessionHistory(FORMAT_VERSION, key, ITEMS[:6], START_MS, partition, 0, _HASHES)
        producer.produce(topics.session_histories, encode_session_history(history), key, partition)


if __name__ == "__main__":
    servers, prefix, chosen = sys.argv[1:]
    echo(servers, prefixed_topics(prefix), chosen)
