"""Large arrays in huge pages: a processor keeps the addresses of few at hand, and a step touches many."""

import math
import mmap
from contextlib import suppress

import torch
from torch import Tensor

HUGE_PAGE_BYTES = 2 << 20


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Zeros that begin with a cache line; from 2 MiB on with a page, in huge ones where the system has them.

    numpy's large arrays lie in huge pages, too, but begin 16 bytes behind a page: each tile that a product of
    bfloat16 reads or writes then lies across two cache lines, which took up to twice the time. torch's begin
    with a cache line and lie in small pages.
    """
    count = math.prod(shape)
    size = count * dtype.itemsize
    if size < HUGE_PAGE_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(shape, dtype=dtype)
    whole_pages = -(-size // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
    memory = mmap.mmap(-1, whole_pages, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype, count=count).view(shape)


def in_huge_pages(tensor: Tensor) -> Tensor:
    """A copy in such memory, detached; on the CPU."""
    return zeros(*tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
