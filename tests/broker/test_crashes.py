"""Failures scripted in the input: [click, CRASH, click]. Readers see an uninterrupted run."""

from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from schemas.click import Click
from schemas.topics import TopicNames
from tests.broker.test_worker import ITEMS, announce, make_clicks
from tests.support.artefacts import write_random_model
from tests.support.crashing_process import CrashingProcess
from tests.support.exactness import (
    assert_as_if_uninterrupted,
    assert_histories_as_clicked,
    assert_scores,
    read_answers,
    wait_answered,
)
from tests.support.kafka_io import send_clicks
from tests.support.worker_process import WarmWorkerProcess

AT_ONCE = ("--instance-id", "one", "--max-batch", "32")
"""A static member that was killed comes back without a wait; small batches hold one crash each."""

BATCH_CRASHES = (
    "crash-before-produce",
    "crash-between-produce-and-offsets",
    "crash-between-offsets-and-commit",
    "crash-after-commit",
)


def with_cues(clicks: Sequence[Click], cues: Sequence[str]) -> list[Click]:
    """The clicks, spread over them those whose event ids begin with these cues, each in a batch of its own.

    The first clicks are of a session that crashes the worker once it is restored.
    """
    scripted = [replace(click, session_id="crash-during-restore") for click in clicks[:3]] + list(clicks[3:])
    apart = len(scripted) // (len(cues) + 1)
    for number, cue in enumerate(cues, 1):
        at = number * apart
        scripted[at] = replace(scripted[at], event_id=f"{cue}-{at}", session_id="s-scripted")
    return scripted


def crash_until(bootstrap: str, prefix: str, marks: Path, cues: Sequence[str], flags: Sequence[str]) -> None:
    """Start one worker after the other; each dies by the next of the cues."""
    for cue in cues:
        with CrashingProcess(bootstrap, prefix, marks, flags) as worker:
            worker.wait_fired(cue)


def test_a_worker_that_is_killed_at_any_point_changes_nothing(
    bootstrap: str, topic_prefix: str, topics: TopicNames, tmp_path: Path
) -> None:
    """Each worker first mends what the one before left: answers and histories are those of a quiet run, then
    come the clicks that kill it. Their scores are those of whole sessions, so the table was mended too.
    """
    folder = write_random_model(tmp_path / "m1", ITEMS, hidden_size=32, seed=1, version="m1")
    announce(bootstrap, topics, folder, "m1")
    clicks = with_cues(make_clicks(750, sessions=60, seed=21), BATCH_CRASHES)
    apart = len(clicks) // (len(BATCH_CRASHES) + 1)
    send_clicks(bootstrap, topics.clicks, clicks[:apart])
    for number, cue in enumerate(BATCH_CRASHES, 1):
        with CrashingProcess(bootstrap, topic_prefix, tmp_path, AT_ONCE) as worker:
            assert_as_if_uninterrupted(bootstrap, topics, clicks[: number * apart], folder)
            send_clicks(bootstrap, topics.clicks, clicks[number * apart : (number + 1) * apart])
            worker.wait_fired(cue)
        if number == 1:
            crash_until(bootstrap, topic_prefix, tmp_path, ["crash-during-restore"], AT_ONCE)
    with WarmWorkerProcess(bootstrap, topic_prefix, AT_ONCE) as worker:
        wait_answered(bootstrap, topics, clicks)
        assert worker.terminate() == 0
    assert_as_if_uninterrupted(bootstrap, topics, clicks, folder)


def test_at_least_once_answers_again_and_applies_once(
    bootstrap: str, topic_prefix: str, topics: TopicNames, tmp_path: Path
) -> None:
    """Offsets are committed so rarely here that each crash replays all that came before it."""
    flags = (*AT_ONCE, "--processing-guarantee", "at_least_once", "--commit-interval-ms", "60000")
    clicks = with_cues(make_clicks(900, sessions=100, seed=22), BATCH_CRASHES[:2])
    send_clicks(bootstrap, topics.clicks, clicks)
    first, second = BATCH_CRASHES[:2]
    crash_until(bootstrap, topic_prefix, tmp_path, [first, "crash-during-restore", second], flags)
    known = {answer.event_id for answer in read_answers(bootstrap, topics)}
    assert any(event.startswith(second) for event in known)
    with WarmWorkerProcess(bootstrap, topic_prefix, flags) as worker:
        worker.wait_for_metric("nextclick_clicks_total", 1)
        wait_answered(bootstrap, topics, clicks)
        worker.wait_for_metric("nextclick_replayed_clicks_total", len(known), timeout_s=20)
        assert worker.terminate() == 0
    answered = [answer.event_id for answer in read_answers(bootstrap, topics)]
    assert set(answered) == {click.event_id for click in clicks}
    assert len(answered) > len(clicks)
    assert_histories_as_clicked(bootstrap, topics)


def test_a_worker_that_dies_in_a_swap_keeps_its_sessions(
    bootstrap: str, topic_prefix: str, topics: TopicNames, tmp_path: Path
) -> None:
    """Sessions of the old model go on under the new one, that killed the worker which took it up first."""
    clicks = make_clicks(600, sessions=60, seed=23)
    old = write_random_model(tmp_path / "old", ITEMS, hidden_size=24, seed=1, version="old")
    new = write_random_model(tmp_path / "new", ITEMS, hidden_size=40, seed=2, version="crash-during-swap")
    announce(bootstrap, topics, old, "old")
    with CrashingProcess(bootstrap, topic_prefix, tmp_path, AT_ONCE) as worker:
        send_clicks(bootstrap, topics.clicks, clicks[:300])
        wait_answered(bootstrap, topics, clicks[:300])
        announce(bootstrap, topics, new, "crash-during-swap")
        worker.wait_fired("crash-during-swap")
    with WarmWorkerProcess(bootstrap, topic_prefix, AT_ONCE) as worker:
        worker.wait_ready("crash-during-swap")
        send_clicks(bootstrap, topics.clicks, clicks[300:])
        answers = wait_answered(bootstrap, topics, clicks)
        assert worker.terminate() == 0
    assert len(answers) == len(clicks)
    assert_scores(answers, clicks[:300], 0, old)
    assert_scores(answers, clicks, 300, new)
    assert_histories_as_clicked(bootstrap, topics)
