"""The training loop, from sessions to weights; read it from top to bottom.

N transitions of a batch, V items, C candidates, R embedding rows that a batch touches, H hidden size.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from training.batches import Batch, batches, cut
from training.errors import DivergedError
from training.losses import (
    CandidateSampler,
    candidate_log_chance,
    candidate_sampler,
    reduce_by_log_chance,
    weighted_cross_entropy,
)
from training.network import Network, hidden_states, new_network
from training.optimiser import Adam
from training.sessions import Sessions
from training.settings import TrainSettings, batch_transitions_for, embedding_dropout_for, epochs_for
from worker.core.step import input_gates, session_query, unit_items

REPORT_EVERY_STEPS = 10


@dataclass(frozen=True, eq=False)
class EpochEnd:
    """What an epoch leaves behind.

    Attributes:
        epoch, epochs: this one, from 1, and how many there are.
        loss: mean over the epoch.
        network: as it is now; to look at, it will be trained on.
        seconds: of training until here, without what `on_epoch` took.
        losses: of every epoch until here.
    """

    epoch: int
    epochs: int
    loss: float
    network: Network
    seconds: float
    losses: tuple[float, ...]


@dataclass(frozen=True)
class FitProgress:
    """Where it is: `events` of `events_total` transitions learned; mean loss since the last report."""

    epoch: int
    epochs: int
    events: int
    events_total: int
    loss: float
    events_per_s: float


def fit(
    sessions: Sessions,
    items: int,
    settings: TrainSettings,
    report: Callable[[FitProgress], None],
    *,
    on_epoch: Callable[[EpochEnd], None] | None = None,
) -> Network:
    """Fit a session model. The same sessions, settings and build of torch give the same bytes.

    Args:
        sessions: of at least two clicks each, oldest first; item indices in [0, items).
        items: size of the vocabulary.
        settings: the recipe.
        report: called every few steps and at the end.
        on_epoch: called at each epoch's end; its time counts for nothing.

    Raises:
        DivergedError: see there.
    """
    with torch_threads(settings.threads):
        return _fit(sessions, items, settings, report, on_epoch)


def _fit(
    sessions: Sessions,
    items: int,
    settings: TrainSettings,
    report: Callable[[FitProgress], None],
    on_epoch: Callable[[EpochEnd], None] | None,
) -> Network:
    rng = np.random.default_rng(settings.seed)
    noise = Generator().manual_seed(settings.seed)
    network = new_network(items, settings.hidden_size, noise)
    embedding_adam = Adam(network.embedding)
    dense_adams = [Adam(parameter) for parameter in network.dense]

    transitions, clicks = sessions.transitions, len(sessions.items)
    epochs = epochs_for(settings, transitions)
    batch_transitions = batch_transitions_for(settings, clicks)
    dropout = embedding_dropout_for(settings, clicks)
    pieces = cut(sessions, settings.max_transitions)
    sampler = None
    if items > settings.full_softmax_items:
        support = np.bincount(sessions.items, minlength=items)
        sampler = candidate_sampler(support, settings.negative_alpha, settings.negatives, batch_transitions)

    total = epochs * transitions
    learned, loss_sum, loss_events, steps = 0, 0.0, 0, 0
    losses: tuple[float, ...] = ()
    started_s = time.perf_counter()
    for epoch in range(1, epochs + 1):
        epoch_loss = 0.0
        for batch in batches(pieces, batch_transitions, rng):
            rate = learning_rate(settings, learned / total)
            touched, candidates = touched_rows(batch, sampler, rng)
            rows = None if touched is None else torch.from_numpy(touched)
            embedding = network.embedding if rows is None else network.embedding[rows]  # [V or R, H]
            embedding = embedding.detach().requires_grad_()

            loss = batch_loss(
                network, embedding, batch, touched, candidates, sampler, settings, dropout, noise
            )
            embedding_gradient, *dense_gradients = torch.autograd.grad(loss, [embedding, *network.dense])

            embedding_adam.step(embedding_gradient, rate, rows)
            for adam, gradient in zip(dense_adams, dense_gradients, strict=True):
                adam.step(gradient, rate)

            events, steps = len(batch.inputs), steps + 1
            learned, loss_events = learned + events, loss_events + events
            loss_sum += loss.item() * events
            epoch_loss += loss.item() * events
            if steps % REPORT_EVERY_STEPS == 0 or learned == total:
                if not math.isfinite(loss_sum):
                    raise DivergedError(f"the loss is {loss_sum} in epoch {epoch}: lower the learning rate")
                speed = learned / (time.perf_counter() - started_s)
                report(FitProgress(epoch, epochs, learned, total, loss_sum / loss_events, speed))
                loss_sum, loss_events = 0.0, 0
        ended_s = time.perf_counter()
        losses = (*losses, epoch_loss / transitions)
        if on_epoch is not None:
            on_epoch(EpochEnd(epoch, epochs, losses[-1], network, ended_s - started_s, losses))
            started_s += time.perf_counter() - ended_s
    return network


def touched_rows(
    batch: Batch, sampler: CandidateSampler | None, rng: np.random.Generator
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
    """Embedding rows of this step [R] and the candidates among them [C], sorted; None for the catalogue."""
    if sampler is None:
        return None, None
    candidates = sampler.draw(batch.targets, rng)
    return np.union1d(candidates, batch.inputs), candidates


def batch_loss(
    network: Network,
    embedding: Tensor,
    batch: Batch,
    touched: NDArray[np.int64] | None,
    candidates: NDArray[np.int64] | None,
    sampler: CandidateSampler | None,
    settings: TrainSettings,
    dropout: float,
    noise: Generator,
) -> Tensor:
    """The loss of a batch, a scalar; `embedding` holds the rows `touched`, or all where that is None."""
    inputs = batch.inputs if touched is None else np.searchsorted(touched, batch.inputs)
    x = drop(embedding[torch.from_numpy(inputs)], dropout, noise)  # [N, H]
    states = hidden_states(network.cell, input_gates(network.cell, x), batch.active)  # [N, H]
    query = session_query(network.query, states, x) * settings.temperature  # [N, H]
    weight = torch.from_numpy(batch.weights)
    if sampler is None or touched is None or candidates is None:
        logits = query @ unit_items(embedding).t()  # [N, V]
        return weighted_cross_entropy(logits, torch.from_numpy(batch.targets), weight)
    places = torch.from_numpy(np.searchsorted(touched, candidates))
    logits = query @ unit_items(embedding[places]).t()  # [N, C]
    target = torch.from_numpy(np.searchsorted(candidates, batch.targets))
    logits = reduce_by_log_chance(logits, target, candidate_log_chance(sampler, candidates))
    return weighted_cross_entropy(logits, target, weight)


def drop(x: Tensor, probability: float, noise: Generator) -> Tensor:
    """Dropout: entries zero with this probability, the others scaled so that the mean stays."""
    if probability == 0:
        return x
    keep = torch.empty_like(x).bernoulli_(1 - probability, generator=noise)
    return x * keep.div_(1 - probability)


def learning_rate(settings: TrainSettings, progress: float) -> float:
    """Learning rate at `progress` in [0, 1): linear warm-up, then a cosine down to the final rate."""
    if progress < settings.warm_up:
        # Half a percent to start with: a first step of zero would be wasted.
        return settings.learning_rate * max(0.005, progress / settings.warm_up)
    down = (progress - settings.warm_up) / (1 - settings.warm_up)
    final = settings.final_rate
    return settings.learning_rate * (final + (1 - final) * (1 + math.cos(math.pi * down)) / 2)


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Run torch on so many threads within the block; the number is one per process."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
