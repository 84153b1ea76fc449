"""Numba: cosine scores and softmax cross-entropy around three bfloat16 products; see `training.fused`.

n transitions of a part, C candidates, H hidden size. Blocks that go into products ("low") are uint16
(bfloat16) or float32, and may be padded with zeros on the right and below.
"""

import numpy as np
from numpy.typing import NDArray

from training.kernels import BIAS, LOG2_E, exp, kernel, narrow, power_of_two, use_wide_vectors, widen

Floats = NDArray[np.float32]
Low = NDArray[np.uint16] | NDArray[np.float32]
Rows = NDArray[np.int64]

TINY = np.float32(1e-24)
"""As in `worker.core.step`: square of the length below which a vector is not stretched to unit length."""

TURNED = 128
"""Rows that are turned together, so that whole cache lines are written."""


@kernel
def unit_rows(embedding: Floats, rows: Rows, begin: int, end: int, low: Low, turned: Low) -> None:
    """low[i] = turned[:, i] = the unit vector along embedding[rows[i]], for begin ≤ i < end."""
    size = embedding.shape[1]
    for first in range(begin, end, TURNED):
        last = min(first + TURNED, end)
        for i in range(first, last):
            vector, unit = embedding[rows[i]], low[i]
            square = np.float32(0)
            for j in range(size):
                square += vector[j] * vector[j]
            scale = np.float32(1) / np.sqrt(max(square, TINY))
            for j in range(size):
                unit[j] = narrow(vector[j] * scale, low)
        for j in range(size):
            for i in range(first, last):
                turned[j, i] = low[i, j]


@kernel
def ask(
    asked: Floats,
    temperature: float,
    embedding: Floats,
    targets: Rows,
    query: Floats,
    low: Low,
    stretch: Floats,
    positive: Floats,
    positive_score: Floats,
) -> None:
    """Queries at length `temperature`, and the score of each one's positive in full precision.

    Args:
        asked: [n, H], of any length.
        temperature: length of a query.
        embedding: [V, H].
        targets: [n], rows of `embedding`.
        query: [n, H], out.
        low: [n or more, H or more], out: `query` for the product, zero below.
        stretch: [n], out: query = stretch · asked.
        positive: [n, H], out: unit vectors of the targets.
        positive_score: [n], out.
    """
    count, size = asked.shape
    for i in range(count):
        wanted, target, to, hit, rounded = asked[i], embedding[targets[i]], query[i], positive[i], low[i]
        square, length = np.float32(0), np.float32(0)
        for j in range(size):
            square += wanted[j] * wanted[j]
            length += target[j] * target[j]
        scale = np.float32(temperature) / np.sqrt(max(square, TINY))
        unit = np.float32(1) / np.sqrt(max(length, TINY))
        score = np.float32(0)
        for j in range(size):
            to[j] = wanted[j] * scale
            hit[j] = target[j] * unit
            score += to[j] * hit[j]
        for j in range(size):
            rounded[j] = narrow(to[j], low)
        stretch[i], positive_score[i] = scale, score
    zero = narrow(np.float32(0), low)
    for i in range(count, low.shape[0]):
        for j in range(size):
            low[i, j] = zero


def offsets(log_chance: Floats, shift: float) -> Floats:
    """What `exponentials` adds to scores in units of log 2, [C]: exp(score − log_chance − shift) is
    `power_of_two(score / log 2 + offset)`."""
    return BIAS - (log_chance + np.float32(shift)) * LOG2_E


@kernel
def exponentials(block: Low, offset: Floats, columns: Rows, total: Floats) -> None:
    """Turn scores into e = exp(score − log chance − shift) and add them up, in one pass over the block.

    Args:
        block: [C or more, n or more], a row for each candidate; scores in, e out, zero for the positives and
            in rows of the padding.
        offset: [C], see `offsets`.
        columns: [n], the candidate that is the positive of a transition.
        total: [n or more], out: sums of e over the negatives.
    """
    use_wide_vectors()
    candidates, width = block.shape
    used = len(offset)
    zero, lowest = narrow(np.float32(0), block), narrow(np.float32(-1e30), block)
    for i in range(len(columns)):
        block[columns[i], i] = lowest  # the positive is no negative
    total[:] = 0
    for candidate in range(used):
        for i in range(width):
            power = power_of_two(widen(block[candidate, i]) * LOG2_E + offset[candidate])
            block[candidate, i] = narrow(power, block)
            total[i] += power
    for candidate in range(used, candidates):
        for i in range(width):
            block[candidate, i] = zero
    for i in range(len(columns)):
        block[columns[i], i] = zero


@kernel
def cross_entropy(
    total: Floats,
    positive_score: Floats,
    weights: Floats,
    shift: float,
    query: Floats,
    pull: Floats,
    share: Floats,
    scaled: Low,
) -> float:
    """Loss and gradient of the weighted cross-entropy, but for the products.

    With s the scores less their log chance (not the positive's), e = exp(s − shift) and Z its sum over a
    transition, the gradient of its loss is weight · (e / Z − [positive]). What is common to a transition is
    left to the [n, H] sides of the products:
        ∂loss/∂query = share · (e @ items) + pull · positive      ∂loss/∂items = eᵀ @ (share · query) + …

    Args:
        total: [n or more], sums of e over the negatives.
        positive_score: [n].
        weights: [n], of the transitions, divided by their number.
        shift: at least as large as a score can be, to within the range of an exp; that of `offsets`.
        query: [n, H].
        pull: [n], out: weight · (e of the positive / Z − 1).
        share: [n], out: weight / Z.
        scaled: [n or more, H or more], out: share · query, zero below.

    Returns:
        The loss, summed.
    """
    count, size = query.shape
    down, zero = np.float32(shift), narrow(np.float32(0), scaled)
    loss = 0.0
    for i in range(count):
        right = exp(positive_score[i] - down)
        z = total[i] + right
        loss += weights[i] * (np.log(z) - (positive_score[i] - down))
        share[i] = weights[i] / z
        pull[i] = weights[i] * (right / z - np.float32(1))
        for j in range(size):
            scaled[i, j] = narrow(share[i] * query[i, j], scaled)
    for i in range(count, scaled.shape[0]):
        for j in range(size):
            scaled[i, j] = zero
    return loss


@kernel
def query_gradient(
    mixed: Low,
    share: Floats,
    pull: Floats,
    positive: Floats,
    query: Floats,
    stretch: Floats,
    temperature: float,
    gradient: Floats,
) -> None:
    """∂loss/∂asked from `mixed` = e @ items [n or more, H or more]; the rest as in `ask` and
    `cross_entropy`.

    Through query = temperature · asked / |asked|: what lies along the query itself is lost.
    """
    count, size = query.shape
    square = np.float32(temperature) * np.float32(temperature)
    for i in range(count):
        along = np.float32(0)
        for j in range(size):
            gradient[i, j] = share[i] * widen(mixed[i, j]) + pull[i] * positive[i, j]
            along += gradient[i, j] * query[i, j]
        along /= square
        for j in range(size):
            gradient[i, j] = stretch[i] * (gradient[i, j] - along * query[i, j])
    gradient[count:] = 0
