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

from schemas.model_artefact import Artefact, file_entries, pack_files
from schemas.model_manifest import (
    WEIGHTS_FILE,
    ModelManifest,
    TrainingData,
    format_for,
)
from training.baselines import compare
from training.click_log import LoadedLog
from training.errors import SplitError
from training.evaluate import answerable
from training.evaluation import Evaluation, Metrics
from training.fit import torch_threads
from training.fitting import AS_USUAL, FitOptions, Fitted, fit_split
from training.model_store import load_model, model_version
from training.network import weights
from training.progress import Report
from training.report.files import try_report
from training.report.gather import EpochRecorder, report_data
from training.score import evaluate_on, full_fields, manifest_scores, score_fields, serving_metrics
from training.sessions import Split, SplitRule, split_log
from training.settings import (
    TrainSettings,
    batch_transitions_for,
    embedding_dropout_for,
    epochs_for,
)
from worker.core.session_model import laid_out, session_model


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
        interrupted: training ended before its time.
        report_trouble: what the report beside the model lacks, and why; a sentence for the user.
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
    interrupted: bool = False
    report_trouble: str = ""

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
        return found | ({"interrupted": True} if self.interrupted else {})


def train(
    loaded: LoadedLog,
    rule: SplitRule,
    settings: TrainSettings,
    store: Path,
    now_ms: int,
    report: Report,
    compare_with: Path | None = None,
    options: FitOptions = AS_USUAL,
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
        options: warm start, checkpoints, interruption.
        with_report: write report, plots and model card beside the model.

    Raises:
        TrainingError: see its children.
        BrokenArtefactError: `compare_with`, or the model to go on from, is no model.
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
    recorder = _recorder(split) if with_report else None
    if recorder is not None:
        options = replace(options, on_epoch=recorder)
    fitted = fit_split(split, settings, store, _source(loaded), options, report)
    tensors = weights(fitted.network)
    files = pack_files(split.item_ids, tensors)
    draft = _manifest(loaded, split, fitted, files=files, now_ms=now_ms)
    model = session_model(Artefact(draft, "", split.item_ids, tensors))
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
        train_events_per_s=fitted.events_per_s,
        seconds=time.perf_counter() - started_s,
        model_version=draft.model_version,
        model_folder=store / draft.model_version,
        serving_version=None if serving is None else serving.version,
        serving=compared,
        interrupted=fitted.interrupted,
    )
    manifest = msgspec.structs.replace(draft, scores=manifest_scores(found, baselines))
    fitted.save(store, manifest, files)
    if recorder is None:
        return result
    trouble = try_report(
        result.model_folder,
        lambda: report_data(
            loaded,
            split,
            settings,
            manifest,
            model,
            found,
            baselines,
            recorder,
            events_per_s=result.train_events_per_s,
            total_s=result.seconds,
            serving_version=result.serving_version,
            serving=result.serving,
        ),
    )
    return replace(result, report_trouble=trouble)


def _recorder(split: Split) -> EpochRecorder:
    return EpochRecorder(
        split, lambda network: laid_out("", split.item_ids, network.architecture, weights(network))
    )


def _manifest(
    loaded: LoadedLog, split: Split, fitted: Fitted, *, files: dict[str, bytes], now_ms: int
) -> ModelManifest:
    entries, settings = file_entries(files), fitted.settings
    wanted = fitted.network.architecture
    clicks, transitions = len(split.train.items), split.train.transitions
    hyperparameters = {name: value for name, value in asdict(settings).items() if value is not None}
    hyperparameters |= {
        "epochs": epochs_for(settings, transitions),
        "temperature": wanted.temperature,
        "batch_transitions": batch_transitions_for(settings, clicks),
        "embedding_dropout": embedding_dropout_for(settings, clicks),
        **fitted.notes,
    }
    return ModelManifest(
        format_version=format_for(wanted),
        model_version=model_version(now_ms, entries[WEIGHTS_FILE].sha256),
        created_at_ms=now_ms,
        architecture=wanted,
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


def _source(loaded: LoadedLog) -> str:
    """What the clicks came from, as --offsets takes it."""
    ranges = ",".join(f"{each.partition}:{each.start}-{each.end}" for each in loaded.offsets)
    return f"{loaded.kind} {loaded.name}{f', offsets {ranges}' if ranges else ''}"
