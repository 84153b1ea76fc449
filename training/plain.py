"""One training step in plain torch, gradients by autograd: any cell, loss and device that the settings name.

It says what is computed; `training.fused` is the quick way to the same for the defaults on a CPU.
N transitions of a batch, V items, C candidates, R embedding rows that a batch touches, H hidden size, D width
of what a click feeds, S numbers in a state.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.nn import functional

from training.draws import Draw
from training.losses import loss_function
from training.network import Network, hidden_states
from training.optimiser import Optimiser
from training.session_parallel import SlotStep, carried
from training.settings import TrainSettings
from worker.core.step import item_vectors, output, session_query, step


class PlainStep:
    """Steps of one training, on the device that the network is on."""

    def __init__(
        self,
        network: Network,
        table_optimisers: list[Optimiser],
        dense_optimisers: list[Optimiser],
        settings: TrainSettings,
        dropout: float,
        noise: Generator,
    ) -> None:
        """Prepare.

        Args:
            network: updated in place.
            table_optimisers, dense_optimisers: of `Network.tables` and `Network.dense`, in that order.
            settings: any.
            dropout: probability to drop an entry of an input.
            noise: a generator of the network's device.
        """
        self._network, self._settings, self._dropout, self._noise = network, settings, dropout, noise
        self._table_optimisers, self._dense_optimisers = table_optimisers, dense_optimisers
        width, device = network.architecture.state_width, network.embedding.device
        self._states = torch.zeros(settings.parallel_sessions, width, device=device)

    def prepare(self, draw: Draw) -> Draw:
        """Nothing can be done ahead."""
        return draw

    def __call__(self, draw: Draw, learning_rate: float) -> float:
        """Learn from a batch; returns its loss."""
        network = self._network
        looked_up = lookups(network, draw)
        start = None if draw.slots is None else self._start(draw.slots)
        loss, states = batch_loss(network, looked_up, draw, self._settings, self._dropout, self._noise, start)
        if states is not None:
            self._states = states.detach()
        gradients = torch.autograd.grad(loss, [*looked_up.values, *network.dense])
        for optimiser, gradient, rows in zip(self._table_optimisers, gradients, looked_up.rows, strict=False):
            optimiser.step(gradient, learning_rate, rows)
        of_dense = gradients[len(looked_up.values) :]
        for optimiser, gradient in zip(self._dense_optimisers, of_dense, strict=True):
            optimiser.step(gradient, learning_rate)
        return loss.item()

    def _start(self, slots: SlotStep) -> Tensor:
        if slots.reset.all():  # an epoch begins: what is carried is of the last one's slots
            self._states = self._states.new_zeros(len(slots.reset), self._states.shape[1])
        return carried(self._states, slots)

    def state(self) -> dict[str, NDArray[Any]]:
        """What is carried from step to step beside weights and moments: the states of slots."""
        return {"carried": self._states.numpy(force=True)}

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what `state` gave."""
        self._states = torch.from_numpy(tensors["carried"]).to(self._states.device)

    def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True, eq=False)
class Lookups:
    """Rows of the tables that a batch touches, ready for autograd.

    Attributes:
        values: of each table, [R, D] and, where what is scored has its own, [C, H].
        rows: which rows they are, int64; None for all of them in their order.
        places: int64 [N], where the inputs are in the first of `values`.
        items: what is scored, [C, H].
    """

    values: list[Tensor]
    rows: list[Tensor | None]
    places: Tensor
    items: Tensor


def lookups(network: Network, draw: Draw) -> Lookups:
    """Look up what a batch touches."""
    device = network.embedding.device
    rows, places = draw.touched, draw.places
    if network.output_embedding is not None:
        rows, places = np.unique(draw.batch.inputs, return_inverse=True)
    of_tables = [rows, draw.touched[: draw.candidates]][: len(network.tables)]
    chosen = [
        None if len(some) == len(table) else torch.from_numpy(some).to(device)
        for table, some in zip(network.tables, of_tables, strict=True)
    ]
    values = [
        (table if some is None else table[some]).detach().requires_grad_()
        for table, some in zip(network.tables, chosen, strict=True)
    ]
    return Lookups(values, chosen, torch.from_numpy(places).to(device), values[-1][: draw.candidates])


def batch_loss(
    network: Network,
    looked_up: Lookups,
    draw: Draw,
    settings: TrainSettings,
    dropout: float,
    noise: Generator,
    start: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The loss of a batch, a scalar; where states are carried on, also those after it [N, S], else None.

    `start` [N, S] are the states before the clicks of a session-parallel batch, None for zero. Two dropouts,
    each with a mask and a probability of its own: of the input embeddings, and of the states that the query
    is made from (what is carried on keeps all its entries).
    """
    one_hot = network.architecture.item_embedding == "none"
    # Not values[places]: its gradient adds up the rows that were clicked twice in whatever order the threads
    # of torch come by, so that the same seed would give other weights each time.
    x = functional.embedding(looked_up.places, looked_up.values[0])  # [N, D]
    x = drop(x, dropout, noise, one_hot)
    return loss_of_inputs(network, x, looked_up.items, draw, settings, noise, start)


def loss_of_inputs(
    network: Network,
    x: Tensor,
    items: Tensor,
    draw: Draw,
    settings: TrainSettings,
    noise: Generator,
    start: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """The same from the clicked items x [N, D], entries dropped already, and the candidates [C, H]."""
    wanted, states = network.architecture, None
    if start is None:
        hidden = hidden_states(wanted.cell, network.layers, x, draw.batch.active)  # [N, H]
    else:
        states = step(wanted.cell, network.layers, x, start)  # [N, S]
        hidden = output(network.layers, states)
    hidden = drop(hidden, settings.hidden_dropout, noise)
    query = session_query(network.query, hidden, x, wanted.score) * wanted.temperature  # [N, H]
    logits = query @ item_vectors(items, wanted.score).t()  # [N, C]
    target, weight, log_chance = (
        torch.from_numpy(array).to(x.device) for array in (draw.columns, draw.batch.weights, draw.log_chance)
    )
    return loss_function(settings)(logits, target, weight, log_chance), states


def drop(x: Tensor, probability: float, noise: Generator, whole_rows: bool = False) -> Tensor:
    """Dropout: entries zero with this probability, the others scaled so that the mean stays.

    Whole rows, where a row is what a one-hot input looked up: the one entry of such an input is there or not.
    """
    if probability == 0:
        return x
    keep = x.new_empty(len(x), 1 if whole_rows else x.shape[1])
    return x * keep.bernoulli_(1 - probability, generator=noise).div_(1 - probability)
