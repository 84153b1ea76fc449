"""Checkpoints: training goes on from them bit for bit; those that are not sound are left aside."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.logs import habit_log
from training.checkpoint import (
    EVERY_S,
    KEPT_FOLDERS,
    PREFIX,
    FolderCheckpoints,
    Position,
    TrainingState,
    identity,
)
from training.errors import CheckpointError, DivergedError, ResumeError, StopTraining
from training.fit import EpochEnd, fit
from training.meter import FitProgress
from training.network import weights
from training.sessions import Sessions, TestShare, split_log
from training.settings import TrainSettings

QUICK = TrainSettings(hidden_size=12, epochs=3, batch_transitions=64, embedding_dropout=0.2)
SAMPLED = replace(QUICK, full_softmax_items=10, negatives=20)
WIDE = replace(SAMPLED, hidden_size=128, epochs=15, batch_transitions=512, threads=2)
"""Of the plain step, so large that both threads of torch have work."""
SLOTS = replace(WIDE, batching="session_parallel", parallel_sessions=160, epochs=5, hidden_dropout=0.2)
LSTM = replace(WIDE, cell="lstm", item_embedding="separate", optimiser="adagrad", momentum=0.3)


class Killed(Exception):  # noqa: N818
    """Stands for the end of the process."""


class KilledAfter(FolderCheckpoints):
    """Makes its checkpoint after so many steps, and dies right afterwards."""

    steps_left: int

    def due(self) -> bool:
        """Whether the step has come."""
        self.steps_left -= 1
        return self.steps_left == 0

    def save(self, state: TrainingState) -> None:
        """Save, then die where it was due."""
        super().save(state)
        if self.steps_left == 0:
            raise Killed


def quiet(_: FitProgress) -> None:
    """Show nothing."""


def train_part() -> tuple[Sessions, list[str]]:
    """Sessions of the habit log, and its vocabulary."""
    split = split_log(habit_log(200).clicks, TestShare())
    return split.train, split.item_ids


def folder_of(store: Path, settings: TrainSettings, resume: bool = False) -> FolderCheckpoints:
    """The checkpoints of a training on the habit log."""
    return FolderCheckpoints(store, identity(*train_part(), settings, "file habits.tsv"), resume=resume)


def killed_after(steps: int, store: Path, settings: TrainSettings, resume: bool = False) -> KilledAfter:
    """Checkpoints of such a training, which then ends like this."""
    checkpoints = KilledAfter(store, identity(*train_part(), settings, ""), resume=resume)
    checkpoints.steps_left = steps
    return checkpoints


def trained(settings: TrainSettings, checkpoints: FolderCheckpoints | None = None) -> dict[str, bytes]:
    """The weights, as bytes."""
    sessions, item_ids = train_part()
    network = fit(sessions, len(item_ids), settings, quiet, checkpoints=checkpoints)
    return {name: tensor.tobytes() for name, tensor in weights(network).items()}


def small_state(learned: int, value: float = 0.0) -> TrainingState:
    """A state with one tensor."""
    return TrainingState(Position(learned=learned), {"w": np.full((2, 3), value, np.float32)})


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """Inside, no file of this process grows beyond: what a full disk looks like, without one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def check_goes_on(folder: Path, settings: TrainSettings, steps: int) -> None:
    """Killed after so many steps, a resume ends in the bytes of a training that nothing happened to."""
    with pytest.raises(Killed):
        trained(settings, killed_after(steps, folder, settings))
    assert trained(settings, folder_of(folder, settings, resume=True)) == trained(settings)


@pytest.mark.parametrize("settings", [QUICK, SAMPLED, SLOTS, LSTM], ids=["full", "sampled", "slots", "lstm"])
@pytest.mark.parametrize("steps", [1, 7, 11, 17, 23])
def test_broken_off_anywhere_it_goes_on_bit_for_bit(
    tmp_path: Path, settings: TrainSettings, steps: int
) -> None:
    check_goes_on(tmp_path, settings, steps)


