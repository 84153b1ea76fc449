"""Trainings that end before their time, as a user meets them: killed, interrupted, diverged, out of disk."""

import signal
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from deploy.cli import run
from deploy.first_interrupt import first_interrupt
from schemas.model_manifest import ITEMS_FILE, WEIGHTS_FILE
from tests.training.logs import NOW_MS, habit_log
from tests.training.test_checkpoint import largest_file
from training.checkpoint import PREFIX
from training.fitting import FitOptions
from training.model_store import list_models, load_model
from training.progress import Progress, Report, silent
from training.sessions import TestShare
from training.settings import TrainSettings
from training.train import TrainResult, train

QUICK = ["--hidden-size", "12", "--epochs", "4", "--batch-transitions", "32"]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log file of 150 sessions."""
    clicks = habit_log(150).clicks
    path = tmp_path / "clicks.tsv"
    rows = [
        f"{clicks.session_ids[session]}\t{clicks.item_ids[item]}\t{at}\n"
        for session, item, at in zip(clicks.session, clicks.item, clicks.timestamp_ms, strict=True)
    ]
    path.write_text("session_id\titem_id\ttimestamp\n" + "".join(rows))
    return path


def trained(log: Path, store: Path, *flags: str) -> Path:
    """Train by command line; the folder of the only model there is then."""
    assert run(["train", str(log), "--models", str(store), *QUICK, *flags], debug=False) == 0
    (model,) = list_models(store)
    return model.path


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """What went to standard error, as one line."""
    return " ".join(capsys.readouterr().err.split())


def test_killed_and_resumed_gives_the_model_of_a_training_that_was_not(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "models"
    died = subprocess.run(
        [sys.executable, "-m", "tests.support.killed_training", log, store], check=False, timeout=120
    )
    assert died.returncode == -signal.SIGKILL
    (kept,) = store.iterdir()  # no model
    assert kept.name.startswith(PREFIX)
    states = sorted(kept.iterdir())
    arguments = ["train", str(log), "--models", str(store), *QUICK, "--resume"]

    assert run([*arguments, "--seed", "7"], debug=False) == 1
    assert "is of another training: seed 1, now 7" in complaint(capsys)
    clicks = log.read_text()
    log.write_text(clicks + "new\titem-1\t1700000000000\nnew\titem-2\t1700000001000\n")
    assert run(arguments, debug=False) == 1
    assert "other clicks (file clicks.tsv, now file clicks.tsv)" in complaint(capsys)
    log.write_text(clicks)
    # A rate that makes it explode: no model, and what was good stays good.
    assert run([*arguments, "--learning-rate", "1e30"], debug=False) == 1
    said = complaint(capsys)
    assert "lower the learning rate. The last good checkpoint is" in said
    assert sorted(kept.iterdir()) == states

    folder = trained(log, store, "--resume")
    assert "resumed in epoch 2" in complaint(capsys)
    whole = trained(log, tmp_path / "whole", "--no-checkpoints")
    for name in (WEIGHTS_FILE, ITEMS_FILE):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert list(store.iterdir()) == [folder]  # the checkpoint is gone


def test_ctrl_c_keeps_what_was_learned_and_the_checkpoint(log: Path, tmp_path: Path) -> None:
    store = tmp_path / "models"
    arguments = ["train", str(log), "--models", str(store), "--hidden-size", "8", "--epochs", "100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy", *arguments, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("train "):  # training has begun, and would go on for hours
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    result = orjson.loads(out)
    assert result["interrupted"] is True
    manifest = load_model(Path(result["model_folder"]))[0].manifest
    assert manifest.hyperparameters["interrupted"] is True
    assert 0 < float(manifest.hyperparameters["learned_share"]) < 0.5
    assert len(list(store.glob(f"{PREFIX}*"))) == 1
    assert "Ctrl-C: training ends here" in err


def test_what_ended_before_its_model_was_written_is_reported_whole(tmp_path: Path) -> None:
    settings = TrainSettings(hidden_size=12, epochs=3, batch_transitions=32)

    def resumed(report: Report) -> TrainResult:
        resume = FitOptions(resume=True)
        return train(habit_log(150), TestShare(), settings, tmp_path, NOW_MS, report, options=resume)

    def die(at: Progress) -> None:
        if at.stage != "fit":
            raise MemoryError

    with pytest.raises(MemoryError):
        resumed(die)
    result = resumed(silent)
    assert result.train_events_per_s > 0
    assert not result.interrupted
    shown = orjson.loads((result.model_folder / "report.json").read_bytes())
    assert [point["epoch"] for point in shown["epochs"]] == [1, 2, 3]
    assert shown["epochs"][-1]["recall"] > 0
    assert shown["cost"]["events_per_s"] == pytest.approx(result.train_events_per_s)
    assert shown["cost"]["fit_s"] > 0


def test_the_second_ctrl_c_ends_at_once() -> None:
    said: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    with first_interrupt(said.append, "ending") as came:
        assert not came()
        signal.raise_signal(signal.SIGINT)
        assert came()
        assert said == ["ending"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_full_disk_is_said_before_training_is_lost(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "models"
    arguments = ["train", str(log), "--models", str(store), *QUICK]
    with largest_file(10_000):
        assert run(arguments, debug=False) == 1
    said = complaint(capsys)
    assert "no checkpoint can be written into" in said
    assert "Make room" in said
    with largest_file(5_000):
        assert run([*arguments, "--no-checkpoints"], debug=False) == 1
    assert "the model cannot be written into" in complaint(capsys)
    assert list_models(store) == []
