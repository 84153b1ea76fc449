"""All that a training needs to go on after a crash, bit for bit, and the files that hold it.

A checkpoint is one safetensors file: arrays, and in its header's metadata the numbers as JSON. Its name holds
how far it is and the start of its own SHA-256, so that a file that is half written or altered is told from a
good one. It is written aside, flushed and renamed; the last two are kept.

    models/.checkpoint-<key>/000000123456-89abcdef01234567.safetensors

The key is of clicks and settings, so that two trainings in one store do not meet.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b, file_digest, sha256
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from training.errors import CheckpointError, DivergedError, ResumeError
from training.sessions import Sessions
from training.settings import TrainSettings

FORMAT_VERSION = 1
PREFIX = ".checkpoint-"
KEPT = 2
"""The newest, and the one before it for when the newest cannot be read."""
KEPT_FOLDERS = 3
"""Of other trainings in the same store; a killed one whose clicks never come again would stay for ever."""
EVERY_S = 60.0
"""Between checkpoints within an epoch."""
COST_FACTOR = 50
"""And at least so many times what the last one took: they cost at most 2% however large the model is."""
CHANGEABLE = ("learning_rate",)
"""May differ on a resume: the cure for a loss that exploded is a lower rate from the last good checkpoint."""

_NAME = re.compile(r"(\d{12,})-([0-9a-f]{16})\.safetensors")
_METADATA = "training"


class Position(msgspec.Struct):
    """Where a training is, and the numbers that go with it.

    Attributes:
        epoch: that runs or comes next, from 1.
        batches: of this epoch that are done.
        learned: transitions, over all epochs.
        loss_sum, loss_events: of this epoch so far; the sum is weighted by transitions.
        first_loss: of the very first step, to know an exploded loss by; None before.
        losses: mean loss of each finished epoch.
        seconds: of training until here.
        epoch_rng: numpy generator state at the start of the epoch; from it the order of batches follows.
        rng: numpy generator state now.
    """

    epoch: int = 1
    batches: int = 0
    learned: int = 0
    loss_sum: float = 0.0
    loss_events: int = 0
    first_loss: float | None = None
    losses: list[float] = []
    seconds: float = 0.0
    epoch_rng: dict[str, Any] = {}
    rng: dict[str, Any] = {}


@dataclass(frozen=True, eq=False)
class TrainingState:
    """A training between two steps.

    Attributes:
        position: see there.
        tensors: weights, moments of the optimiser, step counts and the state of torch's generator, by name.
            Which ones is the trainer's business; all are plain arrays. They may be views of what is trained.
    """

    position: Position
    tensors: dict[str, NDArray[Any]]


class Checkpoints(Protocol):
    """Where a training keeps its states."""

    def load(self) -> TrainingState | None:
        """The state to go on from, None to start at the beginning. Called once, before the first step."""

    def due(self) -> bool:
        """Whether it is time for one within an epoch; asked after every step."""

    def save(self, state: TrainingState) -> None:
        """Keep this state. Called where `due`, at the end of each epoch and when training is stopped."""


class Identity(msgspec.Struct, frozen=True):
    """What a training is of: a checkpoint of another one must not be gone on from.

    Attributes:
        clicks: hash of the training sessions and of the vocabulary.
        source: what the clicks came from, for people.
        start: version of the model that training starts from, empty for random weights.
        settings: all of them, None for those that follow from the log.
    """

    clicks: str
    source: str
    start: str
    settings: dict[str, float | int | str | bool | None]

    def key(self) -> str:
        """Short name; the same for a training that may be gone on with."""
        fixed = {name: value for name, value in self.settings.items() if name not in CHANGEABLE}
        text = json.dumps([FORMAT_VERSION, self.clicks, self.start, fixed], sort_keys=True)
        return sha256(text.encode()).hexdigest()[:12]


def identity(
    sessions: Sessions, item_ids: list[str], settings: TrainSettings, source: str, start: str = ""
) -> Identity:
    """The identity of a training on these sessions, whose item indices are rows of `item_ids`."""
    digest = blake2b(digest_size=16)
    for array in (sessions.items, sessions.starts):
        digest.update(np.ascontiguousarray(array).data)
    for item in item_ids:
        digest.update(item.encode() + b"\0")
    return Identity(digest.hexdigest(), source, start, msgspec.to_builtins(settings))


class FolderCheckpoints:
    """The checkpoints of one training in a folder of the store. Implements `Checkpoints`."""

    def __init__(
        self,
        store: Path,
        of: Identity,
        *,
        resume: bool = False,
        say: Callable[[str], None] = lambda _: None,
        every_s: float = EVERY_S,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """Name the folder; nothing is read or written yet.

        Args:
            store: the folder of models.
            of: the training.
            resume: go on from the newest checkpoint that is sound; otherwise `load` clears the folder.
            say: told where training goes on from.
            every_s: between two checkpoints within an epoch.
            seconds: a clock that only goes forward.
        """
        self.folder = store / f"{PREFIX}{of.key()}"
        self._store, self._of, self._resume, self._say = store, of, resume, say
        self._every_s, self._seconds = every_s, seconds
        self._saved_at_s, self._cost_s = seconds(), 0.0

    def load(self) -> TrainingState | None:
        """See `Checkpoints`. Takes the older one where the newest is unsound.

        Raises:
            ResumeError: there are checkpoints, but of other clicks or settings, or none is sound.
            OSError: the store cannot be written.
        """
        _remove_old_folders(self._store, self.folder)
        if not self._resume:
            shutil.rmtree(self.folder, ignore_errors=True)
            return None
        files = _files(self.folder)
        if not files:
            self._refuse_foreign()
            self._say("no checkpoint to resume from: training starts at the beginning")
            return None
        for path in reversed(files):
            try:
                state, of = _read(path)
            except CheckpointError as error:
                self._say(f"{error}: the one before it is taken")
                continue
            self._remark(state, of)
            return state
        raise ResumeError(f"{self.folder} holds no checkpoint that can be read: train without --resume")

    def due(self) -> bool:
        """See `Checkpoints`."""
        waited_s = self._seconds() - self._saved_at_s
        return waited_s >= max(self._every_s, COST_FACTOR * self._cost_s)

    def save(self, state: TrainingState) -> None:
        """See `Checkpoints`.

        Raises:
            DivergedError: the state holds NaN or infinity; what is on disk stays.
            CheckpointError: it cannot be written; what is on disk stays.
        """
        started_s = self._seconds()
        for name, tensor in state.tensors.items():
            if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
                raise DivergedError(f"{name} holds NaN or infinity: lower the learning rate")
        try:
            _write(self.folder, state, self._of)
        except (OSError, safetensors.SafetensorError) as error:
            raise CheckpointError(self._unwritable(error)) from error
        self._saved_at_s = self._seconds()
        self._cost_s = self._saved_at_s - started_s

    def remove(self) -> None:
        """The model is in the store: nothing is left to go on with."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _remark(self, state: TrainingState, of: Identity) -> None:
        at = state.position
        self._say(f"resumed in epoch {at.epoch}, after {at.learned:,} transitions")
        for name in CHANGEABLE:
            then, now = of.settings.get(name), self._of.settings.get(name)
            if then != now:
                self._say(f"{name} was {then} and is now {now}: the model will be another one")

    def _refuse_foreign(self) -> None:
        for folder in sorted(self._store.glob(f"{PREFIX}*")):
            for path in reversed(_files(folder)):
                try:
                    _, of = _read(path)
                except CheckpointError:
                    continue
                raise ResumeError(
                    f"the checkpoint in {folder} is of another training: {_differences(of, self._of)}."
                    " Say the same as then, or train without --resume"
                )

    def newest(self) -> Path | None:
        """The newest checkpoint on disk."""
        files = _files(self.folder)
        return files[-1] if files else None

    def _unwritable(self, error: Exception) -> str:
        kept = self.newest()
        left = "there is none yet" if kept is None else f"the last good one is {kept.name}"
        return (
            f"no checkpoint can be written into {self.folder} ({error}); {left}."
            " Make room and go on with --resume, or train with --no-checkpoints"
        )


