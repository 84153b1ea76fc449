"""Forward and backward of one part of a batch by hand, for `training.fused`; its names and shapes are used.

GRU over packed sessions, cosine scores against the candidates, softmax cross-entropy, and back.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.deal import Dealt, Part
from training.kernels_cell import gates_backward, gates_forward
from training.kernels_loss import ask, cross_entropy, exponentials, query_gradient
from training.kernels_rows import gather_inputs
from training.workspace import Buffer, Workspace

GATES = 3

ROWS_PAD, CANDIDATES_PAD, SIZE_PAD = 32, 256, 32
"""bfloat16 products are padded to multiples of these. The matrix units work on tiles of 16 by 32 (a width of
128 instead of 100 takes less time, not more), and a product of a new shape costs its compilation."""

APART = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio, odd: its multiples share no pattern of bits."""


@dataclass(frozen=True, eq=False)
class Weights:
    """Detached views of what is trained."""

    embedding: Tensor  # [V, H]
    w_ih: Tensor  # [3H, H]
    w_hh: Tensor  # [3H, H]
    b_ih: Tensor  # [3H]
    b_hh: Tensor  # [3H]
    query_hidden: Tensor  # [H, H]
    query_item: Tensor  # [H, H]


@dataclass(frozen=True, eq=False)
class Shared:
    """What the parts of a step read together, and where each writes its rows."""

    dealt: Dealt
    items: Buffer  # low [C padded, H padded], unit vectors of the candidates
    items_turned: Buffer  # the same as [H padded, C padded]
    offset: NDArray[np.float32]  # [C], see `kernels_loss.offsets`
    items_gradient: Buffer  # low [parts, C padded, H padded], without what positives got
    inputs_gradient: Buffer  # [N, H]
    query: Buffer  # [N, H]
    pull: Buffer  # [N]
    loss: Buffer  # [parts]


