"""Numba: the gates of a GRU step and their gradient, of `worker.core.step.recurrent_step`.

b sessions that go on at a time step, H hidden size; gates are stacked reset, update, new.
"""

import numpy as np
from numpy.typing import NDArray

from training.kernels import kernel, sigmoid

Floats = NDArray[np.float32]


@kernel
def gates_forward(gates: Floats, from_state: Floats, before: Floats, after: Floats) -> None:
    """One step; `gates` are overwritten with the activations r, z, n, which the gradient needs.

    Args:
        gates: [b, 3H], the part from the input.
        from_state: [b, 3H], W_hh·h + b_hh.
        before: [b, H], the states h.
        after: [b, H], out.
    """
    count, size = after.shape
    for i in range(count):
        for j in range(size):
            reset = sigmoid(gates[i, j] + from_state[i, j])
            update = sigmoid(gates[i, size + j] + from_state[i, size + j])
            bent = gates[i, 2 * size + j] + reset * from_state[i, 2 * size + j]
            new = np.float32(2) * sigmoid(np.float32(2) * bent) - np.float32(1)  # tanh
            after[i, j] = new + update * (before[i, j] - new)
            gates[i, j], gates[i, size + j], gates[i, 2 * size + j] = reset, update, new


@kernel
def gates_backward(
    gates: Floats, from_state: Floats, before: Floats, gradient: Floats, before_gradient: Floats
) -> None:
    """Gradient of one step, in place of what the step has left.

    Args:
        gates: [b, 3H]; r, z, n in, ∂/∂(part from the input) out.
        from_state: [b, 3H]; W_hh·h + b_hh in, ∂/∂ of it out.
        before: [b, H], the states h.
        gradient: [b, H], ∂/∂(states after).
        before_gradient: [b, H]; the share of ∂/∂h that does not go through `from_state` is added.
    """
    count, size = before.shape
    one = np.float32(1)
    for i in range(count):
        for j in range(size):
            reset, update, new = gates[i, j], gates[i, size + j], gates[i, 2 * size + j]
            g = gradient[i, j]
            d_update = g * (before[i, j] - new) * update * (one - update)
            d_new = g * (one - update) * (one - new * new)
            d_reset = d_new * from_state[i, 2 * size + j] * reset * (one - reset)
            before_gradient[i, j] += g * update
            gates[i, j], gates[i, size + j], gates[i, 2 * size + j] = d_reset, d_update, d_new
            from_state[i, j], from_state[i, size + j] = d_reset, d_update
            from_state[i, 2 * size + j] = d_new * reset
