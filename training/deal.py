"""A batch dealt out to parts that are worked on side by side. N transitions, R touched rows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.draws import Draw
from training.kernels_rows import group


@dataclass(frozen=True, eq=False)
class Part:
    """Transitions begin to end of the dealt batch, packed as in `training.batches`."""

    begin: int
    end: int
    active: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Groups:
    """Which transitions have to do with each touched row: order[starts[r] : starts[r + 1]], ascending.

    Attributes:
        starts: int64 [R + 1].
        order: int64 [N].
    """

    starts: NDArray[np.int64]
    order: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Dealt:
    """A draw in parts. Every part has the sessions k, k + parts, … of the batch, longest first.

    Attributes:
        draw: what was dealt; the arrays here are its own in another order.
        parts: those that got any session.
        inputs, targets: int64 [N], rows of the embedding.
        columns: int64 [N], places of the targets among the candidates.
        weights: float32 [N], divided by N.
        by_input, by_target: transitions of each touched row.
    """

    draw: Draw
    parts: list[Part]
    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    columns: NDArray[np.int64]
    weights: NDArray[np.float32]
    by_input: Groups
    by_target: Groups


def deal(draw: Draw, parts: int) -> Dealt:
    """Deal a batch out. The number of parts is part of the result: sums are taken part by part."""
    batch = draw.batch
    active = np.array(batch.active)
    begins = np.cumsum(active) - active
    session = np.arange(len(batch.inputs)) - np.repeat(begins, active)
    order = np.argsort(session % parts, kind="stable")
    columns = draw.columns[order]
    return Dealt(
        draw=draw,
        parts=_parts(active, parts),
        inputs=batch.inputs[order],
        targets=batch.targets[order],
        columns=columns,
        weights=batch.weights[order] / np.float32(len(order)),
        by_input=_groups(draw.places[order], len(draw.touched)),
        by_target=_groups(columns, len(draw.touched)),
    )


def _parts(active: NDArray[np.int64], parts: int) -> list[Part]:
    found, begin = [], 0
    for part in range(parts):
        mine = (active - part + parts - 1) // parts
        end = begin + int(mine.sum())
        if end > begin:
            found.append(Part(begin, end, mine[mine > 0]))
        begin = end
    return found


def _groups(places: NDArray[np.int64], rows: int) -> Groups:
    groups = Groups(np.empty(rows + 1, np.int64), np.empty(len(places), np.int64))
    group(places, groups.starts, groups.order)
    return groups