class PartWorker:
    """Forward and backward of one part, in buffers of its own."""

    def __init__(self, model: Weights, temperature: float, dropout: float, low: torch.dtype) -> None:
        self._model, self._temperature, self._dropout = model, temperature, dropout
        self._padded = low == torch.bfloat16
        self._work = Workspace(low)
        self.gradients = [torch.zeros_like(p) for p in list(vars(model).values())[1:]]
        """Of everything but the embedding, in the order of `Network.dense`."""

    def learn(self, shared: Shared, place: int) -> None:
        """Find the gradients of this part: rows in `shared`, the rest in `gradients`."""
        # A thread learns of `torch.set_num_threads` when it first asks. Products do not ask: those of a new
        # thread would run on all cores, and cut their sums in other places.
        torch.get_num_threads()
        part = shared.dealt.parts[place]
        x, keep = self._inputs(shared.dealt, part, place)
        gates, from_state, before, states = self._forward(part, x)
        asked_gradient = self._loss(shared, place, x, states)
        model, gradients, mine = self._model, self.gradients, slice(part.begin, part.end)
        torch.mm(asked_gradient.t(), states, out=gradients[4])
        torch.mm(asked_gradient.t(), x, out=gradients[5])
        states_gradient = self._work.floats("states_gradient", *x.shape)
        torch.mm(asked_gradient, model.query_hidden, out=states_gradient.tensor)
        self._backward(part, gates, from_state, before, states_gradient)
        torch.mm(gates.tensor.t(), x, out=gradients[0])
        torch.mm(from_state.tensor[: len(x)].t(), before.tensor[: len(x)], out=gradients[1])
        torch.sum(gates.tensor[: len(keep)], 0, out=gradients[2])
        torch.sum(from_state.tensor[: len(keep)], 0, out=gradients[3])
        x_gradient = self._work.floats("x_gradient", *x.shape).tensor
        torch.mm(asked_gradient, model.query_item, out=x_gradient).addmm_(gates.tensor, model.w_ih)
        torch.mul(x_gradient[: len(keep)], keep, out=shared.inputs_gradient.tensor[mine])

    def _padded_rows(self, rows: int) -> int:
        return round_up(rows, ROWS_PAD) if self._padded else rows

    def _inputs(self, dealt: Dealt, part: Part, place: int) -> tuple[Tensor, Tensor]:
        """What is clicked, with entries dropped [n padded, H], and what it was multiplied with [n, H]."""
        count, size = part.end - part.begin, self._model.embedding.shape[1]
        x = self._work.floats("x", self._padded_rows(count), size)
        keep = self._work.floats("keep", count, size)
        rows = dealt.inputs[part.begin : part.end]
        # Far apart: neighbouring seeds throw the same coins in another order.
        embedding, seed = self._model.embedding.numpy(), (dealt.draw.seed + place * APART) % (1 << 63)
        gather_inputs(embedding, rows, self._dropout, seed, x.array, keep.array)
        return x.tensor, keep.tensor

    def _forward(self, part: Part, x: Tensor) -> tuple[Buffer, Buffer, Buffer, Tensor]:
        """Gates (r, z, n), what comes from the state, states before and after each click.

        These are [n padded, 3H or H]. The second and third have `ROWS_PAD` rows more: the product of a time
        step writes more rows than it has sessions, and the next step writes over them.
        """
        rows, size = x.shape
        model, work, count = self._model, self._work, part.end - part.begin
        gates, states = work.floats("gates", rows, GATES * size), work.floats("states", rows, size)
        from_state = work.floats("from_state", rows + ROWS_PAD, GATES * size)
        before = work.floats("before", rows + ROWS_PAD, size)
        torch.mm(x, model.w_ih.t(), out=gates.tensor)
        b_ih, b_hh = model.b_ih.numpy(), model.b_hh.numpy()
        w_hh, begin = model.w_hh.t(), 0
        first = part.active[0]
        before.array[:first], from_state.array[:first] = 0, 0
        for step, sessions in enumerate(part.active):
            if step > 0:
                more = slice(begin, begin + self._padded_rows(sessions))
                torch.mm(before.tensor[more], w_hh, out=from_state.tensor[more])
            end = begin + sessions
            go_on = part.active[step + 1] if step + 1 < len(part.active) else 0
            gates_forward(
                gates.array, from_state.array, b_ih, b_hh, before.array, states.array, begin, end, go_on
            )
            begin = end
        before.array[count:] = 0
        return gates, from_state, before, states.tensor

    def _backward(
        self, part: Part, gates: Buffer, from_state: Buffer, before: Buffer, states_gradient: Buffer
    ) -> None:
        """Back through time; `gates` and `from_state` become their gradients."""
        most = self._padded_rows(part.active[0])
        through_state = self._work.floats("through_state", most, before.array.shape[1])
        end, went_on = part.end - part.begin, 0
        for step in range(len(part.active) - 1, -1, -1):
            sessions = part.active[step]
            begin = end - sessions
            gates_backward(
                gates.array,
                from_state.array,
                before.array,
                states_gradient.array,
                through_state.array,
                begin,
                end,
                begin - part.active[step - 1] if step > 0 else begin,
                went_on,
            )
            if step > 0:
                rows = self._padded_rows(sessions)
                out = through_state.tensor[:rows]
                torch.mm(from_state.tensor[begin : begin + rows], self._model.w_hh, out=out)
            end, went_on = begin, sessions

    def _loss(self, shared: Shared, place: int, x: Tensor, states: Tensor) -> Tensor:
        """Loss and gradient of the scores; returns ∂loss/∂(A·h + B·e_last) [n padded, H], zero below."""
        dealt, part, work, temperature = (
            shared.dealt,
            shared.dealt.parts[place],
            self._work,
            self._temperature,
        )
        mine = slice(part.begin, part.end)
        (rows, size), count = x.shape, part.end - part.begin
        candidates, width = shared.items.array.shape
        asked = work.floats("asked", rows, size)
        stretch, positive_score = work.floats("stretch", count), work.floats("positive_score", count)
        positive, share = work.floats("positive", count, size), work.floats("share", count)
        low_query, scaled = work.low("low_query", rows, width), work.low("scaled", rows, width)
        block, mixed_turned = work.low("block", candidates, rows), work.low("mixed_turned", width, rows)
        mixed, total = work.low("mixed", rows, width), work.floats("total", rows)
        query, pull = shared.query.array[mine], shared.pull.array[mine]

        torch.mm(states, self._model.query_hidden.t(), out=asked.tensor)
        asked.tensor.addmm_(x, self._model.query_item.t())
        ask(
            asked.array[:count],
            temperature,
            self._model.embedding.numpy(),
            dealt.targets[mine],
            query,
            low_query.array,
            stretch.array,
            positive.array,
            positive_score.array,
        )
        # A row for each candidate, not for each query: of the three products none turns the block then.
        torch.mm(shared.items.tensor, low_query.tensor.t(), out=block.tensor)
        exponentials(block.array, shared.offset, dealt.columns[mine], total.array)
        shared.loss.array[place] = cross_entropy(
            total.array,
            positive_score.array,
            dealt.weights[mine],
            temperature,
            query,
            pull,
            share.array,
            scaled.array,
        )
        torch.mm(shared.items_turned.tensor, block.tensor, out=mixed_turned.tensor)
        mixed.tensor.copy_(mixed_turned.tensor.t())
        torch.mm(block.tensor, scaled.tensor, out=shared.items_gradient.tensor[place])
        gradient = work.floats("asked_gradient", rows, size)
        query_gradient(
            mixed.array,
            share.array,
            pull,
            positive.array,
            query,
            stretch.array,
            temperature,
            gradient.array,
        )
        return gradient.tensor


def round_up(number: int, multiple: int) -> int:
    """The next multiple."""
    return -(-number // multiple) * multiple
