"""Compiled code where nothing can be kept on disk."""

import subprocess
import sys

NOWHERE = """
import numba.core.caching as caching

caching.CompileResultCacheImpl._locator_classes = []  # as where package, home and cache folders are read-only
import training.train, training.fused, training.kernels_rows, worker.core.advance
from training.kernels import exp
from worker.core.compiled import compiled

assert abs(exp(0.5) - 1.6487) < 1e-4
assert compiled(lambda number: number + 1)(1) == 2
"""


def test_a_read_only_installation_trains_all_the_same() -> None:
    done = subprocess.run([sys.executable, "-c", NOWHERE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
