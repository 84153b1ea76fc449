"""The worker on a real broker, as a process of its own: all clicks answered, nothing lost, bad input kept."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orjson
from confluent_kafka import Producer

from deploy.local_broker import LocalBroker
from deploy.topic_admin import create_topics
from schemas.announcement import ModelAnnouncement, encode_announcement
from schemas.click import Click, encode_click
from schemas.dead_letter import CUT_HEADER, CUT_VALUE_BYTES, UNREADABLE_HEADERS, read_dead_letter_headers
from schemas.model_artefact import sha256_hex, unpack_artefact
from schemas.model_manifest import MANIFEST_FILE, WEIGHTS_FILE
from schemas.recommendation import Recommendation, decode_recommendation
from schemas.topics import TopicNames, topic_specs
from tests.support.artefacts import write_random_model
from tests.support.kafka_io import read_records, send_clicks, send_records
from tests.support.reference import PlainReference, assert_equals_reference
from tests.support.worker_process import WarmWorkerProcess, WorkerProcess, prefixed_topics

NOW_MS = 1_760_000_000_000
QUICK_TO_MISS_A_MEMBER = ("--kafka", "session.timeout.ms=6000")
"""Kafka's default waits 45 s for a member that was killed."""

ITEMS = [f"item-{number}" for number in range(500)]


def make_clicks(count: int, sessions: int, seed: int, items: list[str] = ITEMS) -> list[Click]:
    """Clicks of many interleaved sessions, one per 100 ms."""
    rng = np.random.default_rng(seed)
    return [
        Click(
            event_id=f"e-{seed}-{number}",
            session_id=f"s-{seed}-{rng.integers(sessions)}",
            item_id=items[rng.integers(len(items))],
            timestamp_ms=NOW_MS + number * 100,
        )
        for number in range(count)
    ]


def announce(bootstrap: str, topics: TopicNames, folder: Path, version: str) -> None:
    """Announce a folder whatever is in it, as a careless operator would."""
    announcement = ModelAnnouncement(
        format_version=1,
        model_version=version,
        uri=str(folder),
        manifest_sha256=sha256_hex((folder / MANIFEST_FILE).read_bytes()),
        announced_at_ms=NOW_MS,
    )
    send_records(bootstrap, topics.models, [(version, encode_announcement(announcement))])


def read_recommendations(bootstrap: str, topics: TopicNames, count: int) -> dict[str, Recommendation]:
    """Recommendations by event id; fails unless there are exactly `count`, one per event."""
    found = [
        decode_recommendation(record.value() or b"")
        for record in read_records(bootstrap, topics.recommendations, count)
    ]
    by_event = {recommendation.event_id: recommendation for recommendation in found}
    assert len(by_event) == len(found) == count
    return by_event


def test_every_recommendation_equals_a_plain_unbatched_reference(
    bootstrap: str, topic_prefix: str, topics: TopicNames, tmp_path: Path
) -> None:
    folder = write_random_model(tmp_path / "m1", ITEMS, hidden_size=128, seed=1, version="m1")
    announce(bootstrap, topics, folder, "m1")
    clicks = make_clicks(2_000, sessions=150, seed=1)
    with WorkerProcess(bootstrap, topic_prefix) as worker:
        worker.wait_ready("m1")
        send_clicks(bootstrap, topics.clicks, clicks)
        found = read_recommendations(bootstrap, topics, len(clicks))
        assert worker.terminate() == 0
    assert {recommendation.source for recommendation in found.values()} == {"model"}
    assert {recommendation.model_version for recommendation in found.values()} == {"m1"}
    assert_equals_reference(clicks, found, unpack_artefact(lambda name: (folder / name).read_bytes()))


