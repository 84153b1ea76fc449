"""The search: it never reads the test part, goes on where it was, and keeps what was tried."""

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest

from deploy.cli import run
from tests.training.logs import NOW_MS, START_MS, habit_log, log_of
from training.click_log import ClickLogBuilder, LoadedLog
from training.errors import SplitError, TuneError
from training.log_file import read_click_log, read_test_sessions
from training.sessions import UNKNOWN, TestSessions, TestShare, split_log
from training.settings import TrainSettings
from training.tune import tune
from training.tune_log import TuneLog, tune_log
from training.tune_space import SPACE, possible_names, searched_names
from training.tune_study import TuneProgress, TuneResult, TuneSettings

START = TrainSettings(hidden_size=8, epochs=2, batch_transitions=64)
NAMES = ("learning_rate", "embedding_dropout")


def quiet(_: TuneProgress) -> None:
    """Show nothing."""


def never() -> bool:
    """Go on."""
    return False


def log(sessions: int = 120, seed: int = 3, name: str = "habits") -> TuneLog:
    """A small log to search on."""
    return replace(tune_log(habit_log(sessions, items=30, seed=seed), TestShare(0.2)), name=name)


def search(journal: Path, trials: int, logs: list[TuneLog] | None = None, study: str = "s") -> TuneResult:
    """A search without anybody looking on."""
    return tune(logs or [log()], START, TuneSettings(study, journal, trials, NAMES), quiet, never)


def write_log(path: Path) -> None:
    """A small log file."""
    clicks = habit_log(120, items=30).clicks
    rows = [
        f"{clicks.session_ids[session]}\t{clicks.item_ids[item]}\t{at}\n"
        for session, item, at in zip(clicks.session, clicks.item, clicks.timestamp_ms, strict=True)
    ]
    path.write_text("session_id\titem_id\ttimestamp\n" + "".join(rows))


def poisoned() -> LoadedLog:
    """The habit log with other items in the part that `TestShare(0.2)` holds out."""
    clicks = habit_log(120, items=30).clicks
    builder = ClickLogBuilder()
    for session, item, at in zip(clicks.session, clicks.item, clicks.timestamp_ms, strict=True):
        poison = "poison-" if at >= START_MS + 96 * 60_000 else ""
        builder.add(clicks.session_ids[session], f"{poison}{clicks.item_ids[item]}", int(at))
    return LoadedLog(builder.build(), "file", "habits")


def test_the_test_part_is_never_read(tmp_path: Path) -> None:
    clean = tune_log(replace(habit_log(120, items=30), name="habits"), TestShare(0.2))
    bad = tune_log(poisoned(), TestShare(0.2))
    assert clean.fingerprint == bad.fingerprint
    assert clean.item_ids == bad.item_ids
    one = search(tmp_path / "a", 2, [clean])
    other = search(tmp_path / "b", 2, [bad])
    assert one.best == other.best
    assert one.start == other.start


def test_validation_is_the_end_of_the_training_part() -> None:
    whole, found = habit_log(120, items=30), log()
    assert len(found.train) + len(found.validation) == 96  # the last 24 sessions are the test part
    assert len(found.validation) == 10
    assert found.train.last_ms.max() <= found.validation.last_ms.min()
    assert found.validation.last_ms.max() < START_MS + 96 * 60_000
    assert len(whole.clicks.session_ids) == 120
    assert set(np.unique(found.train.items)) == set(range(len(found.item_ids)))
    rare = log_of(*((f"s{s}", f"i{c}", 10 * s + c) for s in range(20) for c in range(3)), ("s17", "new", 173))
    unknown = tune_log(LoadedLog(rare, "file", "x"), TestShare(0.1))
    assert (unknown.validation.items == UNKNOWN).sum() == 1


def test_a_study_goes_on_and_counts_what_it_has(tmp_path: Path) -> None:
    journal = tmp_path / "tune.journal"
    first = search(journal, 2)
    assert (first.finished + first.pruned, first.stopped) == (2, False)
    reports: list[TuneProgress] = []
    more = tune([log()], START, TuneSettings("s", journal, 3, NAMES), reports.append, never)
    assert more.finished + more.pruned == 3
    assert {report.trial for report in reports} == {"2"}  # neither the start nor the first two again
    assert more.start == first.start
    assert {row.number for row in first.best} <= {row.number for row in more.best}
    values = [tuple(row.settings.values()) for row in more.best]
    assert len(set(values)) == len(values)
    assert all(set(row.settings) == set(NAMES) for row in more.best)
    assert search(journal, 3).best == more.best  # nothing left to do


def test_stopping_keeps_what_was_tried(tmp_path: Path) -> None:
    journal = tmp_path / "tune.journal"
    reports: list[TuneProgress] = []
    settings = TuneSettings("s", journal, 50, NAMES)
    result = tune(
        [log()], START, settings, reports.append, lambda: any(report.trial == "2" for report in reports)
    )
    assert result.stopped
    assert (result.finished + result.pruned, result.failed) == (2, 1)
    assert search(journal, 3).finished + search(journal, 3).pruned == 3


