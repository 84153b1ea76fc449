"""The artefact of a model: a folder with a manifest, weights and the item vocabulary; checked in full.

Pure: bytes in, values out; who reads the files is the caller's business (`read` below), so a folder, an
object store and a test all use the same check.

Tensors (float32), with H = hidden size, V = items, G = gates of the cell (gru 3, lstm 4, rnn 1):
    embedding [V, H], what a click feeds to the cell; without an item embedding [V, G·H]: the input weights of
        a one-hot input by columns, so that its product with them is a look-up
    output_embedding [V, H], what is scored; missing where it is the same as `embedding`
    w_ih [G·H, H] (missing without an item embedding) · w_hh [G·H, H] · b_ih [G·H] · b_hh [G·H]
    the same with the suffix _l1, _l2, …, for each further layer
    query_hidden [H, H] · query_item [H, H], the latter with the last click's term only
Gates in the order of `torch.nn`: gru reset, update, new; lstm input, forget, cell, output.
"""

import hashlib
from collections.abc import Callable, Mapping

import msgspec
import numpy as np
import orjson
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from schemas.identifiers import MAX_ID_BYTES
from schemas.model_manifest import (
    CELL_SHAPES,
    ITEMS_FILE,
    MANIFEST_FILE,
    WEIGHTS_FILE,
    Architecture,
    FileEntry,
    ModelManifest,
    decode_manifest,
)

Tensors = Mapping[str, NDArray[np.float32]]

MAX_MANIFEST_BYTES = 1 << 20
MAX_SHOWN = 80
MAX_WEIGHT = 1e6
"""A million times what training gives. With hidden sizes up to 4,096 no score can then leave float32."""


class BrokenArtefactError(ValueError):
    """The folder is no model that can be served; the message says which file and what is wrong with it."""


class Artefact(msgspec.Struct, frozen=True):
    """A model that passed every check.

    Attributes:
        manifest: the decoded manifest.
        manifest_sha256: over its bytes as they lie in the file.
        items: the vocabulary; entry i belongs to row i of `embedding`.
        tensors: float32 arrays by name, shapes as in the module docstring, all within
            ±MAX_WEIGHT.
    """

    manifest: ModelManifest
    manifest_sha256: str
    items: list[str]
    tensors: dict[str, NDArray[np.float32]]


def sha256_hex(data: bytes) -> str:
    """SHA-256 of the bytes in lower-case hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def tensor_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a model of this architecture has."""
    hidden, items = architecture.hidden_size, architecture.items
    gates = CELL_SHAPES[architecture.cell].gates * hidden
    one_hot = architecture.item_embedding == "none"
    shapes: dict[str, tuple[int, ...]] = {"embedding": (items, gates if one_hot else hidden)}
    if architecture.item_embedding != "shared":
        shapes["output_embedding"] = (items, hidden)
    for layer in range(architecture.layers):
        suffix = layer_suffix(layer)
        if layer or not one_hot:
            shapes["w_ih" + suffix] = (gates, hidden)
        shapes["w_hh" + suffix] = (gates, hidden)
        shapes["b_ih" + suffix] = shapes["b_hh" + suffix] = (gates,)
    shapes["query_hidden"] = (hidden, hidden)
    if architecture.last_click_query:
        shapes["query_item"] = (hidden, hidden)
    return shapes


def layer_suffix(layer: int) -> str:
    """What the tensors of a layer have behind their names, counted from 0."""
    return f"_l{layer}" if layer else ""


def pack_files(items: list[str], tensors: Tensors) -> dict[str, bytes]:
    """Encode vocabulary and weights as the files of an artefact, all but the manifest."""
    return {ITEMS_FILE: orjson.dumps(items), WEIGHTS_FILE: safetensors.numpy.save(dict(tensors))}


def file_entries(files: Mapping[str, bytes]) -> dict[str, FileEntry]:
    """What the manifest says of these files."""
    return {name: FileEntry(sha256_hex(data), len(data)) for name, data in files.items()}


