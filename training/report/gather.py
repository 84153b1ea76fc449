"""Collects what a report shows, while a training runs and from what it leaves behind."""

import platform
import resource
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib import metadata

import numpy as np
import structlog

from schemas.model_manifest import ModelManifest
from training.click_log import LoadedLog
from training.evaluate import MISSED, answerable, model_ranks
from training.evaluation import Evaluation, Metrics
from training.fit import EpochEnd
from training.network import Network
from training.report.data import Cost, EpochPoint, Provenance, ReportData, Setting
from training.report.examples import pick_examples
from training.report.summary import summarise
from training.sessions import Sessions, Split
from training.settings import TrainSettings
from worker.core.session_model import SessionModel

log = structlog.get_logger(__name__)

PACKAGES = ("nextclick", "torch", "numpy")
EPOCH_TARGETS = 2_000
"""Held-out clicks that recall is measured on after each epoch: a sampling error of 0.01."""
EPOCH_SCORES = 400_000_000
"""Scores that this may cost an epoch, a second or two: on catalogues beyond 200,000 items fewer targets."""
K = 20


class EpochRecorder:
    """Notes loss and recall@20 at the end of each epoch. What it finds is shown and never used.

    Attributes:
        points: of the epochs until now.
        fit_s: training time until now.

    Args:
        split: the parts of the log.
        as_model: the network as the worker would serve it.
    """

    def __init__(self, split: Split, as_model: Callable[[Network], SessionModel]) -> None:
        wanted = min(EPOCH_TARGETS, max(1, EPOCH_SCORES // len(split.item_ids)))
        self._sample = sample_sessions(split.test.renamed(split.rows), wanted)
        self._answerable = answerable(self._sample)
        self._as_model = as_model
        self.points: list[EpochPoint] = []
        self.fit_s = 0.0

    @property
    def targets(self) -> int:
        """Held-out clicks that recall is measured on."""
        return int(self._answerable.sum())

    def __call__(self, at: EpochEnd) -> None:
        """Note an epoch; to be given to `fit` as `on_epoch`."""
        for epoch in range(len(self.points) + 1, at.epoch):  # learned before a resume: only the loss is known
            self.points.append(EpochPoint(epoch, at.losses[epoch - 1], None))
        self.points.append(EpochPoint(at.epoch, at.loss, self._recall(at.network)))
        self.fit_s = at.seconds

    def _recall(self, network: Network) -> float | None:
        try:
            ranks = model_ranks(self._as_model(network), self._sample)[self._answerable]
        except Exception as error:  # noqa: BLE001 - a curve with a gap is better than hours of training lost
            log.warning("recall_of_epoch_not_measured", error=repr(error), then="a gap in the curve")
            return None
        return float(((ranks != MISSED) & (ranks <= K)).mean()) if len(ranks) else None


def sample_sessions(test: Sessions, targets: int) -> Sessions:
    """Sessions spread evenly over the test part, with about so many answerable targets and not more than
    twice as many, unless the first of them has; all sessions where there are fewer.
    """
    owner = np.repeat(np.arange(len(test)), test.lengths - 1)[answerable(test)]
    counted = np.bincount(owner, minlength=len(test))
    every = max(1, round(counted.sum() / targets))
    chosen = np.arange(0, len(test), every)
    enough = int(np.searchsorted(np.cumsum(counted[chosen]), 2 * targets)) + 1
    return test.take(chosen[:enough])


def setting_lines(settings: TrainSettings, used: Mapping[str, float | int | str | bool]) -> list[Setting]:
    """What was used, with its origin: asked for, from the log (None in the settings), or the default."""
    asked, default = asdict(settings), asdict(TrainSettings())
    lines = []
    for name, value in used.items():
        if asked.get(name) is None:
            lines.append(Setting(name, value, "log"))
        else:
            lines.append(Setting(name, value, "default" if asked[name] == default.get(name) else "chosen"))
    return lines


def peak_rss_mb() -> float:
    """Peak resident memory of this process in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # bytes there, KiB here


def versions() -> dict[str, str]:
    """Versions of what the model was made with, for a reader who wants the same again."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # run from a folder that was never installed
            found[package] = "not installed"
    return {**found, "machine": f"{platform.system()} {platform.machine()}"}


def report_data(
    loaded: LoadedLog,
    split: Split,
    settings: TrainSettings,
    manifest: ModelManifest,
    model: SessionModel,
    evaluation: Evaluation,
    baselines: Mapping[str, Metrics],
    recorder: EpochRecorder,
    *,
    events_per_s: float,
    total_s: float,
    serving_version: str | None = None,
    serving: Metrics | None = None,
) -> ReportData:
    """Put everything together.

    Args:
        loaded: the log.
        split: its parts.
        settings: the recipe as it was asked for.
        manifest: of the model.
        model: the model as the worker would serve it.
        evaluation: how it does.
        baselines: how the baselines do on the same targets.
        recorder: what it noted.
        events_per_s: transitions learned per second.
        total_s: all of the training without the reading of the log.
        serving_version, serving: the model compared with and how it does.
    """
    data = manifest.training_data
    return ReportData(
        model_version=manifest.model_version,
        created_at_ms=manifest.created_at_ms,
        architecture=manifest.architecture,
        settings=setting_lines(settings, manifest.hyperparameters),
        epochs=recorder.points,
        epoch_targets=recorder.targets,
        evaluation=evaluation,
        baselines=dict(baselines),
        log=summarise(loaded, split),
        examples=pick_examples(model, split.test, split.log_item_ids, split.rows),
        cost=Cost(
            events_per_s,
            recorder.fit_s,
            total_s,
            peak_rss_mb(),
            settings.threads,
        ),
        provenance=Provenance(
            data.kind, data.name, data.offsets, data.file_sha256, manifest.files, versions()
        ),
        serving_version=serving_version,
        serving=serving,
    )
