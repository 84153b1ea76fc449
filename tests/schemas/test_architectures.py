"""Each architecture has its tensors and no others, and its format; what cannot be together is refused."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from schemas.model_artefact import tensor_shapes
from schemas.model_manifest import MANIFEST_FILE, WEIGHTS_FILE, Architecture, format_for
from tests.schemas.test_artefact import HIDDEN, ITEMS, Files, refusal, unpack, with_manifest, with_tensor
from tests.support.artefacts import write_random_artefact

ARCHITECTURES = {
    "gru": Architecture("gru", HIDDEN, len(ITEMS), "cosine", 11.0),
    "lstm": Architecture("lstm", HIDDEN, len(ITEMS), "cosine", 11.0, layers=2),
    "rnn": Architecture("rnn", HIDDEN, len(ITEMS), "dot", 1.0, 3, "separate"),
    "one-hot": Architecture("lstm", HIDDEN, len(ITEMS), "dot", 1.0, 2, "none", last_click_query=False),
}


def written(folder: Path, architecture: Architecture) -> Files:
    """The files of a small model."""
    write_random_artefact(folder, ITEMS, architecture, seed=1, version="m1")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The files of a GRU of one layer."""
    return written(tmp_path_factory.mktemp("models") / "m1", ARCHITECTURES["gru"])


@pytest.fixture(scope="module", params=ARCHITECTURES)
def of_any_kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The files of a small model of each kind."""
    return written(tmp_path_factory.mktemp("models") / "m1", ARCHITECTURES[request.param])


def test_a_format_that_cannot_say_the_architecture(good: Files) -> None:
    """A worker of the version before would read it as what it is not."""
    architecture = {**json.loads(good[MANIFEST_FILE])["architecture"], "layers": 2}
    message = refusal(with_manifest(good, format_version=1, architecture=architecture))
    assert message == f"{MANIFEST_FILE}: manifest of format 1 with an architecture of format 2"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"score": "dot"}, "score dot has no temperature"),
        ({"item_embedding": "none"}, "last_click_query must be false"),
        ({"hidden_size": 4_096, "layers": 3}, "a state of 12288 numbers: at most 8192"),
        ({"hidden_size": 2_049, "layers": 2, "cell": "lstm"}, "a state of 8196 numbers: at most 8192"),
    ],
)
def test_an_architecture_that_does_not_fit_together(
    good: Files, fields: dict[str, object], said: str
) -> None:
    architecture = {**json.loads(good[MANIFEST_FILE])["architecture"], **fields}
    message = refusal(with_manifest(good, format_version=2, architecture=architecture))
    assert message.startswith(f"{MANIFEST_FILE}: ")
    assert said in message


def test_every_tensor_of_every_architecture_is_checked(of_any_kind: Files) -> None:
    artefact = unpack(of_any_kind)
    architecture = artefact.manifest.architecture
    assert artefact.manifest.format_version == format_for(architecture)
    assert {name: tensor.shape for name, tensor in artefact.tensors.items()} == tensor_shapes(architecture)
    for name, tensor in artefact.tensors.items():
        lacking = refusal(with_tensor(of_any_kind, name, None))
        assert lacking == f"{WEIGHTS_FILE}: missing or unexpected tensors ['{name}']"
        assert f"{WEIGHTS_FILE}: {name} is float32" in refusal(with_tensor(of_any_kind, name, tensor[:-1]))
        broken = tensor.copy()
        broken.flat[0] = np.nan
        assert (
            refusal(with_tensor(of_any_kind, name, broken)) == f"{WEIGHTS_FILE}: {name} holds NaN or infinity"
        )


def test_the_tensors_of_one_architecture_are_not_those_of_another(of_any_kind: Files) -> None:
    mine = unpack(of_any_kind).manifest.architecture
    for other in ARCHITECTURES.values():
        if other != mine:
            fields = msgspec.to_builtins(other)
            message = refusal(with_manifest(of_any_kind, format_version=2, architecture=fields))
            assert message.startswith(f"{WEIGHTS_FILE}: ")


def test_the_first_format_says_what_it_said_before(good: Files) -> None:
    """Manifests from before the further fields came read as before; and what they can say is written so."""
    fields = ("cell", "hidden_size", "items", "score", "temperature")
    full = json.loads(good[MANIFEST_FILE])
    before = {name: full["architecture"][name] for name in fields}
    assert full["format_version"] == 1
    assert unpack(with_manifest(good, architecture=before)).manifest == unpack(good).manifest