def unpack_artefact(read: Callable[[str], bytes], manifest_sha256: str | None = None) -> Artefact:
    """Read and check an artefact.

    Args:
        read: returns the bytes of the file of that plain name; raises OSError where it cannot.
        manifest_sha256: what the announcement said, None where there is none.

    Raises:
        BrokenArtefactError: anything is missing, altered, malformed or does not fit together.
    """
    manifest_bytes = _read(read, MANIFEST_FILE)
    if len(manifest_bytes) > MAX_MANIFEST_BYTES:
        raise BrokenArtefactError(f"{MANIFEST_FILE} has {len(manifest_bytes)} bytes: no manifest is so large")
    digest = sha256_hex(manifest_bytes)
    if manifest_sha256 is not None and digest != manifest_sha256:
        raise BrokenArtefactError(f"{MANIFEST_FILE} is not the announced one: sha256 {digest[:12]}…")
    try:
        manifest = decode_manifest(manifest_bytes)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BrokenArtefactError(f"{MANIFEST_FILE}: {error}") from None
    files = {name: _read_checked(read, name, entry) for name, entry in sorted(manifest.files.items())}
    for required in (ITEMS_FILE, WEIGHTS_FILE):
        if required not in files:
            raise BrokenArtefactError(f"{MANIFEST_FILE} names no {required}")
    return Artefact(
        manifest,
        digest,
        _decode_items(files[ITEMS_FILE], manifest.architecture.items),
        _decode_tensors(files[WEIGHTS_FILE], manifest.architecture),
    )


def _read(read: Callable[[str], bytes], name: str) -> bytes:
    try:
        return read(name)
    except OSError as error:
        raise BrokenArtefactError(f"{name} cannot be read: {error.strerror or error}") from None


def _read_checked(read: Callable[[str], bytes], name: str, entry: FileEntry) -> bytes:
    data = _read(read, name)
    if len(data) != entry.size_bytes:
        raise BrokenArtefactError(f"{name} has {len(data)} bytes, the manifest says {entry.size_bytes}")
    if sha256_hex(data) != entry.sha256:
        raise BrokenArtefactError(f"{name} was altered: its sha256 is not the one in the manifest")
    return data


def _decode_items(data: bytes, expected: int) -> list[str]:
    try:
        items = msgspec.json.decode(data, type=list[str])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BrokenArtefactError(f"{ITEMS_FILE}: {error}") from None
    if len(items) != expected:
        raise BrokenArtefactError(f"{ITEMS_FILE} holds {len(items)} items, the manifest says {expected}")
    if len(set(items)) != len(items):
        raise BrokenArtefactError(f"{ITEMS_FILE} names an item twice")
    for item in items:
        if not 0 < len(item.encode()) <= MAX_ID_BYTES:
            raise BrokenArtefactError(f"{ITEMS_FILE} holds a bad item id: {item[:MAX_SHOWN]!r}")
    return items


def _decode_tensors(data: bytes, architecture: Architecture) -> dict[str, NDArray[np.float32]]:
    try:
        tensors = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BrokenArtefactError(f"{WEIGHTS_FILE}: {error}") from None
    shapes = tensor_shapes(architecture)
    if tensors.keys() != shapes.keys():
        odd = sorted(tensors.keys() ^ shapes.keys())
        raise BrokenArtefactError(f"{WEIGHTS_FILE}: missing or unexpected tensors {odd}"[: 3 * MAX_SHOWN])
    for name, shape in shapes.items():
        _check_tensor(name, tensors[name], shape)
    return tensors


def _check_tensor(name: str, tensor: NDArray[np.float32], shape: tuple[int, ...]) -> None:
    if tensor.shape != shape or tensor.dtype != np.float32:
        raise BrokenArtefactError(
            f"{WEIGHTS_FILE}: {name} is {tensor.dtype}{list(tensor.shape)}, expected float32{list(shape)}"
        )
    largest = max(-tensor.min(), tensor.max())  # both are NaN where a number is
    if not np.isfinite(largest):
        raise BrokenArtefactError(f"{WEIGHTS_FILE}: {name} holds NaN or infinity")
    if largest > MAX_WEIGHT:
        raise BrokenArtefactError(f"{WEIGHTS_FILE}: {name} holds a weight of {largest:.1e}: no model's is")
