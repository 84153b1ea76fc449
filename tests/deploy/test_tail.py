"""`nextclick tail`: every recommendation, from where it was asked for, as a table, lines or JSON."""

import json
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest
from confluent_kafka import Message, Producer

from deploy.tail import TailOptions, run_tail
from deploy.topic_admin import TopicError
from deploy.topic_reader import TopicReader
from schemas.recommendation import Source, encode_recommendation
from tests.conftest import CreateTopic
from tests.support.kafka_io import send_records

START_S = 30.0


def value(number: int, version: str | None = "20260102T030405-89abcdef") -> bytes:
    items = [f"item-{number}-{place}" for place in range(7)]
    scores = np.linspace(2, 1, 7, dtype=np.float32)
    source: Source = "popular" if version is None else "model"
    return encode_recommendation(f"s{number}", f"e{number}", items, scores, version, source, 1, 2)


def tail_command(bootstrap: str, topic: str, *arguments: str) -> list[str]:
    start = [sys.executable, "-m", "deploy", "tail", *arguments]
    return [*start, "--bootstrap", bootstrap, "--recommendations-topic", topic]


@pytest.mark.broker
def test_json_lines_are_the_records_as_they_are(
    bootstrap: str, topic_prefix: str, create_topic: CreateTopic
) -> None:
    topic = create_topic(f"{topic_prefix}recommendations")
    pretty = json.dumps(json.loads(value(2)), indent=2).encode()
    send_records(bootstrap, topic, [("s", value(0)), ("s", b"junk"), ("s", None), ("s", pretty)])
    done = subprocess.run(
        tail_command(bootstrap, topic, "--json", "--from-beginning", "--limit", "2"),
        capture_output=True,
        timeout=60,
        check=False,
    )
    first, second = done.stdout.splitlines()
    assert first == value(0)
    assert json.loads(second) == json.loads(value(2))
    assert b"offset 1: no recommendation" in done.stderr
    assert b"offset 2: no recommendation" in done.stderr
    assert done.returncode == 0


@pytest.mark.broker
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_without_from_beginning_only_news_is_shown_at_once_until_a_signal(
    number: signal.Signals, bootstrap: str, topic_prefix: str, create_topic: CreateTopic
) -> None:
    topic = create_topic(f"{topic_prefix}recommendations", 3)
    send_records(bootstrap, topic, [("s", value(0))])
    with subprocess.Popen(tail_command(bootstrap, topic, "--json"), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        # Nobody outside can see when it has fixed its starting points: send until something comes.
        seen = first_line(process, lambda: send_records(bootstrap, topic, [("s", value(1))]))
        assert seen == value(1)
        process.send_signal(number)
        assert process.wait(timeout=30) == 0


def first_line(process: subprocess.Popen[bytes], send: Callable[[], object]) -> bytes:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s:
            send()
            if selector.select(timeout=0.3):
                return process.stdout.readline().strip()
    raise AssertionError(f"nothing within {START_S} s")


@pytest.mark.broker
def test_a_reader_that_leaves_is_no_error(
    bootstrap: str, topic_prefix: str, create_topic: CreateTopic
) -> None:
    topic = create_topic(f"{topic_prefix}recommendations")
    send_records(bootstrap, topic, [("s", value(number)) for number in range(2_000)])
    with subprocess.Popen(
        tail_command(bootstrap, topic, "--json", "--from-beginning"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == b""


@pytest.mark.broker
def test_lines_for_people_hold_time_session_source_model_and_scored_items(
    bootstrap: str, topic_prefix: str, create_topic: CreateTopic, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = create_topic(f"{topic_prefix}recommendations")
    send_records(bootstrap, topic, [("s", value(0)), ("s", value(1, None))])
    assert run_tail(TailOptions(True, 2, False), {"bootstrap.servers": bootstrap}, topic) == 0
    first, second = capsys.readouterr().out.splitlines()
    for expected in ("s0", "model", "20260102T030405-89abcdef", "item-0-0 2.00", "item-0-4 1.33", "+2"):
        assert expected in first
    assert "item-0-5" not in first
    assert "popular  no model" in second


@pytest.mark.broker
def test_aborted_records_are_never_shown(
    bootstrap: str, topic_prefix: str, create_topic: CreateTopic, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    topic = create_topic(f"{topic_prefix}recommendations")
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": f"{topic_prefix}tx"})
    producer.init_transactions(30)
    for number, finish in ((0, producer.abort_transaction), (1, producer.commit_transaction)):
        producer.begin_transaction()
        producer.produce(topic, value(number))
        producer.flush(30)
        finish(30)
    run_tail(TailOptions(True, 1, True), {"bootstrap.servers": bootstrap}, topic)
    assert capsysbinary.readouterr().out == value(1) + b"\n"


@pytest.mark.broker
def test_all_that_comes_after_the_reader_was_made_is_read(
    bootstrap: str, topic_prefix: str, create_topic: CreateTopic
) -> None:
    topics = [create_topic(f"{topic_prefix}{name}", 3) for name in ("a", "b")]
    for topic in topics:
        send_records(bootstrap, topic, [(f"s{number}", b"before") for number in range(20)])
    with TopicReader({"bootstrap.servers": bootstrap}, topics, from_beginning=False) as reader:
        for topic in topics:
            send_records(bootstrap, topic, [(f"s{number}", b"after") for number in range(20)])
        found: list[Message] = []
        deadline_s = time.monotonic() + START_S
        while len(found) < 40 and time.monotonic() < deadline_s:
            found += reader.read(7, 0.2)
        found += reader.read(100, 0.5)
    assert sorted(str(record.topic()) for record in found) == sorted(topics * 20)
    assert {record.value() for record in found} == {b"after"}


@pytest.mark.broker
def test_a_missing_topic_is_told(bootstrap: str, topic_prefix: str) -> None:
    with pytest.raises(TopicError, match=f"no topic {topic_prefix}none .*nextclick topics create"):
        run_tail(TailOptions(), {"bootstrap.servers": bootstrap}, f"{topic_prefix}none")


def test_an_unreachable_broker_is_told() -> None:
    with pytest.raises(TopicError, match=r"no Kafka broker answered at 127\.0\.0\.1:1"):
        run_tail(TailOptions(), {"bootstrap.servers": "127.0.0.1:1"}, "recommendations")