def test_broken_off_twice(tmp_path: Path) -> None:
    for steps in (5, 9):
        with pytest.raises(Killed):
            trained(QUICK, killed_after(steps, tmp_path, QUICK, resume=steps == 9))
    assert trained(QUICK, folder_of(tmp_path, QUICK, resume=True)) == trained(QUICK)


def test_stopped_by_hand_it_goes_on_bit_for_bit(tmp_path: Path) -> None:
    sessions, item_ids = train_part()

    def stop(at: FitProgress) -> None:
        if at.epoch == 2:
            raise StopTraining

    stopped = fit(sessions, len(item_ids), QUICK, stop, checkpoints=folder_of(tmp_path, QUICK))
    kept = folder_of(tmp_path, QUICK, resume=True).load()
    assert kept is not None
    assert kept.position.batches > 0
    np.testing.assert_array_equal(kept.tensors["embedding"], stopped.embedding.numpy())
    assert trained(QUICK, folder_of(tmp_path, QUICK, resume=True)) == trained(QUICK)


def test_keeping_checkpoints_changes_nothing(tmp_path: Path) -> None:
    assert trained(QUICK, folder_of(tmp_path, QUICK)) == trained(QUICK)


def test_losses_of_the_epochs_before_are_still_known(tmp_path: Path) -> None:
    sessions, item_ids = train_part()
    ends: list[EpochEnd] = []
    fit(sessions, len(item_ids), QUICK, quiet, on_epoch=ends.append)
    with pytest.raises(Killed):
        trained(QUICK, killed_after(15, tmp_path, QUICK))  # in the second of three epochs
    again: list[EpochEnd] = []
    later = folder_of(tmp_path, QUICK, resume=True)
    fit(sessions, len(item_ids), QUICK, quiet, checkpoints=later, on_epoch=again.append)
    assert [end.epoch for end in again] == [2, 3]
    assert again[-1].losses == ends[-1].losses
    assert len(ends[-1].losses) == 3


def test_gone_on_with_after_its_end_it_tells_what_it_had_learned(tmp_path: Path) -> None:
    sessions, item_ids = train_part()
    ends: list[EpochEnd] = []
    fit(sessions, len(item_ids), QUICK, quiet, checkpoints=folder_of(tmp_path, QUICK), on_epoch=ends.append)
    told: list[FitProgress] = []
    again: list[EpochEnd] = []
    later = folder_of(tmp_path, QUICK, resume=True)
    fit(sessions, len(item_ids), QUICK, told.append, checkpoints=later, on_epoch=again.append)
    ((end,), (progress,)) = again, told
    assert (end.epoch, end.losses, end.seconds) == (3, ends[-1].losses, ends[-1].seconds)
    assert progress.events == progress.events_total == 3 * sessions.transitions
    assert progress.events_per_s == pytest.approx(progress.events / end.seconds)


def test_the_last_two_are_kept_and_the_older_one_is_taken_where_the_newest_is_damaged(tmp_path: Path) -> None:
    checkpoints = folder_of(tmp_path, QUICK)
    for learned in (5, 10, 1_000):
        checkpoints.save(small_state(learned, float(learned)))
    files = sorted(checkpoints.folder.iterdir())
    assert [int(file.name[:12]) for file in files] == [10, 1_000]
    files[-1].write_bytes(files[-1].read_bytes()[:-1] + b"x")
    said: list[str] = []
    of = identity(*train_part(), QUICK, "")
    state = FolderCheckpoints(tmp_path, of, resume=True, say=said.append).load()
    assert state is not None
    assert (state.position.learned, state.tensors["w"][0, 0]) == (10, 10.0)
    assert "damaged" in said[0]
    files[0].write_bytes(b"")
    with pytest.raises(ResumeError, match="no checkpoint that can be read"):
        folder_of(tmp_path, QUICK, resume=True).load()


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    rng.random(3)
    position = Position(2, 3, 456, 7.5, 8, 0.1, [1.5], 3.25, dict(rng.bit_generator.state), {"state": 2**127})
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3)[:, ::2], "steps": np.array([4])}
    folder_of(tmp_path, QUICK).save(TrainingState(position, tensors))
    state = folder_of(tmp_path, QUICK, resume=True).load()
    assert state is not None
    assert state.position == position
    assert {name: tensor.tolist() for name, tensor in state.tensors.items()} == {
        "a": [[0, 2], [3, 5]],
        "steps": [4],
    }


