"""`nextclick train` and `nextclick evaluate` as a user meets them: exit codes, sentences, the JSON line."""

from pathlib import Path

import orjson
import pytest

from deploy.cli import run
from deploy.commands.click_log_options import duration_ms, instant_ms
from deploy.settings import UsageError
from tests.training.logs import habit_log


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A small log file, in a folder of its own."""
    clicks = habit_log(80).clicks
    path = tmp_path / "clicks.tsv"
    rows = [
        f"{clicks.session_ids[session]}\t{clicks.item_ids[item]}\t{at}"
        for session, item, at in zip(clicks.session, clicks.item, clicks.timestamp_ms, strict=True)
    ]
    path.write_text("session_id\titem_id\ttimestamp\n" + "\n".join(rows) + "\n")
    return path


def test_train_then_evaluate(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = log.parent / "models"
    quick = ["--hidden-size", "8", "--epochs", "1"]
    assert (
        run(["train", str(log), "--models", str(store), "--test-last", "10m", *quick, "--json"], debug=False)
        == 0
    )
    shown = capsys.readouterr()
    trained = orjson.loads(shown.out)  # one line of JSON and nothing else
    assert trained["model_folder"] == str(store / trained["model_version"])
    assert "taken for milliseconds" in shown.err
    arguments = ["evaluate", trained["model_folder"], str(log), "--test-last", "10m"]
    assert run([*arguments, "--json"], debug=False) == 0
    scored = orjson.loads(capsys.readouterr().out)
    for name in (
        "recall@20",
        "mrr@20",
        "markov_recall@20",
        "popularity_recall@20",
        "vs_knn_mrr@20",
        "all_recall@20",
        "targets",
        "evaluation",
        "baselines",
        "verdict",
    ):
        assert scored[name] == trained[name]
    assert run(arguments, debug=False) == 0
    shown_tables = " ".join(capsys.readouterr().out.split())
    for name in ("VS-kNN", "recent popularity", "after 1 click", "head of the catalogue", "±", "The model"):
        assert name in shown_tables
    assert scored["verdict"] in shown_tables
    folder = Path(trained["model_folder"])
    assert (folder / "report.html").is_file()
    assert (folder / "MODEL_CARD.md").is_file()
    compare = ["--no-report", "--compare-with", trained["model_folder"]]
    assert run(["train", str(log), "--models", str(store), "--seed", "2", *quick, *compare], debug=False) == 0
    assert "nextclick models announce" in capsys.readouterr().out
    assert len(list(store.glob("*/manifest.json"))) == len(list(store.glob("*/report.html"))) + 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["train"], 2, "a FILE, or --topic"),
        (["train", "LOG", "--topic"], 2, "a FILE, or --topic"),
        (["train", "LOG", "--offsets", "0:1-2"], 2, "--offsets goes with --topic"),
        (["train", "LOG", "--columns", "sku"], 2, "--columns"),
        (["train", "LOG", "--test-last", "soon"], 2, "say 90s, 30m, 12h, 1d or 1w"),
        (["train", "LOG", "--test-last", "1d", "--test-sessions", "x"], 2, "not both"),
        (["train", "LOG", "--epochs", "0"], 2, "epochs"),
        (["train", "--topic", "--columns", "item_id=x"], 2, "go with a file"),
        (["train", "--topic", "--offsets", "5"], 2, "PARTITION:START-END"),
        (["train", "--topic", "--from-time", "noon"], 2, "is no time"),
        (["train", "nowhere.tsv"], 1, "nowhere.tsv is no file"),
        (["train", "LOG", "--test-last", "9w"], 1, "say another --test-last"),
        (["train", "LOG", "--test-sessions", "nowhere.txt"], 1, "cannot be read"),
        (["train", "LOG", "--compare-with", "nowhere"], 1, "manifest.json cannot be read"),
        (["evaluate", "nowhere", "LOG"], 1, "manifest.json cannot be read"),
    ],
)
def test_what_is_wrong_is_said(
    log: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    tokens = [str(log) if argument == "LOG" else argument for argument in arguments]
    assert run([*tokens, *(["--models", str(log.parent)] if "train" in tokens else [])], debug=False) == code
    complaint = " ".join(capsys.readouterr().err.split())
    assert said in complaint
    assert "Traceback" not in complaint


def test_durations_and_times() -> None:
    assert [duration_ms(text) for text in ("90s", "30m", "12h", "1.5d", "1w")] == [
        *[90_000, 1_800_000, 43_200_000, 129_600_000, 604_800_000]
    ]
    for text in ("", "1", "d", "-1d", "0s", "1y"):
        with pytest.raises(UsageError):
            duration_ms(text)
    assert instant_ms("1700000000123") == 1_700_000_000_123
    assert instant_ms("2026-01-02") == instant_ms("2026-01-02T01:00:00+01:00") == 1_767_312_000_000
