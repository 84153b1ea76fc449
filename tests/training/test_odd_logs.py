"""Logs that are hardly logs: each ends with a model that makes sense or with a clear sentence."""

import gzip
import os
from pathlib import Path

import orjson
import pytest

from deploy.cli import run
from training.model_store import list_models

QUICK = ["--hidden-size", "4", "--epochs", "2"]
Clicks = list[tuple[str, str, int]]


def written(folder: Path, clicks: Clicks) -> Path:
    """A log file."""
    path = folder / "clicks.tsv"
    rows = [f"{session}\t{item}\t{1_700_000_000 + at_s}\n" for session, item, at_s in clicks]
    path.write_text("session_id\titem_id\ttimestamp\n" + "".join(rows))
    return path


def trained(folder: Path, log: Path, *flags: str) -> int:
    """The exit code of a training."""
    return run(["train", str(log), "--models", str(folder / "models"), *QUICK, *flags], debug=False)


def test_one_click_sessions_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = written(tmp_path, [(f"s{each}", f"i{each % 7}", each) for each in range(50)])
    assert trained(tmp_path, log) == 1
    assert "no session among 50 clicks has two clicks" in " ".join(capsys.readouterr().err.split())


def test_a_catalogue_of_one_item(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = written(tmp_path, [(f"s{each // 3}", "only", each) for each in range(60)])
    for flags in ((), ("--full-softmax-items", "0")):  # scored in full, and sampled
        assert trained(tmp_path / f"{len(flags)}", log, "--json", *flags) == 0
        result = orjson.loads(capsys.readouterr().out)
        assert (result["recall@20"], result["mrr@20"]) == (1.0, 1.0)  # it cannot be wrong


def test_test_items_never_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known: Clicks = [(f"s{each // 4}", f"i{each % 5}", each) for each in range(80)]
    strangers: Clicks = [("late", f"new{each}", 1_000 + each) for each in range(3)]
    log = written(tmp_path, known + strangers)
    assert trained(tmp_path, log, "--test-last", "1m") == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "no test session has two clicks on items that training has seen" in said
    some: Clicks = [("mixed", "i1", 1_010), ("mixed", "new9", 1_011), ("mixed", "i2", 1_012)]
    log = written(tmp_path, known + strangers + some)
    assert trained(tmp_path, log, "--test-last", "1m", "--json") == 0
    result = orjson.loads(capsys.readouterr().out)
    assert result["targets"] == 1
    assert result["unknown_share"] == pytest.approx(3 / 4)


@pytest.mark.parametrize("name", ["folder", "cut short", "no text", "not ours"])
def test_a_file_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    path = tmp_path / ("clicks.tsv.gz" if name == "cut short" else "clicks.tsv")
    if name == "folder":
        path.mkdir()
    elif name == "cut short":
        noise = os.urandom(5_000).hex().encode()
        path.write_bytes(gzip.compress(b"session_id\titem_id\ttimestamp\n" + noise)[:900])
    elif name == "no text":
        path.write_bytes(bytes(range(256)) * 10)
    else:
        path.write_text("session_id\titem_id\ttimestamp\na\tb\t1\n")
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("this user may read everything")
    assert trained(tmp_path, path) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert path.name in said
    assert "Traceback" not in said
    assert list_models(tmp_path / "models") == []


def test_a_store_that_cannot_be_written_is_said_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    log = written(tmp_path, [(f"s{each // 4}", f"i{each % 5}", each) for each in range(80)])
    assert trained(tmp_path, log) == 1
    assert "models" in capsys.readouterr().err
