"""The training loop, from sessions to weights; read it from top to bottom.

N transitions of a batch, V items, C candidates, R embedding rows that a batch touches, H hidden size.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from training.batches import Batch, Pieces, batches, cut
from training.checkpoint import Checkpoints, Position, TrainingState
from training.errors import DivergedError, StopTraining
from training.losses import (
    CandidateSampler,
    candidate_log_chance,
    candidate_sampler,
    reduce_by_log_chance,
    weighted_cross_entropy,
)
from training.network import Network, copy_of, hidden_states, new_network, parameters, weights
from training.optimiser import Adam
from training.sessions import Sessions
from training.settings import TrainSettings, batch_transitions_for, embedding_dropout_for, epochs_for
from worker.core.step import input_gates, session_query, unit_items

REPORT_EVERY_STEPS = 10


EXPLODED = 1.5
"""A mean loss of more than so many times the first step's, and 1 more, is far worse than guessing: stop."""


@dataclass(frozen=True)
class FitProgress:
    """Where it is: `events` of `events_total` transitions learned; mean loss since the last report."""

    epoch: int
    epochs: int
    events: int
    events_total: int
    loss: float
    events_per_s: float


@dataclass(frozen=True, eq=False)
class EpochEnd:
    """An epoch is over.

    Attributes:
        epoch, epochs: this one, from 1, and how many there are.
        loss: mean over the epoch.
        network: as it is now; to look at, it will be trained on.
        seconds: of training until here.
        losses: of every epoch until here, also of those before a resume.
    """

    epoch: int
    epochs: int
    loss: float
    network: Network
    seconds: float
    losses: tuple[float, ...]


def fit(
    sessions: Sessions,
    items: int,
    settings: TrainSettings,
    report: Callable[[FitProgress], None],
    *,
    start: Network | None = None,
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[EpochEnd], None] | None = None,
) -> Network:
    """Fit a session model. The same sessions, settings and build of torch give the same bytes.

    So they do when training is broken off anywhere and goes on from a checkpoint.

    Args:
        sessions: of at least two clicks each, oldest first; item indices in [0, items).
        items: size of the vocabulary.
        settings: the recipe.
        report: called every few steps and at the end. It and `on_epoch` may raise `StopTraining`: the network
            is then returned as it is.
        start: weights to begin with, left as they are; None draws them.
        checkpoints: where the state is kept and gone on from.
        on_epoch: called at the end of each epoch.

    Raises:
        DivergedError: see there.
        CheckpointError, ResumeError: as `checkpoints` raises them.
    """
    with torch_threads(settings.threads):
        run = _Run(items, settings, start)
        plan = _plan(sessions, items, settings)
        state = None if checkpoints is None else checkpoints.load()
        if state is not None:
            run.restore(state)
        meter = _Meter(run.at, plan, report)
        try:
            while run.at.epoch <= plan.epochs:
                _run_epoch(run, plan, meter, checkpoints, on_epoch)
        except StopTraining:
            if checkpoints is not None:
                checkpoints.save(run.state())
        return run.network


@dataclass(frozen=True, eq=False)
class _Plan:
    """What does not change during a training."""

    settings: TrainSettings
    epochs: int
    events_total: int
    batch_transitions: int
    dropout: float
    pieces: Pieces
    sampler: CandidateSampler | None


def _plan(sessions: Sessions, items: int, settings: TrainSettings) -> _Plan:
    transitions, clicks = sessions.transitions, len(sessions.items)
    epochs = epochs_for(settings, transitions)
    batch_transitions = batch_transitions_for(settings, clicks)
    sampler = None
    if items > settings.full_softmax_items:
        support = np.bincount(sessions.items, minlength=items)
        sampler = candidate_sampler(support, settings.negative_alpha, settings.negatives, batch_transitions)
    return _Plan(
        settings=settings,
        epochs=epochs,
        events_total=epochs * transitions,
        batch_transitions=batch_transitions,
        dropout=embedding_dropout_for(settings, clicks),
        pieces=cut(sessions, settings.max_transitions),
        sampler=sampler,
    )


