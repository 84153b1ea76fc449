"""From a checked artefact to the tensors that serve."""

from pathlib import Path

import torch

from schemas.model_artefact import unpack_artefact
from schemas.model_manifest import Architecture
from tests.support.artefacts import write_random_artefact, write_random_model
from worker.core.session_model import session_model


def test_every_tensor_comes_to_its_place(tmp_path: Path) -> None:
    folder = write_random_model(tmp_path / "m", ["a", "b", "c"], hidden_size=4, seed=5, version="m-5")
    artefact = unpack_artefact(lambda name: (folder / name).read_bytes())
    model = session_model(artefact)
    assert (model.version, model.items, model.hidden_size) == ("m-5", ["a", "b", "c"], 4)
    (cell,) = model.layers
    serving = {"embedding": model.embedding, **cell._asdict(), **model.query._asdict()}
    assert serving.keys() == artefact.tensors.keys()
    for name, tensor in serving.items():
        assert torch.equal(tensor, torch.from_numpy(artefact.tensors[name])), name
        assert tensor.is_contiguous()


def test_item_vectors_are_as_long_as_the_temperature(tmp_path: Path) -> None:
    """So that their product with a query of unit length is temperature · cosine."""
    folder = write_random_model(tmp_path / "m", ["a", "b", "c"], hidden_size=4, seed=5, version="m-5")
    artefact = unpack_artefact(lambda name: (folder / name).read_bytes())
    model = session_model(artefact)
    temperature = artefact.manifest.architecture.temperature
    assert torch.allclose(model.item_matrix.norm(dim=1), torch.full((3,), temperature))
    cosines = torch.nn.functional.cosine_similarity(model.item_matrix, model.embedding)
    assert torch.allclose(cosines, torch.ones(3))
    assert torch.equal(model.embedding, torch.from_numpy(artefact.tensors["embedding"])), "left as it was"


def test_layers_and_tables_of_other_architectures_come_to_their_places(tmp_path: Path) -> None:
    """Separate tables, two layers of an LSTM, a dot product, no term of the last click."""
    wanted = Architecture("lstm", 4, 3, "dot", 1.0, 2, "separate", last_click_query=False)
    folder = write_random_artefact(tmp_path / "m", ["a", "b", "c"], wanted, seed=5, version="m-5")
    artefact = unpack_artefact(lambda name: (folder / name).read_bytes())
    model = session_model(artefact)
    tensors = {name: torch.from_numpy(array) for name, array in artefact.tensors.items()}
    assert (model.cell, model.score, model.hidden_size) == ("lstm", "dot", 4)
    assert model.state_layout.width == wanted.state_width == 16
    assert torch.equal(model.embedding, tensors["embedding"])
    assert torch.equal(model.item_matrix, tensors["output_embedding"])
    for suffix, cell in zip(("", "_l1"), model.layers, strict=True):
        for name, tensor in cell._asdict().items():
            assert torch.equal(tensor, tensors[name + suffix])
    assert torch.equal(model.query.query_hidden, tensors["query_hidden"])
    assert model.query.query_item is None


def test_a_one_hot_input_has_no_input_weights_but_in_its_table(tmp_path: Path) -> None:
    wanted = Architecture("gru", 4, 3, "cosine", 11.0, 2, "none", last_click_query=False)
    folder = write_random_artefact(tmp_path / "m", ["a", "b", "c"], wanted, seed=5, version="m-5")
    model = session_model(unpack_artefact(lambda name: (folder / name).read_bytes()))
    assert model.embedding.shape == (3, 12)
    assert model.item_matrix.shape == (3, 4)
    assert [cell.w_ih is None for cell in model.layers] == [True, False]
