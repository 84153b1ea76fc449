"""`nextclick produce`: what is read from which file, at which pace, and what lands on the topic."""

import gzip
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from confluent_kafka import Message
from hypothesis import given
from hypothesis import strategies as st

from deploy.click_file import MAX_LINE_BYTES, BadLine, OutgoingClick, is_lines, read_lines, restamped
from deploy.click_pace import Pace
from deploy.click_sender import ClickSender, SendError
from deploy.produce import ProduceError, ProduceOptions, run_produce
from deploy.settings import UsageError
from deploy.topic_admin import TopicError
from schemas.click import Click, decode_click
from tests.conftest import CreateTopic
from tests.support.kafka_io import read_records
from training.errors import UnreadableLogError

NOW_MS = 1_760_000_000_000


def line(number: int, session: str | int = "s", timestamp_ms: int = NOW_MS, **more: object) -> bytes:
    fields = {"event_id": f"e{number}", "session_id": session, "item_id": f"i{number}"}
    return json.dumps({**fields, "timestamp_ms": timestamp_ms, **more}).encode() + b"\n"


def read(data: bytes, *, raw: bool = False) -> list[OutgoingClick | BadLine]:
    return list(read_lines(io.BytesIO(data), lambda: NOW_MS, raw=raw))


# What is read


def test_good_lines_go_out_as_they_are_keyed_by_session() -> None:
    text = line(1, more={"own": [1]}) + b"\r\n  \n" + line(2, 42).replace(b"\n", b"\r\n") + line(3).rstrip()
    first, second, third = read(text)
    assert first == OutgoingClick("s", line(1, more={"own": [1]}).strip(), NOW_MS)
    assert isinstance(second, OutgoingClick)
    assert (second.session_id, second.value) == ("42", line(2, 42).strip())
    assert third == OutgoingClick("s", line(3).strip(), NOW_MS)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"event_id": "e", \n', "malformed"),
        (b"\xff\xfe\n", "malformed"),
        (b"[]\n", "invalid"),
        (line(1, ""), "invalid"),
        (line(1, timestamp_ms=1_760_000_000), "timestamp"),
        (line(1, timestamp_ms=NOW_MS + 2 * 86_400_000), "ahead"),
        (line(1, filler="x" * 20_000), "oversized"),
        (b"[" * 100_000 + b"\n", "oversized"),
        (line(1, filler="x" * MAX_LINE_BYTES * 2), "longer than"),
    ],
)
def test_a_bad_line_is_told_by_number_and_the_next_one_is_read(bad: bytes, reason: str) -> None:
    first, second, third = read(line(1) + bad + line(3))
    assert isinstance(second, BadLine)
    assert second.number == 2
    assert reason in second.reason
    assert isinstance(first, OutgoingClick)
    assert third == OutgoingClick("s", line(3).strip(), NOW_MS)


def test_a_last_line_without_end_that_is_too_long_is_bad_too() -> None:
    assert read(b"x" * (MAX_LINE_BYTES + 2)) == [BadLine(1, f"longer than {MAX_LINE_BYTES:,} bytes")]


def test_raw_lines_are_not_looked_into_but_for_their_key() -> None:
    assert read(b'{"session_id": "s", "x"\n{"session_id": 7}\n nope \n[1]\n', raw=True) == [
        OutgoingClick(None, b'{"session_id": "s", "x"', None),
        OutgoingClick("7", b'{"session_id": 7}', None),
        OutgoingClick(None, b" nope ", None),
        OutgoingClick(None, b"[1]", None),
    ]


def test_restamping_changes_the_time_alone() -> None:
    click = OutgoingClick("s", line(1, own={"a": None}).strip(), NOW_MS)
    after = restamped(click, NOW_MS + 5)
    assert json.loads(after.value) == {**json.loads(click.value), "timestamp_ms": NOW_MS + 5}
    assert (after.session_id, after.timestamp_ms) == ("s", NOW_MS + 5)


