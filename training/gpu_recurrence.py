"""The recurrence of `worker.core.step` over a whole batch in the one call that torch has for it, for GPUs.

Step by step it is a dozen small kernels for each click of the longest session, and as many on the way back: a
GPU computes each of them faster than it is asked for the next. cuDNN has them all in a few.
"""

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from schemas.model_manifest import CELL_SHAPES, Cell
from worker.core.step import CellWeights

_WHOLE = {"gru": torch.gru, "rnn": torch.rnn_tanh}


def states_at_once(kind: Cell, layers: Sequence[CellWeights], x: Tensor, active: list[int]) -> Tensor:
    """What `training.network.hidden_states` computes, within the rounding; every layer has a `w_ih`."""
    # cuDNN would else round the factors of its products to 10 bits. It stays set: the way back asks for it.
    torch.backends.cudnn.rnn.fp32_precision = "ieee"  # type: ignore[attr-defined]
    depth, size = len(layers), layers[0].w_hh.shape[1]
    packed, sizes = _in_one_piece(layers), torch.tensor(active)
    start = x.new_zeros(depth, active[0], size)
    if CELL_SHAPES[kind].states == 2:
        return torch.lstm(x, sizes, (start, start), packed, True, depth, 0.0, True, False)[0]
    return _WHOLE[kind](x, sizes, start, packed, True, depth, 0.0, True, False)[0]


def _in_one_piece(layers: Sequence[CellWeights]) -> list[Tensor]:
    """The weights, layer by layer, as views of one tensor with all matrices first, then all biases.

    That is cuDNN's order; from tensors apart torch makes such a copy at each call, and warns of it.
    """
    in_order = chain(*(cell[:2] for cell in layers), *(cell[2:] for cell in layers))
    ordered = [tensor for tensor in in_order if tensor is not None]
    flat = torch.cat([tensor.reshape(-1) for tensor in ordered])
    pieces = torch.split(flat, [tensor.numel() for tensor in ordered])
    views = [piece.view_as(tensor) for piece, tensor in zip(pieces, ordered, strict=True)]
    matrices, biases = views[: 2 * len(layers)], views[2 * len(layers) :]
    return [
        view for at in range(0, len(matrices), 2) for view in (*matrices[at : at + 2], *biases[at : at + 2])
    ]
