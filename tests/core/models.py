"""Small random models, as the worker serves them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from worker.core.session_model import SessionModel
from worker.core.step import CellWeights, QueryWeights, unit_items

TEMPERATURE = 11.0


def cell_weights(hidden_size: int, generator: torch.Generator) -> CellWeights:
    """Weights that push the gates far from their middle, so that no term of the cell goes unnoticed."""
    shapes = [
        (3 * hidden_size, hidden_size),
        (3 * hidden_size, hidden_size),
        (3 * hidden_size,),
        (3 * hidden_size,),
    ]
    return CellWeights(*(_normal(shape, 1.0, generator) for shape in shapes))


def random_model(items: Sequence[str], hidden_size: int, seed: int, version: str = "") -> SessionModel:
    """A model with random weights; the query looks at the hidden state and at the last item."""
    generator = torch.Generator().manual_seed(seed)
    embedding = _normal((len(items), hidden_size), 1.0, generator)
    square = (hidden_size, hidden_size)
    return SessionModel(
        version=version or f"seed-{seed}",
        items=list(items),
        embedding=embedding,
        item_matrix=unit_items(embedding).mul_(TEMPERATURE),
        cell=cell_weights(hidden_size, generator),
        query=QueryWeights(_normal(square, 1.0, generator), _normal(square, 0.5, generator)),
    )


def torch_cell(weights: CellWeights) -> torch.nn.GRUCell:
    """PyTorch's own cell with these weights, in their dtype."""
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


def _normal(shape: tuple[int, ...], scale: float, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator) * scale