def test_the_name_says_what_a_file_is() -> None:
    assert all(map(is_lines, ("-", "a.jsonl", "b/c.JSON", "d.ndjson.gz")))
    assert not any(map(is_lines, ("a.tsv", "a.csv.gz", "a.parquet", "gz", ".gz", "jsonl")))


# The pace


@given(st.lists(st.integers(0, 10**12), min_size=1), st.floats(0.1, 1e6))
def test_a_rate_is_steady_whatever_the_log_says(times_ms: list[int], rate: float) -> None:
    pace = Pace(rate=rate)
    assert [pace.due_s(time_ms) for time_ms in times_ms] == [n / rate for n in range(len(times_ms))]


def test_a_speed_follows_the_clock_of_the_log_and_late_clicks_are_due_at_once() -> None:
    pace = Pace(speed=60.0)
    assert [pace.due_s(ms) for ms in (NOW_MS, NOW_MS + 60_000, NOW_MS - 6_000, NOW_MS + 3_600_000)] == [
        0.0,
        1.0,
        -0.1,
        60.0,
    ]


def test_without_a_pace_all_is_due_at_once() -> None:
    pace = Pace()
    assert [pace.due_s(NOW_MS), pace.due_s(None), pace.due_s(NOW_MS + 10**6)] == [0.0, 0.0, 0.0]


