"""One training step of the default model by hand: GRU, cosine scores, softmax cross-entropy, row updates.

It computes what autograd computes from `training.plain` (a test holds the two together), with fewer passes
over memory: products by torch, everything between them fused by numba, no block of scores read more often
than it has to be. The products over the catalogue may be in bfloat16; sums, softmax, cell, moments and
weights are float32.

Every batch is dealt out to a fixed number of parts, each worked on by one thread, and what they found is
added in a fixed order: the number of threads changes how long a step takes, never what comes out.

n transitions of a part, N of the batch, C candidates, R touched rows, V items, H hidden size. A name of the
form `…_gradient` is ∂loss/∂….
"""

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.batches import Batch
from training.crew import Crew
from training.deal import Dealt, Part, deal
from training.draws import Draw, draw
from training.kernels_cell import gates_backward, gates_forward
from training.kernels_loss import ask, offsets, query_gradient, softmax_rows, unit_rows
from training.kernels_rows import gather_inputs, step_rows, update_rows
from training.network import Network, new_network
from training.optimiser import Optimiser, new_optimiser
from training.settings import TrainSettings, architecture_for
from training.workspace import Buffer, Workspace

MIN_PARTS = 2
"""A batch is dealt to two parts also where one thread does both: one and two threads give the same bytes."""

GATES = 3

MAX_TEMPERATURE = 40.0
"""Scores span twice the temperature, and e^±80 is what a float32 holds."""

ROWS_PAD, CANDIDATES_PAD, SIZE_PAD = 32, 256, 32
"""bfloat16 products are padded to multiples of these. The matrix units work on tiles of 16 by 32 (a width of
128 instead of 100 takes less time, not more), and a product of a new shape costs its compilation."""


def can_be_fused(settings: TrainSettings) -> bool:
    """Whether the fused step computes what these settings ask for; if not, `training.plain` does."""
    return (
        settings.device == "cpu"
        and settings.temperature <= MAX_TEMPERATURE
        and (settings.loss, settings.logq, settings.batching) == ("cross_entropy", True, "sessions")
        and settings.hidden_dropout == 0
        and (settings.cell, settings.layers, settings.item_embedding) == ("gru", 1, "shared")
        and (settings.score, settings.last_click_query) == ("cosine", True)
    )


@dataclass(frozen=True, eq=False)
class _Model:
    """Detached views of what is trained."""

    embedding: Tensor  # [V, H]
    w_ih: Tensor  # [3H, H]
    w_hh: Tensor  # [3H, H]
    b_ih: Tensor  # [3H]
    b_hh: Tensor  # [3H]
    query_hidden: Tensor  # [H, H]
    query_item: Tensor  # [H, H]


@dataclass(frozen=True, eq=False)
class _Shared:
    """What the parts of a step read together, and where each writes its rows."""

    dealt: Dealt
    items: Buffer  # low [C padded, H padded], unit vectors of the candidates
    offset: NDArray[np.float32]  # [C], see `kernels_loss.offsets`
    items_gradient: Buffer  # low [parts, C padded, H padded], without what positives got
    inputs_gradient: Buffer  # [N, H]
    query: Buffer  # [N, H]
    pull: Buffer  # [N]
    loss: Buffer  # [parts]


