"""ModelManifest: `manifest.json` of a model folder. It names every other file with size and sha256.

A model is data, never code: safetensors weights, the item vocabulary as a JSON array of item ids (row i of
the embedding belongs to entry i) and this manifest. Times are ms since the epoch.

Format 1 knows GRUs of one layer with a shared embedding, cosine scores and the last click's term; format 2
all that `Architecture` can say. A writer writes the lowest format that can say it (`format_for`), so that
workers of the version before go on to read what they can serve, and refuse the rest by its format.
"""

from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

FORMAT_VERSION = 2
"""The newest that is read."""
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


Cell = Literal["gru", "lstm", "rnn"]
ItemEmbedding = Literal["shared", "separate", "none"]
Score = Literal["cosine", "dot"]


class CellShape(NamedTuple):
    """What sets the sizes of a cell's weights and state."""

    gates: int
    states: int  # vectors of the hidden size that go from one click to the next: an LSTM has two


CELL_SHAPES: dict[Cell, CellShape] = {"gru": CellShape(3, 1), "lstm": CellShape(4, 2), "rnn": CellShape(1, 1)}

MAX_LAYERS = 8
MAX_STATE_WIDTH = 8_192
"""Numbers in the state of one session: an LSTM layer of the largest hidden size. A worker keeps one of them
for each live session, so an artefact must not be able to ask for any amount."""


class Architecture(msgspec.Struct, frozen=True):
    """What the weights are. Shapes follow from it and are checked against it when a model is loaded."""

    cell: Annotated[Cell, Meta(description="rnn: the plain one, tanh")]
    hidden_size: Annotated[int, Meta(ge=1, le=4_096)]
    items: Annotated[int, Meta(ge=1, le=100_000_000, description="size of the catalogue")]
    score: Annotated[Score, Meta(description="of the query and the item's vector")]
    temperature: Annotated[
        float,
        Meta(gt=0, le=1e6, description="score = temperature * cos(query, item); 1 where the score is dot"),
    ]
    layers: Annotated[int, Meta(ge=1, le=MAX_LAYERS)] = 1
    item_embedding: Annotated[
        ItemEmbedding,
        Meta(
            description="what is clicked has the vectors of what is scored, its own ones, or none (one-hot)"
        ),
    ] = "shared"
    last_click_query: Annotated[bool, Meta(description="the query has a term of the last click")] = True

    def __post_init__(self) -> None:
        """Refuse what cannot be together.

        Raises:
            ValueError: as msgspec.ValidationError when it is decoded.
        """
        if self.score == "dot" and self.temperature != 1:
            raise ValueError(f"score dot has no temperature: it must be 1, not {self.temperature}")
        if self.item_embedding == "none" and self.last_click_query:
            raise ValueError(
                "item_embedding none leaves no vector of the last click: last_click_query must be false"
            )
        if self.state_width > MAX_STATE_WIDTH:
            raise ValueError(f"a state of {self.state_width} numbers: at most {MAX_STATE_WIDTH}")

    @property
    def state_width(self) -> int:
        """Numbers that go from one click of a session to the next."""
        return self.layers * CELL_SHAPES[self.cell].states * self.hidden_size


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


def format_for(architecture: Architecture) -> int:
    """The lowest format that can say this architecture."""
    of_format_1 = Architecture(
        "gru", architecture.hidden_size, architecture.items, "cosine", architecture.temperature
    )
    return 1 if architecture == of_format_1 else 2


_decode = msgspec.json.Decoder(ModelManifest).decode


def encode_manifest(manifest: ModelManifest) -> bytes:
    """Encode a manifest as the indented JSON of `manifest.json`."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode_manifest(value: bytes) -> ModelManifest:
    """Decode `manifest.json`.

    Raises:
        UnicodeDecodeError, RecursionError: the bytes are no JSON that can be read.
        msgspec.DecodeError: the bytes are no manifest, one of a newer format, or one whose format is too low
            for its architecture: an older worker would take it for what it is not.
    """
    manifest = _decode(value)
    if manifest.format_version > FORMAT_VERSION:
        raise msgspec.ValidationError(
            f"manifest of format {manifest.format_version}; this version reads up to {FORMAT_VERSION}"
        )
    if manifest.format_version < (needed := format_for(manifest.architecture)):
        raise msgspec.ValidationError(
            f"manifest of format {manifest.format_version} with an architecture of format {needed}"
        )
    return manifest
