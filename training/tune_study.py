"""A study of `nextclick tune`: what it is of, where it is kept, and what it has found."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from training.errors import TuneError
from training.settings import TrainSettings
from training.tune_log import TuneLog

STARTUP_TRIALS = 8
"""Drawn at random and seen to their end, before sampler and pruner know anything."""
MIN_TRIALS_FOR_IMPORTANCE = 12
COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)

Metric = Literal["recall", "mrr", "both"]
LogScores = dict[str, dict[str, float]]
"""`recall` and `mrr` by log."""


@dataclass(frozen=True)
class TuneSettings:
    """How to search.

    Attributes:
        study: name; a study of that name that the journal has is gone on with.
        journal: the file that trials are kept in.
        trials: until the study has so many, those of earlier runs included.
        names: settings to search; empty stands for a choice that fits the logs.
        metric: recall@20, MRR@20 or the mean of both, relative to the settings to begin with.
    """

    study: str
    journal: Path
    trials: int = 40
    names: tuple[str, ...] = ()
    metric: Metric = "both"


@dataclass(frozen=True)
class TuneProgress:
    """Where the search is.

    Attributes:
        done, trials: counted trials, and how many there will be.
        trial: what runs: "start" or a number.
        log: that it trains on.
        epoch, epochs: of this training.
        share: of what runs that is done, over all logs.
        best: value so far, 1.0 for the settings to begin with.
        events_per_s: of this training.
    """

    done: int
    trials: int
    trial: str
    log: str
    epoch: int
    epochs: int
    share: float
    best: float
    events_per_s: float


@dataclass(frozen=True)
class TrialRow:
    """A finished trial.

    Attributes:
        number: of the trial.
        value: relative to the start.
        settings: what was searched.
        scores: by log.
    """

    number: int
    value: float
    settings: dict[str, Any]
    scores: LogScores


@dataclass(frozen=True)
class TuneResult:
    """What a study found until now.

    Attributes:
        study, journal: where it is kept.
        best: the best trials, the best first; empty where none has finished.
        start: scores of the settings to begin with.
        finished, pruned, failed: trials by how they ended.
        importance: share of the variation that each setting explains, the largest first; empty after few
            trials.
        stopped: it ended before it had all its trials.
    """

    study: str
    journal: Path
    best: list[TrialRow]
    start: LogScores
    finished: int
    pruned: int
    failed: int
    importance: dict[str, float] = field(default_factory=dict)
    stopped: bool = False

    def fields(self) -> dict[str, Any]:
        """The JSON line of `nextclick tune --json`."""
        best = self.best[0] if self.best else None
        return {
            "study": self.study,
            "journal": str(self.journal),
            "trials": self.finished + self.pruned,
            "pruned": self.pruned,
            "stopped": self.stopped,
            "best_value": None if best is None else round(best.value, 6),
            "best_settings": None if best is None else best.settings,
            "best_scores": None if best is None else best.scores,
            "start_scores": self.start,
            "importance": {name: round(share, 4) for name, share in self.importance.items()},
        }


def meaning_of(
    logs: Sequence[TuneLog], start: TrainSettings, metric: Metric, names: tuple[str, ...]
) -> dict[str, Any]:
    """What a study is of; trials of another one say nothing about this one."""
    clicks = sha256(" ".join(log.fingerprint for log in logs).encode()).hexdigest()[:16]
    return {
        "logs": [log.name for log in logs],
        "clicks": clicks,
        "start": asdict(start),
        "metric": metric,
        "names": list(names),
    }


def open_study(settings: TuneSettings, seed: int, meaning: dict[str, Any]) -> optuna.Study:
    """The study of that name, a new one where there is none.

    Raises:
        TuneError: it is of something else, or the file is no journal.
        OSError: the journal cannot be written.
    """
    if len(set(meaning["logs"])) < len(meaning["logs"]):
        raise TuneError("two logs have the same name")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    settings.journal.parent.mkdir(parents=True, exist_ok=True)
    try:
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(settings.journal))),
            study_name=settings.study,
            direction="maximize",
            load_if_exists=True,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise TuneError(f"{settings.journal} is no journal of trials: {error}") from None
    known = study.user_attrs.get("meaning")
    if known is None:
        study.set_user_attr("meaning", meaning)
    elif known != meaning:
        odd = ", ".join(name for name in meaning if known.get(name) != meaning[name])
        raise TuneError(f"study {settings.study} in {settings.journal} has other {odd}: take another --study")
    # A sampler that goes on must not draw again what it has drawn.
    study.sampler = optuna.samplers.TPESampler(
        seed=seed + len(study.get_trials(deepcopy=False)), n_startup_trials=STARTUP_TRIALS
    )
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS)
    return study


def counted(study: optuna.Study) -> int:
    """Trials that told something: those that ended, early or not."""
    return len(study.get_trials(deepcopy=False, states=COUNTED))


def value_of(trial: FrozenTrial) -> float:
    """The value of a finished trial."""
    if trial.value is None:
        raise AssertionError("a finished trial has a value")
    return trial.value


def summary(study: optuna.Study, settings: TuneSettings, rows: int = 5) -> TuneResult:
    """What a study found until now."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    importance: dict[str, float] = {}
    if len(done) >= MIN_TRIALS_FOR_IMPORTANCE:
        importance = optuna.importance.get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    return TuneResult(
        study=study.study_name,
        journal=settings.journal,
        best=[
            TrialRow(each.number, value_of(each), dict(each.params), dict(each.user_attrs["scores"]))
            for each in sorted(done, key=value_of, reverse=True)[:rows]
        ],
        start=dict(study.user_attrs.get("start", {})),
        finished=len(done),
        pruned=len(study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))),
        failed=len(study.get_trials(deepcopy=False, states=(TrialState.FAIL,))),
        importance=dict(sorted(importance.items(), key=lambda each: -each[1])),
        stopped=counted(study) < settings.trials,
    )
