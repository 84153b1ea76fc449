"""The store: a model is there in full or not at all."""

import os
from pathlib import Path

import pytest

from schemas.model_artefact import BrokenArtefactError
from schemas.model_manifest import MANIFEST_FILE, WEIGHTS_FILE
from tests.training.logs import NOW_MS, habit_log
from training.model_store import list_models, load_model, model_version, save_model
from training.progress import silent
from training.sessions import TestShare
from training.settings import TrainSettings
from training.train import train

QUICK = TrainSettings(hidden_size=8, epochs=1)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """The folder of a freshly trained tiny model, in a store of its own."""
    return train(habit_log(60), TestShare(), QUICK, tmp_path, NOW_MS, silent).model_folder


def test_version_is_time_and_hash() -> None:
    assert model_version(1_795_244_525_004, "1d53a019948e") == "20261121T070205-1d53a019"


def test_what_is_saved_can_be_loaded_and_listed(stored: Path) -> None:
    artefact, model = load_model(stored)
    assert artefact.manifest.model_version == model.version == stored.name
    assert model.item_matrix.norm(dim=1).mean().item() == pytest.approx(8, rel=1e-5)
    assert [found.path for found in list_models(stored.parent)] == [stored]


def test_nothing_unfinished_stays(stored: Path) -> None:
    assert [path.name for path in stored.parent.iterdir()] == [stored.name]


def test_a_failed_write_leaves_no_model(stored: Path, tmp_path: Path) -> None:
    manifest = load_model(stored)[0].manifest
    store = tmp_path / "second"
    with pytest.raises(OSError, match="No such file"):
        save_model(store, manifest, {"good.bin": b"x", "no/such/folder.bin": b"x"})
    assert list(store.iterdir()) == []


def test_a_version_is_never_overwritten(stored: Path) -> None:
    manifest = load_model(stored)[0].manifest
    assert save_model(stored.parent, manifest, {WEIGHTS_FILE: b"other"}) == stored
    load_model(stored)


def test_a_broken_model_is_listed_with_its_trouble(stored: Path) -> None:
    weights = stored / WEIGHTS_FILE
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    (stored.parent / "empty").mkdir()
    broken, empty = list_models(stored.parent)
    assert "was altered" in broken.trouble
    assert MANIFEST_FILE in empty.trouble
    assert empty.manifest is None


def test_a_pipe_or_a_huge_manifest_is_refused_at_once(stored: Path) -> None:
    manifest = stored / MANIFEST_FILE
    manifest.write_bytes(b" " * (2 << 20))
    with pytest.raises(BrokenArtefactError, match="2097152 bytes"):
        load_model(stored)
    manifest.unlink()
    os.mkfifo(manifest)
    with pytest.raises(BrokenArtefactError, match="no plain file"):
        load_model(stored)


def test_no_store_no_models(tmp_path: Path) -> None:
    assert list_models(tmp_path / "nowhere") == []
