"""Random models, written as real artefacts."""

from pathlib import Path

import numpy as np

from schemas.model_artefact import file_entries, pack_files, tensor_shapes
from schemas.model_manifest import (
    MANIFEST_FILE,
    Architecture,
    ModelManifest,
    TrainingData,
    encode_manifest,
    format_for,
)


def write_random_model(folder: Path, items: list[str], hidden_size: int, seed: int, version: str) -> Path:
    """Write a GRU of one layer as `write_random_artefact` does."""
    return write_random_artefact(
        folder, items, Architecture("gru", hidden_size, len(items), "cosine", 11.0), seed, version
    )


def write_random_artefact(
    folder: Path, items: list[str], architecture: Architecture, seed: int, version: str
) -> Path:
    """Write an artefact with random weights of the size that training gives them; returns the folder."""
    rng = np.random.default_rng(seed)
    tensors = {
        name: rng.normal(0, 1 / np.sqrt(architecture.hidden_size), shape).astype(np.float32)
        for name, shape in tensor_shapes(architecture).items()
    }
    files = pack_files(items, tensors)
    manifest = ModelManifest(
        format_version=format_for(architecture),
        model_version=version,
        created_at_ms=1_700_000_000_000,
        architecture=architecture,
        files=file_entries(files),
        training_data=TrainingData("file", "random", 0, 0, 0, 0, 0, 0),
        hyperparameters={"seed": seed},
        scores={},
    )
    folder.mkdir(parents=True)
    for name, data in {**files, MANIFEST_FILE: encode_manifest(manifest)}.items():
        (folder / name).write_bytes(data)
    return folder
