"""A model as the worker serves it: tensors checked and laid out once, never changed afterwards."""

from dataclasses import dataclass

import torch
from torch import Tensor

from schemas.model_artefact import Artefact
from worker.core.step import CellWeights, QueryWeights, unit_items


@dataclass(frozen=True, eq=False)
class SessionModel:
    """A GRU session model. V items, H hidden size; all tensors float32.

    Attributes:
        version: of the manifest; published with every recommendation.
        items: item ids; entry i belongs to row i of `embedding` and `item_matrix`.
        embedding: [V, H], what a click feeds to the cell.
        item_matrix: [V, H], unit-length rows times the temperature: query · rowᵀ is the score. It lies in
            memory column after column, in which the product with few queries is up to twice as quick.
    """

    version: str
    items: list[str]
    embedding: Tensor
    item_matrix: Tensor
    cell: CellWeights
    query: QueryWeights

    @property
    def hidden_size(self) -> int:
        """H, the width of a hidden state."""
        return self.embedding.shape[1]


def session_model(artefact: Artefact) -> SessionModel:
    """Lay out the tensors of a checked artefact for serving."""
    tensors = {name: torch.from_numpy(array) for name, array in artefact.tensors.items()}
    embedding = tensors["embedding"]
    return SessionModel(
        version=artefact.manifest.model_version,
        items=artefact.items,
        embedding=embedding,
        item_matrix=_by_columns(unit_items(embedding).mul_(artefact.manifest.architecture.temperature)),
        cell=CellWeights(tensors["w_ih"], tensors["w_hh"], tensors["b_ih"], tensors["b_hh"]),
        query=QueryWeights(tensors["query_hidden"], tensors["query_item"]),
    )


def _by_columns(matrix: Tensor) -> Tensor:
    return matrix.t().contiguous().t()
