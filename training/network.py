"""The parameters of the session model while it is trained. V items, H hidden size; all float32."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from worker.core.step import CellWeights, QueryWeights, recurrent_step

GATES = 3


@dataclass(frozen=True, eq=False)
class Network:
    """What is learned. `embedding` [V, H] is updated by rows, the rest as a whole."""

    embedding: Tensor
    cell: CellWeights
    query: QueryWeights

    @property
    def dense(self) -> list[Tensor]:
        """Every parameter but the embedding."""
        return [*self.cell, *self.query]


def new_network(items: int, hidden_size: int, generator: Generator) -> Network:
    """Draw the starting point.

    Embedding uniform ±1/√H; input weights Xavier uniform and recurrent weights orthogonal, gate by gate (over
    the stacked matrix both would be scaled for a layer three times as wide); biases zero; the query starts
    as the hidden state itself.
    """
    size = hidden_size
    embedding = torch.empty(items, size).uniform_(
        -1 / math.sqrt(size), 1 / math.sqrt(size), generator=generator
    )
    w_ih, w_hh = torch.empty(GATES * size, size), torch.empty(GATES * size, size)
    for gate in w_ih.chunk(GATES):
        torch.nn.init.xavier_uniform_(gate, generator=generator)
    for gate in w_hh.chunk(GATES):
        torch.nn.init.orthogonal_(gate, generator=generator)
    cell = CellWeights(w_ih, w_hh, torch.zeros(GATES * size), torch.zeros(GATES * size))
    query = QueryWeights(torch.eye(size), torch.zeros(size, size))
    for parameter in (*cell, *query):
        parameter.requires_grad_()
    return Network(embedding, cell, query)


def hidden_states(cell: CellWeights, gates: Tensor, active: list[int], start: Tensor | None = None) -> Tensor:
    """Run the cell over packed sessions.

    Args:
        cell: the weights.
        gates: `input_gates` of all clicks [N, 3H], first clicks of all sessions first, then the second
            ones, …; at each time step the sessions that go on are the leading ones.
        active: sessions at each time step, never growing; sums to N. There is no padding.
        start: states before the first click [active[0], H]; None for zero.

    Returns:
        The state after each click [N, H], packed alike.
    """
    state = gates.new_zeros(active[0], gates.shape[1] // GATES) if start is None else start
    states = []
    for sessions, step_gates in zip(active, torch.split(gates, active), strict=True):
        state = recurrent_step(cell, step_gates, state[:sessions])
        states.append(state)
    return torch.cat(states)


def copy_of(network: Network, device: str = "cpu") -> Network:
    """The same weights in tensors of their own, ready to be trained."""

    def copied(tensor: Tensor) -> Tensor:
        return tensor.detach().clone().to(device)

    cell = CellWeights(*(copied(tensor).requires_grad_() for tensor in network.cell))
    query = QueryWeights(*(copied(tensor).requires_grad_() for tensor in network.query))
    return Network(copied(network.embedding), cell, query)


def parameters(network: Network) -> dict[str, Tensor]:
    """Every parameter, under its name in the artefact."""
    return {"embedding": network.embedding, **network.cell._asdict(), **network.query._asdict()}


def weights(network: Network) -> dict[str, NDArray[np.float32]]:
    """The tensors of the artefact, under its names."""
    return {name: tensor.numpy(force=True) for name, tensor in parameters(network).items()}
