"""Scoring the catalogue and selecting the k best: by codes against all products, one table and one JSON line.

    python -m tests.bench.scoring --items 10000 100000

Random vectors of unit length. Both ways are timed in turn; cold: after other work has used the caches.
"""

import argparse
import time
from statistics import median

import numpy as np
import orjson
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from tests.bench.workload import HIDDEN_SIZE, TOP_K
from worker.core.code_products import CAN_MULTIPLY_CODES
from worker.core.item_codes import ItemCodes
from worker.core.scoring import Columns, Scorer
from worker.core.step import unit_items

QUERIES = (1, 2, 8, 64)
OTHER_WORK_BYTES = 16 << 20

Timed = dict[str, float]
"""Microseconds for each query, by way and state of the caches: `products_warm`, `codes_cold` and so on."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Scoring and selecting, by codes and by products.")
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000])
    asked = parser.parse_args()
    if not CAN_MULTIPLY_CODES:
        parser.error("this processor has no instruction for codes: a worker scores all items by products")
    torch.set_num_threads(1)
    console, found = Console(), {}
    for items in asked.items:
        found[str(items)] = measured = _measure(items)
        _show(console, items, measured)
    console.out(orjson.dumps(found).decode(), highlight=False)


@torch.inference_mode()
def _measure(items: int) -> dict[str, Timed]:
    torch.manual_seed(0)
    matrix = unit_items(torch.randn(items, HIDDEN_SIZE))
    scorers = {
        "products": Scorer(Columns(matrix.t().contiguous()), TOP_K),
        "codes": Scorer(ItemCodes.of(matrix.numpy()), TOP_K),
    }
    repeats = max(10, 1_000_000 // items)
    return {
        str(count): _time(scorers, torch.randn(count, HIDDEN_SIZE), repeats)
        for count in track(QUERIES, f"{items:,} items", transient=True)
    }


def _time(scorers: dict[str, Scorer], queries: Tensor, repeats: int) -> Timed:
    other_work = np.zeros(OTHER_WORK_BYTES, np.uint8)
    seconds: dict[str, list[float]] = {}
    for _ in range(repeats):
        for name, scorer in scorers.items():
            for state in ("cold", "warm"):
                if state == "cold":
                    other_work += 1
                started_s = time.perf_counter()
                scorer.top_k(queries)
                seconds.setdefault(f"{name}_{state}", []).append(time.perf_counter() - started_s)
    return {name: round(median(found) * 1e6 / len(queries), 1) for name, found in seconds.items()}


def _show(console: Console, items: int, measured: dict[str, Timed]) -> None:
    table = Table(
        "queries", "products, warm", "cold", "codes, warm", "cold", title=f"{items:,} items, µs per query"
    )
    for count, timed in measured.items():
        cells = (timed[f"{way}_{state}"] for way in ("products", "codes") for state in ("warm", "cold"))
        table.add_row(count, *map(str, cells))
    console.print(table)


if __name__ == "__main__":
    main()
