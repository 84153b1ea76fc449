"""How far a training is, how fast, and whether it still makes sense."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from training.checkpoint import Position
from training.errors import DivergedError

REPORT_EVERY_STEPS = 10
EXPLODED = 1.5
WORSE_THAN_A_GUESS = 1.2
"""A mean loss above 1.5 times the first step's and 1 more is far worse than where it began; above 1.2 times
the log of the catalogue, far worse than a guess. Both together: stop. The first step alone says little: it
may be of old sessions, which weigh less, or of a model that knew its batch by heart."""

JUDGED_AT_LEAST = 1_000
"""Transitions in a mean that is judged so: ten steps of two or three sessions side by side have a mean that
jumps about. What is no number is seen at once."""


@dataclass(frozen=True)
class FitProgress:
    """Where it is: `events` of `events_total` transitions learned; mean loss since the last report."""

    epoch: int
    epochs: int
    events: int
    events_total: int
    loss: float
    events_per_s: float


class Meter:
    """Counts what is learned, reports it, and stops a training that goes wrong."""

    def __init__(
        self, at: Position, epochs: int, events_total: int, items: int, report: Callable[[FitProgress], None]
    ) -> None:
        self._guess = math.log(items)
        self._at, self._epochs, self._events_total, self._report = at, epochs, events_total, report
        self._loss_sum, self._events, self._steps = 0.0, 0, 0  # since the last report
        self._judged_sum, self._judged_events = 0.0, 0  # of the mean that is judged next
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
        self._judged_sum, self._judged_events = self._judged_sum + loss * events, self._judged_events + events
        self._steps += 1
        if self._steps == REPORT_EVERY_STEPS or at.learned == self._events_total:
            self.check()
            self._pass_on()

    def tell_end(self) -> None:
        """Report a training that had ended before it was gone on with, at the speed that it had."""
        at = self._at
        speed = at.learned / at.seconds
        self._report(
            FitProgress(self._epochs, self._epochs, at.learned, self._events_total, at.losses[-1], speed)
        )

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """What is done in this block is no training: its time does not count."""
        began_s = time.perf_counter()
        try:
            yield
        finally:
            self._started_s += time.perf_counter() - began_s

    def check(self) -> None:
        """Look at the mean loss of late.

        Raises:
            DivergedError: it is no number, or has exploded.
        """
        if not math.isfinite(self._judged_sum):
            raise self._diverged(self._judged_sum)
        is_last = self._at.learned == self._events_total
        if not self._judged_events or (self._judged_events < JUDGED_AT_LEAST and not is_last):
            return
        loss, first = self._judged_sum / self._judged_events, self._at.first_loss or 0.0
        self._judged_sum, self._judged_events = 0.0, 0
        if loss > max(EXPLODED * first + 1, WORSE_THAN_A_GUESS * self._guess):
            raise self._diverged(loss)

    def _diverged(self, loss: float) -> DivergedError:
        first = self._at.first_loss or 0.0
        return DivergedError(
            f"the loss is {loss:.4g} in epoch {self._at.epoch}, it began with {first:.4g}:"
            " lower the learning rate"
        )

    def _pass_on(self) -> None:
        at = self._at
        speed = (at.learned - self._learned_before) / (at.seconds - self._seconds_before)
        loss = self._loss_sum / self._events
        self._loss_sum, self._events, self._steps = 0.0, 0, 0
        progress = FitProgress(at.epoch, self._epochs, at.learned, self._events_total, loss, speed)
        self._report(progress)
