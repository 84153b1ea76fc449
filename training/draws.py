"""What a step learns from, drawn and looked up ahead of it: so that it can be made while the last one runs.

N transitions of a batch, V items, C candidates, R embedding rows that a batch touches.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from training.batches import Batch
from training.sampling import CandidateSampler
from training.session_parallel import SlotStep

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Draw:
    """A batch and what it is scored against.

    Attributes:
        batch: the transitions.
        touched: int64 [R], distinct rows: the C candidates, ascending, then what else is clicked.
        candidates: C; all of the catalogue in full, with R = C = V.
        columns: int64 [N], where the targets are among the candidates.
        places: int64 [N], where the inputs are in `touched`.
        log_chance: float32 [C], what comes off each candidate's score.
        seed: of the coins that drop entries of this step.
        rng_after: state of the generator once all of this was drawn.
        slots: how states are carried on to this batch, None where all start from zero.
    """

    batch: Batch
    touched: NDArray[np.int64]
    candidates: int
    columns: NDArray[np.int64]
    places: NDArray[np.int64]
    log_chance: NDArray[np.float32]
    seed: int
    rng_after: dict[str, Any]
    slots: SlotStep | None = None


def draw(
    batch: Batch,
    items: int,
    sampler: CandidateSampler | None,
    rng: np.random.Generator,
    slots: SlotStep | None = None,
) -> Draw:
    """Draw for a batch; without a sampler the whole catalogue of `items` is scored."""
    seed = int(rng.integers(1 << 63))
    if sampler is None:
        everything = np.arange(items)
        chances = np.zeros(items, np.float32)
        after = state_of(rng)
        return Draw(batch, everything, items, batch.targets, batch.inputs, chances, seed, after, slots)
    candidates = sampler.draw(batch.targets, rng)
    places = np.searchsorted(candidates, batch.inputs)
    absent = candidates[np.minimum(places, len(candidates) - 1)] != batch.inputs
    others, other_of = np.unique(batch.inputs[absent], return_inverse=True)
    places[absent] = len(candidates) + other_of
    return Draw(
        batch=batch,
        touched=np.concatenate([candidates, others]),
        candidates=len(candidates),
        columns=np.searchsorted(candidates, batch.targets),
        places=places,
        log_chance=sampler.log_chance[candidates],
        seed=seed,
        rng_after=state_of(rng),
        slots=slots,
    )


def state_of(rng: np.random.Generator) -> dict[str, Any]:
    """State of the generator, to be set again."""
    return dict(rng.bit_generator.state)


def ahead(values: Iterator[T]) -> Iterator[T]:
    """The same values, each made on a thread of its own while the one before is used."""
    with ThreadPoolExecutor(1, "nextclick-draw") as pool:
        end = object()
        coming = pool.submit(next, values, end)
        while (value := coming.result()) is not end:
            coming = pool.submit(next, values, end)
            yield value  # type: ignore[misc]
