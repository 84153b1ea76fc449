"""Small random models, as the worker serves them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from schemas.model_manifest import CELL_SHAPES, Cell, ItemEmbedding, Score
from worker.core.session_model import SessionModel
from worker.core.step import CellWeights, QueryWeights, item_vectors

TEMPERATURE = 11.0
TORCH_LAYERS: dict[Cell, Callable[..., torch.nn.RNNBase]] = {
    "gru": torch.nn.GRU,
    "lstm": torch.nn.LSTM,
    "rnn": torch.nn.RNN,
}


def cell_weights(hidden_size: int, generator: torch.Generator, kind: Cell = "gru") -> CellWeights:
    """Weights that push the gates far from their middle, so that no term of the cell goes unnoticed.

    But a plain RNN's are smaller: it has no gate that lets an error of rounding die out.
    """
    rows = CELL_SHAPES[kind].gates * hidden_size
    scale = 0.5 if kind == "rnn" else 1.0
    return CellWeights(
        _normal((rows, hidden_size), scale, generator),
        _normal((rows, hidden_size), scale, generator),
        _normal((rows,), scale, generator),
        _normal((rows,), scale, generator),
    )


def random_model(
    items: Sequence[str],
    hidden_size: int,
    seed: int,
    version: str = "",
    *,
    cell: Cell = "gru",
    layers: int = 1,
    item_embedding: ItemEmbedding = "shared",
    score: Score = "cosine",
    last_click_query: bool = True,
) -> SessionModel:
    """A model with random weights; the query looks at the hidden state and at the last item."""
    generator = torch.Generator().manual_seed(seed)
    embedding = _normal((len(items), hidden_size), 1.0, generator)
    square = (hidden_size, hidden_size)
    stack = [cell_weights(hidden_size, generator, cell) for _ in range(layers)]
    query = QueryWeights(_normal(square, 1.0, generator), _normal(square, 0.5, generator))
    scored = embedding
    if item_embedding != "shared":
        scored = _normal((len(items), hidden_size), 1.0, generator)
    if item_embedding == "none":
        embedding = _normal((len(items), CELL_SHAPES[cell].gates * hidden_size), 1.0, generator)
        stack[0] = stack[0]._replace(w_ih=None)
    return SessionModel(
        version=version or f"seed-{seed}",
        items=list(items),
        embedding=embedding,
        item_matrix=item_vectors(scored, score) * (TEMPERATURE if score == "cosine" else 1.0),
        layers=tuple(stack),
        query=query if last_click_query else query._replace(query_item=None),
        cell=cell,
        score=score,
    )


def torch_cell(weights: CellWeights) -> torch.nn.GRUCell:
    """PyTorch's own cell with these weights, in their dtype."""
    assert weights.w_ih is not None
    hidden_size = weights.w_hh.shape[1]
    cell = torch.nn.GRUCell(weights.w_ih.shape[1], hidden_size, dtype=weights.w_ih.dtype)
    cell.load_state_dict(
        {
            "weight_ih": weights.w_ih,
            "weight_hh": weights.w_hh,
            "bias_ih": weights.b_ih,
            "bias_hh": weights.b_hh,
        }
    )
    return cell


def torch_layers(kind: Cell, layers: Sequence[CellWeights], embedding: Tensor) -> torch.nn.RNNBase:
    """PyTorch's own layers with these weights, in their dtype.

    Where the first layer has no input weights its input is a one-hot vector over all items, and `embedding`
    holds the weights of that, by columns.
    """
    stack = [layers[0], *layers[1:]]
    if stack[0].w_ih is None:
        stack[0] = stack[0]._replace(w_ih=embedding.t())
    assert stack[0].w_ih is not None
    module = TORCH_LAYERS[kind](
        stack[0].w_ih.shape[1], stack[0].w_hh.shape[1], len(stack), dtype=stack[0].w_hh.dtype
    )
    names = {"w_ih": "weight_ih", "w_hh": "weight_hh", "b_ih": "bias_ih", "b_hh": "bias_hh"}
    module.load_state_dict(
        {
            f"{names[name]}_l{layer}": tensor
            for layer, cell in enumerate(stack)
            for name, tensor in cell._asdict().items()
        }
    )
    return module


def fed(layers: Sequence[CellWeights], embedding: Tensor, items: Tensor) -> Tensor:
    """What `torch_layers` is fed for these items: their vectors, or one-hot ones over the catalogue."""
    if layers[0].w_ih is not None:
        return embedding[items]
    return torch.nn.functional.one_hot(items, len(embedding)).to(embedding.dtype)


def _normal(shape: tuple[int, ...], scale: float, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator) * scale
