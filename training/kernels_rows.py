"""Numba: rows of the embedding on their way into a batch, and their update after it.

V items, N transitions, R rows that a batch touches, C candidates, H hidden size.
"""

import numpy as np
from numpy.typing import NDArray

from training.kernels import kernel, narrow, part_of_kernel, widen
from training.kernels_loss import TINY

Floats = NDArray[np.float32]
Low = NDArray[np.uint16] | NDArray[np.float32]
Rows = NDArray[np.int64]


@part_of_kernel
def hashed(bits: np.uint32) -> np.uint32:
    """The 32-bit finaliser of MurmurHash3. Cast at every step: numba widens sums and products to 64 bits."""
    bits = np.uint32(np.uint32(bits ^ (bits >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    bits = np.uint32(np.uint32(bits ^ (bits >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    return np.uint32(bits ^ (bits >> np.uint32(16)))


@kernel
def gather_inputs(embedding: Floats, rows: Rows, probability: float, seed: int, x: Low, keep: Floats) -> None:
    """x[i] = embedding[rows[i]] · keep[i], with `keep` 0 by this probability, else what keeps the mean.

    The coin of an entry is a hash of its place and the seed: the same whoever throws it, no state to save.
    """
    size = embedding.shape[1]
    below = np.uint32(min(probability * 4294967296.0, 4294967295.0))
    scale = np.float32(1.0 / (1.0 - probability))
    low, high = np.uint32(seed & 0xFFFFFFFF), np.uint32((seed >> 32) & 0xFFFFFFFF)
    for i in range(len(rows)):
        first, row, kept, out = np.uint32(i * size), embedding[rows[i]], keep[i], x[i]
        for j in range(size):
            bits = hashed(np.uint32(hashed(np.uint32(np.uint32(first + np.uint32(j)) ^ low)) + high))
            share = scale if bits >= below else np.float32(0)
            kept[j] = share
            out[j] = narrow(row[j] * share, out)


@kernel
def group(places: Rows, starts: Rows, order: Rows) -> None:
    """Counting sort: order[starts[r] : starts[r + 1]] are the i with places[i] = r, ascending.

    Args:
        places: [N], each in [0, R).
        starts: [R + 1], out.
        order: [N], out.
    """
    starts[:] = 0
    for place in places:
        starts[place + 1] += 1
    for r in range(1, len(starts)):
        starts[r] += starts[r - 1]
    for i in range(len(places)):
        order[starts[places[i]]] = i
        starts[places[i]] += 1
    for r in range(len(starts) - 1, 0, -1):
        starts[r] = starts[r - 1]
    starts[0] = 0


ADAM, ADAGRAD = 0, 1


@part_of_kernel
def step_row(
    parameter: Floats, first: Floats, second: Floats, gradient: Floats, kind: int, constants: Floats
) -> None:
    """One step of `training.optimiser.Adam` or `Adagrad` on one row [H] in place, moments too."""
    c0, c1, c2, c3 = constants[0], constants[1], constants[2], constants[3]
    if kind == ADAM:  # 1 − β1, 1 − β2, rate / (1 − β1^t), 1 / (1 − β2^t)
        for j in range(len(gradient)):
            first[j] += c0 * (gradient[j] - first[j])
            second[j] += c1 * (gradient[j] * gradient[j] - second[j])
            parameter[j] -= c2 * first[j] / (np.sqrt(second[j] * c3) + constants[4])
    else:  # momentum, rate
        for j in range(len(gradient)):
            second[j] += gradient[j] * gradient[j]
            first[j] = c0 * first[j] - c1 * gradient[j] / (np.sqrt(second[j]) + constants[4])
            parameter[j] += first[j]


@kernel
def step_rows(
    parameter: Floats, first: Floats, second: Floats, gradient: Floats, kind: int, constants: Floats
) -> None:
    """`step_row` on all rows of a small matrix."""
    for row in range(len(parameter)):
        step_row(parameter[row], first[row], second[row], gradient[row], kind, constants)


@part_of_kernel
def through_unit_length(vector: Floats, gradient: Floats) -> None:
    """From the gradient of vector / |vector| [H] to that of the vector, in place."""
    square, along = np.float32(0), np.float32(0)
    for j in range(len(vector)):
        square += vector[j] * vector[j]
        along += vector[j] * gradient[j]
    unit = np.float32(1) / np.sqrt(max(square, TINY))
    along *= unit * unit
    for j in range(len(vector)):
        gradient[j] = unit * (gradient[j] - along * vector[j])


@kernel
def update_rows(
    embedding: Floats,
    first: Floats,
    second: Floats,
    touched: Rows,
    candidates: int,
    begin: int,
    end: int,
    items_gradient: Low,
    target_starts: Rows,
    target_order: Rows,
    pull: Floats,
    query: Floats,
    input_starts: Rows,
    input_order: Rows,
    inputs_gradient: Floats,
    kind: int,
    constants: Floats,
) -> None:
    """Add up what each touched row has got from all sides, and step; always in the same order.

    A row is met as a candidate, in `items_gradient`, which lacks what it got as the positive of transitions
    (pull · query), and then as an input. The first two go through unit length.

    Args:
        embedding, first, second: [V, H], updated.
        touched: [R], distinct, candidates first.
        candidates: how many of them are that.
        begin, end: which of the touched rows.
        items_gradient: [parts, C or more, H or more], gradient of the unit vectors.
        target_starts, target_order: transitions that have this row as their positive, see `group`.
        pull, query: [N] and [N, H], see `kernels_loss.cross_entropy`.
        input_starts, input_order: transitions that have this row as their input.
        inputs_gradient: [N, H], gradient of the inputs.
        kind, constants: see `step_row`.
    """
    size = embedding.shape[1]
    gradient = np.empty(size, np.float32)
    for place in range(begin, end):
        row = touched[place]
        gradient[:] = 0
        if place < candidates:
            for part in range(items_gradient.shape[0]):
                for j in range(size):
                    gradient[j] += widen(items_gradient[part, place, j])
            for k in range(target_starts[place], target_starts[place + 1]):
                i = target_order[k]
                for j in range(size):
                    gradient[j] += pull[i] * query[i, j]
            through_unit_length(embedding[row], gradient)
        for k in range(input_starts[place], input_starts[place + 1]):
            i = input_order[k]
            for j in range(size):
                gradient[j] += inputs_gradient[i, j]
        step_row(embedding[row], first[row], second[row], gradient, kind, constants)