class _Run:
    """What a step changes: weights, optimisers, generators, position."""

    def __init__(self, items: int, settings: TrainSettings, start: Network | None) -> None:
        self.rng = np.random.default_rng(settings.seed)
        self.noise = Generator().manual_seed(settings.seed)
        drawn = new_network(items, settings.hidden_size, self.noise)
        self.network = drawn if start is None else copy_of(start)
        self.embedding_adam = Adam(self.network.embedding)
        self.dense_adams = [Adam(parameter) for parameter in self.network.dense]
        self.at = Position()

    def state(self) -> TrainingState:
        """Everything, as views."""
        self.at.rng = dict(self.rng.bit_generator.state)
        tensors = {**weights(self.network), "noise": self.noise.get_state().numpy()}
        for index, adam in enumerate((self.embedding_adam, *self.dense_adams)):
            tensors |= {f"adam_{index}.{name}": tensor for name, tensor in adam.state().items()}
        return TrainingState(self.at, tensors)

    @torch.no_grad()
    def restore(self, state: TrainingState) -> None:
        """Go on from a state."""
        self.at = state.position
        self.rng.bit_generator.state = self.at.rng
        self.noise.set_state(torch.from_numpy(state.tensors["noise"]))
        for name, parameter in parameters(self.network).items():
            parameter.copy_(torch.from_numpy(state.tensors[name]))
        for index, adam in enumerate((self.embedding_adam, *self.dense_adams)):
            adam.restore({name: state.tensors[f"adam_{index}.{name}"] for name in adam.state()})

    def step(self, batch: Batch, plan: _Plan) -> float:
        """Learn from a batch; returns its loss."""
        rate = learning_rate(plan.settings, self.at.learned / plan.events_total)
        touched, candidates = touched_rows(batch, plan.sampler, self.rng)
        rows = None if touched is None else torch.from_numpy(touched)
        embedding = self.network.embedding if rows is None else self.network.embedding[rows]  # [V or R, H]
        embedding = embedding.detach().requires_grad_()

        loss = batch_loss(
            self.network,
            embedding,
            batch,
            touched,
            candidates,
            plan.sampler,
            plan.settings,
            plan.dropout,
            self.noise,
        )
        embedding_gradient, *gradients = torch.autograd.grad(loss, [embedding, *self.network.dense])

        self.embedding_adam.step(embedding_gradient, rate, rows)
        for adam, gradient in zip(self.dense_adams, gradients, strict=True):
            adam.step(gradient, rate)
        return loss.item()


class _Meter:
    """Counts what is learned, reports it, and stops a training that goes wrong."""

    def __init__(self, at: Position, plan: _Plan, report: Callable[[FitProgress], None]) -> None:
        self._at, self._plan, self._report = at, plan, report
        self._loss_sum, self._events, self._steps = 0.0, 0, 0  # since the last report
        self._learned_before, self._seconds_before = at.learned, at.seconds
        self._started_s = time.perf_counter()

    def add(self, loss: float, events: int) -> None:
        """Count a step."""
        at = self._at
        if at.first_loss is None:
            at.first_loss = loss
        at.batches, at.learned = at.batches + 1, at.learned + events
        at.loss_sum, at.loss_events = at.loss_sum + loss * events, at.loss_events + events
        at.seconds = self._seconds_before + time.perf_counter() - self._started_s
        self._loss_sum, self._events = self._loss_sum + loss * events, self._events + events
        self._steps += 1
        if self._steps == REPORT_EVERY_STEPS or at.learned == self._plan.events_total:
            self.check()
            self._pass_on()

    def check(self) -> None:
        """Look at the mean loss since the last report.

        Raises:
            DivergedError: it is no number, or has exploded.
        """
        if not self._events:
            return
        loss, first = self._loss_sum / self._events, self._at.first_loss or 0.0
        if not math.isfinite(loss) or loss > EXPLODED * first + 1:
            raise DivergedError(
                f"the loss is {loss:.4g} in epoch {self._at.epoch}, it began with {first:.4g}:"
                " lower the learning rate"
            )

    def _pass_on(self) -> None:
        at = self._at
        speed = (at.learned - self._learned_before) / (at.seconds - self._seconds_before)
        loss = self._loss_sum / self._events
        self._loss_sum, self._events, self._steps = 0.0, 0, 0
        total, epochs = self._plan.events_total, self._plan.epochs
        self._report(FitProgress(at.epoch, epochs, at.learned, total, loss, speed))


def _run_epoch(
    run: _Run,
    plan: _Plan,
    meter: _Meter,
    checkpoints: Checkpoints | None,
    on_epoch: Callable[[EpochEnd], None] | None,
) -> None:
    """Learn what is left of this epoch."""
    for batch in _batches_left(run, plan):
        meter.add(run.step(batch, plan), len(batch.inputs))
        if checkpoints is not None and checkpoints.due():
            meter.check()
            checkpoints.save(run.state())
    at = run.at
    at.losses.append(at.loss_sum / at.loss_events)
    at.epoch, at.batches, at.loss_sum, at.loss_events = at.epoch + 1, 0, 0.0, 0
    if checkpoints is not None:
        meter.check()
        checkpoints.save(run.state())
    if on_epoch is not None:
        losses = tuple(at.losses)
        on_epoch(EpochEnd(at.epoch - 1, plan.epochs, losses[-1], run.network, at.seconds, losses))


def _batches_left(run: _Run, plan: _Plan) -> Iterator[Batch]:
    """The batches of this epoch that are not done."""
    done, now = run.at.batches, dict(run.rng.bit_generator.state)
    if done == 0:
        run.at.epoch_rng = now
    else:
        # The order of batches is drawn when an epoch starts: draw it again, then go on with today's state.
        run.rng.bit_generator.state = run.at.epoch_rng
    order = batches(plan.pieces, plan.batch_transitions, run.rng)
    if done:
        for _ in islice(order, done):
            pass
        run.rng.bit_generator.state = now
    yield from order


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