def test_a_swap_keeps_sessions_and_a_broken_model_is_refused(
    bootstrap: str, topic_prefix: str, topics: TopicNames, tmp_path: Path
) -> None:
    """Popular items, then m1, then a broken model (m1 stays), then m2 of another width; sessions live on."""
    clicks = make_clicks(900, sessions=60, seed=2)  # 15 clicks a session: within the history bound
    parts = clicks[:300], clicks[300:600], clicks[600:]
    m1 = write_random_model(tmp_path / "m1", ITEMS, hidden_size=24, seed=1, version="m1")
    broken = write_random_model(tmp_path / "broken", ITEMS, hidden_size=24, seed=2, version="broken")
    (broken / WEIGHTS_FILE).write_bytes(b"\x80\x04not weights")
    m2 = write_random_model(tmp_path / "m2", ITEMS[:400], hidden_size=40, seed=3, version="m2")
    with WarmWorkerProcess(bootstrap, topic_prefix) as worker:
        worker.wait_ready()
        send_clicks(bootstrap, topics.clicks, parts[0])
        first = read_recommendations(bootstrap, topics, 300)
        announce(bootstrap, topics, m1, "m1")
        worker.wait_ready("m1")
        announce(bootstrap, topics, broken, "broken")
        log = worker.wait_for_log("model_refused")
        send_clicks(bootstrap, topics.clicks, parts[1])
        second = read_recommendations(bootstrap, topics, 600)
        announce(bootstrap, topics, m2, "m2")
        worker.wait_ready("m2")
        send_clicks(bootstrap, topics.clicks, parts[2])
        third = read_recommendations(bootstrap, topics, 900)
        assert "weights.safetensors has 13 bytes" in log
        assert "nextclick_model_refusals_total 1.0" in worker.get("/metrics")[1]
        assert worker.terminate() == 0
    assert {first[click.event_id].source for click in parts[0]} == {"popular"}
    assert {second[click.event_id].model_version for click in parts[1]} == {"m1"}
    assert {third[click.event_id].model_version for click in parts[2]} == {"m2"}
    artefact = unpack_artefact(lambda name: (m1 / name).read_bytes())
    reference = PlainReference(artefact)
    for click in clicks[:600]:
        expected = reference.scores(click)  # over all clicks of the session, those before m1 too
        if click in parts[1]:
            np.testing.assert_allclose(second[click.event_id].scores, expected.topk(20).values, atol=1e-4)


def test_what_is_no_click_is_dead_lettered_as_it_came_and_the_worker_lives_on(
    bootstrap: str, topic_prefix: str, topics: TopicNames
) -> None:
    good = make_clicks(3, sessions=1, seed=3)
    deep = b'{"a":' + b"[" * 4_000 + b"]" * 4_000 + b"}"
    bad: list[tuple[str | None, bytes | None, str]] = [
        ("k1", b'{"event_id": "e1", "session', "malformed"),
        ("k2", orjson.dumps({"event_id": "e", "session_id": "s", "item_id": 1.5}), "invalid"),
        ("k3", orjson.dumps({"event_id": "e", "session_id": "s", "timestamp_ms": NOW_MS}), "invalid"),
        ("k4", b'{"pad":"' + b"x" * 20_000 + b'"}', "oversized"),
        (None, b'{"a":' * 3_000 + b"1" + b"}" * 3_000, "oversized"),
        ("k6", deep, "malformed"),
        ("k7", None, "tombstone"),
        ("k8", b"", "tombstone"),
        ("k9", b"\xff\xfe\x00", "malformed"),
        ("k10", orjson.dumps({"event_id": "e", "session_id": "s", "item_id": "i", "timestamp_ms": 99}),
         "timestamp_out_of_range"),
    ]  # fmt: skip
    with WarmWorkerProcess(bootstrap, topic_prefix) as worker:
        send_clicks(bootstrap, topics.clicks, good[:1])
        send_records(bootstrap, topics.clicks, [(k, v) for k, v, _ in bad], headers=[("shop", b"north")])
        send_clicks(bootstrap, topics.clicks, good[1:])
        found = read_recommendations(bootstrap, topics, len(good))
        letters = read_records(bootstrap, topics.dead_letters, len(bad))
        worker.wait_ready()
        assert worker.terminate() == 0
    assert found.keys() == {click.event_id for click in good}
    seen = {}
    for letter in letters:
        headers = letter.headers()
        assert isinstance(headers, list)
        said = read_dead_letter_headers(headers)
        seen[letter.key(), letter.value()] = said.reason
        assert headers[0] == ("shop", b"north")
        assert said.topic == topics.clicks
        assert said.exception_message
    expected = {(key and key.encode(), value): reason for key, value, reason in bad}
    # How deep a decoder goes depends on the interpreter: there it is too deep, or lacks the required fields.
    assert seen.pop((b"k6", deep)) in {"malformed", "invalid"}
    del expected[b"k6", deep]
    assert seen == expected


