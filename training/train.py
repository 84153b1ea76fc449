"""From a click log to a model in the store: sessions → split → fit → full-ranking scores → artefact.

Two ways of counting stand side by side in every result, because published figures use the first and a
running system lives with the second:
- `recall@20`, `mrr@20`: over the targets that are left when clicks on items unseen in training are dropped
  from the test part, and then sessions of one click. The figures to compare with other people's.
- `all_recall@20`, `all_mrr@20`: over every later click of the test part; an unknown item is a miss, and so
  is a click that nothing known came before.
Baselines, and the model compared with, are scored on the targets of the first.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import numpy as np

from schemas.model_artefact import Artefact, file_entries, pack_files
from schemas.model_manifest import (
    FORMAT_VERSION,
    WEIGHTS_FILE,
    Architecture,
    ModelManifest,
    TrainingData,
)
from training.baselines import compare
from training.click_log import LoadedLog
from training.errors import SplitError
from training.evaluate import answerable
from training.evaluation import Evaluation, Metrics
from training.fit import FitProgress, fit, torch_threads
from training.model_store import load_model, model_version, save_model
from training.network import Network, weights
from training.progress import Progress, Report
from training.score import evaluate_on, full_fields, manifest_scores, score_fields, serving_metrics
from training.sessions import Split, SplitRule, split_log
from training.settings import (
    TrainSettings,
    batch_transitions_for,
    embedding_dropout_for,
    epochs_for,
)
from worker.core.session_model import session_model


@dataclass(frozen=True)
class TrainResult:
    """What came out. `fields()` is the JSON line of `nextclick train --json`.

    Attributes:
        log: name of the topic or file.
        events_train, events_test: clicks of the two parts.
        evaluation: of the model.
        baselines: over the headline targets.
        train_events_per_s: transitions learned per second of the training loop.
        seconds: all of it, without the reading of the log.
        model_version, model_folder: the artefact.
        serving_version, serving: the model compared with and its scores over the headline targets, None
            where there was none.
    """

    log: str
    events_train: int
    events_test: int
    evaluation: Evaluation
    baselines: dict[str, Metrics]
    train_events_per_s: float
    seconds: float
    model_version: str
    model_folder: Path
    serving_version: str | None = None
    serving: Metrics | None = None

    def fields(self) -> dict[str, object]:
        """The result as JSON fields, scores to six digits; flat but for `evaluation` and `baselines`."""
        found: dict[str, object] = {
            "log": self.log,
            "events_train": self.events_train,
            "events_test": self.events_test,
            "train_events_per_s": round(self.train_events_per_s),
            "seconds": round(self.seconds, 2),
            "model_version": self.model_version,
            "model_folder": str(self.model_folder),
            **full_fields(self.evaluation, self.baselines),
        }
        if self.serving is not None and self.serving_version is not None:
            found |= {"serving_version": self.serving_version, **score_fields("serving_", self.serving)}
        return found


def train(
    loaded: LoadedLog,
    rule: SplitRule,
    settings: TrainSettings,
    store: Path,
    now_ms: int,
    report: Report,
    compare_with: Path | None = None,
) -> TrainResult:
    """Train a model, score it, write it.

    Args:
        loaded: the click log.
        rule: which sessions are the test part.
        settings: the recipe.
        store: folder that the model's folder goes into.
        now_ms: wall clock, for version and manifest.
        report: called often.
        compare_with: folder of another model, scored on the same targets; what it does not know it misses.

    Raises:
        TrainingError: see its children.
        BrokenArtefactError: `compare_with` is no model.
        OSError: the store cannot be written.
    """
    started_s = time.perf_counter()
    serving = load_model(compare_with)[1] if compare_with is not None else None
    split = split_log(loaded.clicks, rule)
    test = split.test.renamed(split.rows)
    headline = answerable(test)
    if not headline.any():
        raise SplitError(
            "no test session has two clicks on items that training has seen: hold out another part"
        )
    network, events_per_s = _fit(split, settings, report)
    files = pack_files(split.item_ids, weights(network))
    draft = _manifest(loaded, split, settings, files=files, now_ms=now_ms)
    model = session_model(Artefact(draft, "", split.item_ids, weights(network)))
    with torch_threads(settings.threads):
        found = evaluate_on(model, split, report)
        baselines = compare(split.train, test, len(split.item_ids), headline, report)
        compared = None if serving is None else serving_metrics(serving, split, headline, report)
    result = TrainResult(
        log=loaded.name,
        events_train=len(split.train.items),
        events_test=len(split.test.items),
        evaluation=found,
        baselines=baselines,
        train_events_per_s=events_per_s,
        seconds=time.perf_counter() - started_s,
        model_version=draft.model_version,
        model_folder=store / draft.model_version,
        serving_version=None if serving is None else serving.version,
        serving=compared,
    )
    save_model(store, msgspec.structs.replace(draft, scores=manifest_scores(found, baselines)), files)
    return result


def _fit(split: Split, settings: TrainSettings, report: Report) -> tuple[Network, float]:
    """The fitted network and the transitions learned per second."""
    events_per_s = 0.0

    def pass_on(at: FitProgress) -> None:
        nonlocal events_per_s
        events_per_s = at.events_per_s
        report(Progress("fit", at.events, at.events_total, at.epoch, at.epochs, at.loss, at.events_per_s))

    return fit(split.train, len(split.item_ids), settings, pass_on), events_per_s


def _manifest(
    loaded: LoadedLog, split: Split, settings: TrainSettings, *, files: dict[str, bytes], now_ms: int
) -> ModelManifest:
    entries = file_entries(files)
    clicks, transitions = len(split.train.items), split.train.transitions
    hyperparameters = {name: value for name, value in asdict(settings).items() if value is not None}
    hyperparameters |= {
        "epochs": epochs_for(settings, transitions),
        "batch_transitions": batch_transitions_for(settings, clicks),
        "embedding_dropout": embedding_dropout_for(settings, clicks),
    }
    return ModelManifest(
        format_version=FORMAT_VERSION,
        model_version=model_version(now_ms, entries[WEIGHTS_FILE].sha256),
        created_at_ms=now_ms,
        architecture=Architecture(
            "gru", settings.hidden_size, len(split.item_ids), "cosine", settings.temperature
        ),
        files=entries,
        training_data=TrainingData(
            kind=loaded.kind,
            name=loaded.name,
            events_train=clicks,
            events_test=len(split.test.items),
            sessions_train=len(split.train),
            sessions_test=len(split.test),
            first_timestamp_ms=int(np.min(loaded.clicks.timestamp_ms)),
            last_timestamp_ms=int(np.max(loaded.clicks.timestamp_ms)),
            offsets=loaded.offsets,
            file_sha256=loaded.file_sha256,
        ),
        hyperparameters=hyperparameters,
        scores={},
    )
