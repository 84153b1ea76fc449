"""Search for settings with Optuna, on a validation slice cut from the end of the training part (`tune_log`).

With several logs a trial is trained on each in turn, and what counts is how it does relative to the settings
that one begins with, averaged over the logs: 1.02 is two percent better. Settings that win so on several logs
are worth making defaults of; settings that win on one are worth using for that one.

Trials are kept in an Optuna journal, so that a search that is broken off goes on where it was. Bad trials end
early: a trial that is under the median of the others after the same share of its training is given up
(median rule: Golovin et al., "Google Vizier", KDD 2017).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import optuna
from optuna.trial import Trial, TrialState

from training.errors import DivergedError
from training.fit import EpochEnd, fit, torch_threads
from training.meter import FitProgress
from training.settings import TrainSettings
from training.tune_log import TuneLog, validate
from training.tune_space import searched_names, suggest
from training.tune_study import (
    LogScores,
    TuneProgress,
    TuneResult,
    TuneSettings,
    counted,
    meaning_of,
    open_study,
    summary,
    value_of,
)

PRUNING_STEPS = 5
"""Trials are compared after each fifth of their epochs, however many those are."""


class _Stopped(Exception):  # noqa: N818 - a request, not an error
    """The search is to end now."""


def tune(
    logs: Sequence[TuneLog],
    start: TrainSettings,
    settings: TuneSettings,
    report: Callable[[TuneProgress], None],
    stop: Callable[[], bool],
) -> TuneResult:
    """Search until the study has its trials or `stop` says so; what was tried is kept either way.

    Args:
        logs: at least one, of different names; trained on in this order.
        start: settings to begin with, and the values of what is not searched.
        settings: how.
        report: called often.
        stop: asked every few steps; true ends what runs, which is then not counted.

    Raises:
        TuneError: the journal has a study of that name with other logs, metric or settings, or it is none.
        OSError: the journal cannot be written.
    """
    sampled = any(len(log.item_ids) > start.full_softmax_items for log in logs)
    names = searched_names(start, sampled, settings.names)
    study = open_study(settings, start.seed, meaning_of(logs, start, settings.metric, names))
    search = _Search(study, logs, start, settings, names, report, stop)
    with torch_threads(start.threads):
        try:
            search.score_start()
            while not stop() and counted(study) < settings.trials:
                search.run_trial()
        except _Stopped:
            return summary(study, settings)
    return summary(study, settings)


class _Search:
    """Runs the trials of one study."""

    def __init__(
        self,
        study: optuna.Study,
        logs: Sequence[TuneLog],
        start: TrainSettings,
        settings: TuneSettings,
        names: tuple[str, ...],
        report: Callable[[TuneProgress], None],
        stop: Callable[[], bool],
    ) -> None:
        self._study, self._logs, self._start, self._settings = study, logs, start, settings
        self._names, self._report, self._stop = names, report, stop
        self._start_scores: LogScores = {}
        self._done, self._best = 0, 1.0

    def score_start(self) -> None:
        """Score the settings to begin with, once per study."""
        found = self._study.user_attrs.get("start")
        if found is None:
            found = {}
            for log in self._logs:
                found[log.name] = self._train("start", len(found), log, self._start, None)
            self._study.set_user_attr("start", found)
        self._start_scores = found

    def run_trial(self) -> None:
        """Ask for settings, try them on every log, tell the study."""
        done = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        self._done, self._best = counted(self._study), max([1.0, *map(value_of, done)])
        trial = self._study.ask()
        try:
            chosen = replace(self._start, **{name: suggest(trial, name) for name in self._names})
            found = self._try(trial, chosen)
        except (optuna.TrialPruned, DivergedError):
            self._study.tell(trial, state=TrialState.PRUNED)
        except BaseException:  # also Ctrl-C: a trial that nobody ends would look as if it still ran
            self._study.tell(trial, state=TrialState.FAIL)
            raise
        else:
            trial.set_user_attr("scores", found)
            self._study.tell(trial, self._value_of(found))

    def _try(self, trial: Trial, chosen: TrainSettings) -> LogScores:
        """Train on each log.

        Raises:
            TrialPruned: it is worse than most were at this point.
        """
        found: LogScores = {}
        for place, log in enumerate(self._logs):

            def look(share: float, now: dict[str, float], name: str = log.name, place: int = place) -> None:
                # Comparable between trials: all go through the logs in the same order.
                step = PRUNING_STEPS * place + int(PRUNING_STEPS * share)
                trial.report(self._value_of({**found, name: now}), step)
                if trial.should_prune():
                    raise optuna.TrialPruned

            found[log.name] = self._train(str(trial.number), place, log, chosen, look)
            look(1.0, found[log.name])
        return found

    def _train(
        self,
        trial: str,
        place: int,
        log: TuneLog,
        chosen: TrainSettings,
        look: Callable[[float, dict[str, float]], None] | None,
    ) -> dict[str, float]:
        """Train on one log; returns its scores on the validation slice."""

        def on_progress(at: FitProgress) -> None:
            share = (place + at.events / at.events_total) / len(self._logs)
            self._report(
                TuneProgress(
                    done=self._done,
                    trials=self._settings.trials,
                    trial=trial,
                    log=log.name,
                    epoch=at.epoch,
                    epochs=at.epochs,
                    share=share,
                    best=self._best,
                    events_per_s=at.events_per_s,
                )
            )
            if self._stop():
                raise _Stopped

        def on_epoch(end: EpochEnd) -> None:
            share, before = end.epoch / end.epochs, (end.epoch - 1) / end.epochs
            new_step = int(PRUNING_STEPS * share) > int(PRUNING_STEPS * before)
            if look is not None and new_step and end.epoch < end.epochs:
                look(share, validate(end.network, log))

        network = fit(log.train, len(log.item_ids), chosen, on_progress, on_epoch=on_epoch)
        return validate(network, log)

    def _value_of(self, found: Mapping[str, Mapping[str, float]]) -> float:
        """Mean over these logs of their scores relative to those of the start."""
        metric = self._settings.metric
        names = ("recall", "mrr") if metric == "both" else (metric,)
        ratios = [
            got[name]
            / max(self._start_scores[log][name], 1e-9)  # a start that hits nothing is beaten at once
            for log, got in found.items()
            for name in names
        ]
        return float(np.mean(ratios))
