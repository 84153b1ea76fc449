"""Forward and backward of one part of a batch by hand, for `training.fused`; its names and shapes are used.

GRU over packed sessions, cosine scores against the candidates, softmax cross-entropy, and back.
"""

from dataclasses import dataclass

import torch

from training.deal import Dealt, Part
from training.kernels_cell import Dense, Factors, Floats, Low, Passed, Scratch, backward, forward
from training.kernels_loss import Asked, ask, learn
from training.kernels_rows import gather_inputs
from training.memory import zeros
from training.workspace import Workspace, tensor_of

GATES = 3

ROWS_PAD, CANDIDATES_PAD, SIZE_PAD = 32, 256, 32
"""bfloat16 products over the catalogue are padded to multiples of these. The matrix units work on tiles of 16
by 32 (a width of 128 instead of 100 takes less time, not more), and torch compiles each shape."""

APART = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio, odd: its multiples share no pattern of bits."""


@dataclass(frozen=True, eq=False)
class Shared:
    """What the parts of a step read together, and where each writes its rows."""

    dealt: Dealt
    items: Low  # [C padded, H padded], unit vectors of the candidates
    factors: Factors
    offset: Floats  # [C], see `kernels_loss.offsets`
    items_gradient: Low  # [parts, C padded, H padded], without what positives got
    inputs_gradient: Floats  # [N, H]
    query: Floats  # [N, H]
    pull: Floats  # [N]
    loss: Floats  # [parts]


class PartWorker:
    """Forward and backward of one part, in buffers of its own."""

    def __init__(
        self, embedding: Floats, dense: Dense, temperature: float, dropout: float, low: torch.dtype
    ) -> None:
        self._embedding, self._dense = embedding, dense
        self._temperature, self._dropout = temperature, dropout
        self._padded = low == torch.bfloat16
        self._work = Workspace(low)
        self.gradients = Dense(*(zeros(*array.shape).numpy() for array in dense))

    def learn(self, shared: Shared, place: int) -> None:
        """Find the gradients of this part: rows in `shared`, the rest in `gradients`."""
        # A thread learns of `torch.set_num_threads` when it first asks. Products do not ask: those of a new
        # thread would run on all cores, and cut their sums in other places.
        torch.get_num_threads()
        dealt, part, embedding = shared.dealt, shared.dealt.parts[place], self._embedding
        mine = slice(part.begin, part.end)
        count, size = part.end - part.begin, embedding.shape[1]
        x, keep = self._work.low("x", count, size), self._work.floats("keep", count, size)
        # Far apart: neighbouring seeds throw the same coins in another order.
        seed = (dealt.draw.seed + place * APART) % (1 << 63)
        gather_inputs(embedding, dealt.inputs[mine], self._dropout, seed, x, keep)
        passed = self._passed(count, size)
        forward(part.active, x, shared.factors, self._dense.b_ih, self._dense.b_hh, passed)
        asked_gradient = self._loss(shared, place, x, passed.low_states)
        backward(
            part.active,
            x,
            keep,
            asked_gradient,
            shared.factors,
            passed,
            self._scratch(part, size),
            self.gradients,
            shared.inputs_gradient[mine],
        )

    def _loss(self, shared: Shared, place: int, x: Low, states: Low) -> Low:
        """Loss and gradient of the scores; returns ∂loss/∂(A·h + B·x), low [n, H]."""
        dealt, part, factors = shared.dealt, shared.dealt.parts[place], shared.factors
        mine = slice(part.begin, part.end)
        candidates, width = shared.items.shape
        asked = self._asked(shared, mine, width)
        ask(
            states,
            x,
            factors.query_hidden,
            factors.query_item,
            self._temperature,
            self._embedding,
            dealt.targets[mine],
            asked,
        )
        block = self._work.low("block", candidates, len(asked.low_query))
        gradient = self._work.low("asked_gradient", *x.shape)
        # A row for each candidate, not for each query: torch's products need not turn the block then.
        torch.mm(tensor_of(shared.items), tensor_of(asked.low_query).t(), out=tensor_of(block))
        shared.loss[place] = learn(
            block,
            shared.items,
            shared.offset,
            dealt.columns[mine],
            dealt.weights[mine],
            self._temperature,
            asked,
            gradient,
        )
        torch.mm(tensor_of(block), tensor_of(asked.scaled), out=tensor_of(shared.items_gradient[place]))
        return gradient

    def _asked(self, shared: Shared, mine: slice, width: int) -> Asked:
        work, query = self._work, shared.query[mine]
        count, size = query.shape
        rows = round_up(count, ROWS_PAD) if self._padded else count
        return Asked(
            asked=work.floats("asked", count, size),
            query=query,
            stretch=work.floats("stretch", count),
            low_query=work.low("low_query", rows, width),
            positive=work.floats("positive", count, size),
            positive_score=work.floats("positive_score", count),
            total=work.floats("total", rows),
            share=work.floats("share", count),
            pull=shared.pull[mine],
            scaled=work.low("scaled", rows, width),
            mixed=work.floats("mixed", rows, width),
        )

    def _passed(self, count: int, size: int) -> Passed:
        work = self._work
        return Passed(
            gates=work.floats("gates", count, GATES * size),
            from_state=work.floats("from_state", count, GATES * size),
            before=work.floats("before", count, size),
            states=work.floats("states", count, size),
            low_before=work.low("low_before", count, size),
            low_states=work.low("low_states", count, size),
        )

    def _scratch(self, part: Part, size: int) -> Scratch:
        work, count = self._work, part.end - part.begin
        return Scratch(
            states_gradient=work.floats("states_gradient", count, size),
            through_state=work.floats("through_state", int(part.active[0]), size),
            low_gates=work.low("low_gates", count, GATES * size),
            low_from_state=work.low("low_from_state", count, GATES * size),
        )


def round_up(number: int, multiple: int) -> int:
    """The next multiple."""
    return -(-number // multiple) * multiple
