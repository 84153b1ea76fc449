"""What the kernels are made of: exp, sigmoid, bfloat16, products; and the order of what is drawn ahead."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numba import njit
from numpy.typing import NDArray

from training.crew import Crew
from training.draws import ahead
from training.kernels import REASSOCIATE, exp, narrow, sigmoid, widen
from training.precision import BFLOAT16_UNITS, low_precision
from training.products import BFLOAT16, OWN
from training.settings import TrainSettings
from training.workspace import Workspace, tensor_of

compiled = njit(fastmath=REASSOCIATE)  # not kept on disk: what is tested lies in another file


@compiled
def exps(x: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """exp of each."""
    for i in range(len(x)):
        out[i] = exp(x[i])


@compiled
def sigmoids(x: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """sigmoid of each."""
    for i in range(len(x)):
        out[i] = sigmoid(x[i])


@compiled
def there_and_back(x: NDArray[np.float32], low: NDArray[Any], out: NDArray[np.float32]) -> None:
    """Narrow and widen again."""
    for i in range(len(x)):
        low[i] = narrow(x[i], low)
        out[i] = widen(low[i])


def test_exp_and_sigmoid() -> None:
    x = np.linspace(-87, 87, 10_001).astype(np.float32)
    out = np.empty_like(x)
    exps(x, out)
    np.testing.assert_allclose(out, np.exp(x.astype(float)), rtol=1e-5)
    sigmoids(x, out)
    np.testing.assert_allclose(out, 1 / (1 + np.exp(-x.astype(float))), rtol=2e-5)


def test_exp_beyond_its_range_is_held_at_the_end() -> None:
    x, out = np.array([-1e30, -100, 100, 1e30], np.float32), np.empty(4, np.float32)
    exps(x, out)
    assert (out[:2] < 1e-37).all()
    assert (out[2:] > 1e37).all()
    assert np.isfinite(out).all()


def test_bfloat16_is_that_of_torch() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=1_000), [0.0, 1.01171875, 3e38, -1e-30]]).astype(np.float32)
    low, out = np.empty(len(x), np.uint16), np.empty_like(x)
    there_and_back(x, low, out)
    expected = torch.from_numpy(x).bfloat16()
    np.testing.assert_array_equal(low, expected.view(torch.uint16).numpy())
    np.testing.assert_array_equal(out, expected.float().numpy())
    there_and_back(x, np.empty_like(x), out)
    np.testing.assert_array_equal(out, x)


def test_a_buffer_is_one_memory_for_both_and_is_used_again() -> None:
    work = Workspace(torch.bfloat16)
    low = work.low("a", 2, 3)
    tensor_of(low).fill_(1.0)
    assert low.tolist() == [[0x3F80] * 3] * 2
    assert work.low("a", 3, 2).tolist() == [[0x3F80] * 2] * 3
    assert not work.low("a", 4, 4).any()


@pytest.mark.parametrize("rows", [1, 7, 3_000, 100_000])
def test_a_buffer_begins_with_a_cache_line(rows: int) -> None:
    work = Workspace(torch.bfloat16)
    assert work.low("a", rows, 128).ctypes.data % 64 == 0
    assert work.floats("b", rows, 128).ctypes.data % 64 == 0


def test_precision_asked_for_is_taken() -> None:
    assert low_precision(TrainSettings(precision="float32")) == torch.float32
    assert low_precision(TrainSettings(precision="bfloat16")) == torch.bfloat16


def test_without_the_routine_for_it_no_bfloat16_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    capabilities = dict.fromkeys(BFLOAT16_UNITS, True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert low_precision(TrainSettings()) == torch.bfloat16
    monkeypatch.setitem(OWN, BFLOAT16, "loops")
    assert low_precision(TrainSettings()) == torch.float32
    assert low_precision(TrainSettings(precision="bfloat16")) == torch.bfloat16


@pytest.mark.parametrize("threads", [1, 3])
def test_crew_runs_everything_and_raises(threads: int) -> None:
    crew, done = Crew(threads), []

    def fail() -> None:
        raise ZeroDivisionError

    crew.run([lambda i=i: done.append(i) for i in range(5)])  # type: ignore[misc]
    assert sorted(done) == [0, 1, 2, 3, 4]
    for tasks in ([fail, lambda: None], [lambda: None, fail]):
        with pytest.raises(ZeroDivisionError):
            crew.run(tasks)
    crew.close()


def test_ahead_keeps_the_order_and_passes_failures_on() -> None:
    def values() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("three")

    assert list(ahead(iter(range(5)))) == [0, 1, 2, 3, 4]
    got = ahead(values())
    assert [next(got), next(got)] == [1, 2]
    with pytest.raises(KeyError):
        next(got)
