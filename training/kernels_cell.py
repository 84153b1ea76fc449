"""Numba: a GRU over packed sessions and back, one call each; the step is `worker.core.step.recurrent_step`.

n transitions of a part, H hidden size; gates are stacked reset, update, new. Factors of products ("low") are
bfloat16 as uint16, or float32; whatever else is float32.

Each loop goes over views of one row and writes to few of them: LLVM makes vector code where it can ask
beforehand whether any two overlap. One loop over matrices took ten times as long.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.kernels import kernel, narrow, part_of_kernel, sigmoid, use_wide_vectors
from training.products import product

Floats = NDArray[np.float32]
Low = NDArray[np.uint16] | NDArray[np.float32]


class Factors(NamedTuple):
    """The matrices of cell and query as they go into products; low."""

    w_ih: Low  # [3H, H]
    w_hh: Low  # [3H, H]
    query_hidden: Low  # [H, H]
    query_item: Low  # [H, H]


class Passed(NamedTuple):
    """What the way forward leaves for the way back; filled by `forward`."""

    gates: Floats  # [n, 3H], activations r, z, n
    from_state: Floats  # [n, 3H], W_hh·h, and b_hh in the last third
    before: Floats  # [n, H], the states h
    states: Floats  # [n, H], those after
    low_before: Low  # [n, H]
    low_states: Low  # [n, H]


class Scratch(NamedTuple):
    """What the way back writes on."""

    states_gradient: Floats  # [n, H], of the states after
    through_state: Floats  # [sessions, H], its share that comes by way of `from_state` of the next step
    low_gates: Low  # [n, 3H], gradient of W_ih·x + b_ih
    low_from_state: Low  # [n, 3H], gradient of W_hh·h + b_hh


class Dense(NamedTuple):
    """All that is trained but the embedding, or the gradients of it; in the order of `Network.dense`."""

    w_ih: Floats  # [3H, H]
    w_hh: Floats  # [3H, H]
    b_ih: Floats  # [3H]
    b_hh: Floats  # [3H]
    query_hidden: Floats  # [H, H]
    query_item: Floats  # [H, H]


@kernel
def forward(
    active: NDArray[np.int64], x: Low, weights: Factors, b_ih: Floats, b_hh: Floats, passed: Passed
) -> None:
    """All time steps of a part.

    Args:
        active: sessions of each step, not growing: the leading ones of the step before go on.
        x: [n, H], packed: the clicks of the first step, of the second, ….
        weights: see there.
        b_ih, b_hh: [3H].
        passed: out.
    """
    before, low_before = passed.before, passed.low_before
    product(x, weights.w_ih, passed.gates, False, True, False)
    before[: active[0]] = 0
    low_before[: active[0]] = 0
    passed.from_state[: active[0]] = 0
    begin = 0
    for step in range(len(active)):
        end = begin + active[step]
        if step > 0:
            product(low_before[begin:end], weights.w_hh, passed.from_state[begin:end], False, True, False)
        gates_forward(begin, end, b_ih, b_hh, passed)
        if step + 1 < len(active):
            go_on = active[step + 1]
            before[end : end + go_on] = passed.states[begin : begin + go_on]
            low_before[end : end + go_on] = passed.low_states[begin : begin + go_on]
        begin = end


@part_of_kernel
def gates_forward(begin: int, end: int, b_ih: Floats, b_hh: Floats, passed: Passed) -> None:
    """One time step, rows begin to end: W_ih·x and W_hh·h in, what `Passed` says out."""
    use_wide_vectors()
    size = passed.states.shape[1]
    new_b_ih, new_b_hh = b_ih[2 * size :], b_hh[2 * size :]
    for i in range(begin, end):
        gates, from_state = passed.gates[i], passed.from_state[i]
        reset_and_update, both_from_state = gates[: 2 * size], from_state[: 2 * size]
        for j in range(2 * size):
            reset_and_update[j] = sigmoid(reset_and_update[j] + both_from_state[j] + (b_ih[j] + b_hh[j]))
        reset, update, new = gates[:size], gates[size : 2 * size], gates[2 * size :]
        new_from_state = from_state[2 * size :]
        for j in range(size):
            new_from_state[j] += new_b_hh[j]
            bent = new[j] + new_b_ih[j] + reset[j] * new_from_state[j]
            new[j] = np.float32(2) * sigmoid(np.float32(2) * bent) - np.float32(1)  # tanh
        old, state, low_state = passed.before[i], passed.states[i], passed.low_states[i]
        for j in range(size):
            state[j] = new[j] + update[j] * (old[j] - new[j])
        for j in range(size):
            low_state[j] = narrow(state[j], low_state)


@kernel
def backward(
    active: NDArray[np.int64],
    x: Low,
    keep: Floats,
    asked_gradient: Low,
    weights: Factors,
    passed: Passed,
    scratch: Scratch,
    gradients: Dense,
    inputs_gradient: Floats,
) -> None:
    """Back through the query and through time; `passed` is used up.

    Args:
        active, x, weights: as in `forward`.
        keep: [n, H], what the rows of the embedding were multiplied with.
        asked_gradient: [n, H], ∂loss/∂(A·h + B·x).
        passed: as `forward` left it.
        scratch: written on.
        gradients: out.
        inputs_gradient: [n, H], out, of the rows of the embedding.
    """
    states_gradient, low_gates, low_from = scratch.states_gradient, scratch.low_gates, scratch.low_from_state
    product(asked_gradient, passed.low_states, gradients.query_hidden, True, False, False)
    product(asked_gradient, x, gradients.query_item, True, False, False)
    product(asked_gradient, weights.query_hidden, states_gradient, False, False, False)
    gradients.b_ih[:] = 0
    gradients.b_hh[:] = 0
    end, went_on = len(x), 0
    for step in range(len(active) - 1, -1, -1):
        begin = end - active[step]
        came_from = begin - active[step - 1] if step > 0 else begin
        for i in range(went_on):
            g, more = states_gradient[begin + i], scratch.through_state[i]
            for j in range(len(g)):
                g[j] += more[j]
        gates_backward(begin, end, came_from, passed, scratch, gradients)
        went_on = active[step]
        if step > 0:
            product(low_from[begin:end], weights.w_hh, scratch.through_state[:went_on], False, False, False)
        end = begin
    through_both = 2 * states_gradient.shape[1]  # reset and update get the same from either side
    gradients.b_hh[:through_both] = gradients.b_ih[:through_both]
    product(low_gates, x, gradients.w_ih, True, False, False)
    product(low_from, passed.low_before, gradients.w_hh, True, False, False)
    product(asked_gradient, weights.query_item, inputs_gradient, False, False, False)
    product(low_gates, weights.w_ih, inputs_gradient, False, False, True)
    for i in range(len(x)):
        row, kept = inputs_gradient[i], keep[i]
        for j in range(len(row)):
            row[j] *= kept[j]


@part_of_kernel
def gates_backward(
    begin: int, end: int, came_from: int, passed: Passed, scratch: Scratch, gradients: Dense
) -> None:
    """Gradient of one time step, rows begin to end.

    To the rows of the step before, from `came_from` on (`begin`: there is none), goes the share of ∂/∂h that
    does not go through `from_state`.
    """
    use_wide_vectors()
    size, one = passed.before.shape[1], np.float32(1)
    b_ih, new_b_hh = gradients.b_ih, gradients.b_hh[2 * size :]
    for i in range(begin, end):
        gates, new_from_state = passed.gates[i], passed.from_state[i, 2 * size :]
        reset, update, new = gates[:size], gates[size : 2 * size], gates[2 * size :]
        g, old = scratch.states_gradient[i], passed.before[i]
        if came_from < begin:
            old_gradient = scratch.states_gradient[came_from + i - begin]
            for j in range(size):
                old_gradient[j] += g[j] * update[j]
        for j in range(size):
            through_new = g[j] * (one - update[j])
            update[j] = through_new * update[j] * (old[j] - new[j])
            new[j] = through_new * (one - new[j] * new[j])
        for j in range(size):
            through_reset = new[j] * new_from_state[j] * (one - reset[j])
            new_from_state[j] = new[j] * reset[j]
            reset[j] *= through_reset
        low_gates, low_from = scratch.low_gates[i], scratch.low_from_state[i]
        for j in range(3 * size):
            low_gates[j] = narrow(gates[j], low_gates)
        low_from[: 2 * size] = low_gates[: 2 * size]
        low_new = low_from[2 * size :]
        for j in range(size):
            low_new[j] = narrow(new_from_state[j], low_new)
        for j in range(3 * size):
            b_ih[j] += gates[j]
        for j in range(size):
            new_b_hh[j] += new_from_state[j]
