"""A model folder is served only if all of it is right; each kind of damage is refused by name."""

import io
import json
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from schemas.model_artefact import (
    MAX_MANIFEST_BYTES,
    Artefact,
    BrokenArtefactError,
    sha256_hex,
    tensor_shapes,
    unpack_artefact,
)
from schemas.model_manifest import ITEMS_FILE, MANIFEST_FILE, WEIGHTS_FILE
from tests.schemas.contracts import validator
from tests.support.artefacts import write_random_model

ITEMS = ["a", "b", "é" * 64, "日本"]
HIDDEN = 3
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The files of a small model by name."""
    folder = write_random_model(tmp_path_factory.mktemp("models") / "m1", ITEMS, HIDDEN, seed=1, version="m1")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def unpack(files: Files, announced: str | None = None) -> Artefact:
    def read(name: str) -> bytes:
        assert "/" not in name, "asked for a file outside of the folder"
        if name not in files:
            raise FileNotFoundError(2, "No such file or directory", name)
        return files[name]

    return unpack_artefact(read, announced)


def sealed(files: Files, **changed: bytes) -> Files:
    """The files with `items` or `weights` replaced, and a manifest that vouches for all of them."""
    names = {"items": ITEMS_FILE, "weights": WEIGHTS_FILE}
    found = {**files, **{names[name]: data for name, data in changed.items()}}
    entries = {
        name: {"sha256": sha256_hex(found[name]), "size_bytes": len(found[name])}
        for name in found
        if name != MANIFEST_FILE
    }
    return with_manifest(found, files=entries)


def with_manifest(base: Files, **fields: Any) -> Files:
    manifest = {**json.loads(base[MANIFEST_FILE]), **fields}
    return {**base, MANIFEST_FILE: json.dumps(manifest).encode()}


def tensors(files: Files) -> dict[str, NDArray[Any]]:
    return dict(safetensors.numpy.load(files[WEIGHTS_FILE]))


def with_tensor(files: Files, name: str, tensor: NDArray[Any] | None) -> Files:
    found = tensors(files)
    if tensor is None:
        del found[name]
    else:
        found[name] = np.ascontiguousarray(tensor)
    return sealed(files, weights=safetensors.numpy.save(found))


def refusal(files: Files, announced: str | None = None) -> str:
    with pytest.raises(BrokenArtefactError) as caught:
        unpack(files, announced)
    return str(caught.value)


def test_a_whole_model_is_read_as_it_was_written(good: Files) -> None:
    artefact = unpack(good, sha256_hex(good[MANIFEST_FILE]))
    assert artefact.items == ITEMS
    assert artefact.manifest.model_version == "m1"
    assert artefact.manifest_sha256 == sha256_hex(good[MANIFEST_FILE])
    assert {name: tensor.shape for name, tensor in artefact.tensors.items()} == tensor_shapes(
        artefact.manifest.architecture
    )
    for name, tensor in tensors(good).items():
        assert artefact.tensors[name].dtype == np.float32
        assert np.array_equal(artefact.tensors[name], tensor)
    validator("model_manifest").validate(json.loads(good[MANIFEST_FILE]))


@pytest.mark.parametrize("name", [MANIFEST_FILE, ITEMS_FILE, WEIGHTS_FILE])
def test_a_missing_file(good: Files, name: str) -> None:
    message = refusal({other: data for other, data in good.items() if other != name})
    assert message == f"{name} cannot be read: No such file or directory"


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"\xff\xd8")
    for folder in (tmp_path, tmp_path / "not there", tmp_path / "holiday.jpg"):
        with pytest.raises(BrokenArtefactError, match=rf"^{MANIFEST_FILE} cannot be read: "):
            unpack_artefact(lambda name, folder=folder: (folder / name).read_bytes())  # type: ignore[misc]


@pytest.mark.parametrize("name", [ITEMS_FILE, WEIGHTS_FILE])
@pytest.mark.parametrize("at", [0, 10, -1])
def test_an_altered_byte(good: Files, name: str, at: int) -> None:
    data = bytearray(good[name])
    data[at] ^= 1
    assert refusal({**good, name: bytes(data)}).startswith(f"{name} was altered")


@pytest.mark.parametrize("name", [ITEMS_FILE, WEIGHTS_FILE])
@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data + b"\n", lambda _: b""])
def test_another_size(good: Files, name: str, damage: Callable[[bytes], bytes]) -> None:
    message = refusal({**good, name: damage(good[name])})
    assert re.fullmatch(rf"{name} has \d+ bytes, the manifest says {len(good[name])}", message)


def test_a_manifest_that_was_not_announced(good: Files) -> None:
    announced = sha256_hex(good[MANIFEST_FILE])
    message = refusal({**good, MANIFEST_FILE: good[MANIFEST_FILE] + b" "}, announced)
    assert message.startswith(f"{MANIFEST_FILE} is not the announced one")
    assert refusal(good, "0" * 64).startswith(f"{MANIFEST_FILE} is not the announced one")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"not json",
        b"\xff\xfe",
        b'{"model_version": "\xff"}',
        b"[" * 100_000,
        b'{"x": ' + b"[" * 500_000,
        pickle.dumps({"model_version": "m1"}),
    ],
    ids=lambda data: repr(data[:12]),
)
def test_a_manifest_that_is_none(good: Files, data: bytes) -> None:
    message = refusal({**good, MANIFEST_FILE: data})
    assert message.startswith(f"{MANIFEST_FILE}: ")
    assert len(message) < 300


def test_a_manifest_too_large_to_be_one(good: Files) -> None:
    message = refusal({**good, MANIFEST_FILE: good[MANIFEST_FILE] + b" " * MAX_MANIFEST_BYTES})
    assert message.startswith(f"{MANIFEST_FILE} has ")


def test_a_newer_format(good: Files) -> None:
    assert refusal(with_manifest(good, format_version=3)).startswith(f"{MANIFEST_FILE}: manifest of format 3")


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "..",
        ".",
        "/etc/passwd",
        "a/b",
        "a\\b",
        ".hidden",
        "",
        "x\n",
        "c:x",
        "x" * 129,
        "ü",
        "a b",
        "\x00",
    ],
)
def test_a_file_name_that_leads_elsewhere(good: Files, name: str) -> None:
    entries = json.loads(good[MANIFEST_FILE])["files"]
    entries[name] = {"sha256": sha256_hex(b"x"), "size_bytes": 1}
    message = refusal({**with_manifest(good, files=entries), name: b"x"})
    assert message.startswith(f"{MANIFEST_FILE}: ")
    assert "$.files" in message


@pytest.mark.parametrize("name", [ITEMS_FILE, WEIGHTS_FILE])
def test_a_manifest_that_leaves_out_a_file(good: Files, name: str) -> None:
    entries = json.loads(good[MANIFEST_FILE])["files"]
    del entries[name]
    assert refusal(with_manifest(good, files=entries)) == f"{MANIFEST_FILE} names no {name}"


def test_every_further_file_is_checked_too(good: Files) -> None:
    more = sealed({**good, "notes.txt": b"hello"})
    assert unpack(more).items == ITEMS
    assert refusal({**more, "notes.txt": b"hullo"}).startswith("notes.txt was altered")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cell", "cnn"),
        ("hidden_size", 0),
        ("hidden_size", 4_097),
        ("layers", 0),
        ("layers", 9),
        ("items", 0),
        ("temperature", 0.0),
        ("score", "euclid"),
        ("item_embedding", "tied"),
    ],
)
def test_an_architecture_that_we_cannot_serve(good: Files, field: str, value: object) -> None:
    architecture = {**json.loads(good[MANIFEST_FILE])["architecture"], field: value}
    message = refusal(with_manifest(good, architecture=architecture))
    assert message.startswith(f"{MANIFEST_FILE}: ")
    assert field in message


@pytest.mark.parametrize(
    ("items", "said"),
    [
        (ITEMS[:-1], "holds 3 items, the manifest says 4"),
        ([*ITEMS, "e"], "holds 5 items, the manifest says 4"),
        (["a", "b", "a", "c"], "names an item twice"),
        (["a", "b", "", "c"], "holds a bad item id"),
        (["a", "b", "x" * 129, "c"], "holds a bad item id"),
        (["a", "b", "é" * 65, "c"], "holds a bad item id"),
        (["a", "b", 3, "c"], "Expected `str`"),
        ({"a": 1}, "Expected `array`"),
    ],
)
def test_a_bad_vocabulary(good: Files, items: object, said: str) -> None:
    message = refusal(sealed(good, items=json.dumps(items).encode()))
    assert message.startswith(ITEMS_FILE)
    assert said in message
    assert len(message) < 300


@pytest.mark.parametrize("data", [b"", b"not json", b"\xff", b'["\xff", "b", "c", "d"]', b"[" * 100_000])
def test_a_vocabulary_that_is_no_json(good: Files, data: bytes) -> None:
    assert refusal(sealed(good, items=data)).startswith(f"{ITEMS_FILE}: ")


@pytest.mark.parametrize("name", ["embedding", "w_ih", "w_hh", "b_ih", "b_hh", "query_hidden", "query_item"])
def test_a_tensor_that_does_not_fit(good: Files, name: str) -> None:
    tensor = tensors(good)[name]
    assert refusal(with_tensor(good, name, None)).startswith(f"{WEIGHTS_FILE}: missing or unexpected tensors")
    for shape in ((tensor.size,) if tensor.ndim == 2 else (tensor.size, 1), (1, *tensor.shape)):
        message = refusal(with_tensor(good, name, tensor.reshape(shape)))
        assert message.startswith(f"{WEIGHTS_FILE}: {name} is float32{list(shape)}, expected float32")
    assert f"{name} is float32" in refusal(with_tensor(good, name, tensor[:-1]))
    for kind in (np.float64, np.float16, np.int32):
        message = refusal(with_tensor(good, name, tensor.astype(kind)))
        assert message.startswith(f"{WEIGHTS_FILE}: {name} is {np.dtype(kind)}")
    for bad in (np.nan, np.inf, -np.inf):
        broken = tensor.copy()
        broken.flat[-1] = bad
        assert refusal(with_tensor(good, name, broken)) == f"{WEIGHTS_FILE}: {name} holds NaN or infinity"


@pytest.mark.parametrize("weight", [1.1e6, -1e30])
def test_weights_beyond_all_that_training_gives(good: Files, weight: float) -> None:
    """Scores would leave float32, and be NaN or infinite."""
    tensor = tensors(good)["w_hh"].copy()
    tensor.flat[3] = weight
    assert refusal(with_tensor(good, "w_hh", tensor)) == (
        f"{WEIGHTS_FILE}: w_hh holds a weight of {abs(weight):.1e}: no model's is"
    )


def test_a_tensor_too_many(good: Files) -> None:
    message = refusal(with_tensor(good, "more", np.zeros(1, np.float32)))
    assert message == f"{WEIGHTS_FILE}: missing or unexpected tensors ['more']"


@pytest.mark.parametrize("kind", ["BF16", "F8_E4M3"])
def test_a_type_of_number_that_numpy_has_not(good: Files, kind: str) -> None:
    size = {"BF16": 2, "F8_E4M3": 1}[kind]
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in tensors(good).items():
        start, end = end, end + size * tensor.size
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    weights = struct.pack("<Q", len(text)) + text + bytes(end)
    assert refusal(sealed(good, weights=weights)).startswith(f"{WEIGHTS_FILE}: ")


class Bomb:
    """Unpickled, it would run code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("a pickle was loaded",)


