"""ModelManifest: `manifest.json` of a model folder. It names every other file with size and sha256.

A model is data, never code: safetensors weights, the item vocabulary as a JSON array of item ids (row i of
the embedding belongs to entry i) and this manifest. Times are ms since the epoch.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
WEIGHTS_FILE = "weights.safetensors"
ITEMS_FILE = "items.json"

# `$` alone would also match before a line break at the end.
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}(?!\\n)$")]
FileName = Annotated[str, Meta(pattern="^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}(?!\\n)$")]
"""A plain name in the model's own folder: no separators, no leading dot."""

Version = FileName
"""Names a folder of the model store."""


class FileEntry(msgspec.Struct, frozen=True):
    """One file of the artefact."""

    sha256: Sha256
    size_bytes: Annotated[int, Meta(ge=0)]


class Architecture(msgspec.Struct, frozen=True):
    """What the weights are. Shapes follow from it and are checked against it when a model is loaded."""

    cell: Literal["gru"]
    hidden_size: Annotated[int, Meta(ge=1, le=4_096)]
    items: Annotated[int, Meta(ge=1, le=100_000_000, description="size of the catalogue")]
    score: Literal["cosine"]
    temperature: Annotated[float, Meta(gt=0, description="score = temperature * cos(query, item)")]


class OffsetRange(msgspec.Struct, frozen=True):
    """Records `start` (included) to `end` (excluded) of one partition."""

    partition: Annotated[int, Meta(ge=0)]
    start: Annotated[int, Meta(ge=0)]
    end: Annotated[int, Meta(ge=0)]


class TrainingData(msgspec.Struct, frozen=True):
    """Where the clicks came from, exactly enough to replay them."""

    kind: Literal["topic", "file"]
    name: Annotated[str, Meta(description="topic name, or file name without its folder")]
    events_train: int
    events_test: int
    sessions_train: int
    sessions_test: int
    first_timestamp_ms: int
    last_timestamp_ms: int
    offsets: list[OffsetRange] = []
    file_sha256: Sha256 | None = None


class ModelManifest(msgspec.Struct, frozen=True):
    """Everything that is known about a model, beside its weights."""

    format_version: Annotated[int, Meta(ge=1)]
    model_version: Version
    created_at_ms: int
    architecture: Architecture
    files: dict[FileName, FileEntry]
    training_data: TrainingData
    hyperparameters: dict[str, float | int | str | bool]
    scores: Annotated[dict[str, float], Meta(description="full-ranking metrics on the held-out part")]


_decode = msgspec.json.Decoder(ModelManifest).decode


def encode_manifest(manifest: ModelManifest) -> bytes:
    """Encode a manifest as the indented JSON of `manifest.json`."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode_manifest(value: bytes) -> ModelManifest:
    """Decode `manifest.json`.

    Raises:
        UnicodeDecodeError, RecursionError: the bytes are no JSON that can be read.
        msgspec.DecodeError: the bytes are no manifest, or one of a newer format.
    """
    manifest = _decode(value)
    if manifest.format_version > FORMAT_VERSION:
        raise msgspec.ValidationError(
            f"manifest of format {manifest.format_version}; this version reads up to {FORMAT_VERSION}"
        )
    return manifest
