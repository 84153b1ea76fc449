"""Items in eight-bit codes, by which the best of a query are found without multiplying all in float32.

An item x is kept as s·c, where c are whole numbers within ±127, and a query q is written as t·d likewise. The
product c·d is exact, and by Cauchy-Schwarz s·t·c·d misses q·x by no more than

    ‖q‖·‖x − s·c‖ + ‖q − t·d‖·‖s·c‖

so that an item whose approximate score is further below the k-th best than twice that cannot be of the k
best: those that remain, some dozens, are scored exactly (`worker.core.scoring`).

The processor multiplies 64 such numbers in one instruction and adds the products of four each (VPDPBUSD of
AVX-512 VNNI, one factor without a sign: c + 128). So the codes lie by 16 items, and of these by four columns:
what one instruction wants is 64 bytes in one piece. V items, H width, B queries.
"""

from typing import Any, NamedTuple, Self

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils as cgutils_without_types
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from numpy.typing import NDArray

from worker.core.compiled import compiled
from worker.core.lanes import highest as best_of

cgutils: Any = cgutils_without_types

LANES = 16
"""Items that are multiplied at once."""

GROUP = 4
"""Columns whose products one lane adds up at once."""

AT_ONCE = 4
"""Queries for which the codes of a block are read once."""

LARGEST = 127
SHIFT = 128
"""Added to the codes of items: one factor of the instruction has no sign."""

FLOAT32_ERROR = 2.0**-23
"""Twice the relative error of one float32 operation."""

CAN_MULTIPLY_CODES = "+avx512vnni" in cpu_target.target_context.codegen().magic_tuple()[2].split(",")
"""Whether there is the instruction, on the processor that numba compiles for."""


