"""Memory of the large arrays of a training."""

import re
from pathlib import Path

import pytest
import torch

from training.memory import HUGE_PAGE_BYTES, in_huge_pages, zeros

SMAPS = Path("/proc/self/smaps")


@pytest.mark.parametrize("shape", [(0,), (3,), (7, 5), (1 << 19,), (3_001, 257), (2, 1_000, 700)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int16])
def test_zeros_of_any_size_can_be_written(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    found = zeros(*shape, dtype=dtype)
    assert (found.shape, found.dtype) == (shape, dtype)
    assert not found.any()
    found += 1
    assert found.sum() == found.numel()
    assert not zeros(*shape, dtype=dtype).any(), "memory of its own"


def test_it_outlives_all_but_the_view() -> None:
    row = zeros(3_000, 300)[2_999]
    zeros(3_000, 300).fill_(7)
    assert not row.any()


def test_a_copy_is_not_the_tensor() -> None:
    weights = torch.randn(3_000, 300, requires_grad=True)
    copy = in_huge_pages(weights)
    assert torch.equal(copy, weights)
    assert not copy.requires_grad
    copy += 1
    assert not torch.equal(copy, weights)


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="no huge pages here")
def test_huge_pages_are_asked_for() -> None:
    kept = zeros(HUGE_PAGE_BYTES)
    address = kept.data_ptr()
    for area in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", SMAPS.read_text()):
        begin, end = (int(text, 16) for text in area.split()[0].split("-"))
        if begin <= address < end:
            assert " hg" in area.splitlines()[-1]
            return
    pytest.fail("the address is nowhere")