def test_a_record_too_large_for_a_dead_letter_is_cut_and_the_worker_lives_on(
    bootstrap: str, topic_prefix: str, topics: TopicNames
) -> None:
    """Compressed it is small enough for the clicks topic; unfolded, brokers would refuse it."""
    value = b'{"pad":"' + b"x" * 3_000_000 + b'"}'
    producer = Producer(
        {"bootstrap.servers": bootstrap, "compression.type": "zstd", "message.max.bytes": 10_000_000}
    )
    producer.produce(topics.clicks, value, "k")
    assert producer.flush(30) == 0
    [good] = make_clicks(1, sessions=1, seed=9)
    with WarmWorkerProcess(bootstrap, topic_prefix) as worker:
        send_clicks(bootstrap, topics.clicks, [good])
        [letter] = read_records(bootstrap, topics.dead_letters, 1)
        assert read_recommendations(bootstrap, topics, 1).keys() == {good.event_id}
        assert worker.terminate() == 0
    headers = letter.headers()
    assert isinstance(headers, list)
    said = read_dead_letter_headers(headers)
    assert letter.value() == value[:CUT_VALUE_BYTES]
    assert (said.reason, said.topic, said.offset) == ("oversized", topics.clicks, "0")
    assert (CUT_HEADER, b"3000011") in headers


def test_headers_that_cannot_be_read_neither_stop_nor_crash_the_worker(
    bootstrap: str, topic_prefix: str, topics: TopicNames
) -> None:
    """A header's name that is no UTF-8, on a good click and on a bad one, several times over."""
    clicks = make_clicks(4, sessions=1, seed=8)
    for value in [encode_click(clicks[0]), b"bad", encode_click(clicks[1]), b"bad", encode_click(clicks[2])]:
        evil = (sys.executable, "-m", "tests.support.evil_headers")
        command = [*evil, bootstrap, topics.clicks, "0", value.decode()]
        subprocess.run(command, check=True, timeout=60)
    with WarmWorkerProcess(bootstrap, topic_prefix) as worker:
        letters = read_records(bootstrap, topics.dead_letters, 2)
        send_clicks(bootstrap, topics.clicks, clicks[3:])
        found = read_recommendations(bootstrap, topics, len(clicks))
        assert worker.terminate() == 0
    assert found.keys() == {click.event_id for click in clicks}
    for letter in letters:
        headers = letter.headers()
        assert isinstance(headers, list)
        assert headers[0] == UNREADABLE_HEADERS
        assert letter.value() == b"bad"


def test_sigterm_ends_a_worker_whose_broker_does_not_answer(topic_prefix: str) -> None:
    """The broker hangs with outputs on their way: the worker ends, and a restart loses nothing."""
    clicks = make_clicks(2_000, sessions=50, seed=10)
    topics = prefixed_topics(topic_prefix)
    with LocalBroker() as broker:
        assert broker.pid is not None
        create_topics({"bootstrap.servers": broker.bootstrap}, topic_specs(topics, 3, -1), replication=1)
        with WorkerProcess(broker.bootstrap, topic_prefix, QUICK_TO_MISS_A_MEMBER) as worker:
            worker.wait_ready()
            send_clicks(broker.bootstrap, topics.clicks, clicks)
            os.kill(broker.pid, signal.SIGSTOP)
            started_s = time.monotonic()
            try:
                assert worker.terminate(timeout_s=30) == 0
            finally:
                os.kill(broker.pid, signal.SIGCONT)
            ended_s = time.monotonic() - started_s
        assert ended_s < 10.0
        with WorkerProcess(broker.bootstrap, topic_prefix, QUICK_TO_MISS_A_MEMBER):
            deadline_s = time.monotonic() + 60
            while len(events_answered(broker.bootstrap, topics)) < len(clicks):
                assert time.monotonic() < deadline_s


