"""Sessions come back from the changelog, whatever its tail looks like; what cannot be read is refused."""

import json
import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from pathlib import Path

import orjson

from schemas.click import Click, encode_click
from schemas.session_history import (
    FORMAT_VERSION,
    SessionHistory,
    encode_session_history,
    ended_at,
    tombstone_headers,
)
from schemas.topics import TopicNames
from tests.broker.test_worker import ITEMS, NOW_MS, announce, make_clicks
from tests.chaos.outcome import read_outcome, read_whole
from tests.conftest import CreateTopic
from tests.support.artefacts import write_random_model
from tests.support.exactness import assert_as_if_uninterrupted, partitions_of, wait_answered
from tests.support.kafka_io import send_clicks
from tests.support.open_transaction import open_transaction
from tests.support.partition_io import commit, produce_to
from tests.support.scrape import metric
from tests.support.worker_process import WarmWorkerProcess, prefixed_topics
from worker.shell.records import headers_of

PARTITIONS = {0, 1, 2}
WAIT_S = 30.0


def clicks_on(
    bootstrap: str, topics: TopicNames, clicks: Sequence[Click], where: AbstractSet[int]
) -> list[Click]:
    """Those of these clicks, all of them on the topic, that lie on some partitions."""
    partitions = partitions_of(bootstrap, topics)
    return [click for click in clicks if partitions[click.event_id] in where]


def wait_restoring(worker: WarmWorkerProcess, partitions: list[int]) -> None:
    """Wait until exactly these partitions are not restored yet; it must not be ready then."""
    deadline_s = time.monotonic() + WAIT_S
    while True:
        status, body = worker.get("/readyz")
        said = json.loads(body)
        if said["partitions"] and said["restoring"] == partitions:
            assert status == 503
            return
        assert time.monotonic() < deadline_s, f"{said}\n{worker.log()}"
        time.sleep(0.05)


def wait_for_value(worker: WarmWorkerProcess, name: str, value: float) -> None:
    """Wait until an unlabelled metric, which the worker sets once a second, is exactly this."""
    deadline_s = time.monotonic() + WAIT_S
    while (found := metric(worker, name)) != value:
        assert time.monotonic() < deadline_s, f"{name} is {found}, {value} expected\n{worker.log()}"
        time.sleep(0.1)


def produce_clicks(bootstrap: str, topic: str, clicks: Sequence[Click]) -> None:
    """Send clicks to partition 0."""
    for click in clicks:
        produce_to(bootstrap, topic, 0, click.session_id, encode_click(click))


def history(session_id: str, partition: int, **changes: object) -> bytes:
    """A record of the changelog with some fields changed."""
    good = SessionHistory(FORMAT_VERSION, session_id, ["item-1"], NOW_MS, partition, 0)
    return orjson.dumps({**orjson.loads(encode_session_history(good)), **changes})


def test_sessions_go_on_after_a_restart_whatever_the_tail_of_the_changelog_is(
    bootstrap: str, topic_prefix: str, topics: TopicNames, tmp_path: Path
) -> None:
    """Partition 0 ends in an aborted transaction; that of partition 1 is open for two seconds, then aborted.
    It is waited for, and the others are served meanwhile.
    """
    folder = write_random_model(tmp_path / "m1", ITEMS, hidden_size=32, seed=1, version="m1")
    announce(bootstrap, topics, folder, "m1")
    clicks = make_clicks(900, sessions=60, seed=31)
    changelog = topics.session_histories
    send_clicks(bootstrap, topics.clicks, clicks[:500])
    with WarmWorkerProcess(bootstrap, topic_prefix) as worker:
        wait_answered(bootstrap, topics, clicks[:500])
        assert worker.terminate() == 0
    with open_transaction(bootstrap, f"{topic_prefix}aborted", changelog, [0]):
        pass
    held_up = ExitStack()
    held_up.enter_context(open_transaction(bootstrap, f"{topic_prefix}open", changelog, [1]))
    with held_up, WarmWorkerProcess(bootstrap, topic_prefix) as worker:
        wait_restoring(worker, [1])
        send_clicks(bootstrap, topics.clicks, clicks[500:])
        wait_answered(bootstrap, topics, clicks_on(bootstrap, topics, clicks, {0, 2}))
        time.sleep(2)
        wait_restoring(worker, [1])
        held_up.close()
        worker.wait_ready("m1")
        wait_answered(bootstrap, topics, clicks)
        assert "nextclick_corrupt_changelog_records_total 0.0" in worker.get("/metrics")[1]
        assert worker.terminate() == 0
    assert_as_if_uninterrupted(bootstrap, topics, clicks, folder)


