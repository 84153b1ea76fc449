"""The parameters of the session model while it is trained.

V items, H hidden size, G gates of the cell, D width of what a click feeds (H; G·H for a one-hot input); all
float32.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from schemas.model_artefact import layer_suffix
from schemas.model_manifest import CELL_SHAPES, Architecture, Cell
from training.gpu_recurrence import states_at_once
from training.memory import in_huge_pages
from worker.core.step import RECURRENCE, CellWeights, QueryWeights, input_gates

FORGET_BIAS = 1.0
"""Of an LSTM's forget gate at the start: with zero it would forget half at every click, and learn late that
it need not (Jozefowicz, Zaremba, Sutskever, ICML 2015). It lies in b_ih; b_hh, which is added, is zero."""


@dataclass(frozen=True, eq=False)
class Network:
    """What is learned. The tables of item vectors are updated by rows, the rest as a whole.

    Attributes:
        architecture: what it is.
        embedding: [V, D], what a click feeds to the first layer.
        layers: the recurrence, lowest layer first.
        query: what is asked of the output table.
        output_embedding: [V, H], what is scored; None where that is `embedding`.
    """

    architecture: Architecture
    embedding: Tensor
    layers: tuple[CellWeights, ...]
    query: QueryWeights
    output_embedding: Tensor | None = None

    @property
    def tables(self) -> list[Tensor]:
        """The item vectors: of what is clicked and, where it is another one, of what is scored."""
        return [table for table in (self.embedding, self.output_embedding) if table is not None]

    @property
    def dense(self) -> list[Tensor]:
        """Every parameter but the tables of item vectors."""
        every = [tensor for cell in self.layers for tensor in cell]
        return [tensor for tensor in (*every, *self.query) if tensor is not None]


def new_network(wanted: Architecture, generator: Generator) -> Network:
    """Draw the starting point.

    Item vectors uniform ±1/√H, which is also about what Xavier weights of such a vector add to a gate, so
    that a one-hot input starts alike; input weights Xavier uniform and recurrent weights orthogonal, gate by
    gate (over the stacked matrix both would be scaled for a layer as many times as wide); biases zero but an
    LSTM's forget gate; the query starts as the hidden state itself.
    """
    size = wanted.hidden_size
    one_hot = wanted.item_embedding == "none"
    gates = CELL_SHAPES[wanted.cell].gates
    embedding = _item_vectors(wanted.items, gates * size if one_hot else size, size, generator)
    layers = tuple(
        _new_layer(wanted.cell, size, one_hot and layer == 0, generator) for layer in range(wanted.layers)
    )
    output_embedding = None
    if wanted.item_embedding != "shared":
        output_embedding = _item_vectors(wanted.items, size, size, generator)
    last_click = torch.zeros(size, size) if wanted.last_click_query else None
    network = Network(wanted, embedding, layers, QueryWeights(torch.eye(size), last_click), output_embedding)
    for parameter in network.dense:
        parameter.requires_grad_()
    return network


def _item_vectors(items: int, width: int, hidden_size: int, generator: Generator) -> Tensor:
    bound = 1 / math.sqrt(hidden_size)
    return torch.empty(items, width).uniform_(-bound, bound, generator=generator)


def _new_layer(kind: Cell, size: int, one_hot: bool, generator: Generator) -> CellWeights:
    gates = CELL_SHAPES[kind].gates
    w_ih = None if one_hot else torch.empty(gates * size, size)
    for gate in () if w_ih is None else w_ih.chunk(gates):
        torch.nn.init.xavier_uniform_(gate, generator=generator)
    w_hh = torch.empty(gates * size, size)
    for gate in w_hh.chunk(gates):
        torch.nn.init.orthogonal_(gate, generator=generator)
    b_ih, b_hh = torch.zeros(gates * size), torch.zeros(gates * size)
    if kind == "lstm":
        b_ih.chunk(gates)[1].fill_(FORGET_BIAS)
    return CellWeights(w_ih, w_hh, b_ih, b_hh)


def hidden_states(kind: Cell, layers: Sequence[CellWeights], x: Tensor, active: list[int]) -> Tensor:
    """Run the layers over packed sessions, every state starting at zero.

    Args:
        kind: of the cell.
        layers: their weights, lowest first.
        x: what was clicked [N, D], first clicks of all sessions first, then the second ones, …; at each time
            step the sessions that go on are the leading ones.
        active: sessions at each time step, never growing; sums to N. There is no padding.

    Returns:
        The top layer's h after each click [N, H], packed alike.
    """
    if x.is_cuda and layers[0].w_ih is not None:  # torch's call knows no layer without input weights
        return states_at_once(kind, layers, x, active)
    for cell in layers:
        x = _states_of_layer(kind, cell, input_gates(cell, x), active)
    return x


def _states_of_layer(kind: Cell, cell: CellWeights, gates: Tensor, active: list[int]) -> Tensor:
    """One layer over packed `input_gates` [N, G·H]: its h after each click [N, H]."""
    start = gates.new_zeros(active[0], cell.w_hh.shape[1])
    state = (start,) * CELL_SHAPES[kind].states
    states = []
    for sessions, step_gates in zip(active, torch.split(gates, active), strict=True):
        state = RECURRENCE[kind](cell, step_gates, tuple(part[:sessions] for part in state))
        states.append(state[0])
    return torch.cat(states)


def copy_of(network: Network, device: str = "cpu") -> Network:
    """The same weights in tensors of their own, ready to be trained."""

    def copied(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.detach().clone().to(device)

    layers = tuple(CellWeights._make(map(copied, cell)) for cell in network.layers)
    query, output_embedding = QueryWeights._make(map(copied, network.query)), copied(network.output_embedding)
    embedding = in_huge_pages(network.embedding).to(device)
    copy = Network(network.architecture, embedding, layers, query, output_embedding)
    for parameter in copy.dense:
        parameter.requires_grad_()
    return copy


def parameters(network: Network) -> dict[str, Tensor]:
    """Every parameter, under its name in the artefact."""
    tensors: dict[str, Tensor | None] = {
        "embedding": network.embedding,
        "output_embedding": network.output_embedding,
        **network.query._asdict(),
    }
    for layer, cell in enumerate(network.layers):
        tensors |= {name + layer_suffix(layer): tensor for name, tensor in cell._asdict().items()}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def weights(network: Network) -> dict[str, NDArray[np.float32]]:
    """The tensors of the artefact, under its names."""
    return {name: tensor.numpy(force=True) for name, tensor in parameters(network).items()}
