"""Products of eight-bit codes by the instruction that processors have for them.

VPDPBUSD of AVX-512 VNNI multiplies 64 pairs of bytes, one without a sign and one with, and adds the products
of each four to a sum of 32 bits; nothing saturates. LLVM does not find it in a loop, so it is called by name.
What it wants of the items is 64 bytes in one piece: four columns of sixteen items.
"""

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils as cgutils_without_types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

cgutils: Any = cgutils_without_types

LANES = 16
"""Items that are multiplied at once."""

GROUP = 4
"""Columns whose products one lane adds up at once."""

AT_ONCE = 4
"""Queries for which the codes of a block are read once."""

CAN_MULTIPLY_CODES = "+avx512vnni" in cpu_target.target_context.codegen().magic_tuple()[2].split(",")
"""Whether there is the instruction, on the processor that numba compiles for."""


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


score_one, score_some = _score_block(1), _score_block(AT_ONCE)
"""For compiled code: score a block of items for one query, and for `AT_ONCE` of them."""
