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
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.model_artefact import Artefact, file_entries, pack_files
from schemas.model_manifest import (
    FORMAT_VERSION,
    WEIGHTS_FILE,
    Architecture,
    ModelManifest,
    TrainingData,
)
from training.baselines import markov_ranks, popularity_ranks
from training.click_log import LoadedLog
from training.errors import SplitError
from training.evaluate import Scores, answerable, is_target, model_ranks, scores
from training.fit import FitProgress, fit, torch_threads
from training.model_store import load_model, model_version, save_model
from training.network import Network, weights
from training.progress import Progress, Report
from training.report import standin
from training.report.files import try_report
from training.report.gather import EpochRecorder, report_data
from training.sessions import UNKNOWN, Split, SplitRule, rows_in, split_log
from training.settings import (
    TrainSettings,
    batch_transitions_for,
    embedding_dropout_for,
    epochs_for,
)
from worker.core.session_model import SessionModel, session_model

K = 20


@dataclass(frozen=True)
class TrainResult:
    """What came out. `fields()` is the JSON line of `nextclick train --json`.

    Attributes:
        log: name of the topic or file.
        events_train, events_test: clicks of the two parts.
        model, markov, popularity: scores on the headline targets.
        all_targets: the model's scores with every later click of the test part as a target.
        unknown_share: of those later clicks, the ones on items unseen in training.
        train_events_per_s: transitions learned per second of the training loop.
        seconds: all of it, without the reading of the log.
        model_version, model_folder: the artefact.
        serving_version, serving: the model compared with and its scores, None where there was none.
        report_trouble: what the report beside the model lacks, and why; a sentence for the user.
    """

    log: str
    events_train: int
    events_test: int
    model: Scores
    markov: Scores
    popularity: Scores
    all_targets: Scores
    unknown_share: float
    train_events_per_s: float
    seconds: float
    model_version: str
    model_folder: Path
    serving_version: str | None = None
    serving: Scores | None = None
    report_trouble: str = ""

    def fields(self) -> dict[str, float | int | str]:
        """The result as flat JSON fields, scores to six digits."""
        found: dict[str, float | int | str] = {
            "log": self.log,
            "events_train": self.events_train,
            "events_test": self.events_test,
            **score_fields("", self.model),
            **score_fields("markov_", self.markov),
            **score_fields("popularity_", self.popularity),
            "train_events_per_s": round(self.train_events_per_s),
            "seconds": round(self.seconds, 2),
            "model_version": self.model_version,
            "model_folder": str(self.model_folder),
            "targets": self.model.targets,
            **score_fields("all_", self.all_targets),
            "unknown_share": round(self.unknown_share, 6),
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
    *,
    with_report: bool = True,
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
        with_report: write report, plots and model card beside the model.

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
    recorder = _recorder(loaded, split, settings, now_ms) if with_report else None
    network, events_per_s = _fit(split, settings, report, recorder)
    files = pack_files(split.item_ids, weights(network))
    draft = _manifest(loaded, split, settings, files=files, now_ms=now_ms)
    model = session_model(Artefact(draft, "", split.item_ids, weights(network)))
    with torch_threads(settings.threads):
        ranks = _ranks(model, split, report)
        serving_ranks = None if serving is None else _ranks(serving, split, report)
    items = len(split.item_ids)
    result = TrainResult(
        log=loaded.name,
        events_train=len(split.train.items),
        events_test=len(split.test.items),
        model=scores(ranks[headline]),
        markov=scores(markov_ranks(split.train, test, items)[headline]),
        popularity=scores(popularity_ranks(split.train, test, items)[headline]),
        all_targets=scores(ranks),
        unknown_share=float((test.items[is_target(test)] == UNKNOWN).mean()),
        train_events_per_s=events_per_s,
        seconds=time.perf_counter() - started_s,
        model_version=draft.model_version,
        model_folder=store / draft.model_version,
        serving_version=None if serving is None else serving.version,
        serving=None if serving_ranks is None else scores(serving_ranks[headline]),
    )
    manifest = msgspec.structs.replace(draft, scores=_manifest_scores(result))
    save_model(store, manifest, files)
    if recorder is None:
        return result
    support = np.bincount(split.train.items, minlength=items)
    trouble = try_report(
        result.model_folder,
        lambda: report_data(
            loaded,
            split,
            settings,
            manifest,
            model,
            standin.evaluation(ranks, headline, test, support),
            {
                "markov": standin.metrics_of(result.markov),
                "popularity": standin.metrics_of(result.popularity),
            },
            recorder,
            events_per_s=events_per_s,
            total_s=result.seconds,
            serving_version=result.serving_version,
            serving=None if result.serving is None else standin.metrics_of(result.serving),
        ),
    )
    return replace(result, report_trouble=trouble)


def _recorder(loaded: LoadedLog, split: Split, settings: TrainSettings, now_ms: int) -> EpochRecorder:
    blank = _manifest(loaded, split, settings, files={WEIGHTS_FILE: b""}, now_ms=now_ms)
    return EpochRecorder(
        split, lambda network: session_model(Artefact(blank, "", split.item_ids, weights(network)))
    )


def score_fields(prefix: str, found: Scores) -> dict[str, float]:
    """`<prefix>recall@20` and `<prefix>mrr@20`."""
    return {
        f"{prefix}recall@{K}": round(found.recall[K], 6),
        f"{prefix}mrr@{K}": round(found.mrr[K], 6),
    }


def _fit(
    split: Split, settings: TrainSettings, report: Report, recorder: EpochRecorder | None
) -> tuple[Network, float]:
    """The fitted network and the transitions learned per second."""
    events_per_s = 0.0

    def pass_on(at: FitProgress) -> None:
        nonlocal events_per_s
        events_per_s = at.events_per_s
        report(Progress("fit", at.events, at.events_total, at.epoch, at.epochs, at.loss, at.events_per_s))

    network = fit(split.train, len(split.item_ids), settings, pass_on, on_epoch=recorder)
    return network, events_per_s


def _ranks(model: SessionModel, split: Split, report: Report) -> NDArray[np.int64]:
    """Ranks of all targets of the test part, whatever vocabulary the model has."""
    test = split.test.renamed(rows_in(split.log_item_ids, model.items))
    return model_ranks(model, test, lambda done, total: report(Progress("evaluate", done, total)))


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


def _manifest_scores(result: TrainResult) -> dict[str, float]:
    return {
        **{f"recall@{k}": value for k, value in result.model.recall.items()},
        **{f"mrr@{k}": value for k, value in result.model.mrr.items()},
        **score_fields("all_", result.all_targets),
        **score_fields("markov_", result.markov),
        **score_fields("popularity_", result.popularity),
        "targets": float(result.model.targets),
        "unknown_share": result.unknown_share,
    }
