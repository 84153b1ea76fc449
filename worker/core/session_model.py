"""A model as the worker serves it: tensors checked and laid out once, never changed afterwards."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from schemas.model_artefact import Artefact, Tensors, layer_suffix
from schemas.model_manifest import CELL_SHAPES, Architecture, Cell, Score
from worker.core.few_sessions import FEW, FewSessions
from worker.core.hidden_states import StateLayout
from worker.core.scoring import Catalogue, catalogue_of
from worker.core.step import CellWeights, QueryWeights, output, session_query, step, unit_items


@dataclass(frozen=True, eq=False)
class SessionModel:
    """A session model of any architecture.

    V items, H hidden size, D width of what a click feeds, S width of a state, B sessions; float32.

    Attributes:
        version: of the manifest; published with every recommendation.
        items: item ids; entry i belongs to row i of `embedding` and `item_matrix`.
        embedding: [V, D], what a click feeds to the first layer.
        item_matrix: [V, H], times the temperature and at unit length where the score is cosine: query · rowᵀ
            is the score.
        layers: weights of the recurrence, lowest layer first.
        query: what is asked of the item matrix.
        cell: kind of the recurrence.
        score: what the query is made for.
    """

    version: str
    items: list[str]
    embedding: Tensor
    item_matrix: Tensor
    layers: tuple[CellWeights, ...]
    query: QueryWeights
    cell: Cell = "gru"
    score: Score = "cosine"

    @property
    def hidden_size(self) -> int:
        """H, the width of one vector of a state."""
        return self.layers[0].w_hh.shape[1]

    @property
    def state_layout(self) -> StateLayout:
        """What the numbers of a state are; their number is S."""
        depth, vectors = len(self.layers), CELL_SHAPES[self.cell].states
        return StateLayout(self.hidden_size, depth, (vectors - 1) * depth * self.hidden_size)

    def prepare(self) -> None:
        """Make what is else made at its first use, where clicks would wait: a second for a million items."""
        _ = self.catalogue, self._few

    def start(self, sessions: int) -> Tensor:
        """States of so many sessions without a click, [B, S]."""
        return torch.zeros(sessions, self.state_layout.width)

    def step(self, clicked: Tensor, states: Tensor) -> Tensor:
        """States [B, S] after clicks on these rows of the embedding, int64 or int32 [B]."""
        if len(clicked) <= FEW and self._few is not None:
            return self._few.step(clicked, states)
        return step(self.cell, self.layers, self.embedding[clicked], states)

    def ask(self, states: Tensor, clicked: Tensor) -> Tensor:
        """Queries [B, H] of sessions with these states [B, S], whose last clicks were on these rows [B]."""
        if len(clicked) <= FEW and self._few is not None:
            return self._few.ask(states, clicked)
        return session_query(self.query, output(self.layers, states), self.embedding[clicked], self.score)

    @cached_property
    def catalogue(self) -> Catalogue:
        """The item matrix, as a scorer reads it."""
        return catalogue_of(self.item_matrix)

    @cached_property
    def _few(self) -> FewSessions | None:
        return FewSessions.of(self.cell, self.layers, self.query, self.embedding, self.score)


def session_model(artefact: Artefact) -> SessionModel:
    """Lay out the tensors of a checked artefact for serving."""
    manifest = artefact.manifest
    return laid_out(manifest.model_version, artefact.items, manifest.architecture, artefact.tensors)


def laid_out(version: str, items: list[str], architecture: Architecture, arrays: Tensors) -> SessionModel:
    """Lay out tensors of this architecture for serving; what need not be changed is shared, not copied."""
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    scored = tensors.get("output_embedding", tensors["embedding"])
    return SessionModel(
        version=version,
        items=items,
        embedding=tensors["embedding"],
        item_matrix=_scored_vectors(scored, architecture),
        layers=tuple(_layer(tensors, layer) for layer in range(architecture.layers)),
        query=QueryWeights(tensors["query_hidden"], tensors.get("query_item")),
        cell=architecture.cell,
        score=architecture.score,
    )


def _layer(tensors: dict[str, Tensor], layer: int) -> CellWeights:
    suffix = layer_suffix(layer)
    return CellWeights(
        tensors.get("w_ih" + suffix),
        tensors["w_hh" + suffix],
        tensors["b_ih" + suffix],
        tensors["b_hh" + suffix],
    )


def _scored_vectors(embedding: Tensor, architecture: Architecture) -> Tensor:
    if architecture.score == "dot":
        return embedding
    return unit_items(embedding).mul_(architecture.temperature)
