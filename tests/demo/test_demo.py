"""The demo as users run it, short: on a real broker, with real children, to its JSON line and exit code."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from rich.console import Console

from deploy.demo.children import ChildError, WorkerChild, child_environment, write_settings
from deploy.demo.run import tell
from deploy.demo.score import Outcome
from deploy.settings import Connection
from tests.demo.test_demo_score import GOOD

END_S = 120.0


class Demo:
    """`nextclick demo` on the broker of the tests, with a temporary folder of its own."""

    def __init__(self, bootstrap: str, temporary: Path, *arguments: str) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("NEXTCLICK_")}
        self.stderr = temporary / "stderr"
        with self.stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deploy", "demo", "--bootstrap", bootstrap, *arguments],
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**environment, "TMPDIR": str(temporary)},
            )

    def wait_for(self, text: str) -> None:
        """Wait until it has said this."""
        deadline_s = time.monotonic() + END_S
        while text not in self.stderr.read_text():
            assert self.process.poll() is None, self.stderr.read_text()
            assert time.monotonic() < deadline_s, self.stderr.read_text()
            time.sleep(0.05)

    def end(self) -> tuple[int, str]:
        """Wait for its end; returns exit code and standard output."""
        output, _ = self.process.communicate(timeout=END_S)
        return self.process.returncode, output.decode()


def of_demos(admin: AdminClient) -> set[str]:
    """Topics and groups of demos."""
    groups = admin.list_consumer_groups().result(30).valid or []
    names = {*admin.list_topics(timeout=30).topics, *(group.group_id for group in groups)}
    return {name for name in names if name.startswith("demo-")}


@pytest.fixture
def nothing_left(admin: AdminClient) -> Iterator[list[Path]]:
    """Takes temporary folders of demos, and looks at the end what these demos left behind."""
    temporaries: list[Path] = []
    before = of_demos(admin)
    yield temporaries
    assert of_demos(admin) == before
    for temporary in temporaries:
        assert [path.name for path in temporary.iterdir() if path.name != "stderr"] == []
        assert processes_that_know(str(temporary)) == []


def processes_that_know(text: str) -> list[int]:
    """Processes whose environment or command line names this text: the demo's children have it in both."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            try:
                known = (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes()
            except OSError:  # it has ended meanwhile, or is somebody else's
                continue
            if text.encode() in known:
                found.append(int(folder.name))
    return found


@pytest.mark.broker
def test_the_shop_is_played_to_its_json_line_and_leaves_nothing_behind(
    bootstrap: str, nothing_left: list[Path], tmp_path: Path
) -> None:
    nothing_left.append(tmp_path)
    demo = Demo(bootstrap, tmp_path, "--sessions", "700", "--clicks", "600", "--rate", "300")
    code, output = demo.end()
    said = demo.stderr.read_text()
    found = json.loads(output.splitlines()[-1])
    assert code == 0, said
    assert list(found) == [
        "clicks",
        "recommendations",
        "dead_letters",
        "recall@20",
        "popularity_recall@20",
        "oracle_recall@20",
        "clicks_per_s",
    ]
    assert (found["clicks"], found["recommendations"], found["dead_letters"]) == (600, 600, 1)
    assert 0 < found["popularity_recall@20"] < found["recall@20"] < found["oracle_recall@20"] < 1
    assert found["clicks_per_s"] == pytest.approx(300, rel=0.2)
    for expected in ("1/5", "5/5", "train ", "first-order Markov"):
        assert expected in said


@pytest.mark.broker
def test_a_kept_demo_ends_well_on_sigterm(bootstrap: str, nothing_left: list[Path], tmp_path: Path) -> None:
    nothing_left.append(tmp_path)
    demo = Demo(bootstrap, tmp_path, "--keep", "--sessions", "100", "--rate", "100")
    demo.wait_for("5/5")
    time.sleep(1.0)
    demo.process.send_signal(signal.SIGTERM)
    code, output = demo.end()
    found = json.loads(output.splitlines()[-1])
    assert code == 0, demo.stderr.read_text()
    assert found["clicks"] == found["recommendations"] > 0


@pytest.mark.broker
def test_ctrl_c_in_mid_training_ends_everything(
    bootstrap: str, nothing_left: list[Path], tmp_path: Path
) -> None:
    nothing_left.append(tmp_path)
    demo = Demo(bootstrap, tmp_path, "--sessions", "5000")
    demo.wait_for("epoch 1/10")
    demo.process.send_signal(signal.SIGINT)
    code, output = demo.end()
    assert (code, output) == (130, "")


@pytest.mark.broker
def test_a_click_log_is_played_in_place_of_the_shop(
    bootstrap: str, nothing_left: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, temporary = tmp_path_factory.mktemp("log"), tmp_path_factory.mktemp("demo")
    log = folder / "clicks.tsv"
    # A ring of 40 items: what follows an item is certain, so that any model learns it and popularity cannot.
    rows = [
        f"s{session}\titem-{(session + click) % 40}\t{1_700_000_000 + session * 60 + click}"
        for session in range(300)
        for click in range(5)
    ]
    log.write_text("sid\titem_id\ttimestamp\n" + "\n".join(rows) + "\n")
    nothing_left.append(temporary)
    demo = Demo(
        bootstrap, temporary, "--log", str(log), "--columns", "session_id=sid", "--test-last", "30m",
        "--rate", "100",
    )  # fmt: skip
    code, output = demo.end()
    found = json.loads(output.splitlines()[-1])
    assert code == 0, demo.stderr.read_text()
    assert found["clicks"] == found["recommendations"] == 150  # 30 sessions end in the last 30 minutes
    assert found["oracle_recall@20"] is None
    assert found["recall@20"] > 0.9


@pytest.mark.parametrize(
    ("outcome", "is_kept", "code"),
    [
        (GOOD, False, 0),
        (replace(GOOD, recommendations=99, unanswered=1), False, 1),
        (replace(GOOD, recommendations=99, unanswered=1), True, 1),
        (replace(GOOD, dead_letters=2), False, 1),
        (replace(GOOD, recall=0.1), False, 1),
        (replace(GOOD, recall=0.1), True, 0),
    ],
)
def test_the_exit_code_and_the_last_line_tell_how_it_went(
    outcome: Outcome, is_kept: bool, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    text = io.StringIO()
    assert tell(outcome, is_kept, Console(file=text)) == code
    assert json.loads(capsys.readouterr().out) == outcome.fields()
    assert ("failed:" in text.getvalue()) == bool(code)


def test_the_settings_of_the_children_are_what_they_read_and_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "nextclick.toml"
    kafka = ('sasl.password=a"b\\c\x7f\n=é😀', "sasl.username=u", "sasl.username=v")
    write_settings(path, Connection(bootstrap="h:1", kafka=kafka, clicks_topic="c"))
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    assert document["bootstrap"] == "h:1"
    assert document["topics"] == {
        "clicks": "c",
        "recommendations": "nextclick.recommendations",
        "dead_letters": "nextclick.dead-letters",
        "session_histories": "nextclick.session-histories",
        "models": "nextclick.models",
    }
    assert document["kafka"] == {"sasl.password": 'a"b\\c\x7f\n=é😀', "sasl.username": "v"}
    assert path.stat().st_mode & 0o777 == 0o600


def test_children_see_no_other_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXTCLICK_TOP_K", "3")
    monkeypatch.setenv("NEXTCLICK_CONFIG", "/elsewhere.toml")
    monkeypatch.setenv("OWN", "1")
    found = child_environment(Path("/ours.toml"))
    assert found["NEXTCLICK_CONFIG"] == "/ours.toml"
    assert found["OWN"] == "1"
    assert "NEXTCLICK_TOP_K" not in found


@pytest.mark.broker
def test_a_worker_that_cannot_start_is_told_with_its_last_words(
    bootstrap: str, topic_prefix: str, tmp_path: Path
) -> None:
    settings, temporary = tmp_path / "nextclick.toml", tmp_path / "temporary"
    temporary.mkdir()
    write_settings(settings, Connection(bootstrap=bootstrap, clicks_topic=f"{topic_prefix}none"))
    with (
        WorkerChild((), settings, temporary / "worker.log", temporary) as worker,
        pytest.raises(ChildError, match=rf"(?s)ended by itself.*{topic_prefix}none"),
    ):
        worker.wait_ready("v")