def _differences(then: Identity, now: Identity) -> str:
    found = [
        f"{name} {then.settings.get(name)}, now {now.settings.get(name)}"
        for name in sorted({*then.settings, *now.settings} - {*CHANGEABLE})
        if then.settings.get(name) != now.settings.get(name)
    ]
    if then.start != now.start:
        found.append(f"started from {then.start or 'nothing'}, now from {now.start or 'nothing'}")
    if then.clicks != now.clicks:
        found.append(f"other clicks ({then.source}, now {now.source})")
    return "; ".join(found) or "a format of another version"


def _files(folder: Path) -> list[Path]:
    """Checkpoints, the oldest first."""
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=lambda path: int(path.name.partition("-")[0]))


def _write(folder: Path, state: TrainingState, of: Identity) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".unfinished-{os.getpid()}"
    numbers = {
        "format_version": FORMAT_VERSION,
        "of": msgspec.to_builtins(of),
        "position": msgspec.to_builtins(state.position),
    }
    try:
        tensors = {name: np.ascontiguousarray(tensor) for name, tensor in state.tensors.items()}
        safetensors.numpy.save_file(tensors, aside, {_METADATA: json.dumps(numbers)})
        with aside.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        aside.rename(folder / f"{state.position.learned:012d}-{digest[:16]}.safetensors")
    except BaseException:  # also Ctrl-C: what is half written is no checkpoint
        aside.unlink(missing_ok=True)
        raise
    _flush_folder(folder)
    for old in _files(folder)[:-KEPT]:
        old.unlink(missing_ok=True)


def _read(path: Path) -> tuple[TrainingState, Identity]:
    """Read a checkpoint and check it.

    Raises:
        CheckpointError: it cannot be read, was altered, or is of a newer format.
    """
    try:
        with path.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
        if not path.name.endswith(f"-{digest[:16]}.safetensors"):
            raise CheckpointError(f"checkpoint {path} is damaged")
        with safetensors.safe_open(path, "np") as opened:
            numbers = json.loads(opened.metadata()[_METADATA])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        if numbers["format_version"] != FORMAT_VERSION:
            raise CheckpointError(f"checkpoint {path} has format {numbers['format_version']}")
        position = msgspec.convert(numbers["position"], Position)
        return TrainingState(position, tensors), msgspec.convert(numbers["of"], Identity)
    except (OSError, safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error}") from error


def _remove_old_folders(store: Path, ours: Path) -> None:
    others = [path for path in store.glob(f"{PREFIX}*") if path != ours and path.is_dir()]
    others.sort(key=lambda path: path.stat().st_mtime)
    for old in others[:-KEPT_FOLDERS]:
        shutil.rmtree(old, ignore_errors=True)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
