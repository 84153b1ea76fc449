"""Numba: the gates of a GRU step and their gradient, of `worker.core.step.recurrent_step`.

b sessions that go on at a time step, H hidden size; gates are stacked reset, update, new.

Each loop goes over views of one row and writes to few of them: LLVM makes vector code where it can ask
beforehand whether any two overlap. One loop over matrices took ten times as long.
"""

import numpy as np
from numpy.typing import NDArray

from training.kernels import kernel, sigmoid, use_wide_vectors

Floats = NDArray[np.float32]


@kernel
def gates_forward(
    gates: Floats,
    from_state: Floats,
    b_ih: Floats,
    b_hh: Floats,
    before: Floats,
    after: Floats,
    begin: int,
    end: int,
    go_on: int,
) -> None:
    """One step, rows begin to end; what the gradient needs is left in `gates` and `from_state`.

    Args:
        gates: [n, 3H]; W_ih·x in, the activations r, z, n out.
        from_state: [n, 3H]; W_hh·h in. Out, in the last third, with b_hh.
        b_ih, b_hh: [3H].
        before: [n, H], the states h. The first `go_on` states after are written to the rows from `end` on.
        after: [n, H], out.
        begin, end: rows of this step.
        go_on: sessions of the next one, the leading ones of this.
    """
    use_wide_vectors()
    size = after.shape[1]
    new_b_ih, new_b_hh = b_ih[2 * size :], b_hh[2 * size :]
    for i in range(begin, end):
        reset_and_update, both_from_state = gates[i, : 2 * size], from_state[i, : 2 * size]
        for j in range(2 * size):
            reset_and_update[j] = sigmoid(reset_and_update[j] + both_from_state[j] + (b_ih[j] + b_hh[j]))
        reset, update, new = gates[i, :size], gates[i, size : 2 * size], gates[i, 2 * size :]
        new_from_state, old, state = from_state[i, 2 * size :], before[i], after[i]
        for j in range(size):
            new_from_state[j] += new_b_hh[j]
            bent = new[j] + new_b_ih[j] + reset[j] * new_from_state[j]
            new[j] = np.float32(2) * sigmoid(np.float32(2) * bent) - np.float32(1)  # tanh
        for j in range(size):
            state[j] = new[j] + update[j] * (old[j] - new[j])
    before[end : end + go_on] = after[begin : begin + go_on]


@kernel
def gates_backward(
    gates: Floats,
    from_state: Floats,
    before: Floats,
    gradient: Floats,
    through_state: Floats,
    begin: int,
    end: int,
    came_from: int,
    went_on: int,
) -> None:
    """Gradient of one step, rows begin to end, in place of what the step has left.

    Args:
        gates: [n, 3H]; r, z, n in, ∂/∂(W_ih·x + b_ih) out.
        from_state: [b, 3H]; in the last third W_hh·h + b_hh in, ∂/∂(W_hh·h + b_hh) out.
        before: [n, H], the states h.
        gradient: [n, H], ∂/∂(states after). To the rows of the step before, the share of ∂/∂h is added that
            does not go through `from_state`.
        through_state: [went_on or more, H], the other share, of the states after: of the next step.
        begin, end: rows of this step.
        came_from: where the rows of the step before begin; `begin` if there is none.
        went_on: sessions of the next step.
    """
    use_wide_vectors()
    size, one = before.shape[1], np.float32(1)
    for i in range(begin, begin + went_on):
        g, more = gradient[i], through_state[i - begin]
        for j in range(size):
            g[j] += more[j]
    for i in range(begin, end):
        reset, update, new = gates[i, :size], gates[i, size : 2 * size], gates[i, 2 * size :]
        new_from_state = from_state[i, 2 * size :]
        g, old = gradient[i], before[i]
        if came_from < begin:
            old_gradient = gradient[came_from + i - begin]
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
        from_state[i, : 2 * size] = gates[i, : 2 * size]
