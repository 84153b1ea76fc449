"""A few real sessions, with what the model would have recommended after each click.

They are picked before anybody has seen how the model does on them: typical length, then by a fixed seed. Only
if all of them go well, or all of them badly, one is exchanged, so that the reader sees both.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.report.data import ExampleStep
from training.sessions import UNKNOWN, Sessions
from worker.core.session_model import SessionModel

SHOWN = 4
RECOMMENDED = 5
SHORTEST, LONGEST = 4, 9
"""Clicks of an example, where the log has such sessions: a story, and short enough to be read."""
LOOKED_AT = 60
"""Sessions among which a hit, or a miss, is looked for."""
HIT = 20
"""A rank up to this is one, as in recall@20."""
SEED = 1


def pick_examples(
    model: SessionModel, test: Sessions, log_item_ids: list[str], rows: NDArray[np.int32]
) -> list[list[ExampleStep]]:
    """Pick sessions of the test part and play them through.

    Args:
        model: recommends.
        test: item indices are those of the log.
        log_item_ids: the items of the log.
        rows: int32, row of the model's vocabulary for each item of the log, or `UNKNOWN`.
    """
    chosen: list[list[ExampleStep]] = []
    for session in _typical(test):
        items = test.items[test.starts[session] : test.starts[session + 1]]
        steps = play(model, [log_item_ids[item] for item in items], rows[items])
        if len(chosen) < SHOWN:
            chosen.append(steps)
        elif _adds_contrast(chosen, steps):
            chosen[-1] = steps
        if len(chosen) == SHOWN and _kinds(chosen) == {True, False}:
            break
    return chosen


def play(model: SessionModel, clicked: list[str], rows: NDArray[np.int32]) -> list[ExampleStep]:
    """What would have been recommended after each click of a session but the last.

    Args:
        model: recommends.
        clicked: item ids.
        rows: int32, their rows in the model's vocabulary, or `UNKNOWN`: such a click changes nothing.
    """
    steps: list[ExampleStep] = []
    scores: Tensor | None = None
    state = model.start(1)
    with torch.no_grad():
        for index, came in enumerate(clicked[1:]):
            row, came_row = int(rows[index]), int(rows[index + 1])
            if row != UNKNOWN:
                clicks = torch.tensor([row])
                state = model.step(clicks, state)
                scores = (model.ask(state, clicks) @ model.item_matrix.t())[0]  # [V]
            recommended: list[str] = []
            rank = None
            if scores is not None:
                best = scores.topk(min(RECOMMENDED, len(scores))).indices.tolist()
                recommended = [model.items[item] for item in best]
                if came_row != UNKNOWN:
                    rank = len(scores) - int((scores < scores[came_row]).sum())
            steps.append(ExampleStep(clicked[index], row != UNKNOWN, recommended, came, rank))
    return steps


def is_hit(step: ExampleStep) -> bool:
    """Whether what came was among the first twenty."""
    return step.rank is not None and step.rank <= HIT


def _typical(test: Sessions) -> Iterator[int]:
    """Sessions of typical length in an order that depends on the seed alone; at most `LOOKED_AT`."""
    lengths = test.lengths
    typical = np.flatnonzero((lengths >= SHORTEST) & (lengths <= LONGEST))
    if len(typical) < SHOWN:  # whatever is nearest
        middle = (SHORTEST + LONGEST) / 2
        typical = np.argsort(np.abs(lengths - middle), kind="stable")[:SHOWN]
        typical = typical[lengths[typical] <= 2 * LONGEST]
    drawn = np.random.default_rng(SEED).permutation(typical)[:LOOKED_AT]
    return iter(drawn.tolist())


def _kinds(chosen: list[list[ExampleStep]]) -> set[bool]:
    return {is_hit(step) for steps in chosen for step in steps}


def _adds_contrast(chosen: list[list[ExampleStep]], steps: list[ExampleStep]) -> bool:
    return not {is_hit(step) for step in steps} <= _kinds(chosen)
