"""One step of the session model: the recurrent cells and the query that is asked of the catalogue.

The worker calls these functions on its session table and `training.plain` differentiates through them, so
that offline and online cannot drift apart; what is quicker on a CPU (`training.fused`) or on a GPU
(`training.gpu_recurrence`) is held against them by tests. B sessions, H hidden size, G gates of the cell, D
width of what a click feeds (H; G·H for a one-hot input), S numbers in a state; all float32.

The cells are those of `torch.nn`, with x the input and h the hidden state:
- gru, Cho et al. 2014 (arXiv 1406.1078), reset gate after the product:
    r = σ(W_ir·x + b_ir + W_hr·h + b_hr)      z = σ(W_iz·x + b_iz + W_hz·h + b_hz)
    n = tanh(W_in·x + b_in + r·(W_hn·h + b_hn))      h' = n + z·(h − n)
- lstm, Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000; c is its cell state:
    i, f, o = σ(W_i·x + b_i + W_h·h + b_h), each its own      g = tanh(W_ig·x + b_ig + W_hg·h + b_hg)
    c' = f·c + i·g      h' = o·tanh(c')
- rnn, Elman 1990: h' = tanh(W_i·x + b_i + W_h·h + b_h)
Layers are stacked: the input of the second is the h of the first, and so on.

The state of a session is one row [S]: the h of each layer, lowest first, and for an LSTM then the c of each.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from schemas.model_manifest import CELL_SHAPES, Cell, Score

TINY = 1e-24
"""Square of the length below which a query is not stretched to unit length: nothing can be asked with it."""


class CellWeights(NamedTuple):
    """Weights of one layer; gates stacked in the order reset, update, new (gru), input, forget, cell, output
    (lstm).

    A one-hot input times its weights is a column of them, so a first layer that has such an input has no
    `w_ih`: what it is fed is that column, x [B, G·H].
    """

    w_ih: Tensor | None  # [G·H, H]
    w_hh: Tensor  # [G·H, H]
    b_ih: Tensor  # [G·H]
    b_hh: Tensor  # [G·H]


class QueryWeights(NamedTuple):
    """The query is A·h + B·e_last: what the session wants, moved by the click that it just made."""

    query_hidden: Tensor  # A [H, H]
    query_item: Tensor | None  # B [H, H]; None: without the term of the last click


Parts = tuple[Tensor, ...]
"""The state of one layer, each [B, H]: h, and c for an LSTM."""


def input_gates(cell: CellWeights, x: Tensor) -> Tensor:
    """The part of the gates that does not depend on the state: x [B, D] → [B, G·H].

    Apart from the recurrence so that training can do it for all time steps of a batch in one product.
    """
    if cell.w_ih is None:
        return cell.b_ih + x
    return torch.addmm(cell.b_ih, x, cell.w_ih.t())


def recurrent_step(cell: CellWeights, gates: Tensor, h: Tensor) -> Tensor:
    """Next hidden state of a GRU from `input_gates` [B, 3H] and the state h [B, H] → [B, H]."""
    from_input = gates.chunk(3, dim=1)
    from_state = torch.addmm(cell.b_hh, h, cell.w_hh.t()).chunk(3, dim=1)
    reset = torch.sigmoid(from_input[0] + from_state[0])
    update = torch.sigmoid(from_input[1] + from_state[1])
    new = torch.tanh(from_input[2] + reset * from_state[2])
    return new + update * (h - new)


def _gru(cell: CellWeights, gates: Tensor, state: Parts) -> Parts:
    return (recurrent_step(cell, gates, state[0]),)


def _lstm(cell: CellWeights, gates: Tensor, state: Parts) -> Parts:
    h, c = state
    into, forget, new, out = (gates + torch.addmm(cell.b_hh, h, cell.w_hh.t())).chunk(4, dim=1)
    c = torch.sigmoid(forget) * c + torch.sigmoid(into) * torch.tanh(new)
    return torch.sigmoid(out) * torch.tanh(c), c


def _rnn(cell: CellWeights, gates: Tensor, state: Parts) -> Parts:
    return (torch.tanh(gates + torch.addmm(cell.b_hh, state[0], cell.w_hh.t())),)


RECURRENCE: dict[Cell, Callable[[CellWeights, Tensor, Parts], Parts]] = {
    "gru": _gru,
    "lstm": _lstm,
    "rnn": _rnn,
}
"""What one layer does at a click: weights, `input_gates` [B, G·H] and its state → its next state, h first."""


def step(kind: Cell, layers: Sequence[CellWeights], x: Tensor, state: Tensor) -> Tensor:
    """One step of all layers: what was clicked x [B, D] and the states [B, S] → the next states [B, S]."""
    recurrence, depth = RECURRENCE[kind], len(layers)
    before = state.chunk(depth * CELL_SHAPES[kind].states, dim=1)
    after = list(before)
    for layer, cell in enumerate(layers):
        after[layer::depth] = recurrence(cell, input_gates(cell, x), before[layer::depth])
        x = after[layer]
    return after[0] if len(after) == 1 else torch.cat(after, dim=1)


def output(layers: Sequence[CellWeights], state: Tensor) -> Tensor:
    """The h of the top layer, out of states [B, S] → [B, H]. A view."""
    hidden_size = layers[-1].w_hh.shape[1]
    return state[:, (len(layers) - 1) * hidden_size : len(layers) * hidden_size]


def session_query(query: QueryWeights, h: Tensor, x: Tensor, score: Score = "cosine") -> Tensor:
    """Queries from the states *after* the click h [B, H] and the clicked items x [B, H] → [B, H].

    For cosine scores they have unit length: against unit-length item vectors their product is the cosine.
    """
    asked = h @ query.query_hidden.t()
    if query.query_item is not None:
        asked = torch.addmm(asked, x, query.query_item.t())
    if score == "dot":
        return asked
    return asked * asked.square().sum(dim=1, keepdim=True).clamp_min(TINY).rsqrt()


def item_vectors(embedding: Tensor, score: Score = "cosine") -> Tensor:
    """What a query is multiplied with: [V, H] → [V, H], at unit length for cosine scores."""
    return embedding if score == "dot" else unit_items(embedding)


def unit_items(embedding: Tensor) -> Tensor:
    """Item vectors at unit length: [V, H] → [V, H]; done once when a model is loaded."""
    return functional.normalize(embedding, dim=1)
