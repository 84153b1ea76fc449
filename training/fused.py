"""One training step of the default model by hand: GRU, cosine scores, softmax cross-entropy, row updates.

It computes what autograd computes from `training.plain` (a test holds the two together), with fewer passes
over memory and few calls: the products over the catalogue by torch, everything else fused by numba, no block
of scores read more often than it has to be. The factors of products may be in bfloat16; sums, softmax,
gates, states, moments and weights are float32.

Every batch is dealt out to a fixed number of parts, each worked on by one thread, and what they found is
added in a fixed order: whether one thread works on the two parts or two do changes how long a step takes,
never what comes out. More threads make more parts, and with them other sums.

n transitions of a part, N of the batch, C candidates, R touched rows, V items, H hidden size. A name of the
form `…_gradient` is ∂loss/∂….
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.batches import Batch
from training.crew import Crew
from training.deal import Dealt, deal
from training.draws import Draw, draw
from training.fused_part import CANDIDATES_PAD, SIZE_PAD, PartWorker, Shared, round_up
from training.kernels_cell import Dense, Factors
from training.kernels_loss import offsets, unit_rows
from training.kernels_rows import step_rows, update_rows
from training.network import Network, new_network
from training.optimiser import Optimiser, new_optimiser
from training.settings import TrainSettings, architecture_for
from training.workspace import Workspace, tensor_of

MIN_PARTS = 2
"""A batch is dealt to two parts also where one thread does both: one and two threads give the same bytes."""

MAX_TEMPERATURE = 40.0
"""Scores span twice the temperature, and e^±80 is what a float32 holds."""


def can_be_fused(settings: TrainSettings) -> bool:
    """Whether the fused step computes what these settings ask for; if not, `training.plain` does."""
    return (
        settings.device == "cpu"
        and (settings.temperature or 0) <= MAX_TEMPERATURE
        and (settings.loss, settings.logq, settings.batching) == ("cross_entropy", True, "sessions")
        and settings.hidden_dropout == 0
        and (settings.cell, settings.layers, settings.item_embedding) == ("gru", 1, "shared")
        and (settings.score, settings.last_click_query) == ("cosine", True)
    )


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
            low: torch.bfloat16 or torch.float32, for the factors of products.
        """
        self._embedding = network.embedding.detach().numpy()
        self._dense = Dense(*(parameter.detach().numpy() for parameter in network.dense))
        self._embedding_optimiser, self._dense_optimisers = embedding_optimiser, dense_optimisers
        self._temperature = network.architecture.temperature
        self._parts = max(MIN_PARTS, settings.threads)
        self._low, self._padded = low, low == torch.bfloat16
        self._workspace = Workspace(low)
        self._workers = [
            PartWorker(self._embedding, self._dense, self._temperature, dropout, low)
            for _ in range(self._parts)
        ]
        self._crew = Crew(min(settings.threads, self._parts))

    def prepare(self, draw: Draw) -> Dealt:
        """The part of a step that can be done ahead of it."""
        return deal(draw, self._parts)

    def __call__(self, dealt: Dealt, learning_rate: float) -> float:
        """Learn from a batch; returns its loss."""
        shared = self._shared(dealt)
        spans = _halves(dealt.draw.candidates, self._parts)
        embedding, touched = self._embedding, dealt.draw.touched
        self._crew.run([partial(unit_rows, embedding, touched, *span, shared.items) for span in spans])
        workers = self._workers[: len(dealt.parts)]
        self._crew.run([partial(worker.learn, shared, place) for place, worker in enumerate(workers)])
        self._update(shared, [worker.gradients for worker in workers], learning_rate)
        return float(shared.loss.sum())

    def state(self) -> dict[str, NDArray[Any]]:
        """What is carried from step to step beside weights and moments: nothing."""
        return {}

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what `state` gave."""

    def close(self) -> None:
        """Let the threads go."""
        self._crew.close()

    def _shared(self, dealt: Dealt) -> Shared:
        transitions, size = len(dealt.inputs), self._embedding.shape[1]
        candidates, parts, work = dealt.draw.candidates, len(dealt.parts), self._workspace
        if self._padded:
            candidates, padded_size = round_up(candidates, CANDIDATES_PAD), round_up(size, SIZE_PAD)
        else:
            padded_size = size
        return Shared(
            dealt,
            items=work.low("items", candidates, padded_size),
            factors=self._factors(),
            offset=offsets(dealt.draw.log_chance, self._temperature),
            items_gradient=work.low("items_gradient", parts, candidates, padded_size),
            inputs_gradient=work.floats("inputs_gradient", transitions, size),
            query=work.floats("query", transitions, size),
            pull=work.floats("pull", transitions),
            loss=work.floats("loss", parts),
        )

    def _factors(self) -> Factors:
        """The matrices of cell and query as factors: rounded once a step, or as they are."""
        matrices = [getattr(self._dense, name) for name in Factors._fields]
        if self._low == torch.float32:
            return Factors(*matrices)
        rounded = [
            self._workspace.low(name, *m.shape) for name, m in zip(Factors._fields, matrices, strict=True)
        ]
        for buffer, matrix in zip(rounded, matrices, strict=True):
            tensor_of(buffer).copy_(torch.from_numpy(matrix))
        return Factors(*rounded)

    def _update(self, shared: Shared, gradients: list[Dense], learning_rate: float) -> None:
        """Step all parameters: the embedding by touched rows, each thread some, the others as a whole."""
        dealt, draw, optimiser = shared.dealt, shared.dealt.draw, self._embedding_optimiser
        constants = optimiser.begin_step(learning_rate)

        def rows(begin: int, end: int) -> None:
            update_rows(
                *optimiser.arrays(),
                draw.touched,
                draw.candidates,
                begin,
                end,
                shared.items_gradient,
                dealt.by_target.starts,
                dealt.by_target.order,
                shared.pull,
                shared.query,
                dealt.by_input.starts,
                dealt.by_input.order,
                shared.inputs_gradient,
                optimiser.kind,
                constants,
            )

        spans = _halves(len(draw.touched), self._parts)
        self._crew.run([partial(rows, begin, end) for begin, end in spans])
        for dense, of_parts in zip(self._dense_optimisers, zip(*gradients, strict=True), strict=True):
            for more in of_parts[1:]:
                np.add(of_parts[0], more, out=of_parts[0])
            constants = dense.begin_step(learning_rate)
            gradient = of_parts[0].reshape(len(of_parts[0]), -1)
            step_rows(*dense.arrays(), gradient, dense.kind, constants)


def warm_up(settings: TrainSettings, low: torch.dtype) -> None:
    """Compile what is not compiled yet, by one step of a tiny training.

    Some 20 s the first time after an installation, a fraction of a second when the kernels lie on disk.
    """
    tiny = replace(settings, hidden_size=4, threads=1)
    network = new_network(architecture_for(tiny, items=4), torch.Generator().manual_seed(0))
    embedding, *dense = (new_optimiser(tiny, tensor) for tensor in (network.embedding, *network.dense))
    clicks = np.arange(3)
    batch = Batch(clicks, clicks + 1, np.ones(3, np.float32), [2, 1])
    with closing(FusedStep(network, embedding, dense, tiny, 0.5, low)) as step:
        step(step.prepare(draw(batch, 4, None, np.random.default_rng(0))), 0.0)


def _halves(count: int, parts: int) -> list[tuple[int, int]]:
    """Begin and end of so many equal spans of `count`."""
    edges = [count * part // parts for part in range(parts + 1)]
    return list(pairwise(edges))
