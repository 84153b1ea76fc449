"""One training step in plain torch, gradients by autograd: any cell, loss and device that the settings name.

It says what is computed; `training.fused` is the quick way to the same for the defaults on a CPU.
N transitions of a batch, V items, C candidates, R embedding rows that a batch touches, H hidden size.
"""

import torch
from torch import Generator, Tensor

from training.draws import Draw
from training.losses import reduce_by_log_chance, weighted_cross_entropy
from training.network import Network, hidden_states
from training.optimiser import Optimiser
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
        loss = batch_loss(network, embedding, draw, self._settings, self._dropout, self._noise)
        embedding_gradient, *gradients = torch.autograd.grad(loss, [embedding, *network.dense])
        self._embedding_optimiser.step(embedding_gradient, learning_rate, rows)
        for optimiser, gradient in zip(self._dense_optimisers, gradients, strict=True):
            optimiser.step(gradient, learning_rate)
        return loss.item()

    def close(self) -> None:
        """Nothing is held."""


def batch_loss(
    network: Network, embedding: Tensor, draw: Draw, settings: TrainSettings, dropout: float, noise: Generator
) -> Tensor:
    """The loss of a batch, a scalar; `embedding` [R, H] holds the rows `draw.touched`."""
    x = embedding[torch.from_numpy(draw.places).to(embedding.device)]  # [N, H]
    return loss_of_inputs(network, drop(x, dropout, noise), embedding, draw, settings.temperature)


def loss_of_inputs(network: Network, x: Tensor, embedding: Tensor, draw: Draw, temperature: float) -> Tensor:
    """The same from the clicked items x [N, H], entries dropped already."""
    device = embedding.device
    states = hidden_states(network.cell, input_gates(network.cell, x), draw.batch.active)  # [N, H]
    query = session_query(network.query, states, x) * temperature  # [N, H]
    logits = query @ unit_items(embedding[: draw.candidates]).t()  # [N, C]
    target = torch.from_numpy(draw.columns).to(device)
    logits = reduce_by_log_chance(logits, target, torch.from_numpy(draw.log_chance).to(device))
    return weighted_cross_entropy(logits, target, torch.from_numpy(draw.batch.weights).to(device))


def drop(x: Tensor, probability: float, noise: Generator) -> Tensor:
    """Dropout: entries zero with this probability, the others scaled so that the mean stays."""
    if probability == 0:
        return x
    keep = torch.empty_like(x).bernoulli_(1 - probability, generator=noise)
    return x * keep.div_(1 - probability)
