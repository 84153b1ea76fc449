"""`make chaos` as a whole: a run that failed has an exit code of its own, not that of a fault found."""

import sys
from pathlib import Path

import pytest

from tests.chaos.run import EXIT_RUN_FAILED, main


def test_a_broker_that_cannot_start_is_a_failed_run_and_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broker").write_text("a file stands where its data belong")
    monkeypatch.setattr(sys, "argv", ["chaos", "--evidence", str(tmp_path)])
    assert main() == EXIT_RUN_FAILED
    captured = capsys.readouterr()
    assert captured.out == "", "a report"
    assert "cannot write the broker's data" in captured.err
