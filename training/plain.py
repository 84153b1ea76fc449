"""One training step in plain torch, gradients by autograd: any cell, loss and device that the settings name.

It says what is computed; `training.fused` is the quick way to the same for the defaults on a CPU.
N transitions of a batch, V items, C candidates, R embedding rows that a batch touches, H hidden size.
"""

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from training.draws import Draw
from training.losses import loss_function
from training.network import Network, hidden_states
from training.optimiser import Optimiser
from training.session_parallel import SlotStep, carried
from training.settings import TrainSettings
from worker.core.step import input_gates, session_query, unit_items


class PlainStep:
    """Steps of one training, on the device that the network is on."""

    def __init__(
        self,
        network: Network,
        embedding_optimiser: Optimiser,
        dense_optimisers: list[Optimiser],
        settings: TrainSettings,
        dropout: float,
        noise: Generator,
    ) -> None:
        """See `training.fused.FusedStep`; `noise` is a generator of the network's device."""
        self._network, self._settings, self._dropout, self._noise = network, settings, dropout, noise
        self._embedding_optimiser, self._dense_optimisers = embedding_optimiser, dense_optimisers
        device = network.embedding.device
        self._states = torch.zeros(settings.parallel_sessions, settings.hidden_size, device=device)

    def prepare(self, draw: Draw) -> Draw:
        """Nothing can be done ahead."""
        return draw

    def __call__(self, draw: Draw, learning_rate: float) -> float:
        """Learn from a batch; returns its loss."""
        network = self._network
        everything = len(draw.touched) == len(network.embedding)
        rows = None if everything else torch.from_numpy(draw.touched).to(network.embedding.device)
        embedding = network.embedding if rows is None else network.embedding[rows]  # [V or R, H]
        embedding = embedding.detach().requires_grad_()
        start = None if draw.slots is None else self._start(draw.slots)
        loss, states = batch_loss(network, embedding, draw, self._settings, self._dropout, self._noise, start)
        if draw.slots is not None:
            self._states = states.detach()
        embedding_gradient, *gradients = torch.autograd.grad(loss, [embedding, *network.dense])
        self._embedding_optimiser.step(embedding_gradient, learning_rate, rows)
        for optimiser, gradient in zip(self._dense_optimisers, gradients, strict=True):
            optimiser.step(gradient, learning_rate)
        return loss.item()

    def _start(self, slots: SlotStep) -> Tensor:
        if slots.reset.all():  # an epoch begins: what is carried is of the last one's slots
            self._states = self._states.new_zeros(len(slots.reset), self._settings.hidden_size)
        return carried(self._states, slots)

    def state(self) -> dict[str, NDArray[Any]]:
        """What is carried from step to step beside weights and moments: the states of slots."""
        return {"carried": self._states.numpy(force=True)}

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what `state` gave."""
        self._states = torch.from_numpy(tensors["carried"]).to(self._states.device)

    def close(self) -> None:
        """Nothing is held."""


def batch_loss(
    network: Network,
    embedding: Tensor,
    draw: Draw,
    settings: TrainSettings,
    dropout: float,
    noise: Generator,
    start: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The loss of a batch, a scalar, and the state after each of its clicks [N, H].

    `embedding` [R, H] holds the rows `draw.touched`; `start` [B, H] the states before the first clicks, None
    for zero. Two dropouts, each with a mask and a probability of its own: of the input embeddings, and of the
    states that the query is made from (what is carried on keeps all its entries).
    """
    x = drop(embedding[torch.from_numpy(draw.places).to(embedding.device)], dropout, noise)  # [N, H]
    return loss_of_inputs(network, x, embedding, draw, settings, noise, start)


def loss_of_inputs(
    network: Network,
    x: Tensor,
    embedding: Tensor,
    draw: Draw,
    settings: TrainSettings,
    noise: Generator,
    start: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The same from the clicked items x [N, H], entries dropped already."""
    device = embedding.device
    states = hidden_states(network.cell, input_gates(network.cell, x), draw.batch.active, start)  # [N, H]
    output = drop(states, settings.hidden_dropout, noise)  # [N, H]
    query = session_query(network.query, output, x) * settings.temperature  # [N, H]
    logits = query @ unit_items(embedding[: draw.candidates]).t()  # [N, C]
    target, weight = (torch.from_numpy(a).to(device) for a in (draw.columns, draw.batch.weights))
    log_chance = torch.from_numpy(draw.log_chance).to(device)
    return loss_function(settings)(logits, target, weight, log_chance), states


def drop(x: Tensor, probability: float, noise: Generator) -> Tensor:
    """Dropout: entries zero with this probability, the others scaled so that the mean stays."""
    if probability == 0:
        return x
    keep = torch.empty_like(x).bernoulli_(1 - probability, generator=noise)
    return x * keep.div_(1 - probability)