# What cannot be asked for


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ProduceOptions("a.jsonl", rate=1, speed=1), "not both"),
        (lambda: ProduceOptions("a.jsonl", raw=True, now=True), "--raw"),
        (lambda: ProduceOptions("a.jsonl", raw=True, speed=1), "--raw"),
        (lambda: ProduceOptions("a.tsv", raw=True), "--raw"),
        (lambda: ProduceOptions("-", columns="item_id=x"), "--columns"),
        (lambda: ProduceOptions("a.jsonl", timestamp_unit="s"), "--timestamp-unit"),
        (lambda: ProduceOptions("-", now=True), "--now"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    make: Callable[[], ProduceOptions], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        make()


def test_an_unreachable_broker_is_told_within_seconds() -> None:
    started_s = time.monotonic()
    with pytest.raises(TopicError, match=r"no Kafka broker answered at 127\.0\.0\.1:1"):
        ClickSender({"bootstrap.servers": "127.0.0.1:1"}, "clicks")
    assert time.monotonic() - started_s < 60  # ten; the rest is for a busy machine


# On a real broker


def produced(bootstrap: str, topic: str, count: int) -> list[Message]:
    records = read_records(bootstrap, topic, count)
    assert len(records) == count
    return sorted(records, key=lambda record: (record.partition() or 0, record.offset() or 0))


def send(bootstrap: str, topic: str, options: ProduceOptions) -> None:
    run_produce(options, {"bootstrap.servers": bootstrap}, topic)


@pytest.mark.broker
def test_json_lines_are_sent_and_bad_ones_told(
    bootstrap: str,
    topic_prefix: str,
    create_topic: CreateTopic,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    topic = create_topic(f"{topic_prefix}clicks", 3)
    file = tmp_path / "clicks.jsonl.gz"
    file.write_bytes(gzip.compress(line(1) + b"nope\n" + line(2) + line(3, 5)))
    with pytest.raises(ProduceError, match=r"as no clicks: 1 records; --raw"):
        send(bootstrap, topic, ProduceOptions(str(file)))
    records = produced(bootstrap, topic, 3)
    assert {(record.key(), record.value()) for record in records} == {
        (b"s", line(1).strip()),
        (b"s", line(2).strip()),
        (b"5", line(3, 5).strip()),
    }
    assert len({record.partition() for record in records if record.key() == b"s"}) == 1
    output = capsys.readouterr()
    assert f"sent 3 clicks to {topic}" in output.out
    assert "line 2: malformed" in output.err


@pytest.mark.broker
def test_raw_lines_arrive_whatever_they_are(
    bootstrap: str, topic_prefix: str, create_topic: CreateTopic, tmp_path: Path
) -> None:
    topic = create_topic(f"{topic_prefix}clicks")
    file = tmp_path / "clicks.jsonl"
    file.write_bytes(b'nope\n{"session_id": "s"}\n')
    send(bootstrap, topic, ProduceOptions(str(file), raw=True))
    found = [(record.key(), record.value()) for record in produced(bootstrap, topic, 2)]
    assert found == [(None, b"nope"), (b"s", b'{"session_id": "s"}')]


@pytest.mark.broker
@pytest.mark.parametrize("kind", ["tsv", "csv.gz", "parquet"])
def test_a_log_in_columns_is_sent_in_order_of_time(
    kind: str, bootstrap: str, topic_prefix: str, create_topic: CreateTopic, tmp_path: Path
) -> None:
    topic = create_topic(f"{topic_prefix}clicks")
    table = pl.DataFrame({"sid": [2, 1, 1], "product": ["b", "a", "c"], "t": [30, 10, 20]})
    table = table.with_columns(pl.col("t") + NOW_MS // 1000)
    file = tmp_path / f"log.{kind}"
    if kind == "parquet":
        table.write_parquet(file)
    else:
        text = table.write_csv(separator="\t" if kind == "tsv" else ",").encode()
        file.write_bytes(gzip.compress(text) if kind.endswith(".gz") else text)
    options = ProduceOptions(str(file), columns="session_id=sid,item_id=product,timestamp=t")
    send(bootstrap, topic, options)
    send(bootstrap, topic, options)
    records = produced(bootstrap, topic, 6)
    clicks = [decode_click(record.value(), NOW_MS) for record in records]
    expected = [("1", "a", 10), ("1", "c", 20), ("2", "b", 30)]
    found = [(click.session_id, click.item_id, (click.timestamp_ms - NOW_MS) // 1000) for click in clicks]
    assert found == expected * 2
    assert [record.key() for record in records] == [click.session_id.encode() for click in clicks]
    event_ids = [click.event_id for click in clicks]
    assert event_ids[:3] == event_ids[3:]  # sent again, it is the same clicks
    assert len(set(event_ids)) == 3


@pytest.mark.broker
@pytest.mark.parametrize("kind", ["jsonl", "tsv"])
def test_now_shifts_a_whole_log_so_that_it_ends_now(
    kind: str, bootstrap: str, topic_prefix: str, create_topic: CreateTopic, tmp_path: Path
) -> None:
    topic = create_topic(f"{topic_prefix}clicks")
    file = tmp_path / f"old.{kind}"
    if kind == "jsonl":
        file.write_bytes(line(1, timestamp_ms=NOW_MS - 60_000) + line(2))
    else:
        file.write_text(f"session_id\titem_id\ttimestamp_ms\ns\ta\t{NOW_MS - 60_000}\ns\tb\t{NOW_MS}\n")
    before_ms = time.time_ns() // 1_000_000
    send(bootstrap, topic, ProduceOptions(str(file), now=True))
    after_ms = time.time_ns() // 1_000_000
    first, last = clicks_of(produced(bootstrap, topic, 2))
    assert before_ms <= last.timestamp_ms <= after_ms
    assert last.timestamp_ms - first.timestamp_ms == 60_000


@pytest.mark.broker
def test_at_a_pace_now_is_the_time_of_sending(
    bootstrap: str, topic_prefix: str, create_topic: CreateTopic, tmp_path: Path
) -> None:
    topic = create_topic(f"{topic_prefix}clicks")
    file = tmp_path / "clicks.jsonl"
    file.write_bytes(b"".join(line(n, timestamp_ms=NOW_MS + n * 60_000) for n in range(4)))
    before_ms = time.time_ns() // 1_000_000
    send(bootstrap, topic, ProduceOptions(str(file), speed=300.0, now=True))  # a minute takes 200 ms
    times_ms = [click.timestamp_ms for click in clicks_of(produced(bootstrap, topic, 4))]
    assert before_ms <= times_ms[0]
    assert all(after - before > 0 for before, after in itertools.pairwise(times_ms))
    assert times_ms[-1] - times_ms[0] >= 590


def clicks_of(records: list[Message]) -> list[Click]:
    return [decode_click(record.value(), time.time_ns() // 1_000_000) for record in records]


@pytest.mark.broker
def test_a_missing_topic_is_told_and_not_created(bootstrap: str, topic_prefix: str, tmp_path: Path) -> None:
    file = tmp_path / "clicks.jsonl"
    file.write_bytes(line(1))
    for _ in range(2):
        with pytest.raises(TopicError, match=f"no topic {topic_prefix}none .*nextclick topics create"):
            send(bootstrap, f"{topic_prefix}none", ProduceOptions(str(file)))


@pytest.mark.broker
def test_a_record_that_the_broker_refuses_ends_the_run_with_counts(
    bootstrap: str, topic_prefix: str, create_topic: CreateTopic, tmp_path: Path
) -> None:
    topic = create_topic(f"{topic_prefix}clicks", config={"max.message.bytes": "2000"})
    file = tmp_path / "clicks.jsonl"
    # Random text, which compression does not bring under the bound.
    file.write_bytes(line(1) + line(2, filler=os.urandom(4_000).hex()))
    # Where the broker is slow to answer the first, both are in one request, which it refuses as a whole.
    counts = r"(1 clicks are on .*, 1|0 clicks are on .*, 2) failed: .*[Tt]oo large"
    with pytest.raises(ProduceError, match=counts):
        send(bootstrap, topic, ProduceOptions(str(file), rate=2.0))


@pytest.mark.broker
def test_what_is_not_acknowledged_in_time_is_an_error(
    bootstrap: str, topic_prefix: str, create_topic: CreateTopic
) -> None:
    topic = create_topic(f"{topic_prefix}clicks")
    sender = ClickSender({"bootstrap.servers": bootstrap, "linger.ms": "5000"}, topic)
    sender.send("s", b"{}")
    with pytest.raises(SendError, match=r"all but 1 records within 0\.2 s"):
        sender.finish(0.2)
    assert (sender.sent, sender.delivered) == (1, 0)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("none.jsonl", None, "none.jsonl cannot be read: No such file"),
        ("broken.jsonl.gz", b"no gzip", "no whole gzip"),
        ("cut.jsonl.gz", gzip.compress(line(1) * 1_000)[:-20], "no whole gzip"),
    ],
)
@pytest.mark.broker
def test_an_unreadable_file_is_told(
    name: str,
    data: bytes | None,
    said: str,
    bootstrap: str,
    topic_prefix: str,
    create_topic: CreateTopic,
    tmp_path: Path,
) -> None:
    topic = create_topic(f"{topic_prefix}clicks")
    if data is not None:
        (tmp_path / name).write_bytes(data)
    done = command(bootstrap, topic, str(tmp_path / name))
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_log_without_its_columns_is_told_before_kafka_is_asked(tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    file.write_text("a,b\n1,2\n")
    with pytest.raises(UnreadableLogError, match="--columns"):
        send("127.0.0.1:1", "clicks", ProduceOptions(str(file)))


def command_line(bootstrap: str, topic: str, *arguments: str) -> list[str]:
    start = [sys.executable, "-m", "deploy", "produce", *arguments]
    return [*start, "--bootstrap", bootstrap, "--clicks-topic", topic]


def command(bootstrap: str, topic: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command_line(bootstrap, topic, *arguments), capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.broker
def test_an_endless_pipe_is_sent_as_it_comes_and_ctrl_c_ends_it_well(
    bootstrap: str, topic_prefix: str, create_topic: CreateTopic
) -> None:
    topic = create_topic(f"{topic_prefix}clicks")
    with subprocess.Popen(
        command_line(bootstrap, topic, "-"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        process.stdin.write(line(1) + line(2))
        process.stdin.flush()
        produced(bootstrap, topic, 2)  # while the pipe is still open
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert f"sent 2 clicks to {topic}".encode() in output
    assert process.returncode == 130
