"""Fitting as a user asks for it: from nothing or from an older model, with checkpoints, until it ends.

Decided: Ctrl-C ends the training after the step that runs and keeps what was learned: the model is scored,
written and marked (`interrupted` and `learned_share` in the manifest), and the checkpoint stays, so that
`--resume` learns the rest. A loss that explodes ends it without a model; the last good checkpoint stays.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from schemas.model_manifest import ModelManifest
from training.checkpoint import FolderCheckpoints, identity
from training.errors import DivergedError, StopTraining, StoreError
from training.fit import EpochEnd, fit
from training.meter import FitProgress
from training.model_store import load_model, save_model
from training.network import Network
from training.progress import Progress, Report
from training.sessions import Split
from training.settings import TrainSettings
from training.warm_start import TRAINED_UNTIL_MS, WarmStart, WarmStartSettings, warm_start

_WARM = WarmStartSettings()


def _never() -> bool:
    return False


def _say_nothing(_: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class FitOptions:
    """How training begins, how it is kept and how it ends.

    Attributes:
        start_from: folder of a model to go on from, None to begin with random weights.
        warm: how it is gone on with.
        checkpoints: keep some beside the models while training runs.
        resume: go on from the newest one.
        interrupted: asked every few steps; true ends the training, and what it learned is kept.
        say: told in a sentence what is worth knowing on the way.
        on_epoch: called at the end of each epoch.
    """

    start_from: Path | None = None
    warm: WarmStartSettings = _WARM
    checkpoints: bool = True
    resume: bool = False
    interrupted: Callable[[], bool] = _never
    say: Callable[[str], None] = _say_nothing
    on_epoch: Callable[[EpochEnd], None] | None = None


@dataclass(frozen=True, eq=False)
class Fitted:
    """A network and how it came about.

    Attributes:
        network: the weights.
        settings: as used; those of a warm start differ from what was asked.
        events_per_s: transitions learned per second.
        learned_share: 1.0, or less where training was interrupted.
        losses: mean of each epoch.
        checkpoints: None where there are none.
        notes: for the hyperparameters of the manifest.
    """

    network: Network
    settings: TrainSettings
    events_per_s: float
    learned_share: float
    losses: tuple[float, ...]
    checkpoints: FolderCheckpoints | None
    notes: dict[str, float | int | str | bool]

    @property
    def interrupted(self) -> bool:
        """Whether training ended before its time."""
        return self.learned_share < 1.0

    def save(self, store: Path, manifest: ModelManifest, files: Mapping[str, bytes]) -> None:
        """Write the model, then remove the checkpoints; those of an interrupted training stay.

        Raises:
            StoreError: it cannot be written; the checkpoints stay.
        """
        try:
            save_model(store, manifest, files)
        except OSError as error:
            left = "" if self.checkpoints is None else "; nothing is lost: --resume writes it"
            raise StoreError(f"the model cannot be written into {store} ({error}){left}") from error
        if self.checkpoints is not None and not self.interrupted:
            self.checkpoints.remove()


def fit_split(
    split: Split, settings: TrainSettings, store: Path, source: str, options: FitOptions, report: Report
) -> Fitted:
    """Fit a model to the training part.

    Args:
        split: the log.
        settings: the recipe.
        store: checkpoints go into a folder of it.
        source: what the clicks came from, for people.
        options: see there.
        report: called often.

    Raises:
        TrainingError: see its children.
        BrokenArtefactError: `start_from` is no model.
        OSError: the store cannot be written.
    """
    old = None if options.start_from is None else load_model(options.start_from)[0]
    sessions, used, start = split.train, settings, None
    notes: dict[str, float | int | str | bool] = {TRAINED_UNTIL_MS: int(np.max(split.train.last_ms))}
    if old is not None:
        warm = warm_start(old, split.train, split.item_ids, settings, options.warm)
        sessions, used, start = warm.sessions, warm.settings, warm.network
        notes |= _warm_notes(warm, old.manifest.model_version)
        options.say(_warm_remark(warm, old.manifest.model_version))
    checkpoints = None
    if options.checkpoints or options.resume:
        version = "" if old is None else old.manifest.model_version
        of = identity(sessions, split.item_ids, used, source, version)
        checkpoints = FolderCheckpoints(store, of, resume=options.resume, say=options.say)
    watch = _Watch(options, report)
    try:
        network = fit(
            sessions,
            len(split.item_ids),
            used,
            watch.on_progress,
            start=start,
            checkpoints=checkpoints,
            on_epoch=watch.on_epoch,
        )
    except DivergedError as error:
        raise DivergedError(f"{error}{_what_is_left(checkpoints)}") from None
    if watch.learned_share < 1.0:
        notes |= {"interrupted": True, "learned_share": round(watch.learned_share, 6)}
    return Fitted(network, used, watch.events_per_s, watch.learned_share, watch.losses, checkpoints, notes)


class _Watch:
    """Passes on how training goes, and stops it when asked to."""

    def __init__(self, options: FitOptions, report: Report) -> None:
        self._options, self._report = options, report
        self.events_per_s = 0.0
        self.learned_share = 0.0
        self.losses: tuple[float, ...] = ()

    def on_progress(self, at: FitProgress) -> None:
        self.events_per_s, self.learned_share = at.events_per_s, at.events / at.events_total
        self._report(
            Progress("fit", at.events, at.events_total, at.epoch, at.epochs, at.loss, at.events_per_s)
        )
        if self._options.interrupted() and at.events < at.events_total:
            raise StopTraining

    def on_epoch(self, end: EpochEnd) -> None:
        self.losses = end.losses
        if self._options.on_epoch is not None:
            self._options.on_epoch(end)


def _warm_notes(warm: WarmStart, version: str) -> dict[str, float | int | str | bool]:
    return {
        "started_from": version,
        "new_sessions": warm.new_sessions,
        "exemplar_sessions": warm.exemplars,
    }


def _warm_remark(warm: WarmStart, version: str) -> str:
    items = len(warm.network.embedding)
    forgotten = (
        f"; {warm.forgotten_items:,} items that only {version} knows are not in these clicks and are left out"
        if warm.forgotten_items
        else ""
    )
    return (
        f"going on from {version}: {warm.new_sessions:,} new sessions and {warm.exemplars:,} older ones,"
        f" {items - warm.known_items:,} of {items:,} items are new{forgotten}"
    )


def _what_is_left(checkpoints: FolderCheckpoints | None) -> str:
    kept = None if checkpoints is None else checkpoints.newest()
    if kept is None:
        return ""
    return f". The last good checkpoint is {kept}: --resume with a lower --learning-rate goes on from it"


AS_USUAL = FitOptions()
"""From random weights to the end, with checkpoints."""
