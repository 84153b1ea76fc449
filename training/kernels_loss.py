"""Numba: cosine scores and softmax cross-entropy around two bfloat16 products; see `training.fused`.

n transitions of a part, C candidates, H hidden size. Blocks that go into products ("low") are uint16
(bfloat16) or float32, and may be padded with zeros on the right and below.
"""

import numpy as np
from numpy.typing import NDArray

from training.kernels import BIAS, LOG2_E, exp, kernel, narrow, power_of_two, widen

Floats = NDArray[np.float32]
Low = NDArray[np.uint16] | NDArray[np.float32]
Rows = NDArray[np.int64]

TINY = np.float32(1e-24)
"""As in `worker.core.step`: square of the length below which a vector is not stretched to unit length."""


@kernel
def unit_rows(embedding: Floats, rows: Rows, begin: int, end: int, low: Low) -> None:
    """low[i] = the unit vector along embedding[rows[i]], for begin ≤ i < end."""
    size = embedding.shape[1]
    for i in range(begin, end):
        row = rows[i]
        square = np.float32(0)
        for j in range(size):
            square += embedding[row, j] * embedding[row, j]
        scale = np.float32(1) / np.sqrt(max(square, TINY))
        for j in range(size):
            low[i, j] = narrow(embedding[row, j] * scale, low)


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
        row = targets[i]
        square, length = np.float32(0), np.float32(0)
        for j in range(size):
            square += asked[i, j] * asked[i, j]
            length += embedding[row, j] * embedding[row, j]
        scale = np.float32(temperature) / np.sqrt(max(square, TINY))
        unit = np.float32(1) / np.sqrt(max(length, TINY))
        score = np.float32(0)
        for j in range(size):
            query[i, j] = asked[i, j] * scale
            positive[i, j] = embedding[row, j] * unit
            score += query[i, j] * positive[i, j]
            low[i, j] = narrow(query[i, j], low)
        stretch[i], positive_score[i] = scale, score
    zero = narrow(np.float32(0), low)
    for i in range(count, low.shape[0]):
        for j in range(size):
            low[i, j] = zero


def offsets(log_chance: Floats, shift: float) -> Floats:
    """What `softmax_rows` adds to scores in units of log 2, [C]: exp(score − log_chance − shift) is
    `power_of_two(score / log 2 + offset)`."""
    return BIAS - (log_chance + np.float32(shift)) * LOG2_E


@kernel
def softmax_rows(
    block: Low,
    offset: Floats,
    columns: Rows,
    positive_score: Floats,
    weights: Floats,
    shift: float,
    query: Floats,
    pull: Floats,
    share: Floats,
    scaled: Low,
) -> float:
    """Turn scores into the gradient of the weighted cross-entropy, in one pass over the block.

    With s the scores less their log chance (not the positive's), e = exp(s − shift) and Z its sum over a row,
    the gradient of that row's loss is weight · (e / Z − [positive]). The block keeps the e of the negatives;
    what is common to a row is left to the [n, H] sides of the products:
        ∂loss/∂query = share · (e @ items) + pull · positive      ∂loss/∂items = eᵀ @ (share · query) + …

    Args:
        block: [n or more, C or more]; scores in, exponentials out, zero for the positives and the padding.
        offset: [C], see `offsets`.
        columns: [n], the positive's column of the block.
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
    columns_used, width = len(offset), block.shape[1]
    zero, lowest = narrow(np.float32(0), block), narrow(np.float32(-1e30), block)
    down = np.float32(shift)
    loss = 0.0
    for i in range(count):
        right = exp(positive_score[i] - down)
        block[i, columns[i]] = lowest  # the positive is no negative
        total = right
        for j in range(columns_used):
            power = power_of_two(widen(block[i, j]) * LOG2_E + offset[j])
            block[i, j] = narrow(power, block)
            total += power
        block[i, columns[i]] = zero
        for j in range(columns_used, width):
            block[i, j] = zero
        loss += weights[i] * (np.log(total) - (positive_score[i] - down))
        share[i] = weights[i] / total
        pull[i] = weights[i] * (right / total - np.float32(1))
        for j in range(size):
            scaled[i, j] = narrow(share[i] * query[i, j], scaled)
    for i in range(count, block.shape[0]):
        for j in range(width):
            block[i, j] = zero
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
    """∂loss/∂asked from `mixed` = e @ items [n or more, H or more]; the rest as in `ask` and `softmax_rows`.

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
