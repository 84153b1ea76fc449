"""From a checked artefact to the tensors that serve."""

from pathlib import Path

import torch

from schemas.model_artefact import unpack_artefact
from tests.support.artefacts import write_random_model
from worker.core.session_model import session_model


def test_every_tensor_comes_to_its_place(tmp_path: Path) -> None:
    folder = write_random_model(tmp_path / "m", ["a", "b", "c"], hidden_size=4, seed=5, version="m-5")
    artefact = unpack_artefact(lambda name: (folder / name).read_bytes())
    model = session_model(artefact)
    assert (model.version, model.items, model.hidden_size) == ("m-5", ["a", "b", "c"], 4)
    serving = {"embedding": model.embedding, **model.cell._asdict(), **model.query._asdict()}
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
