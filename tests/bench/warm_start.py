"""Warm start against full retraining, on logs cut in time: one table per log, last one JSON line.

    python -m tests.bench.warm_start --data ../shared/data --logs rsc15_100k_ts yoochoose1_64

The newest tenth (`--new`) of the training sessions is what came since the old model was trained. All three
are scored on the same test part, every target whose item any training session has; what a model does not know
it misses. Seconds are those of the training loop; the old model's own are not counted.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
from rich.console import Console
from rich.table import Table

from schemas.model_artefact import Artefact, file_entries, pack_files
from schemas.model_manifest import ModelManifest, TrainingData
from training.evaluate import answerable, model_ranks
from training.evaluation import HEADLINE, Metrics, metrics
from training.fit import fit
from training.log_file import read_click_log, read_test_sessions
from training.network import Network, weights
from training.sessions import Sessions, Split, TestSessions, rows_in, split_log
from training.settings import TrainSettings
from training.warm_start import TRAINED_UNTIL_MS, WarmStartSettings, warm_start
from worker.core.session_model import session_model

FIXTURE_MS = 1_700_000_000_000


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    scores: Metrics
    seconds: float


def main() -> None:
    """Measure and print."""
    options = _parse()
    console, found = Console(), {}
    for name in options.logs:
        split = _split(options.data, name, options.validation)
        rows = measure(split, options.new, TrainSettings(seed=options.seed), WarmStartSettings())
        _show(console, name, rows)
        old, warm, full = rows
        found[name] = {
            **{f"{key}_recall@{HEADLINE}": round(row.scores.recall[HEADLINE], 4) for key, row in _keys(rows)},
            **{f"{key}_mrr@{HEADLINE}": round(row.scores.mrr[HEADLINE], 4) for key, row in _keys(rows)},
            **{f"{key}_seconds": round(row.seconds, 1) for key, row in _keys(rows)},
            "recall_ratio": round(warm.scores.recall[HEADLINE] / full.scores.recall[HEADLINE], 4),
            "time_ratio": round(warm.seconds / full.seconds, 3),
            "old_recall_ratio": round(old.scores.recall[HEADLINE] / full.scores.recall[HEADLINE], 4),
        }
    print(orjson.dumps(found).decode())  # noqa: T201


def measure(split: Split, new_share: float, settings: TrainSettings, warm: WarmStartSettings) -> list[Row]:
    """Train the old model, go on from it, and train from nothing; rows in that order."""
    sessions = split.train
    border = round((1 - new_share) * len(sessions))
    old = train_old(split, sessions.take(np.arange(border)), settings)
    full, full_s = _timed(sessions, len(split.item_ids), settings)
    started_s = time.perf_counter()
    begin = warm_start(old, sessions, split.item_ids, settings, warm)
    prepared_s = time.perf_counter() - started_s
    warmed, warm_s = _timed(begin.sessions, len(split.item_ids), begin.settings, begin.network)
    return [
        Row("old model as it is", _score(old, split), 0.0),
        Row("warm start", _score(_artefact(split.item_ids, warmed, 0), split), prepared_s + warm_s),
        Row("full retraining", _score(_artefact(split.item_ids, full, 0), split), full_s),
    ]


def train_old(split: Split, sessions: Sessions, settings: TrainSettings) -> Artefact:
    """Train the model that serves: on the older sessions, with the items that those have."""
    seen = np.unique(sessions.items)
    rows = np.full(len(split.item_ids), -1, np.int32)
    rows[seen] = np.arange(len(seen))
    network, _ = _timed(sessions.renamed(rows), len(seen), settings)
    items = [split.item_ids[item] for item in seen]
    return _artefact(items, network, int(sessions.last_ms[-1]))


def _timed(
    sessions: Sessions, items: int, settings: TrainSettings, start: Network | None = None
) -> tuple[Network, float]:
    started_s = time.perf_counter()
    network = fit(sessions, items, settings, lambda _: None, start=start)
    return network, time.perf_counter() - started_s


def _artefact(items: list[str], network: Network, until_ms: int) -> Artefact:
    tensors = weights(network)
    manifest = ModelManifest(
        format_version=1,
        model_version="bench",
        created_at_ms=FIXTURE_MS,
        architecture=network.architecture,
        files=file_entries(pack_files(items, tensors)),
        training_data=TrainingData("file", "bench", 0, 0, 0, 0, 0, until_ms),
        hyperparameters={TRAINED_UNTIL_MS: until_ms},
        scores={},
    )
    return Artefact(manifest, "", items, tensors)


def _score(artefact: Artefact, split: Split) -> Metrics:
    headline = answerable(split.test.renamed(split.rows))
    test = split.test.renamed(rows_in(split.log_item_ids, artefact.items))
    return metrics(model_ranks(session_model(artefact), test)[headline])


def _split(folder: Path, name: str, validation: bool) -> Split:
    """The authors' split; with `validation` the newest tenth of its training part is the test part."""
    log = read_click_log(folder / f"{name}.tsv.gz", time.time_ns() // 1_000_000).clicks
    held_out = read_test_sessions(folder / f"{name}.test_sessions.txt")
    split = split_log(log, TestSessions(held_out))
    if not validation:
        return split
    border = round(0.9 * len(split.train))
    train, test = split.train.take(np.arange(border)), split.train.take(np.arange(border, len(split.train)))
    seen = np.unique(train.items)
    rows = np.full(len(split.item_ids), -1, np.int32)
    rows[seen] = np.arange(len(seen))
    return Split(train.renamed(rows), test, [split.item_ids[i] for i in seen], rows, split.item_ids)


def _keys(rows: list[Row]) -> list[tuple[str, Row]]:
    return list(zip(("old", "warm", "full"), rows, strict=True))


def _show(console: Console, name: str, rows: list[Row]) -> None:
    full = rows[-1]
    table = Table(title=f"{name}: {full.scores.targets:,} clicks to predict")
    for column in ("", f"recall@{HEADLINE}", f"MRR@{HEADLINE}", "seconds", "recall / full", "time / full"):
        table.add_column(column, justify="right" if column else "left")
    for row in rows:
        table.add_row(
            row.name,
            f"{row.scores.recall[HEADLINE]:.4f}",
            f"{row.scores.mrr[HEADLINE]:.4f}",
            f"{row.seconds:.1f}",
            f"{row.scores.recall[HEADLINE] / full.scores.recall[HEADLINE]:.3f}",
            f"{row.seconds / full.seconds:.3f}",
        )
    console.print(table)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--logs", nargs="+", default=["rsc15_100k_ts", "yoochoose1_64", "diginetica"])
    parser.add_argument("--new", type=float, default=0.1, help="share of the training sessions")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--validation", action="store_true", help="leave the test part alone")
    return parser.parse_args()


if __name__ == "__main__":
    main()
