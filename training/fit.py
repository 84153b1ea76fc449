"""The training loop, from sessions to weights; read it from top to bottom.

N transitions of a batch, V items, C candidates, R embedding rows that a batch touches, H hidden size.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Generator

from schemas.model_artefact import MAX_WEIGHT
from training.batches import Batch, Pieces, batches, cut
from training.checkpoint import Checkpoints, Position, TrainingState
from training.draws import Draw, ahead, draw, state_of
from training.errors import DeviceError, DivergedError, StopTraining
from training.fused import FusedStep, can_be_fused, warm_up
from training.meter import FitProgress, Meter
from training.network import Network, copy_of, new_network, parameters, weights
from training.optimiser import new_optimiser
from training.plain import PlainStep
from training.precision import low_precision
from training.sampling import CandidateSampler, candidate_sampler
from training.session_parallel import SlotStep, slot_steps
from training.sessions import Sessions
from training.settings import (
    TrainSettings,
    architecture_for,
    batch_transitions_for,
    embedding_dropout_for,
    epochs_for,
)


@dataclass(frozen=True, eq=False)
class EpochEnd:
    """An epoch is over.

    Attributes:
        epoch, epochs: this one, from 1, and how many there are.
        loss: mean over the epoch.
        network: as it is now; to look at, it will be trained on.
        seconds: of training until here, without what `on_epoch` took.
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

    So they do when training is broken off anywhere and goes on from a checkpoint. What another number of
    threads changes stands at `TrainSettings.threads`.

    Args:
        sessions: of at least two clicks each, oldest first; item indices in [0, items).
        items: size of the vocabulary.
        settings: the recipe.
        report: called every few steps and at the end. It and `on_epoch` may raise `StopTraining`: the network
            is then returned as it is.
        start: weights to begin with, left as they are; None draws them.
        checkpoints: where the state is kept and gone on from.
        on_epoch: called at the end of each epoch; of the last one, too, where training goes on from its end.

    Raises:
        DivergedError: see there.
        DeviceError: there is no such device.
        CheckpointError, ResumeError: as `checkpoints` raises them.
    """
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("torch finds no GPU that it can use here: train with --device cpu")
    plan = _plan(sessions, items, settings)
    with closing(_Run(plan, start)) as run, torch_threads(run.torch_threads):
        state = None if checkpoints is None else checkpoints.load()
        if state is not None:
            run.restore(state)
        meter = Meter(run.at, plan.epochs, plan.events_total, plan.items, report)
        try:
            if run.at.epoch > plan.epochs:  # it died after its last step: what is known of it is told again
                meter.tell_end()
                _tell_epoch(run, plan, meter, on_epoch)
            while run.at.epoch <= plan.epochs:
                _run_epoch(run, plan, meter, checkpoints, on_epoch)
        except StopTraining:
            run.check()
            if checkpoints is not None:
                checkpoints.save(run.state())
        return run.network


@dataclass(frozen=True, eq=False)
class _Plan:
    """What does not change during a training."""

    settings: TrainSettings
    sessions: Sessions
    items: int
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
    return _Plan(
        settings=settings,
        sessions=sessions,
        items=items,
        epochs=epochs,
        events_total=epochs * transitions,
        batch_transitions=batch_transitions,
        dropout=embedding_dropout_for(settings, clicks),
        pieces=cut(sessions, settings.max_transitions),
        sampler=sampler_for(sessions, items, settings),
    )


def sampler_for(sessions: Sessions, items: int, settings: TrainSettings) -> CandidateSampler | None:
    """What draws the candidates of a batch; None where the whole catalogue is scored."""
    if items <= settings.full_softmax_items:
        return None
    support = np.bincount(sessions.items, minlength=items)
    # Nothing comes before the first click of a session: it is an input and never a target.
    targets = support - np.bincount(sessions.items[sessions.starts[:-1]], minlength=items)
    batch_transitions = batch_transitions_for(settings, len(sessions.items))
    return candidate_sampler(support, targets, settings.negative_alpha, settings.negatives, batch_transitions)


class _Run:
    """What a step changes: weights, optimisers, generators, position."""

    def __init__(self, plan: _Plan, start: Network | None) -> None:
        settings = plan.settings
        self.rng = np.random.default_rng(settings.seed)
        self._rng_state = state_of(self.rng)
        drawing = Generator().manual_seed(settings.seed)
        drawn = new_network(architecture_for(settings, plan.items, plan.sessions.transitions), drawing)
        self.network = copy_of(drawn if start is None else start, settings.device)
        self._noise = Generator(settings.device).manual_seed(settings.seed)
        self._tables = [new_optimiser(settings, table) for table in self.network.tables]
        self._dense = [new_optimiser(settings, parameter) for parameter in self.network.dense]
        self.at = Position()
        self._step = self._new_step(plan)
        # The fused step has threads of its own; two kinds of them fight for the processor.
        self.torch_threads = settings.threads if isinstance(self._step, PlainStep) else 1

    def _new_step(self, plan: _Plan) -> FusedStep | PlainStep:
        settings = plan.settings
        if can_be_fused(settings):
            low = low_precision(settings)
            warm_up(settings, low)
            return FusedStep(self.network, self._tables[0], self._dense, settings, plan.dropout, low)
        return PlainStep(self.network, self._tables, self._dense, settings, plan.dropout, self._noise)

    def state(self) -> TrainingState:
        """Everything, as views."""
        self.at.rng = self._rng_state
        tensors = {**weights(self.network), **self._step.state(), "noise": self._noise.get_state().numpy()}
        for index, optimiser in enumerate((*self._tables, *self._dense)):
            tensors |= {f"moments_{index}.{name}": tensor for name, tensor in optimiser.state().items()}
        return TrainingState(self.at, tensors)

    @torch.no_grad()
    def restore(self, state: TrainingState) -> None:
        """Go on from a state."""
        self.at = state.position
        self.rng.bit_generator.state = self._rng_state = self.at.rng
        self._noise.set_state(torch.from_numpy(state.tensors["noise"]))
        self._step.restore(state.tensors)
        for name, parameter in parameters(self.network).items():
            parameter.copy_(torch.from_numpy(state.tensors[name]))
        for index, optimiser in enumerate((*self._tables, *self._dense)):
            names = optimiser.state()
            optimiser.restore({name: state.tensors[f"moments_{index}.{name}"] for name in names})

    def check(self) -> None:
        """Look at the weights.

        Raises:
            DivergedError: one is no number, or larger than a model may hold.
        """
        for name, array in weights(self.network).items():
            if not (np.abs(array) <= MAX_WEIGHT).all():
                raise DivergedError(
                    f"{name} holds NaN or numbers beyond ±{MAX_WEIGHT:,.0f}: lower the learning rate"
                )

    def epoch(self, plan: _Plan) -> Iterator[tuple[float, int]]:
        """Learn what is left of this epoch; loss and transitions of each step."""
        prepared: Iterator[tuple[Draw, Any]] = ((d, self._step.prepare(d)) for d in self._draws(plan))
        for drawn, step in ahead(prepared) if plan.settings.threads > 1 else prepared:
            rate = learning_rate(plan.settings, self.at.learned / plan.events_total)
            loss = self._step(step, rate)
            self._rng_state = drawn.rng_after  # the generator itself is ahead of this step
            yield loss, len(drawn.batch.inputs)

    def _draws(self, plan: _Plan) -> Iterator[Draw]:
        """The batches of this epoch that are not done, each with what it is scored against."""
        done, now = self.at.batches, state_of(self.rng)
        if done == 0:
            self.at.epoch_rng = now
        else:
            # The order of batches is drawn when an epoch starts: draw it again, then go on from now.
            self.rng.bit_generator.state = self.at.epoch_rng
        order = epoch_batches(plan, self.rng)
        if done:
            for _ in islice(order, done):
                pass
            self.rng.bit_generator.state = now
        for batch, slots in order:
            yield draw(batch, plan.items, plan.sampler, self.rng, slots)

    def close(self) -> None:
        """Let the threads go."""
        self._step.close()


def epoch_batches(plan: _Plan, rng: np.random.Generator) -> Iterator[tuple[Batch, SlotStep | None]]:
    """The batches of an epoch; beside each the slots that carry their states on, where there are any."""
    if plan.settings.batching == "session_parallel":
        for step in slot_steps(plan.sessions, plan.settings.parallel_sessions):
            yield step.batch, step
    else:
        for batch in batches(plan.pieces, plan.batch_transitions, rng):
            yield batch, None


def _run_epoch(
    run: _Run,
    plan: _Plan,
    meter: Meter,
    checkpoints: Checkpoints | None,
    on_epoch: Callable[[EpochEnd], None] | None,
) -> None:
    """Learn what is left of this epoch."""
    for loss, events in run.epoch(plan):
        meter.add(loss, events)
        if checkpoints is not None and checkpoints.due():
            meter.check()
            run.check()
            checkpoints.save(run.state())
    run.check()  # also without checkpoints: no loss is taken after the last step
    at = run.at
    at.losses.append(at.loss_sum / at.loss_events)
    at.epoch, at.batches, at.loss_sum, at.loss_events = at.epoch + 1, 0, 0.0, 0
    if checkpoints is not None:
        meter.check()
        checkpoints.save(run.state())
    _tell_epoch(run, plan, meter, on_epoch)


def _tell_epoch(run: _Run, plan: _Plan, meter: Meter, on_epoch: Callable[[EpochEnd], None] | None) -> None:
    """Tell of the epoch that has just ended."""
    if on_epoch is not None:
        at, losses = run.at, tuple(run.at.losses)
        with meter.left_out():
            on_epoch(EpochEnd(at.epoch - 1, plan.epochs, losses[-1], run.network, at.seconds, losses))


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
