"""The whole pipeline on a log of users with a habit."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from schemas.model_manifest import ITEMS_FILE, MANIFEST_FILE, WEIGHTS_FILE, OffsetRange
from tests.training.logs import NOW_MS, habit_log, log_of
from training.child import MAX_LINE_CHARS
from training.click_log import LoadedLog
from training.errors import SplitError
from training.evaluation import Evaluation
from training.model_store import list_models, load_model
from training.progress import Progress, silent
from training.report.data import ReportData
from training.score import score_model
from training.sessions import TestSessions, TestShare
from training.settings import TrainSettings
from training.train import TrainResult, train

SETTINGS = TrainSettings(hidden_size=24, epochs=6, batch_transitions=64, embedding_dropout=0.1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainResult, list[Progress]]:
    """One training for all tests that only look."""
    reports: list[Progress] = []
    store = tmp_path_factory.mktemp("store")
    return train(habit_log(), TestShare(0.2), SETTINGS, store, NOW_MS, reports.append), reports


@pytest.mark.parametrize("full_softmax_items", [6_000, 20])
def test_it_learns_the_habit(tmp_path: Path, full_softmax_items: int) -> None:
    chosen = replace(SETTINGS, full_softmax_items=full_softmax_items, negatives=30)
    result = train(habit_log(), TestShare(0.2), chosen, tmp_path, NOW_MS, silent)
    assert result.baselines["popularity"].recall["20"] < 0.5
    overall = result.evaluation.overall
    assert overall.recall["20"] > 0.8  # four of five clicks follow the habit, a third of the rest is luck
    assert overall.mrr["20"] > 0.6


def test_result_line(trained: tuple[TrainResult, list[Progress]]) -> None:
    fields = trained[0].fields()
    flat = ["log", "events_train", "events_test", "recall@20", "mrr@20", "all_recall@20", "all_mrr@20"]
    flat += [
        f"{baseline}_{metric}@20"
        for baseline in ("popularity", "recent_popularity", "markov", "item_knn", "vs_knn")
        for metric in ("recall", "mrr")
    ]
    flat += ["train_events_per_s", "seconds", "model_version", "model_folder", "targets", "unknown_share"]
    assert set(fields) == {*flat, "verdict", "evaluation", "baselines"}
    evaluation = msgspec.convert(fields["evaluation"], Evaluation)
    assert evaluation.overall.recall["20"] == fields["recall@20"]
    assert len(msgspec.json.encode(fields)) < MAX_LINE_CHARS / 4  # the scheduler reads it as one line
    assert msgspec.json.decode(msgspec.json.encode(fields)) == fields
    assert "serving_recall@20" not in fields


def test_manifest_says_where_the_clicks_came_from(trained: tuple[TrainResult, list[Progress]]) -> None:
    result, _ = trained
    manifest = load_model(result.model_folder)[0].manifest
    data, log = manifest.training_data, habit_log().clicks
    assert (data.kind, data.name) == ("file", "habits.tsv")
    assert data.events_train + data.events_test == len(log)
    assert data.sessions_train + data.sessions_test == len(log.session_ids)
    assert data.first_timestamp_ms == np.min(log.timestamp_ms)
    assert data.last_timestamp_ms == np.max(log.timestamp_ms)
    assert manifest.scores["recall@20"] == result.evaluation.overall.recall["20"]
    assert manifest.scores["vs_knn_mrr@20"] == pytest.approx(result.baselines["VS-kNN"].mrr["20"], abs=1e-6)
    assert {"ndcg@20", "coverage@20", "recall_error", "all_recall@20", "targets"} <= set(manifest.scores)
    assert manifest.hyperparameters["epochs"] == 6
    assert manifest.created_at_ms == NOW_MS


def test_the_stored_model_scores_what_was_reported(trained: tuple[TrainResult, list[Progress]]) -> None:
    result, _ = trained
    found = score_model(load_model(result.model_folder)[1], habit_log(), TestShare(0.2), silent)
    assert (found.evaluation, found.baselines) == (result.evaluation, result.baselines)


def test_every_stage_reports_to_its_end(trained: tuple[TrainResult, list[Progress]]) -> None:
    last = {report.stage: report for report in trained[1]}
    assert {stage: report.done for stage, report in last.items()} == {
        stage: report.total for stage, report in last.items()
    }
    assert set(last) == {"fit", "evaluate", "baselines"}


def test_the_report_lies_beside_the_model_and_is_no_part_of_it(tmp_path: Path) -> None:
    """Altered, broken or gone: the model is what the manifest says."""
    quick = TrainSettings(hidden_size=8, epochs=2)
    result = train(habit_log(80), TestShare(0.2), quick, tmp_path, NOW_MS, silent)
    assert result.report_trouble == ""
    folder = result.model_folder
    artefact = load_model(folder)[0]
    assert set(artefact.manifest.files) == {WEIGHTS_FILE, ITEMS_FILE}
    shown = msgspec.json.decode((folder / "report.json").read_bytes(), type=ReportData)
    assert [point.epoch for point in shown.epochs] == [1, 2]
    assert shown.evaluation.overall.recall["20"] == result.evaluation.overall.recall["20"]
    assert shown.log.events_train == result.events_train
    assert shown.provenance.files == artefact.manifest.files
    assert result.model_version in (folder / "report.html").read_text()
    (folder / "report.html").write_text("<script>")
    (folder / "MODEL_CARD.md").unlink()
    assert load_model(folder)[0].manifest_sha256 == artefact.manifest_sha256
    assert [(stored.path, stored.trouble) for stored in list_models(tmp_path)] == [(folder, "")]


def test_a_model_is_not_lost_for_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.report.files.write_report", fail)
    quick = TrainSettings(hidden_size=8, epochs=1)
    result = train(habit_log(80), TestShare(0.2), quick, tmp_path, NOW_MS, silent)
    assert "No space left on device" in result.report_trouble
    assert load_model(result.model_folder)[0].manifest.model_version == result.model_version


def test_without_a_report_the_files_are_the_same(tmp_path: Path) -> None:
    quick = TrainSettings(hidden_size=8, epochs=2)
    result = train(habit_log(80), TestShare(0.2), quick, tmp_path / "a", NOW_MS, silent, with_report=False)
    assert {path.name for path in result.model_folder.iterdir()} == {WEIGHTS_FILE, ITEMS_FILE, MANIFEST_FILE}
    reported = train(habit_log(80), TestShare(0.2), quick, tmp_path / "b", NOW_MS, silent)
    for name in (WEIGHTS_FILE, ITEMS_FILE, MANIFEST_FILE):
        assert (result.model_folder / name).read_bytes() == (reported.model_folder / name).read_bytes()


def test_same_log_same_files(tmp_path: Path) -> None:
    quick = TrainSettings(hidden_size=8, epochs=1)
    folders = [
        train(habit_log(80), TestShare(), quick, tmp_path / name, NOW_MS, silent).model_folder
        for name in "ab"
    ]
    for name in (WEIGHTS_FILE, ITEMS_FILE, "manifest.json"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_offsets_go_into_the_manifest(tmp_path: Path) -> None:
    ranges = [OffsetRange(0, 5, 90), OffsetRange(2, 0, 7)]
    log = LoadedLog(habit_log(60).clicks, "topic", "clicks", offsets=ranges)
    result = train(log, TestShare(), TrainSettings(hidden_size=8, epochs=1), tmp_path, NOW_MS, silent)
    data = load_model(result.model_folder)[0].manifest.training_data
    assert (data.kind, data.name, data.offsets, data.file_sha256) == ("topic", "clicks", ranges, None)


def test_unknown_items_are_reported_apart_and_count_as_misses(tmp_path: Path) -> None:
    clicks = [(f"s{s}", f"i{(s + c) % 5}", 10 * s + c) for s in range(30) for c in range(4)]
    clicks += [("t", "i0", 900), ("t", "new", 901), ("t", "i1", 902), ("u", "new", 905), ("u", "i2", 906)]
    log = LoadedLog(log_of(*clicks), "file", "log.tsv")
    settings = TrainSettings(hidden_size=8, epochs=1)
    result = train(log, TestSessions(frozenset("tu")), settings, tmp_path, NOW_MS, silent)
    found = result.evaluation
    assert (found.overall.targets, found.all_targets.targets) == (1, 3)
    assert found.unknown_share == pytest.approx(1 / 3)
    assert found.overall.recall["20"] == 1.0  # five items: whatever is known is among the first twenty
    assert found.all_targets.recall["20"] == pytest.approx(1 / 3)
    again = train(
        log, TestSessions(frozenset("tu")), settings, tmp_path / "2", NOW_MS, silent, result.model_folder
    )
    assert (
        again.serving == again.evaluation.overall
    )  # over the same targets, without those that nobody can know


def test_another_model_is_scored_on_the_same_targets(
    trained: tuple[TrainResult, list[Progress]], tmp_path: Path
) -> None:
    other, _ = trained
    again = train(habit_log(), TestShare(0.2), SETTINGS, tmp_path, NOW_MS, silent, other.model_folder)
    assert again.serving == again.evaluation.overall == other.evaluation.overall
    assert again.fields()["serving_version"] == other.model_version
    assert again.fields()["serving_recall@20"] == again.fields()["recall@20"]


def test_what_the_other_model_does_not_know_it_misses(tmp_path: Path) -> None:
    small = train(habit_log(60, items=3), TestShare(), SETTINGS, tmp_path, NOW_MS, silent)
    result = train(habit_log(), TestShare(0.2), SETTINGS, tmp_path, NOW_MS, silent, small.model_folder)
    assert result.serving is not None
    assert result.serving.targets == result.evaluation.overall.targets
    assert result.serving.recall["20"] < 0.1


def test_a_test_part_of_strangers_is_refused(tmp_path: Path) -> None:
    log = LoadedLog(log_of(("a", "x", 1), ("a", "y", 2), ("b", "p", 3), ("b", "q", 4)), "file", "log.tsv")
    with pytest.raises(SplitError, match="no test session has two clicks on items"):
        train(log, TestShare(0.5), SETTINGS, tmp_path, NOW_MS, silent)
    assert list(tmp_path.iterdir()) == []
