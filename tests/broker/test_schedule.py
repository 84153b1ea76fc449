"""The periodic job as it runs: the Faust app in a process of its own, on the real broker.

The trainer is a small program that follows a plan (`fake_trainer`); all else is real. The calendar strikes
every second (a sixth cron field), so that one process goes through a whole list of good and bad rounds.
"""

import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka.admin import AdminClient

from deploy.commands.schedule import trainer_command, trainer_environment
from deploy.settings import Connection
from tests.broker.fake_trainer import Plan, read_calls, write_model
from tests.conftest import CreateTopic
from training.announce import ModelsTopicError, announce, read_announcements
from training.retrain import RetrainSettings
from training.schedule import Schedule, ScheduleSettings, build_app, next_round_at_ms, run_schedule

EVERY_SECOND = "* * * * * *"
NEVER_DURING_A_TEST = "0 0 29 2 *"

PROGRAM = """
import sys
import msgspec
from training.schedule import ScheduleSettings, run_schedule
code = run_schedule(msgspec.json.decode(sys.argv[1], type=ScheduleSettings))
sys.exit(70 if "torch" in sys.modules else code)
"""


@pytest.fixture
def settings(
    bootstrap: str, create_topic: CreateTopic, topic_prefix: str, tmp_path: Path
) -> ScheduleSettings:
    """The fake trainer on a fresh models topic and a free port."""
    topic = create_topic(f"{topic_prefix}models", 1, {"cleanup.policy": "compact"})
    retrain = RetrainSettings(
        trainer=(sys.executable, "-m", "tests.broker.fake_trainer", str(tmp_path)),
        client_config={"bootstrap.servers": bootstrap},
        models_topic=topic,
        trainer_timeout_s=60.0,
    )
    return ScheduleSettings(
        retrain=retrain,
        cron=NEVER_DURING_A_TEST,
        run_at_start=True,
        app_id=f"{topic_prefix}schedule",
        status_port=free_port(),
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def plan(folder: Path, plans: Sequence[Plan]) -> None:
    (folder / "plans.json").write_bytes(msgspec.json.encode(plans))


@contextmanager
def scheduler(settings: ScheduleSettings, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The app in a process of its own; killed when the block ends, should it still be there."""
    log = (folder / f"schedule-{settings.status_port}.log").open("wb")
    with log:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, msgspec.json.encode(settings).decode()],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "WEB_PORT": "1", "BROKER_URL": "kafka://nowhere:1"},
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def read_status(settings: ScheduleSettings) -> dict[str, Any]:
    url = f"http://{settings.status_host}:{settings.status_port}/status"
    with urllib.request.urlopen(url, timeout=5) as answer:
        assert answer.headers["Content-Type"].startswith("application/json")
        found: dict[str, Any] = json.load(answer)
        return found


def wait_for_status(
    settings: ScheduleSettings,
    process: subprocess.Popen[bytes],
    is_it: Callable[[dict[str, Any]], bool],
    within_s: float = 45.0,
) -> dict[str, Any]:
    deadline_s = time.monotonic() + within_s
    found: dict[str, Any] = {}
    while time.monotonic() < deadline_s:
        assert process.poll() is None, "the scheduler has ended"
        try:
            found = read_status(settings)
        except OSError:  # not up yet
            found = {}
        if found and is_it(found):
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited {within_s} s in vain; the last status: {found}")


def terminate(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def ended_rounds(status: dict[str, Any]) -> list[dict[str, Any]]:
    """Oldest first."""
    return [one for one in reversed(status["rounds"]) if one["outcome"] != "running"]


def test_good_and_bad_rounds_of_one_long_life(settings: ScheduleSettings, tmp_path: Path) -> None:
    plan(
        tmp_path,
        [
            Plan(recall=0.1),  # 1: not above popularity (0.2)
            Plan(recall=0.5),  # 2: the first model
            Plan(recall=0.49, serving_recall=0.5),  # 3: worse
            Plan(fail="crash"),
            Plan(fail="garbage"),
            Plan(fail="broken-artefact", recall=0.9),
            Plan(fail="no-comparison", recall=0.9),
            Plan(recall=0.6, serving_recall=0.5),  # 8: better
        ],
    )
    with scheduler(msgspec.structs.replace(settings, cron=EVERY_SECOND), tmp_path) as process:
        status = wait_for_status(settings, process, lambda found: len(ended_rounds(found)) >= 8)
        terminate(process)
    rounds = ended_rounds(status)[:8]
    outcomes = ["refused", "announced", "refused", "failed", "failed", "failed", "failed", "announced"]
    assert [one["outcome"] for one in rounds] == outcomes
    for one, reason in zip(
        rounds,
        [
            "does not beat popularity",
            "first model",
            "worse than the serving model: recall@20 0.4900 against 0.5000",
            "exit code 1: call 4 | out of memory, say",
            "no report",
            "weights.safetensors has",
            "did not score the serving model",
            "better",
        ],
        strict=True,
    ):
        assert reason in one["reason"]
    assert rounds[0]["trigger"] == "start"
    assert {one["trigger"] for one in rounds[1:]} == {"calendar"}
    assert (rounds[3]["exit_code"], rounds[7]["exit_code"]) == (1, 0)
    assert rounds[7]["candidate"] == {"recall": 0.6, "mrr": 0.25}
    assert rounds[7]["serving"] == {"recall": 0.5, "mrr": 0.25}
    assert rounds[7]["serving_version"] == "v2"
    assert rounds[7]["verdict"]["accepted"] is True
    assert rounds[7]["seconds"] > 0

    compared = [call.compare_with for call in read_calls(tmp_path)]
    assert compared[:9] == [
        None,
        None,
        *[str(tmp_path / "v2")] * 6,
        *([str(tmp_path / "v8")] * len(compared[8:9])),
    ]
    announced = read_announcements(
        settings.retrain.client_config, settings.retrain.models_topic
    ).announcements
    assert [one.model_version for one in announced[:2]] == ["v2", "v8"]
    assert announced[1].scores == {"recall@20": 0.6, "mrr@20": 0.25, "popularity_recall@20": 0.2}
    assert "better than the serving model" in announced[1].note


def test_a_trainer_that_hangs_is_ended_and_the_next_round_comes(
    settings: ScheduleSettings, tmp_path: Path
) -> None:
    plan(tmp_path, [Plan(fail="hang"), Plan(recall=0.5)])
    retrain = msgspec.structs.replace(settings.retrain, trainer_timeout_s=3.0)
    with scheduler(
        msgspec.structs.replace(settings, cron=EVERY_SECOND, retrain=retrain), tmp_path
    ) as process:
        status = wait_for_status(settings, process, lambda found: len(ended_rounds(found)) >= 2)
        terminate(process)
    first, second = ended_rounds(status)[:2]
    assert (first["outcome"], second["outcome"]) == ("failed", "announced")
    assert "ended after 3 s" in first["reason"]
    assert (
        status["skipped_rounds"] >= 1
    )  # the calendar struck while the first was under way: never two at once
    hung, *later = read_calls(tmp_path)
    assert len(later) >= 1
    assert_gone(hung.pid)


def test_of_two_schedulers_one_leads_and_the_other_takes_over(
    settings: ScheduleSettings, admin: AdminClient, topic_prefix: str, tmp_path: Path
) -> None:
    plan(tmp_path, [Plan(recall=0.5)])
    first = msgspec.structs.replace(settings, cron=EVERY_SECOND, run_at_start=False)
    second = msgspec.structs.replace(first, status_port=free_port())
    both = (first, second)
    with scheduler(first, tmp_path) as one, scheduler(second, tmp_path) as other:
        for each, process in zip(both, (one, other), strict=True):
            wait_for_status(each, process, lambda _: True)
        wait_for_status(
            first, one, lambda _: sorted(read_status(each)["leader"] for each in both) == [False, True]
        )
        leader, standby = both if read_status(first)["leader"] else both[::-1]
        before, so_far = read_status(standby)["rounds"], len(ended_rounds(read_status(leader)))
        leading = one if leader is first else other
        wait_for_status(leader, leading, lambda found: len(ended_rounds(found)) >= so_far + 2)
        assert read_status(standby)["rounds"] == before
        assert read_status(standby)["state"] == "standby"
        terminate(leading)
        successor = other if leading is one else one
        so_far = len(before)
        wait_for_status(standby, successor, lambda found: found["leader"] and len(found["rounds"]) > so_far)
        terminate(successor)
    made = {name for name in admin.list_topics(timeout=10).topics if name.startswith(topic_prefix)}
    assert made == {f"{topic_prefix}models", f"{settings.app_id}-__assignor-__leader"}


def test_a_model_announced_by_hand_meanwhile_is_not_overridden(
    settings: ScheduleSettings, tmp_path: Path
) -> None:
    """The candidate was judged against what served when it started, which says nothing about the new one."""
    plan(tmp_path, [Plan(recall=0.5)])
    config, topic = settings.retrain.client_config, settings.retrain.models_topic
    by_hand = write_model(tmp_path / "by-hand", "by-hand", 0.9)
    held = tmp_path / "hold"
    wrapper = (
        "import pathlib, runpy, sys, time\n"
        "hold = pathlib.Path(sys.argv[2]); hold.touch()\n"
        "while hold.exists(): time.sleep(0.05)\n"
        "del sys.argv[2]\n"
        "runpy.run_module('tests.broker.fake_trainer', run_name='__main__')\n"
    )
    retrain = msgspec.structs.replace(
        settings.retrain, trainer=(sys.executable, "-c", wrapper, str(tmp_path), str(held))
    )
    with scheduler(msgspec.structs.replace(settings, retrain=retrain), tmp_path) as process:
        wait_for_status(settings, process, lambda _: held.exists())
        announce(config, topic, by_hand)
        held.unlink()
        status = wait_for_status(settings, process, lambda found: found["last_round"] is not None)
        terminate(process)
    assert status["last_round"]["outcome"] == "refused"
    assert "another model was announced" in status["last_round"]["reason"]
    serving = read_announcements(config, topic).serving
    assert serving is not None
    assert serving.model_version == "by-hand"


def test_a_serving_model_that_is_gone_and_then_sigterm_in_the_middle_of_training(
    settings: ScheduleSettings, tmp_path: Path
) -> None:
    """A model that no worker can load must not stop retraining for ever."""
    plan(tmp_path, [Plan(recall=0.5), Plan(fail="hang")])
    config, topic = settings.retrain.client_config, settings.retrain.models_topic
    lost = write_model(tmp_path / "lost", "lost")
    announce(config, topic, lost)
    lost.rename(tmp_path / "elsewhere")
    with scheduler(msgspec.structs.replace(settings, cron=EVERY_SECOND), tmp_path) as process:
        status = wait_for_status(settings, process, lambda _: len(read_calls(tmp_path)) == 2)
        assert (status["state"], status["leader"]) == ("training", True)
        assert status["current_round"]["outcome"] == "running"
        assert status["next_round_at_ms"] > status["now_ms"]
        assert status["last_round"]["outcome"] == "announced"
        assert "lost cannot be compared with" in status["last_round"]["reason"]
        terminate(process)
    first, second = read_calls(tmp_path)
    assert (first.compare_with, second.compare_with) == (None, str(tmp_path / "v1"))
    assert_gone(second.pid)
    found = read_announcements(config, topic)
    assert [one.model_version for one in found.announcements] == ["lost", "v1"]


def assert_gone(pid: int) -> None:
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} is still there")


# Without a process of its own.


def test_the_calendar_is_registered_for_the_leader_in_utc(settings: ScheduleSettings, tmp_path: Path) -> None:
    """Faust keeps what it was told in the closure of the task that it starts with the app."""
    app = build_app(msgspec.structs.replace(settings, cron="7 3 * * *", run_at_start=False), tmp_path)
    (task,) = app._app_tasks
    told = inspect.getclosurevars(
        inspect.unwrap(task, stop=lambda one: "cron_format" in one.__code__.co_freevars)
    )
    assert told.nonlocals["cron_format"] == "7 3 * * *"
    assert told.nonlocals["on_leader"] is True
    assert str(told.nonlocals["timezone"]) == "UTC"


@pytest.mark.parametrize("cron", ["", "hourly", "* * * *", "61 * * * *", "0 0 31 2 *"])
def test_what_is_no_calendar_is_refused_at_the_start(
    settings: ScheduleSettings, cron: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="no cron expression"):
        build_app(msgspec.structs.replace(settings, cron=cron), tmp_path)


def test_the_next_round_is_on_the_hour() -> None:
    at_ms = next_round_at_ms("0 * * * *")
    assert 0 < at_ms - time.time() * 1_000 <= 3_600_001
    assert abs(at_ms - round(at_ms / 3_600_000) * 3_600_000) <= 2


def test_a_fresh_schedule_has_nothing_to_show(settings: ScheduleSettings) -> None:
    status = Schedule(settings).status(leader=False)
    assert (status["state"], status["rounds"], status["last_round"]) == ("standby", [], None)


def test_a_missing_topic_and_a_taken_port_are_said_before_anything_starts(settings: ScheduleSettings) -> None:
    retrain = msgspec.structs.replace(settings.retrain, models_topic="t-no-such-topic")
    with pytest.raises(ModelsTopicError, match="nextclick topics create"):
        run_schedule(msgspec.structs.replace(settings, retrain=retrain))
    with (
        socket.create_server(("127.0.0.1", settings.status_port)),
        pytest.raises(OSError, match=f"127.0.0.1:{settings.status_port}"),
    ):
        run_schedule(settings)


def test_the_trainer_finds_kafka_in_its_environment_and_not_on_its_command_line(tmp_path: Path) -> None:
    connection = Connection(bootstrap="kafka-1:9092", kafka=("sasl.password=hush",), clicks_topic="clicks")
    command = trainer_command("2d", tmp_path, ("--epochs", "5"))
    assert "hush" not in " ".join(command)
    assert command[-2:] == ("--epochs", "5")
    found = trainer_environment(connection, connection.client_config())
    assert found["NEXTCLICK_BOOTSTRAP"] == "kafka-1:9092"
    assert found["NEXTCLICK_CLICKS_TOPIC"] == "clicks"
    assert found["NEXTCLICK_KAFKA_SASL_PASSWORD"] == "hush"  # noqa: S105 — made up here


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--cron", "x"], "cron"),
        (["--tolerance", "2"], "tolerance"),
        (["--test-last", "soon"], "no duration"),
        (["--kafka", "ssl.crl.location=x"], "ssl.crl"),
    ],
)
def test_a_usage_error_ends_with_2_and_one_line(flags: list[str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deploy", "schedule", *flags],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