def test_a_new_training_clears_what_was_there_and_without_any_resume_begins(tmp_path: Path) -> None:
    checkpoints = folder_of(tmp_path, QUICK)
    assert folder_of(tmp_path, QUICK, resume=True).load() is None
    checkpoints.save(small_state(1))
    assert checkpoints.load() is None
    assert checkpoints.newest() is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochs": 4}, "epochs 3, now 4"),
        ({"seed": 2}, "seed 1, now 2"),
        ({"threads": 3}, "threads 2, now 3"),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    folder_of(tmp_path, QUICK).save(small_state(1))
    with pytest.raises(ResumeError, match=said):
        folder_of(tmp_path, replace(QUICK, **change), resume=True).load()


def test_other_clicks_are_refused(tmp_path: Path) -> None:
    folder_of(tmp_path, QUICK).save(small_state(1))
    sessions, item_ids = train_part()
    fewer = sessions.take(np.arange(len(sessions) - 1))
    for other in (
        identity(fewer, item_ids, QUICK, "b.tsv"),
        identity(sessions, item_ids[::-1], QUICK, "b.tsv"),
    ):
        with pytest.raises(ResumeError, match=r"other clicks \(file habits.tsv, now b.tsv\)"):
            FolderCheckpoints(tmp_path, other, resume=True).load()


def test_a_lower_rate_may_go_on_and_is_told(tmp_path: Path) -> None:
    folder_of(tmp_path, QUICK).save(small_state(1))
    said: list[str] = []
    of = identity(*train_part(), replace(QUICK, learning_rate=0.001), "")
    assert FolderCheckpoints(tmp_path, of, resume=True, say=said.append).load() is not None
    assert "learning_rate was 0.01 and is now 0.001" in said[-1]


def test_what_is_no_number_is_not_kept(tmp_path: Path) -> None:
    checkpoints = folder_of(tmp_path, QUICK)
    checkpoints.save(small_state(1))
    for bad in (np.nan, np.inf):
        with pytest.raises(DivergedError, match="w holds NaN"):
            checkpoints.save(small_state(2, bad))
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.name.startswith("000000000001-")


def test_a_full_disk_is_said_and_leaves_the_last_good_one(tmp_path: Path) -> None:
    checkpoints = folder_of(tmp_path, QUICK)
    checkpoints.save(small_state(1))
    large = TrainingState(Position(learned=2), {"w": np.zeros(100_000, np.float32)})
    with largest_file(100_000), pytest.raises(CheckpointError, match="Make room and go on with --resume"):
        checkpoints.save(large)
    assert [file.name[:12] for file in checkpoints.folder.iterdir()] == ["000000000001"]


def test_time_between_checkpoints_grows_with_what_they_cost(tmp_path: Path) -> None:
    now_s = 0.0
    cost_s = 0.5

    def clock() -> float:
        nonlocal now_s
        now_s += cost_s / 2  # two readings per save
        return now_s

    checkpoints = FolderCheckpoints(tmp_path, identity(*train_part(), QUICK, ""), seconds=clock)
    checkpoints.save(small_state(1))
    assert not checkpoints.due()
    now_s += EVERY_S
    assert checkpoints.due()
    cost_s = 20.0
    checkpoints.save(small_state(2))
    now_s += EVERY_S
    assert not checkpoints.due()
    now_s += 50 * cost_s
    assert checkpoints.due()


def test_old_folders_of_others_are_removed(tmp_path: Path) -> None:
    for number in range(KEPT_FOLDERS + 2):
        (tmp_path / f"{PREFIX}{number}").mkdir()
    folder_of(tmp_path, QUICK).load()
    assert len(list(tmp_path.glob(f"{PREFIX}*"))) == KEPT_FOLDERS