def test_a_restart_goes_on_after_the_last_commit(
    bootstrap: str, topic_prefix: str, topics: TopicNames
) -> None:
    """SIGTERM commits what was answered: the next worker answers the rest, and nothing twice."""
    clicks = make_clicks(600, sessions=30, seed=4)
    send_clicks(bootstrap, topics.clicks, clicks[:300])
    with WarmWorkerProcess(bootstrap, topic_prefix) as worker:
        read_recommendations(bootstrap, topics, 300)
        assert worker.terminate() == 0
    send_clicks(bootstrap, topics.clicks, clicks[300:])
    with WarmWorkerProcess(bootstrap, topic_prefix) as worker:
        read_recommendations(bootstrap, topics, 600)
        assert worker.terminate() == 0


def test_a_killed_worker_loses_no_click(bootstrap: str, topic_prefix: str, topics: TopicNames) -> None:
    """SIGKILL amid a backlog: each click is answered at least once by the two workers together."""
    clicks = make_clicks(30_000, sessions=500, seed=5)
    send_clicks(bootstrap, topics.clicks, clicks)
    with WorkerProcess(bootstrap, topic_prefix, QUICK_TO_MISS_A_MEMBER) as worker:
        read_records(bootstrap, topics.recommendations, 1_000)
        worker.process.kill()
        worker.process.wait()
    before = events_answered(bootstrap, topics)
    assert len(before) < len(clicks), "the worker was killed too late for this test to say anything"
    with WorkerProcess(bootstrap, topic_prefix, QUICK_TO_MISS_A_MEMBER) as worker:
        deadline_s = time.monotonic() + 60
        while len(events := events_answered(bootstrap, topics)) < len(clicks):
            assert time.monotonic() < deadline_s, f"{len(clicks) - len(events)} clicks without an answer"
        assert worker.terminate() == 0
    assert events == {click.event_id for click in clicks}


def events_answered(bootstrap: str, topics: TopicNames) -> set[str]:
    """Event ids of all recommendations that are on the topic now."""
    records = read_records(bootstrap, topics.recommendations, count=1_000_000, timeout_s=3)
    return {decode_recommendation(record.value() or b"").event_id for record in records}


def test_headers_are_cloudevents_and_pass_the_traceparent_through(
    bootstrap: str, topic_prefix: str, topics: TopicNames
) -> None:
    [click] = make_clicks(1, sessions=1, seed=6)
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    send_records(
        bootstrap, topics.clicks, [(click.session_id, encode_click(click))], headers=[("traceparent", trace)]
    )
    with WarmWorkerProcess(bootstrap, topic_prefix) as worker:
        [record] = read_records(bootstrap, topics.recommendations, 1)
        worker.terminate()
    headers = record.headers()
    assert isinstance(headers, list)
    assert dict(headers) == {
        "ce_specversion": b"1.0",
        "ce_type": b"nextclick.recommendation.v1",
        "ce_source": b"/nextclick/worker",
        "ce_id": click.event_id.encode(),
        "content-type": b"application/json",
        "traceparent": trace,
    }
    assert record.key() == click.session_id.encode()


def test_a_missing_topic_is_named_with_what_creates_it(bootstrap: str, topic_prefix: str) -> None:
    with WarmWorkerProcess(bootstrap, topic_prefix) as worker:
        assert worker.process.wait(60) == 1
        assert "nextclick topics create" in worker.log()
        assert f"{topic_prefix}nextclick.clicks" in worker.log()
        assert "Traceback" not in worker.log()


def test_an_unreachable_broker_is_named(topic_prefix: str) -> None:
    with WarmWorkerProcess("127.0.0.1:1", topic_prefix) as worker:
        assert worker.process.wait(60) == 1
        assert "no Kafka broker answered at 127.0.0.1:1" in worker.log()
        assert "Traceback" not in worker.log()
