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
    gates: Floats, from_state: Floats, b_ih: Floats, b_hh: Floats, before: Floats, after: Floats
) -> None:
    """One step; what the gradient needs is left in `gates` and `from_state`.

    Args:
        gates: [b, 3H]; W_ih·x in, the activations r, z, n out.
        from_state: [b, 3H]; W_hh·h in. Out, in the last third, with b_hh.
        b_ih, b_hh: [3H].
        before: [b, H], the states h.
        after: [b, H], out.
    """
    use_wide_vectors()
    count, size = after.shape
    new_b_ih, new_b_hh = b_ih[2 * size :], b_hh[2 * size :]
    for i in range(count):
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


@kernel
def gates_backward(
    gates: Floats, from_state: Floats, before: Floats, gradient: Floats, before_gradient: Floats
) -> None:
    """Gradient of one step, in place of what the step has left.

    Args:
        gates: [b, 3H]; r, z, n in, ∂/∂(W_ih·x + b_ih) out.
        from_state: [b, 3H]; in the last third W_hh·h + b_hh in, ∂/∂(W_hh·h + b_hh) out.
        before: [b, H], the states h.
        gradient: [b, H], ∂/∂(states after).
        before_gradient: [b, H]; the share of ∂/∂h that does not go through `from_state` is added.
    """
    use_wide_vectors()
    count, size = before.shape
    one = np.float32(1)
    for i in range(count):
        reset, update, new = gates[i, :size], gates[i, size : 2 * size], gates[i, 2 * size :]
        new_from_state = from_state[i, 2 * size :]
        g, old, old_gradient = gradient[i], before[i], before_gradient[i]
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