def test_partitions_that_stay_are_served_while_those_that_move_are_restored(
    bootstrap: str, topic_prefix: str, topics: TopicNames, tmp_path: Path
) -> None:
    """A second worker joins and cannot restore yet; the first one goes on with what it keeps."""
    folder = write_random_model(tmp_path / "m1", ITEMS, hidden_size=32, seed=1, version="m1")
    announce(bootstrap, topics, folder, "m1")
    clicks = make_clicks(900, sessions=60, seed=32)
    send_clicks(bootstrap, topics.clicks, clicks[:500])
    quick = ("--kafka", "heartbeat.interval.ms=500")
    with WarmWorkerProcess(bootstrap, topic_prefix, quick) as stays:
        wait_answered(bootstrap, topics, clicks[:500])
        held_up, changelog = ExitStack(), topics.session_histories
        held_up.enter_context(open_transaction(bootstrap, f"{topic_prefix}open", changelog, PARTITIONS))
        with held_up, WarmWorkerProcess(bootstrap, topic_prefix, quick) as joins:
            joins.wait_for_log("partitions_came")
            moved = json.loads(joins.get("/readyz")[1])["partitions"]
            kept = PARTITIONS - set(moved)
            assert stays.wait_ready()["partitions"] == sorted(kept)
            send_clicks(bootstrap, topics.clicks, clicks[500:])
            of_kept = clicks_on(bootstrap, topics, clicks, kept)
            answered = {answer.event_id for answer in wait_answered(bootstrap, topics, of_kept)}
            wait_restoring(joins, moved)
            waiting = {click.event_id for click in clicks_on(bootstrap, topics, clicks[500:], set(moved))}
            assert waiting
            assert not waiting & answered
            held_up.close()
            wait_answered(bootstrap, topics, clicks)
            assert joins.terminate() == stays.terminate() == 0
    assert_as_if_uninterrupted(bootstrap, topics, clicks, folder)


def test_how_far_a_restore_is_can_be_seen(bootstrap: str, topic_prefix: str, topics: TopicNames) -> None:
    """Partition 1 holds nine histories, and three records of an open transaction that is waited for."""
    for number in range(9):
        session_id = f"s-{number}"
        produce_to(bootstrap, topics.session_histories, 1, session_id, history(session_id, 1))
    held_up, changelog = ExitStack(), topics.session_histories
    held_up.enter_context(open_transaction(bootstrap, f"{topic_prefix}open", changelog, [1], records=3))
    with held_up, WarmWorkerProcess(bootstrap, topic_prefix) as worker:
        wait_restoring(worker, [1])
        wait_for_value(worker, "nextclick_restored_records_total", 9)
        wait_for_value(worker, "nextclick_restore_remaining_records", 3)
        wait_for_value(worker, "nextclick_restoring_partitions", 1)
        status, body = worker.get("/readyz")
        assert (status, json.loads(body)["restored_share"]) == (503, 0.75)
        assert '"partition":1,"offset":9,"end":12' in worker.wait_for_log("restore_waits")
        held_up.close()
        assert worker.wait_ready()["restored_share"] == 1.0
        wait_for_value(worker, "nextclick_restore_remaining_records", 0)
        wait_for_value(worker, "nextclick_restoring_partitions", 0)
        assert worker.terminate() == 0


def test_a_changelog_of_a_newer_version_is_refused(
    bootstrap: str, topic_prefix: str, topics: TopicNames
) -> None:
    newer = FORMAT_VERSION + 1
    produce_to(
        bootstrap, topics.session_histories, 1, "s", history("s", 1, format_version=newer, shape="new")
    )
    with WarmWorkerProcess(bootstrap, topic_prefix) as worker:
        assert worker.process.wait(60) == 1
        assert f"partition 1: session history of format {newer}" in worker.log()
        assert "Upgrade this worker" in worker.log()
        assert "Traceback" not in worker.log()


def test_corrupt_records_of_the_changelog_are_skipped_and_counted(
    bootstrap: str, topic_prefix: str, topics: TopicNames
) -> None:
    """Be they no JSON, no history, or of another session or partition than they lie under."""
    corrupt = [
        ("s1", b"\xff\xfe"),
        ("s2", b'{"format_version":1'),
        ("s3", b"[" * 100_000),
        ("s4", history("s4", 1, items=[1.5])),
        ("s5", history("s5", 1, recent_events="zz")),
        ("s6", history("another", 1)),
        ("s7", history("s7", 2)),
        ("s8", history("s8", 1, source_offset=-1)),
        ("", history("s9", 1)),
    ]
    for key, value in [*corrupt, ("good", history("good", 1))]:
        produce_to(bootstrap, topics.session_histories, 1, key, value)
    with WarmWorkerProcess(bootstrap, topic_prefix) as worker:
        worker.wait_ready()
        worker.wait_for_metric("nextclick_sessions_live", 1)
        shown = worker.get("/metrics")[1]
        log = worker.wait_for_log("changelog_record_skipped")
        assert worker.terminate() == 0
    assert f"nextclick_corrupt_changelog_records_total {len(corrupt)}.0" in shown
    assert "nextclick_sessions_live 1.0" in shown
    assert '"partition":1' in log