class FusedStep:
    """Steps of one training. `close` lets its threads go."""

    def __init__(
        self,
        network: Network,
        embedding_optimiser: Optimiser,
        dense_optimisers: list[Optimiser],
        settings: TrainSettings,
        dropout: float,
        low: torch.dtype,
    ) -> None:
        """Prepare buffers and threads.

        Args:
            network: updated in place.
            embedding_optimiser: of its embedding.
            dense_optimisers: of its other parameters, in the order of `Network.dense`.
            settings: of the default cell and loss, with a temperature of at most `MAX_TEMPERATURE`.
            dropout: probability to drop an entry of an input.
            low: torch.bfloat16 or torch.float32, for the products over the catalogue.
        """
        self._model = _Model(network.embedding.detach(), *(p.detach() for p in network.dense))
        self._embedding_optimiser, self._dense_optimisers = embedding_optimiser, dense_optimisers
        self._temperature = settings.temperature
        self._parts = max(MIN_PARTS, settings.threads)
        self._padded = low == torch.bfloat16
        self._workspace = Workspace(low)
        self._workers = [_Worker(self._model, settings.temperature, dropout, low) for _ in range(self._parts)]
        self._crew = Crew(min(settings.threads, self._parts))

    def prepare(self, draw: Draw) -> Dealt:
        """The part of a step that can be done ahead of it."""
        return deal(draw, self._parts)

    def __call__(self, dealt: Dealt, learning_rate: float) -> float:
        """Learn from a batch; returns its loss."""
        shared = self._shared(dealt)
        self._crew.run(
            [
                partial(
                    unit_rows,
                    self._model.embedding.numpy(),
                    dealt.draw.touched,
                    begin,
                    end,
                    shared.items.array,
                )
                for begin, end in _halves(dealt.draw.candidates, self._parts)
            ]
        )
        workers = self._workers[: len(dealt.parts)]
        self._crew.run([partial(worker.learn, shared, place) for place, worker in enumerate(workers)])
        self._update(shared, [worker.gradients for worker in workers], learning_rate)
        return float(shared.loss.array.sum())

    def state(self) -> dict[str, NDArray[Any]]:
        """What is carried from step to step beside weights and moments: nothing."""
        return {}

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what `state` gave."""

    def close(self) -> None:
        """Let the threads go."""
        self._crew.close()

    def _shared(self, dealt: Dealt) -> _Shared:
        transitions, size = len(dealt.inputs), self._model.embedding.shape[1]
        candidates, parts, work = dealt.draw.candidates, len(dealt.parts), self._workspace
        if self._padded:
            candidates, padded_size = _up(candidates, CANDIDATES_PAD), _up(size, SIZE_PAD)
        else:
            padded_size = size
        return _Shared(
            dealt,
            items=work.low("items", candidates, padded_size),
            offset=offsets(dealt.draw.log_chance, self._temperature),
            items_gradient=work.low("items_gradient", parts, candidates, padded_size),
            inputs_gradient=work.floats("inputs_gradient", transitions, size),
            query=work.floats("query", transitions, size),
            pull=work.floats("pull", transitions),
            loss=work.floats("loss", parts),
        )

    def _update(self, shared: _Shared, gradients: list[list[Tensor]], learning_rate: float) -> None:
        """Step all parameters: the embedding by touched rows, each thread some, the others as a whole."""
        dealt, draw, optimiser = shared.dealt, shared.dealt.draw, self._embedding_optimiser
        constants = optimiser.begin_step(learning_rate)

        def rows(begin: int, end: int) -> None:
            update_rows(
                *(t.numpy() for t in (optimiser.parameter, optimiser.first, optimiser.second)),
                draw.touched,
                draw.candidates,
                begin,
                end,
                shared.items_gradient.array,
                dealt.by_target.starts,
                dealt.by_target.order,
                shared.pull.array,
                shared.query.array,
                dealt.by_input.starts,
                dealt.by_input.order,
                shared.inputs_gradient.array,
                optimiser.kind,
                constants,
            )

        spans = _halves(len(draw.touched), self._parts)
        self._crew.run([partial(rows, begin, end) for begin, end in spans])
        for index, dense in enumerate(self._dense_optimisers):
            gradient = gradients[0][index]
            for more in gradients[1:]:
                gradient += more[index]
            constants = dense.begin_step(learning_rate)
            tensors = (dense.parameter, dense.first, dense.second, gradient)
            step_rows(*(t.view(len(t), -1).numpy() for t in tensors), dense.kind, constants)


class _Worker:
    """Forward and backward of one part, in buffers of its own."""

    def __init__(self, model: _Model, temperature: float, dropout: float, low: torch.dtype) -> None:
        self._model, self._temperature, self._dropout = model, temperature, dropout
        self._padded = low == torch.bfloat16
        self._work = Workspace(low)
        self.gradients = [torch.zeros_like(p) for p in list(vars(model).values())[1:]]
        """Of everything but the embedding, in the order of `Network.dense`."""

    def learn(self, shared: _Shared, place: int) -> None:
        """Find the gradients of this part: rows in `shared`, the rest in `gradients`."""
        part = shared.dealt.parts[place]
        x, keep = self._inputs(shared.dealt, part, place)  # [n, H]
        gates, from_state, before, states = self._forward(part, x)
        asked_gradient = self._loss(shared, place, x, states)  # [n, H]
        query_hidden, query_item = self._model.query_hidden, self._model.query_item
        torch.mm(asked_gradient.t(), states, out=self.gradients[4])
        torch.mm(asked_gradient.t(), x, out=self.gradients[5])
        states_gradient = self._work.floats("states_gradient", *x.shape)
        torch.mm(asked_gradient, query_hidden, out=states_gradient.tensor)
        x_gradient = shared.inputs_gradient.tensor[part.begin : part.end]
        torch.mm(asked_gradient, query_item, out=x_gradient)
        self._backward(part, gates, from_state, before, states_gradient)
        first = part.active[0]  # nothing comes from the state before a first click, but for its bias
        torch.mm(gates.tensor.t(), x, out=self.gradients[0])
        torch.mm(from_state.tensor[first:].t(), before.tensor[first:], out=self.gradients[1])
        torch.sum(gates.tensor, 0, out=self.gradients[2])
        torch.sum(from_state.tensor, 0, out=self.gradients[3])
        x_gradient.addmm_(gates.tensor, self._model.w_ih).mul_(keep)

    def _inputs(self, dealt: Dealt, part: Part, place: int) -> tuple[Tensor, Tensor]:
        """What is clicked, with entries dropped, and what it was multiplied with; both [n, H]."""
        shape = part.end - part.begin, self._model.embedding.shape[1]
        x, keep = self._work.floats("x", *shape), self._work.floats("keep", *shape)
        rows = dealt.inputs[part.begin : part.end]
        embedding, seed = self._model.embedding.numpy(), dealt.draw.seed + place
        gather_inputs(embedding, rows, self._dropout, seed, x.array, keep.array)
        return x.tensor, keep.tensor

    def _forward(self, part: Part, x: Tensor) -> tuple[Buffer, Buffer, Buffer, Tensor]:
        """Gates (r, z, n) [n, 3H], W_hh·h + b_hh [n, 3H], states before and after each click [n, H]."""
        count, size = x.shape
        model, work = self._model, self._work
        gates = work.floats("gates", count, GATES * size)
        from_state = work.floats("from_state", count, GATES * size)
        before, states = work.floats("before", count, size), work.floats("states", count, size)
        torch.addmm(model.b_ih, x, model.w_ih.t(), out=gates.tensor)
        w_hh, begin, came_from = model.w_hh.t(), 0, 0
        for step, sessions in enumerate(part.active):
            end = begin + sessions
            if step == 0:
                before.array[:end] = 0
                from_state.tensor[:end] = model.b_hh
            else:
                before.array[begin:end] = states.array[came_from : came_from + sessions]
                torch.addmm(model.b_hh, before.tensor[begin:end], w_hh, out=from_state.tensor[begin:end])
            gates_forward(
                gates.array[begin:end],
                from_state.array[begin:end],
                before.array[begin:end],
                states.array[begin:end],
            )
            begin, came_from = end, begin
        return gates, from_state, before, states.tensor

    def _backward(
        self, part: Part, gates: Buffer, from_state: Buffer, before: Buffer, states_gradient: Buffer
    ) -> None:
        """Back through time; `gates` and `from_state` become their gradients."""
        nowhere = self._work.floats("nowhere", part.active[0], before.array.shape[1]).array
        end = part.end - part.begin
        for step in range(len(part.active) - 1, -1, -1):
            sessions = part.active[step]
            begin = end - sessions
            came_from = begin - part.active[step - 1]
            gates_backward(
                gates.array[begin:end],
                from_state.array[begin:end],
                before.array[begin:end],
                states_gradient.array[begin:end],
                states_gradient.array[came_from : came_from + sessions] if step else nowhere,
            )
            if step:
                earlier = states_gradient.tensor[came_from : came_from + sessions]
                earlier.addmm_(from_state.tensor[begin:end], self._model.w_hh)
            end = begin

    def _loss(self, shared: _Shared, place: int, x: Tensor, states: Tensor) -> Tensor:
        """Loss and gradient of the scores; returns ∂loss/∂(A·h + B·e_last) [n, H]."""
        dealt, part, work, temperature = (
            shared.dealt,
            shared.dealt.parts[place],
            self._work,
            self._temperature,
        )
        mine = slice(part.begin, part.end)
        count, size = x.shape
        rows = _up(count, ROWS_PAD) if self._padded else count
        candidates, width = shared.items.array.shape
        asked = work.floats("asked", count, size)
        stretch, positive_score = work.floats("stretch", count), work.floats("positive_score", count)
        positive, share = work.floats("positive", count, size), work.floats("share", count)
        low_query, scaled = work.low("low_query", rows, width), work.low("scaled", rows, width)
        block, mixed = work.low("block", rows, candidates), work.low("mixed", rows, width)
        query, pull = shared.query.array[mine], shared.pull.array[mine]

        torch.mm(states, self._model.query_hidden.t(), out=asked.tensor)
        asked.tensor.addmm_(x, self._model.query_item.t())
        ask(
            asked.array,
            temperature,
            self._model.embedding.numpy(),
            dealt.targets[mine],
            query,
            low_query.array,
            stretch.array,
            positive.array,
            positive_score.array,
        )
        torch.mm(low_query.tensor, shared.items.tensor.t(), out=block.tensor)
        shared.loss.array[place] = softmax_rows(
            block.array,
            shared.offset,
            dealt.columns[mine],
            positive_score.array,
            dealt.weights[mine],
            temperature,
            query,
            pull,
            share.array,
            scaled.array,
        )
        torch.mm(block.tensor, shared.items.tensor, out=mixed.tensor)
        torch.mm(block.tensor.t(), scaled.tensor, out=shared.items_gradient.tensor[place])
        gradient = work.floats("asked_gradient", count, size)
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


def warm_up(settings: TrainSettings, low: torch.dtype) -> float:
    """Compile what is not compiled yet, by one step of a tiny training; returns the seconds it took.

    Some 20 s the first time after an installation, a fraction of a second when the kernels lie on disk.
    """
    started_s = time.perf_counter()
    tiny = replace(settings, hidden_size=4, threads=1)
    network = new_network(architecture_for(tiny, items=4), torch.Generator().manual_seed(0))
    embedding, *dense = (new_optimiser(tiny, tensor) for tensor in (network.embedding, *network.dense))
    clicks = np.arange(3)
    batch = Batch(clicks, clicks + 1, np.ones(3, np.float32), [2, 1])
    with closing(FusedStep(network, embedding, dense, tiny, 0.5, low)) as step:
        step(step.prepare(draw(batch, 4, None, np.random.default_rng(0))), 0.0)
    return time.perf_counter() - started_s


def _up(number: int, multiple: int) -> int:
    """The next multiple."""
    return -(-number // multiple) * multiple


def _halves(count: int, parts: int) -> list[tuple[int, int]]:
    """Begin and end of so many equal spans of `count`."""
    edges = [count * part // parts for part in range(parts + 1)]
    return list(pairwise(edges))
