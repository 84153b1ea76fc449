"""The bare kernel: GRU step, scores of the whole catalogue and top k, without Kafka, sessions or JSON."""

import time

import torch

from tests.bench.workload import HIDDEN_SIZE, ITEMS, TOP_K
from worker.core.scoring import Scorer
from worker.core.step import CellWeights, QueryWeights, session_query, step, unit_items

REPEATS = 5


@torch.inference_mode()
def kernel_clicks_per_s(clicks: int, batch: int, threads: int) -> float:
    """Clicks per second of the kernel, the best of `REPEATS` runs; the best is the one least disturbed."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    size = HIDDEN_SIZE
    embedding = torch.randn(len(ITEMS), size)
    cell = CellWeights(
        torch.randn(3 * size, size) / size**0.5,
        torch.randn(3 * size, size) / size**0.5,
        torch.zeros(3 * size),
        torch.zeros(3 * size),
    )
    query = QueryWeights(torch.eye(size), torch.zeros(size, size))
    scorer = Scorer(unit_items(embedding), TOP_K)
    hidden = torch.zeros(batch, size)
    clicked = torch.randint(len(ITEMS), (batch,))
    best_s = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter()
        for _ in range(clicks // batch):
            x = embedding[clicked]
            hidden = step("gru", [cell], x, hidden)
            scorer.top_k(session_query(query, hidden, x))
        best_s = min(best_s, time.perf_counter() - started)
    return clicks // batch * batch / best_s