class ItemCodes(NamedTuple):
    """The items of a catalogue as codes."""

    codes: NDArray[np.uint8]  # [⌈V / LANES⌉, ⌈H / GROUP⌉, LANES · GROUP]
    scales: NDArray[np.float32]  # s of each item, [LANES · ⌈V / LANES⌉], zeros behind
    rounding: float  # largest ‖x − s·c‖
    longest: float  # largest ‖s·c‖

    @classmethod
    def of(cls, items: NDArray[np.float32]) -> Self:
        """The codes of items float32 [V, H]."""
        count, width = items.shape
        shape = -(-count // LANES), -(-width // GROUP), LANES * GROUP
        codes, scales = np.full(shape, SHIFT, np.uint8), np.zeros(shape[0] * LANES, np.float32)
        return cls(codes, scales, *_encode_items(items, codes, scales))


@compiled
def _encode_items(
    items: NDArray[np.float32], codes: NDArray[np.uint8], scales: NDArray[np.float32]
) -> tuple[float, float]:
    rounding = longest = 0.0
    for item in range(items.shape[0]):
        block, lane = item // LANES, item % LANES
        scales[item] = scale = _scale_of(items[item])
        off = length = 0.0
        for column in range(items.shape[1]):
            code = _code(items[item, column], scale)
            codes[block, column // GROUP, lane * GROUP + column % GROUP] = code + SHIFT
            kept = float(scale) * code
            off += (float(items[item, column]) - kept) ** 2
            length += kept**2
        rounding, longest = max(rounding, off), max(longest, length)
    return np.sqrt(rounding), np.sqrt(longest)


@compiled
def encode_query(query: NDArray[np.float32], coded: NDArray[np.int8]) -> tuple[np.float32, float, float]:
    """Write the codes d of a query [H] into `coded`, zeros behind them; returns t, ‖q‖ and ‖q − t·d‖."""
    scale = _scale_of(query)
    coded[:] = 0
    off = length = 0.0
    for column in range(query.shape[0]):
        code = _code(query[column], scale)
        coded[column] = code
        off += (float(query[column]) - float(scale) * code) ** 2
        length += float(query[column]) ** 2
    return scale, np.sqrt(length), np.sqrt(off)


@compiled
def margin(items: ItemCodes, width: int, length: float, off: float) -> float:
    """How far an approximate score can be from the exact one, both as float32 computes them.

    Args:
        items: the codes.
        width: H.
        length: ‖q‖.
        off: ‖q − t·d‖.
    """
    by_codes = length * items.rounding + off * items.longest
    by_floats = length * (items.longest + items.rounding) * (width + LANES) * FLOAT32_ERROR
    return by_codes + by_floats


@compiled
def approximate(
    items: ItemCodes,
    coded: NDArray[np.int8],
    query_scales: NDArray[np.float32],
    scores: NDArray[np.float32],
    highest: NDArray[np.float32],
    count: int,
) -> None:
    """Approximate scores of all items for B queries, as `encode_query` wrote them.

    Args:
        items: the codes.
        coded: int8 [B, GROUP · ⌈H / GROUP⌉], rows in one piece.
        query_scales: float32 [B].
        scores: float32 [B, ≥ LANES · ⌈V / LANES⌉], written; the last of a row belong to no item.
        highest: float32 [B, ⌈V / LANES⌉], written: the best of each block of items.
        count: V.
    """
    codes, scales = items.codes, items.scales
    queries, blocks = scores.shape[0], codes.shape[0]
    shifts = np.empty(queries, np.int32)
    for query in range(queries):
        shifts[query] = SHIFT * coded[query].sum()
    for block in range(blocks):
        of_block = block * LANES
        query = 0
        while query < queries:
            at_once = AT_ONCE if query + AT_ONCE <= queries else 1
            place = (
                codes[block].ctypes.data,
                codes.shape[1],
                scales[of_block:].ctypes.data,
                coded[query].ctypes.data,
                coded.shape[1],
                shifts[query:].ctypes.data,
                query_scales[query:].ctypes.data,
                scores[query, of_block:].ctypes.data,
                scores.strides[0],
                highest[query, block:].ctypes.data,
                highest.strides[0],
            )
            if at_once == 1:
                _score_one(place)
            else:
                _score_some(place)
            query += at_once
    behind = blocks * LANES
    for query in range(queries):  # the last block has lanes without an item
        highest[query, blocks - 1] = best_of(scores[query, behind - LANES : count])


@compiled
def _scale_of(numbers: NDArray[np.float32]) -> np.float32:
    largest = np.float32(0)
    for number in numbers:
        largest = max(largest, abs(number))
    return largest / np.float32(LARGEST)


@compiled
def _code(number: np.float32, scale: np.float32) -> int:
    if scale == 0:
        return 0
    return int(min(max(np.rint(number / scale), -LARGEST), LARGEST))


def _score_block(queries: int) -> Any:
    """What scores a block of items for so many queries, whose sums stay in registers.

    It takes one tuple of addresses, and of distances in bytes from one query to the next: the codes of the
    block, how many groups of columns they have, the scales of its items; the codes of the queries and their
    distance, their shifts, their scales; where the scores go and their distance, where the best score of the
    block goes and that distance.
    """
    word, number = ir.IntType(32), ir.FloatType()
    words, numbers = ir.VectorType(word, LANES), ir.VectorType(number, LANES)
    some_bytes = ir.VectorType(ir.IntType(8), LANES * GROUP)

    def typed(_context: Any, place: Any) -> Any:
        return types.void(place), build

    def build(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        addresses = cgutils.unpack_tuple(builder, arguments[0])
        codes, groups, scales, coded, coded_step, shifts, query_scales, scores, scores_step = addresses[:9]
        highest, highest_step = addresses[9:]
        distance = codes.type

        def at(begin: Any, index: Any, size: Any, kind: Any) -> Any:
            return builder.inttoptr(builder.add(begin, builder.mul(index, size)), kind.as_pointer())

        def for_all(one: Any, kind: Any) -> Any:
            first = builder.insert_element(kind(ir.Undefined), one, word(0))
            return builder.shuffle_vector(first, kind(ir.Undefined), words([0] * LANES))

        def known(name: str, gives: Any, *takes: Any) -> Any:
            return cgutils.get_or_insert_function(builder.module, ir.FunctionType(gives, takes), name)

        multiply = known("llvm.x86.avx512.vpdpbusd.512", words, words, some_bytes, some_bytes)
        highest_of = known("llvm.vector.reduce.fmax.v16f32", number, numbers)
        sums = [cgutils.alloca_once(builder, words) for _ in range(queries)]
        for one in sums:
            builder.store(words([0] * LANES), one)
        with cgutils.for_range(builder, groups) as loop:
            of_items = builder.load(at(codes, loop.index, distance(LANES * GROUP), some_bytes), align=1)
            for query, one in enumerate(sums):
                begin = builder.add(coded, builder.mul(distance(query), coded_step))
                group = builder.load(at(begin, loop.index, distance(GROUP), word), align=1)
                of_query = builder.bitcast(for_all(group, words), some_bytes)
                builder.store(builder.call(multiply, (builder.load(one), of_items, of_query)), one)
        of_items = builder.load(builder.inttoptr(scales, numbers.as_pointer()), align=4)
        for query, one in enumerate(sums):
            shift = builder.load(at(shifts, distance(query), distance(4), word))
            scale = builder.load(at(query_scales, distance(query), distance(4), number))
            exact = builder.sitofp(builder.sub(builder.load(one), for_all(shift, words)), numbers)
            found = builder.fmul(exact, builder.fmul(of_items, for_all(scale, numbers)))
            builder.store(found, at(scores, distance(query), scores_step, numbers), align=4)
            best = builder.call(highest_of, (found,), fastmath=("nnan", "nsz"))
            builder.store(best, at(highest, distance(query), highest_step, number))
        return context.get_dummy_value()

    return intrinsic(typed)


_score_one, _score_some = _score_block(1), _score_block(AT_ONCE)
