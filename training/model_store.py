"""Models in a local folder, one sub-folder per version. A version is there in full or not at all."""

import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from schemas.model_artefact import MAX_MANIFEST_BYTES, Artefact, BrokenArtefactError, unpack_artefact
from schemas.model_manifest import MANIFEST_FILE, ModelManifest, encode_manifest
from worker.core.session_model import SessionModel, session_model

_UNFINISHED = ".unfinished-"


@dataclass(frozen=True)
class StoredModel:
    """One sub-folder of a store: a model, or what is wrong with it.

    Attributes:
        path: the folder.
        manifest: None where the folder is no model.
        trouble: empty where it is one.
    """

    path: Path
    manifest: ModelManifest | None
    trouble: str = ""


def model_version(created_at_ms: int, weights_sha256: str) -> str:
    """`YYYYMMDDTHHMMSS-xxxxxxxx`: the time in UTC and the start of the hash of the weights."""
    created = datetime.fromtimestamp(created_at_ms / 1000, UTC)
    return f"{created:%Y%m%dT%H%M%S}-{weights_sha256[:8]}"


def save_model(store: Path, manifest: ModelManifest, files: Mapping[str, bytes]) -> Path:
    """Write an artefact as `store/<version>` and return that folder.

    Everything is written aside and flushed to disk before the folder gets its name, so that a reader, or a
    crash, never meets half a model. A version that is there already is left as it is.

    Raises:
        OSError: the store cannot be written.
    """
    folder = store / manifest.model_version
    if folder.exists():
        return folder
    aside = store / f"{_UNFINISHED}{manifest.model_version}-{os.getpid()}"
    aside.mkdir(parents=True)
    try:
        for name, data in {**files, MANIFEST_FILE: encode_manifest(manifest)}.items():
            _write(aside / name, data)
        _flush_folder(aside)
        aside.rename(folder)
    except BaseException:  # also Ctrl-C: what is half written is of no use to anybody
        shutil.rmtree(aside, ignore_errors=True)
        raise
    _flush_folder(store)
    return folder


def load_model(folder: Path) -> tuple[Artefact, SessionModel]:
    """Read a model and check it in full.

    Raises:
        BrokenArtefactError: the folder is no model that can be served; the message names it.
    """
    try:
        artefact = unpack_artefact(lambda name: _read(folder / name))
    except BrokenArtefactError as error:
        raise BrokenArtefactError(f"{folder}: {error}") from None
    return artefact, session_model(artefact)


def list_models(store: Path) -> list[StoredModel]:
    """What lies in a store, by name, which is by age; every file of every model is checked."""
    if not store.is_dir():
        return []
    found = []
    for folder in sorted(path for path in store.iterdir() if path.is_dir()):
        if folder.name.startswith("."):  # unfinished, or the checkpoints of a training
            continue
        try:
            found.append(StoredModel(folder, load_model(folder)[0].manifest))
        except BrokenArtefactError as error:
            found.append(StoredModel(folder, None, str(error)))
    return found


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> bytes:
    """The bytes of a plain file. A pipe in its place would never end, nor would a manifest of 10 GB."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is no plain file")
    if path.name == MANIFEST_FILE and status.st_size > MAX_MANIFEST_BYTES:
        raise OSError(f"it has {status.st_size} bytes")
    return path.read_bytes()
