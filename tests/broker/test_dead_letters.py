"""`nextclick dead-letters` on a real broker: letters are listed by reason, and sent back as they came."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from confluent_kafka import Message, Producer

from deploy.settings import ENV_PREFIX
from schemas.click import InvalidClickError, Reason, encode_click
from schemas.dead_letter import CUT_HEADER, Header, dead_letter_headers
from schemas.topics import TopicNames
from tests.broker.test_worker import make_clicks
from tests.conftest import CreateTopic
from tests.support.kafka_io import read_records, send_clicks
from tests.support.worker_process import WarmWorkerProcess

NOW_MS = time.time_ns() // 1_000_000
Done = subprocess.CompletedProcess[bytes]


def value(session: str, event: str) -> bytes:
    fields = {"event_id": event, "session_id": session, "item_id": "i", "timestamp_ms": NOW_MS}
    return json.dumps(fields).encode()


class Letters:
    """Puts letters on the dead-letter topic of a test, and runs the command on it."""

    def __init__(self, bootstrap: str, topics: TopicNames) -> None:
        self.topics = topics
        self.bootstrap = bootstrap
        self._producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})

    def put(
        self,
        value: bytes | None,
        *,
        partition: int = 0,
        key: bytes | None = b"k",
        reason: Reason = Reason.INVALID,
        original: Sequence[Header] = (),
        source_offset: int = 7,
        at_ms: int = NOW_MS,
    ) -> None:
        error = InvalidClickError(reason, f"said of {reason}")
        headers = dead_letter_headers(self.topics.clicks, partition, source_offset, error, original)
        self._producer.produce(
            self.topics.dead_letters, value, key, partition, headers=headers, timestamp=at_ms
        )
        assert self._producer.flush(30) == 0

    def put_foreign(self, value: bytes) -> None:
        self._producer.produce(self.topics.dead_letters, value, None, 0)
        assert self._producer.flush(30) == 0

    def command(self, *arguments: str, given: bytes | None = None) -> Done:
        clean = {name: text for name, text in os.environ.items() if not name.startswith(ENV_PREFIX)}
        return subprocess.run(
            [
                *(sys.executable, "-m", "deploy", "dead-letters", *arguments),
                *("--bootstrap", self.bootstrap),
                *("--clicks-topic", self.topics.clicks),
                *("--dead-letters-topic", self.topics.dead_letters),
            ],
            input=given,
            capture_output=True,
            timeout=90,
            check=False,
            env={**clean, "PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "200"},
        )

    def json_lines(self, *arguments: str) -> list[dict[str, object]]:
        done = self.command(*arguments, "--json")
        assert done.stderr == b""
        return [json.loads(line) for line in done.stdout.splitlines()]

    def replayed(self, count: int) -> list[Message]:
        return read_records(self.bootstrap, self.topics.clicks, count)


@pytest.fixture
def letters(bootstrap: str, topics: TopicNames) -> Letters:
    return Letters(bootstrap, topics)


def test_letters_are_listed_by_reason_with_samples(letters: Letters) -> None:
    for number in range(5):
        letters.put(b"value %d" % number, partition=number % 2, source_offset=number)
    letters.put(b"\x1b[2J\xff", reason=Reason.MALFORMED)
    letters.put_foreign(b"what is this")
    done = letters.command("list")
    text = done.stdout.decode()
    assert done.returncode == 0
    assert text.splitlines()[0].split()[:2] == ["invalid", "5"]
    assert text.splitlines()[0].endswith("0,1")
    assert f"1:1  {time.strftime('%Y-%m-%d', time.gmtime(NOW_MS / 1000))}" in text
    assert f"from {letters.topics.clicks}-0@4" in text
    assert "said of invalid" in text
    assert text.count("    value ") == 3
    assert "\\x1b[2J\\xff" in text
    assert "what is this" in text
    assert b"\x1b" not in done.stdout
    one = letters.command("list", "--reason", "invalid", "--limit", "1").stdout.decode()
    assert one.count("    value ") == 1
    assert "malformed" not in one


def test_an_empty_topic_and_a_missing_one_are_told(letters: Letters) -> None:
    assert b"no dead letters on" in letters.command("list").stdout
    letters.topics = TopicNames(dead_letters=f"{letters.topics.dead_letters}.none")
    done = letters.command("list")
    assert done.returncode == 1
    assert b"there is no topic" in done.stderr
    assert b"nextclick topics create" in done.stderr


def test_the_list_ends_at_aborted_and_at_open_transactions(letters: Letters) -> None:
    letters.put(b"committed")
    producer = Producer(
        {"bootstrap.servers": letters.bootstrap, "transactional.id": f"{letters.topics.clicks}-tx"}
    )
    producer.init_transactions(30)
    for finish in (producer.abort_transaction, None):
        producer.begin_transaction()
        producer.produce(letters.topics.dead_letters, b"not committed", None, 0)
        producer.flush(30)
        if finish is not None:
            finish(30)
    assert [line["value"] for line in letters.json_lines("list")] == ["committed"]
    producer.abort_transaction(30)


def test_only_the_last_hour_is_listed_and_replayed(letters: Letters) -> None:
    letters.put(value("s", "old"), at_ms=NOW_MS - 2 * 3_600_000)
    letters.put(value("s", "new"))
    assert [line["offset"] for line in letters.json_lines("list", "--last", "1h")] == [1]
    assert len(letters.json_lines("list", "--last", "3h")) == 2
    assert [line["offset"] for line in letters.json_lines("replay", "--last", "1h")] == [1]
    assert [record.value() for record in letters.replayed(1)] == [value("s", "new")]


def test_chosen_letters_go_back_with_key_value_and_headers_to_the_partition_of_their_key(
    letters: Letters,
) -> None:
    clicks = make_clicks(20, sessions=10, seed=1)
    send_clicks(letters.bootstrap, letters.topics.clicks, clicks)
    where = {record.key(): record.partition() for record in letters.replayed(20)}
    original: list[Header] = [("shop", b"north"), ("empty", None)]
    for number, click in enumerate(clicks):
        key = None if number % 2 else click.session_id.encode()
        letters.put(encode_click(click), key=key, original=original, source_offset=number)
    letters.put(value("s", "of-another-reason"), reason=Reason.OVERSIZED)
    done = letters.command("replay", "--reason", "invalid")
    assert done.stdout.decode().splitlines() == [f"sent 20 letters to {letters.topics.clicks}, refused 0"]
    assert (done.returncode, done.stderr) == (0, b"")
    found = [record for record in letters.replayed(40) if record.headers()]
    assert sorted(record.value() or b"" for record in found) == sorted(map(encode_click, clicks))
    for record in found:
        headers = record.headers()
        assert isinstance(headers, list)
        number = [encode_click(click) for click in clicks].index(bytes(record.value() or b""))
        assert headers == [
            *original,
            ("nextclick.replayed.from", f"{letters.topics.clicks}-0@{number}".encode()),
        ]
        assert record.partition() == where[record.key()]


def test_what_is_no_click_is_refused_and_the_rest_is_sent(letters: Letters) -> None:
    letters.put(b"broken", reason=Reason.MALFORMED)
    letters.put(value("s", "e"))
    letters.put(None, reason=Reason.TOMBSTONE)
    letters.put(b"start", key=None, original=[(CUT_HEADER, b"3000011")], reason=Reason.OVERSIZED)
    letters.put_foreign(value("s", "foreign"))
    dry = letters.command("replay", "--all", "--dry-run")
    assert dry.returncode == 1
    assert f"would send 1 letters to {letters.topics.clicks}, refused 4".encode() in dry.stdout
    assert b"would send  0:1  key k  {" in dry.stdout
    assert b"lies at " + f"{letters.topics.clicks}-0@7".encode() in dry.stdout
    assert letters.command("replay", "--all").returncode == 1
    assert [record.value() for record in letters.replayed(1)] == [value("s", "e")], "a dry run sends nothing"


def test_repaired_letters_go_back_and_named_ones_that_are_not_there_are_told(
    letters: Letters, tmp_path: Path
) -> None:
    letters.put(b'{"event_id": "e1"', reason=Reason.MALFORMED, original=[("shop", b"north")])
    letters.put(value("s", "not-chosen"))
    letters.put(b"\xff", reason=Reason.MALFORMED, partition=2)
    lines = letters.json_lines("list", "--reason", "malformed")
    assert {(line["partition"], line["offset"]) for line in lines} == {(0, 0), (2, 0)}
    for line in lines:
        line["value"] = json.loads(value("s", "mended")) if line["partition"] == 0 else "still broken"
    lines.append({"partition": 1, "offset": 99, "value": {}})
    text = "\n".join(map(json.dumps, lines)).encode()
    done = letters.command("replay", "--repaired", "-", "--json", given=text)
    assert done.returncode == 1
    outcomes = {
        (line["partition"], line["offset"]): line for line in map(json.loads, done.stdout.splitlines())
    }
    assert {at: line["outcome"] for at, line in outcomes.items()} == {
        (0, 0): "sent",
        (2, 0): "refused",
        (1, 99): "refused",
    }
    assert "still no click" in outcomes[2, 0]["why"]
    assert "not on the dead-letter topic" in outcomes[1, 99]["why"]
    [record] = letters.replayed(1)
    assert json.loads(record.value() or b"") == json.loads(value("s", "mended"))
    assert record.key() == b"k"
    headers = record.headers()
    assert isinstance(headers, list)
    assert headers[0] == ("shop", b"north")


def test_letters_are_chosen_by_offset(letters: Letters) -> None:
    for number in range(10):
        letters.put(value("s", f"e{number}"), partition=number % 2)
    lines = letters.json_lines("replay", "--offsets", "0:3,1:0")
    assert {(line["partition"], line["offset"], line["outcome"]) for line in lines} == {
        (0, 3, "sent"),
        (1, 0, "sent"),
    }
    assert {record.value() for record in letters.replayed(2)} == {value("s", "e6"), value("s", "e1")}


def test_what_kafka_does_not_take_is_never_told_as_sent(letters: Letters, create_topic: CreateTopic) -> None:
    narrow = create_topic(f"{letters.topics.clicks}.narrow", 1, {"max.message.bytes": "300"})
    letters.topics = TopicNames(clicks=narrow, dead_letters=letters.topics.dead_letters)
    letters.put(value("s", "e"), original=[("pad", os.urandom(1_000))])  # random: no compression helps
    done = letters.command("replay", "--all")
    assert done.returncode == 1
    first, last = done.stdout.decode().splitlines()
    assert first.startswith("not acknowledged  0:0  ")
    assert last == f"sent 0 letters to {narrow}, refused 0, not acknowledged 1"
    assert b"did not acknowledge 1 letters" in done.stderr
    assert b"Traceback" not in done.stderr
    assert [
        line["outcome"]
        for line in map(json.loads, letters.command("replay", "--all", "--json").stdout.splitlines())
    ] == ["not_acknowledged"]


def test_a_missing_clicks_topic_is_told_and_not_created(letters: Letters) -> None:
    letters.put(value("s", "e"))
    letters.topics = TopicNames(
        clicks=f"{letters.topics.clicks}.none", dead_letters=letters.topics.dead_letters
    )
    done = letters.command("replay", "--all")
    assert done.returncode == 1
    assert b"there is no topic" in done.stderr


def test_what_a_worker_dead_letters_is_mended_and_then_answered(
    bootstrap: str, topic_prefix: str, topics: TopicNames, letters: Letters
) -> None:
    """The whole way round: a bad click, its letter, the repair, the recommendation."""
    [click] = make_clicks(1, sessions=1, seed=2)
    broken = json.loads(encode_click(click))
    item_id = broken.pop("item_id")
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
    producer.produce(topics.clicks, json.dumps(broken).encode(), click.session_id)
    assert producer.flush(30) == 0
    with WarmWorkerProcess(bootstrap, topic_prefix) as worker:
        worker.wait_ready()
        read_records(bootstrap, topics.dead_letters, 1)
        [line] = letters.json_lines("list")
        assert isinstance(line["value"], str)
        line["value"] = {**json.loads(line["value"]), "item_id": item_id}
        done = letters.command("replay", "--repaired", "-", given=json.dumps(line).encode())
        assert (done.returncode, done.stderr) == (0, b"")
        [answer] = read_records(bootstrap, topics.recommendations, 1)
        assert json.loads(answer.value() or b"")["event_id"] == click.event_id
        assert worker.terminate() == 0