def test_a_pickle_as_weights_is_refused_and_never_loaded(good: Files) -> None:
    array_file = io.BytesIO()
    np.save(array_file, np.array([Bomb()], dtype=object), allow_pickle=True)
    for data in (pickle.dumps(Bomb()), array_file.getvalue()):
        assert refusal(sealed(good, weights=data)).startswith(f"{WEIGHTS_FILE}: ")


@given(data=st.binary(max_size=200))
@settings(deadline=None, max_examples=50)
def test_weights_of_random_bytes(good: Files, data: bytes) -> None:
    assert refusal(sealed(good, weights=data)).startswith(WEIGHTS_FILE)


@given(at=st.integers(0, 10_000), patch=st.binary(min_size=1, max_size=4))
@settings(deadline=None, max_examples=100)
def test_a_damaged_header_of_the_weights_is_refused_or_harmless(good: Files, at: int, patch: bytes) -> None:
    """Whatever a manifest vouches for, only models of the right shape come out."""
    weights = good[WEIGHTS_FILE]
    (header_bytes,) = struct.unpack_from("<Q", weights)
    at %= 8 + header_bytes
    try:
        artefact = unpack(sealed(good, weights=weights[:at] + patch + weights[at + len(patch) :]))
    except BrokenArtefactError as error:
        assert str(error).startswith(WEIGHTS_FILE)  # noqa: PT017 - most but not all patches are refused
    else:
        assert all(np.isfinite(tensor).all() for tensor in artefact.tensors.values())
