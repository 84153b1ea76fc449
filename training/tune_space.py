"""What `nextclick tune` searches: the settings, and the values that each may take."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

from training.errors import TuneError
from training.settings import TrainSettings


@dataclass(frozen=True)
class Real:
    """A number between two bounds, `log` where its size matters rather than its difference."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Whole:
    """A whole number between two bounds, both included."""

    low: int
    high: int


@dataclass(frozen=True)
class OneOf:
    """One of these."""

    values: tuple[Any, ...]


Dimension = Real | Whole | OneOf

SPACE: Mapping[str, Dimension] = {
    "learning_rate": Real(0.002, 0.03, log=True),
    "epochs": Whole(2, 14),
    "batch_transitions": OneOf((256, 512, 1_024, 2_048)),
    "embedding_dropout": Real(0.0, 0.6),
    "temperature": Real(6.0, 18.0),
    "negatives": OneOf((1_024, 2_048, 4_096, 8_192, 16_384)),
    "negative_alpha": Real(0.0, 1.0),
    "hidden_size": OneOf((64, 100, 128, 192)),
    "loss": OneOf(("cross_entropy", "bpr_max", "top1_max")),
    "bpreg": Real(0.0, 4.0),
    "hidden_dropout": Real(0.0, 0.4),
    "optimiser": OneOf(("adam", "adagrad")),
    "momentum": Real(0.0, 0.6),
    "cell": OneOf(("gru", "lstm")),
}
"""All that can be searched. A setting that the trainer does not have is left out."""
USUAL = ("learning_rate", "epochs", "batch_transitions", "embedding_dropout", "temperature")
"""What made a difference on the public logs, for every log. A loss, a cell or a width is searched when named:
each costs trials, and the width costs serving time as well."""
USUAL_SAMPLED = ("negatives", "negative_alpha")
"""Besides, where a catalogue is too large to be scored in full; elsewhere they change nothing."""


class Suggests(Protocol):
    """The part of an Optuna trial that is used here."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...

    def suggest_int(self, name: str, low: int, high: int) -> int: ...

    def suggest_categorical(self, name: str, choices: tuple[Any, ...]) -> Any: ...


def possible_names() -> tuple[str, ...]:
    """Settings that can be searched."""
    known = {each.name for each in fields(TrainSettings)}
    return tuple(name for name in SPACE if name in known)


def searched_names(start: TrainSettings, sampled: bool, names: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Which settings to search: those named, else the usual ones that `start` leaves at their defaults.

    Args:
        start: the settings to begin with.
        sampled: a log's catalogue is too large to be scored in full.
        names: asked for.

    Raises:
        TuneError: a name is none that can be searched, or nothing is left to search.
    """
    possible = possible_names()
    if odd := [name for name in names if name not in possible]:
        raise TuneError(f"cannot search {', '.join(odd)}; possible are {', '.join(possible)}")
    usual = (*USUAL, *(USUAL_SAMPLED if sampled else ()))
    default = TrainSettings()
    found = names or tuple(name for name in usual if getattr(start, name) == getattr(default, name))
    if not found:
        raise TuneError("every setting is given: name those to search with --search")
    return found


def suggest(trial: Suggests, name: str) -> Any:
    """A value for this setting."""
    dimension = SPACE[name]
    if isinstance(dimension, Real):
        return trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)
    if isinstance(dimension, Whole):
        return trial.suggest_int(name, dimension.low, dimension.high)
    return trial.suggest_categorical(name, dimension.values)
