"""Numba: cosine scores, softmax cross-entropy, their gradient, but for two products; see `training.fused`.

n transitions of a part, C candidates, H hidden size. Factors of products ("low") are bfloat16 as uint16, or
float32; those over the catalogue may be padded with zeros on the right and below.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.kernels import (
    BIAS,
    LOG2_E,
    exp,
    kernel,
    narrow,
    part_of_kernel,
    power_of_two,
    use_wide_vectors,
    widen,
)
from training.products import product

Floats = NDArray[np.float32]
Low = NDArray[np.uint16] | NDArray[np.float32]
Rows = NDArray[np.int64]

TINY = np.float32(1e-24)
"""As in `worker.core.step`: square of the length below which a vector is not stretched to unit length."""


class Asked(NamedTuple):
    """What a part asks for, its positives, what the gradient needs; filled by `ask` and `learn`."""

    asked: Floats  # [n, H], A·h + B·x, of any length
    query: Floats  # [n, H], the same at length `temperature`
    stretch: Floats  # [n], query = stretch · asked
    low_query: Low  # [n or more, H or more], query, zero below
    positive: Floats  # [n, H], unit vectors of the targets
    positive_score: Floats  # [n], in full precision
    total: Floats  # [n or more], sums of e over the negatives
    share: Floats  # [n], weight / Z
    pull: Floats  # [n], weight · (e of the positive / Z − 1)
    scaled: Low  # [n or more, H or more], share · query, zero below
    mixed: Floats  # [n or more, H or more], eᵀ·items


@kernel
def unit_rows(embedding: Floats, rows: Rows, begin: int, end: int, low: Low) -> None:
    """low[i] = the unit vector along embedding[rows[i]], for begin ≤ i < end."""
    use_wide_vectors()
    size = embedding.shape[1]
    for i in range(begin, end):
        vector, unit = embedding[rows[i]], low[i]
        square = np.float32(0)
        for j in range(size):
            square += vector[j] * vector[j]
        scale = np.float32(1) / np.sqrt(max(square, TINY))
        for j in range(size):
            unit[j] = narrow(vector[j] * scale, low)


@kernel
def ask(
    states: Low,
    x: Low,
    query_hidden: Low,
    query_item: Low,
    temperature: float,
    embedding: Floats,
    targets: Rows,
    to: Asked,
) -> None:
    """Queries at length `temperature`, and the score of each one's positive in full precision.

    Args:
        states, x: [n, H], states after each click, and inputs.
        query_hidden, query_item: [H, H], A and B.
        temperature: length of a query.
        embedding: [V, H].
        targets: [n], rows of `embedding`.
        to: out, its first six.
    """
    use_wide_vectors()
    product(states, query_hidden, to.asked, False, True, False)
    product(x, query_item, to.asked, False, True, True)
    count, size = to.asked.shape
    for i in range(count):
        asked, target, query, positive = to.asked[i], embedding[targets[i]], to.query[i], to.positive[i]
        square, length = np.float32(0), np.float32(0)
        for j in range(size):
            square += asked[j] * asked[j]
            length += target[j] * target[j]
        stretch = np.float32(temperature) / np.sqrt(max(square, TINY))
        unit = np.float32(1) / np.sqrt(max(length, TINY))
        score = np.float32(0)
        for j in range(size):
            query[j] = asked[j] * stretch
            positive[j] = target[j] * unit
            score += query[j] * positive[j]
        low_query = to.low_query[i]
        for j in range(size):
            low_query[j] = narrow(query[j], low_query)
        to.stretch[i], to.positive_score[i] = stretch, score
    to.low_query[count:] = 0


def offsets(log_chance: Floats, shift: float) -> Floats:
    """What `exponentials` adds to scores in units of log 2, [C]: exp(score − log_chance − shift) is
    `power_of_two(score / log 2 + offset)`."""
    return BIAS - (log_chance + np.float32(shift)) * LOG2_E


@kernel
def learn(
    block: Low,
    items: Low,
    offset: Floats,
    columns: Rows,
    weights: Floats,
    temperature: float,
    of: Asked,
    gradient: Low,
) -> float:
    """Loss of the scores, and its gradient but for that of the items, block·scaled.

    Args:
        block: [C or more, n or more], a row for each candidate; scores in, e out, see `exponentials`.
        items: [C or more, H or more], their unit vectors.
        offset: [C], see `offsets`.
        columns: [n], the candidate that is the positive of a transition.
        weights: [n], of the transitions, divided by their number.
        temperature: length of a query; no score is larger.
        of: as `ask` left it; its last five are out.
        gradient: [n, H], out: ∂loss/∂(A·h + B·x).

    Returns:
        The loss, summed.
    """
    exponentials(block, offset, columns, of.total)
    loss = cross_entropy(weights, temperature, of)
    product(block, items, of.mixed, True, False, False)
    query_gradient(temperature, of, gradient)
    return loss


@part_of_kernel
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


@part_of_kernel
def cross_entropy(weights: Floats, shift: float, of: Asked) -> float:
    """Loss and gradient of the weighted cross-entropy, but for the products.

    With s the scores less their log chance (not the positive's), e = exp(s − shift) and Z its sum over a
    transition, the gradient of its loss is weight · (e / Z − [positive]). What is common to a transition is
    left to the [n, H] sides of the products:
        ∂loss/∂query = share · (eᵀ @ items) + pull · positive      ∂loss/∂items = e @ (share · query) + …

    `shift` is at least as large as a score can be, to within the range of an exp; that of `offsets`.
    """
    count, size = of.query.shape
    down = np.float32(shift)
    loss = 0.0
    for i in range(count):
        right = exp(of.positive_score[i] - down)
        z = of.total[i] + right
        loss += weights[i] * (np.log(z) - (of.positive_score[i] - down))
        share = weights[i] / z
        of.share[i], of.pull[i] = share, weights[i] * (right / z - np.float32(1))
        query, scaled = of.query[i], of.scaled[i]
        for j in range(size):
            scaled[j] = narrow(share * query[j], scaled)
    of.scaled[count:] = 0
    return loss


@part_of_kernel
def query_gradient(temperature: float, of: Asked, gradient: Low) -> None:
    """∂loss/∂asked [n, H], through query = temperature · asked / |asked|: what lies along it is lost."""
    use_wide_vectors()
    count, size = of.query.shape
    square = np.float32(temperature) * np.float32(temperature)
    whole = np.empty(size, np.float32)
    for i in range(count):
        query, positive, mixed, out = of.query[i], of.positive[i], of.mixed[i], gradient[i]
        share, pull, along = of.share[i], of.pull[i], np.float32(0)
        for j in range(size):
            whole[j] = share * mixed[j] + pull * positive[j]
            along += whole[j] * query[j]
        along /= square
        for j in range(size):
            out[j] = narrow(of.stretch[i] * (whole[j] - along * query[j]), out)
