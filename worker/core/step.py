"""One step of the session model: the recurrent cell and the query that it asks of the catalogue.

Training differentiates through these very functions and the worker calls them on its session table, so that
offline and online cannot drift apart. B sessions, H hidden size, D embedding size (= H); all float32.

The cell is the GRU of Cho et al. 2014 in the form of `torch.nn.GRUCell` (reset gate after the product):
    r = σ(W_ir·x + b_ir + W_hr·h + b_hr)      z = σ(W_iz·x + b_iz + W_hz·h + b_hz)
    n = tanh(W_in·x + b_in + r·(W_hn·h + b_hn))      h' = n + z·(h − n)
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

_TINY = 1e-24
"""Square of the length below which a query is not stretched to unit length: nothing can be asked with it."""


class CellWeights(NamedTuple):
    """Weights of one GRU layer; gates stacked in the order reset, update, new."""

    w_ih: Tensor  # [3H, D]
    w_hh: Tensor  # [3H, H]
    b_ih: Tensor  # [3H]
    b_hh: Tensor  # [3H]


class QueryWeights(NamedTuple):
    """The query is A·h + B·e_last: what the session wants, moved by the click that it just made."""

    query_hidden: Tensor  # A [H, H]
    query_item: Tensor  # B [H, H]


def input_gates(cell: CellWeights, x: Tensor) -> Tensor:
    """The part of the gates that does not depend on the state: x [B, D] → [B, 3H].

    Apart from `recurrent_step` so that training can do it for all time steps of a batch in one product.
    """
    return torch.addmm(cell.b_ih, x, cell.w_ih.t())


def recurrent_step(cell: CellWeights, gates: Tensor, h: Tensor) -> Tensor:
    """Next hidden state from `input_gates` [B, 3H] and the state h [B, H] → [B, H]."""
    from_input = gates.chunk(3, dim=1)
    from_state = torch.addmm(cell.b_hh, h, cell.w_hh.t()).chunk(3, dim=1)
    reset = torch.sigmoid(from_input[0] + from_state[0])
    update = torch.sigmoid(from_input[1] + from_state[1])
    new = torch.tanh(from_input[2] + reset * from_state[2])
    return new + update * (h - new)


def gru_step(cell: CellWeights, x: Tensor, h: Tensor) -> Tensor:
    """One step of the cell: clicked items x [B, D], hidden states h [B, H] → next hidden states [B, H]."""
    return recurrent_step(cell, input_gates(cell, x), h)


def session_query(query: QueryWeights, h: Tensor, x: Tensor) -> Tensor:
    """Unit-length queries from the states *after* the click h [B, H] and the clicked items x [B, D] → [B, H].

    Against unit-length item vectors their product is the cosine.
    """
    asked = torch.addmm(h @ query.query_hidden.t(), x, query.query_item.t())
    return asked * asked.square().sum(dim=1, keepdim=True).clamp_min(_TINY).rsqrt()


def unit_items(embedding: Tensor) -> Tensor:
    """Item vectors at unit length: [V, D] → [V, D]; done once when a model is loaded."""
    return functional.normalize(embedding, dim=1)
