"""The bare kernel: GRU step, scores of the whole catalogue and top k, without Kafka, sessions or JSON."""

import time

import torch

from tests.bench.workload import HIDDEN_SIZE, ITEMS, TOP_K
from worker.core.scoring import Scorer
from worker.core.session_model import SessionModel
from worker.core.step import CellWeights, QueryWeights, unit_items

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
    model = SessionModel("", ITEMS, embedding, unit_items(embedding), (cell,), query)
    scorer = Scorer(model.catalogue, TOP_K)
    hidden = torch.zeros(batch, size)
    clicked = torch.randint(len(ITEMS), (batch,))
    best_s = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter()
        for _ in range(clicks // batch):
            hidden = model.step(clicked, hidden)
            scorer.top_k(model.ask(hidden, clicked))
        best_s = min(best_s, time.perf_counter() - started)
    return clicks // batch * batch / best_s
