"""The files beside the model: whole or not there, and no business of the worker's."""

import sys
from pathlib import Path

import msgspec
import pytest

from tests.training.report.samples import hostile_report, report_data
from training.report.charts import chart_groups
from training.report.data import ReportData
from training.report.files import CARD_FILE, DATA_FILE, REPORT_FILE, write_report

FILES = {REPORT_FILE, DATA_FILE, CARD_FILE}
PNG = b"\x89PNG\r\n\x1a\n"


def names(folder: Path) -> set[str]:
    """Plain files of the folder, hidden ones included."""
    return {path.name for path in folder.iterdir() if path.is_file()}


def test_with_matplotlib_there_are_plots(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert write_report(tmp_path, report_data()) == ""
    assert names(tmp_path) == FILES
    plots = {path.name: path.read_bytes() for path in (tmp_path / "plots").iterdir()}
    assert set(plots) == {"comparison.png", "learning.png", "strengths.png", "log.png"}
    assert all(content.startswith(PNG) for content in plots.values())
    assert "plots/comparison.png" in (tmp_path / CARD_FILE).read_text()


def test_without_matplotlib_the_rest_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    missing = write_report(tmp_path, report_data())
    assert "nextclick[report]" in missing
    assert "\n" not in missing
    assert names(tmp_path) == FILES
    assert not (tmp_path / "plots").exists()
    assert "![" not in (tmp_path / CARD_FILE).read_text()
    assert "<svg" in (tmp_path / REPORT_FILE).read_text()


def test_a_broken_matplotlib_costs_the_plots_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> dict[str, bytes]:
        raise RuntimeError("no font")

    monkeypatch.setattr("training.report.files.pictures", fail)
    assert "no font" in write_report(tmp_path, report_data())
    assert names(tmp_path) == FILES


def test_a_second_report_replaces_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    write_report(tmp_path, report_data())
    write_report(tmp_path, report_data(epoch_targets=77))
    assert names(tmp_path) == FILES
    kept = msgspec.json.decode((tmp_path / DATA_FILE).read_bytes(), type=ReportData)
    assert kept == report_data(epoch_targets=77)


def test_what_cannot_be_written_leaves_no_half_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    (tmp_path / REPORT_FILE).mkdir()  # a folder in the place of the page
    with pytest.raises(OSError, match=REPORT_FILE):
        write_report(tmp_path, report_data())
    assert names(tmp_path) == FILES - {REPORT_FILE}


def test_foreign_names_can_be_written(tmp_path: Path) -> None:
    """No font has all of them, JSON and UTF-8 know no half characters, and `$` is not mathematics."""
    data = hostile_report()
    clean = [
        [msgspec.structs.replace(step, came=step.came.replace("\ud800", "")) for step in data.examples[0]]
    ]
    write_report(tmp_path, msgspec.structs.replace(data, examples=clean))
    assert names(tmp_path) == FILES


def test_no_foreign_text_is_drawn() -> None:
    assert "script" not in repr(chart_groups(hostile_report()))
