"""The training loop, from sessions to weights; read it from top to bottom.

N transitions of a batch, V items, C candidates, R embedding rows that a batch touches, H hidden size, D width
of what a click feeds.
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
from training.settings import (
    TrainSettings,
    architecture_for,
    batch_transitions_for,
    embedding_dropout_for,
    epochs_for,
)
from worker.core.step import item_vectors, session_query

REPORT_EVERY_STEPS = 10


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
    sessions: Sessions, items: int, settings: TrainSettings, report: Callable[[FitProgress], None]
) -> Network:
    """Fit a session model. The same sessions, settings and build of torch give the same bytes.

    Args:
        sessions: of at least two clicks each, oldest first; item indices in [0, items).
        items: size of the vocabulary.
        settings: the recipe.
        report: called every few steps and at the end.

    Raises:
        DivergedError: see there.
    """
    with torch_threads(settings.threads):
        return _fit(sessions, items, settings, report)


def _fit(
    sessions: Sessions, items: int, settings: TrainSettings, report: Callable[[FitProgress], None]
) -> Network:
    rng = np.random.default_rng(settings.seed)
    noise = Generator().manual_seed(settings.seed)
    network = new_network(architecture_for(settings, items), noise)
    table_adams = [Adam(table) for table in network.tables]
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
    started_s = time.perf_counter()
    for epoch in range(1, epochs + 1):
        for batch in batches(pieces, batch_transitions, rng):
            rate = learning_rate(settings, learned / total)
            touched, candidates = touched_rows(network, batch, sampler, rng)
            rows = [torch.from_numpy(of) if of is not None else None for of in (touched, candidates)]
            parts = [
                (table if of is None else table[of]).detach().requires_grad_()  # [V, R or C, D or H]
                for table, of in zip(network.tables, rows, strict=False)
            ]

            loss = batch_loss(network, parts, batch, touched, candidates, sampler, dropout, noise)
            gradients = torch.autograd.grad(loss, [*parts, *network.dense])

            for adam, gradient, of in zip(table_adams, gradients, rows, strict=False):
                adam.step(gradient, rate, of)
            for adam, gradient in zip(dense_adams, gradients[len(parts) :], strict=True):
                adam.step(gradient, rate)

            events, steps = len(batch.inputs), steps + 1
            learned, loss_events = learned + events, loss_events + events
            loss_sum += loss.item() * events
            if steps % REPORT_EVERY_STEPS == 0 or learned == total:
                if not math.isfinite(loss_sum):
                    raise DivergedError(f"the loss is {loss_sum} in epoch {epoch}: lower the learning rate")
                speed = learned / (time.perf_counter() - started_s)
                report(FitProgress(epoch, epochs, learned, total, loss_sum / loss_events, speed))
                loss_sum, loss_events = 0.0, 0
    return network


def touched_rows(
    network: Network, batch: Batch, sampler: CandidateSampler | None, rng: np.random.Generator
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
    """Rows of the embedding of this step [R] and the candidates [C], sorted; None for the catalogue.

    A shared embedding's rows hold the candidates.
    """
    candidates = None if sampler is None else sampler.draw(batch.targets, rng)
    if network.output_embedding is not None:
        return np.unique(batch.inputs), candidates
    return None if candidates is None else np.union1d(candidates, batch.inputs), candidates


def batch_loss(
    network: Network,
    parts: list[Tensor],
    batch: Batch,
    touched: NDArray[np.int64] | None,
    candidates: NDArray[np.int64] | None,
    sampler: CandidateSampler | None,
    dropout: float,
    noise: Generator,
) -> Tensor:
    """The loss of a batch, a scalar.

    `parts` holds the rows `touched` of the embedding, all where that is None, and the rows `candidates` of
    the output embedding, where there is one.
    """
    wanted = network.architecture
    inputs = batch.inputs if touched is None else np.searchsorted(touched, batch.inputs)
    x = drop(parts[0][torch.from_numpy(inputs)], dropout, noise, wanted.item_embedding == "none")  # [N, D]
    states = hidden_states(wanted.cell, network.layers, x, batch.active)  # [N, H]
    query = session_query(network.query, states, x, wanted.score) * wanted.temperature  # [N, H]
    weight = torch.from_numpy(batch.weights)
    scored = parts[-1]
    if candidates is not None and touched is not None and network.output_embedding is None:
        scored = scored[torch.from_numpy(np.searchsorted(touched, candidates))]
    logits = query @ item_vectors(scored, wanted.score).t()  # [N, V or C]
    if sampler is None or candidates is None:
        return weighted_cross_entropy(logits, torch.from_numpy(batch.targets), weight)
    target = torch.from_numpy(np.searchsorted(candidates, batch.targets))
    logits = reduce_by_log_chance(logits, target, candidate_log_chance(sampler, candidates))
    return weighted_cross_entropy(logits, target, weight)


def drop(x: Tensor, probability: float, noise: Generator, whole_rows: bool = False) -> Tensor:
    """Dropout: entries zero with this probability, the others scaled so that the mean stays.

    Whole rows, where a row is what a one-hot input looked up: the one entry of such an input is there or not.
    """
    if probability == 0:
        return x
    keep = x.new_empty(len(x), 1 if whole_rows else x.shape[1])
    return x * keep.bernoulli_(1 - probability, generator=noise).div_(1 - probability)


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