def test_at_least_once_a_late_record_of_a_worker_that_lost_its_partition_does_not_count(
    bootstrap: str, topic_prefix: str, topics: TopicNames
) -> None:
    """It was frozen with an older history unsent, and wrote it over the one of the new owner."""
    produce_clicks(bootstrap, topics.clicks, make_clicks(6, sessions=1, seed=34))
    commit(bootstrap, f"{topic_prefix}group", topics.clicks, 0, 6)
    for offset, items in ((2, ["item-1", "item-2"]), (5, ["item-1", "item-2", "item-3"]), (2, ["item-1"])):
        record = history("s", 0, source_offset=offset, items=items)
        produce_to(bootstrap, topics.session_histories, 0, "s", record)
    produce_to(bootstrap, topics.session_histories, 0, "s", None, tombstone_headers(2))
    with WarmWorkerProcess(bootstrap, topic_prefix, ["--processing-guarantee", "at_least_once"]) as worker:
        worker.wait_ready()
        assert metric(worker, "nextclick_late_changelog_records_total") == 2
        produce_clicks(bootstrap, topics.clicks, [Click("e", "s", "item-4", NOW_MS)])
        worker.wait_for_metric("nextclick_changelog_records_total", 1)
        assert worker.terminate() == 0
    found = read_outcome(bootstrap, topics).histories["s"]
    assert found is not None
    assert found.items == ("item-1", "item-2", "item-3", "item-4")


def test_a_changelog_with_another_partition_count_is_refused(
    bootstrap: str, topic_prefix: str, create_topic: CreateTopic
) -> None:
    names = prefixed_topics(topic_prefix)
    for name in (names.clicks, names.recommendations, names.dead_letters):
        create_topic(name, 3)
    create_topic(names.session_histories, 2, {"cleanup.policy": "compact"})
    create_topic(names.models, 1, {"cleanup.policy": "compact"})
    with WarmWorkerProcess(bootstrap, topic_prefix) as worker:
        assert worker.process.wait(60) == 1
        assert f"{names.session_histories} has 2 partitions and {names.clicks} has 3" in worker.log()
        assert "nextclick topics create --partitions 3" in worker.log()


def test_sessions_that_expire_or_are_evicted_leave_tombstones(
    bootstrap: str, topic_prefix: str, topics: TopicNames
) -> None:
    """Also those for which there was no room when they were restored."""

    def click(number: int, session: int, at_s: int) -> Click:
        return Click(f"e-{number}", f"s-{session}", "item-1", NOW_MS + at_s * 1_000)

    produce_clicks(bootstrap, topics.clicks, [click(number, number, number) for number in range(6)])
    flags = ["--idle-timeout-ms", "60000"]
    with WarmWorkerProcess(bootstrap, topic_prefix, [*flags, "--max-sessions", "5"]) as worker:
        worker.wait_for_metric("nextclick_sessions_evicted_total", 1)
        assert live(bootstrap, topics) == {"s-1", "s-2", "s-3", "s-4", "s-5"}
        produce_clicks(bootstrap, topics.clicks, [click(6, 5, 62)])
        worker.wait_for_metric("nextclick_sessions_expired_total", 1)
        assert live(bootstrap, topics) == {"s-2", "s-3", "s-4", "s-5"}
        assert worker.terminate() == 0
    assert ends(bootstrap, topics) == {"s-0": 0, "s-1": 1}, "with the offset of their last click"
    with WarmWorkerProcess(bootstrap, topic_prefix, [*flags, "--max-sessions", "2"]) as worker:
        worker.wait_for_metric("nextclick_sessions_evicted_total", 2)
        produce_clicks(bootstrap, topics.clicks, [click(7, 5, 63)])
        worker.wait_for_metric("nextclick_clicks_total", 1)
        assert live(bootstrap, topics) == {"s-4", "s-5"}
        assert worker.terminate() == 0


def live(bootstrap: str, topics: TopicNames) -> set[str]:
    """Sessions whose last record on the changelog is no tombstone."""
    histories = read_outcome(bootstrap, topics).histories
    return {session for session, history in histories.items() if history is not None}


def ends(bootstrap: str, topics: TopicNames) -> dict[str, int]:
    """The tombstones on the changelog, and the source offset that each tells."""
    return {
        (record.key() or b"").decode(): ended_at(headers_of(record))
        for record in read_whole(bootstrap, topics.session_histories)
        if record.value() is None
    }