def test_several_logs_count_alike(tmp_path: Path) -> None:
    logs = [log(), log(seed=5, name="others")]
    result = search(tmp_path / "tune.journal", 1, logs)
    row = result.best[0]
    ratios = [
        row.scores[name][key] / result.start[name][key]
        for name in ("habits", "others")
        for key in ("recall", "mrr")
    ]
    assert row.value == pytest.approx(np.mean(ratios))


def test_another_study_of_the_same_name_is_refused(tmp_path: Path) -> None:
    journal = tmp_path / "tune.journal"
    search(journal, 1)
    with pytest.raises(TuneError, match="other logs, clicks: take another --study"):
        search(journal, 1, [log(seed=9, name="x")])
    with pytest.raises(TuneError, match="other start"):
        tune([log()], replace(START, seed=2), TuneSettings("s", journal, 1, NAMES), quiet, never)
    assert search(journal, 1, [log(seed=9, name="x")], study="t").finished == 1
    with pytest.raises(TuneError, match="the same name"):
        search(tmp_path / "other", 1, [log(), log()])
    (tmp_path / "no.journal").write_text("this is no journal\n")
    with pytest.raises(TuneError, match="is no journal"):
        search(tmp_path / "no.journal", 1)


def test_what_is_searched() -> None:
    default = TrainSettings()
    assert "negatives" in searched_names(default, sampled=True)
    assert "negatives" not in searched_names(default, sampled=False)
    assert "learning_rate" not in searched_names(replace(default, learning_rate=0.02), sampled=True)
    assert searched_names(default, sampled=False, names=("hidden_size",)) == ("hidden_size",)
    with pytest.raises(TuneError, match="cannot search bogus; possible are learning_rate"):
        searched_names(default, sampled=False, names=("bogus",))
    assert set(possible_names()) <= set(SPACE)


def test_a_log_that_is_too_short_is_refused() -> None:
    short = LoadedLog(log_of(("a", "x", 1), ("a", "y", 2), ("b", "x", 3), ("b", "y", 4)), "file", "x.tsv")
    with pytest.raises(SplitError, match="too short"):
        tune_log(short, TestShare(0.5))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "clicks.tsv"
    write_log(path)
    quick = ["--hidden-size", "8", "--epochs", "2", "--search", "learning_rate"]
    arguments = ["tune", str(path), "--journal", str(tmp_path / "tune.journal"), *quick]
    assert run([*arguments, "--trials", "1", "--json"], debug=False) == 0
    found = orjson.loads(capsys.readouterr().out)
    assert found["study"] == "clicks.tsv"
    assert list(found["best_settings"]) == ["learning_rate"]
    assert set(found["start_scores"]["clicks.tsv"]) == {"recall", "mrr"}
    assert run([*arguments, "--trials", "2"], debug=False) == 0
    shown = capsys.readouterr().out
    assert "--learning-rate" in shown
    assert "2 trials to the end" in shown
    assert run([*arguments, "--timeout", "soon"], debug=False) == 2
    assert run([*arguments, "--search", "bogus"], debug=False) == 1
    assert "cannot search bogus" in capsys.readouterr().err


def test_the_suggested_command_holds_out_what_the_search_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, beside = tmp_path / "my clicks.tsv", tmp_path / "my clicks.test_sessions.txt"
    write_log(path)
    beside.write_text("".join(f"s{session}\n" for session in range(0, 120, 4)))
    arguments = ["tune", str(path), "--journal", str(tmp_path / "tune.journal"), "--trials", "1"]
    slow = ["--hidden-size", "8", "--epochs", "2", "--learning-rate", "1e-7", "--no-last-click-query"]
    assert run([*arguments, *slow, "--search", "learning_rate"], debug=False) == 0
    shown = capsys.readouterr()
    assert f"{beside} lies beside it" in " ".join(shown.err.split())
    (command,) = [line for line in shown.out.splitlines() if line.startswith("nextclick train")]
    _, *words = shlex.split(command)
    assert words[:4] == ["train", str(path), "--test-sessions", str(beside)]
    assert {"--hidden-size", "--no-last-click-query", "--learning-rate"} <= set(words)
    assert run([*words, "--models", str(tmp_path / "models"), "--no-report", "--json"], debug=False) == 0
    listed = split_log(read_click_log(path, NOW_MS).clicks, TestSessions(read_test_sessions(beside)))
    assert orjson.loads(capsys.readouterr().out)["events_test"] == len(listed.test.items)


def test_bad_trials_end_early_and_what_matters_is_told(tmp_path: Path) -> None:
    settings = TuneSettings("s", tmp_path / "tune.journal", 24, NAMES)
    result = tune([log(60)], replace(START, epochs=5), settings, quiet, never)
    assert result.pruned >= 1
    assert result.finished + result.pruned == 24
    assert set(result.importance) == set(NAMES)
    assert sum(result.importance.values()) == pytest.approx(1)
