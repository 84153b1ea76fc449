"""Training on a GPU: the numbers of the CPU, the same bytes each time, resumes. Needs one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.logs import sessions_of
from tests.training.test_checkpoint import LSTM, SAMPLED, SLOTS, check_goes_on, trained
from training.batches import cut, pack
from training.draws import draw
from training.network import copy_of, new_network
from training.plain import batch_loss, lookups
from training.sampling import candidate_sampler
from training.settings import TrainSettings, architecture_for

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")

DEVICE = "cuda"
WIDE = TrainSettings(hidden_size=64, device="cuda")
EVERY_KIND = {
    "default": WIDE,
    "sampled": replace(WIDE, full_softmax_items=10),
    "lstm": replace(WIDE, cell="lstm", layers=2, item_embedding="separate"),
    "one-hot": replace(WIDE, cell="rnn", item_embedding="none", last_click_query=False, score="dot"),
    "bpr-max": replace(WIDE, loss="bpr_max", full_softmax_items=10),
    "top1-max": replace(WIDE, loss="top1_max"),
}
TRAININGS = {
    "sampled": replace(SAMPLED, device="cuda"),
    "slots": replace(SLOTS, device="cuda"),
    "lstm": replace(LSTM, device="cuda"),
}


def loss_and_gradients(settings: TrainSettings, device: str) -> list[Tensor]:
    """Of one batch of sessions of unequal length, nothing dropped; on the CPU."""
    rng = np.random.default_rng(5)
    clicks = [rng.integers(0, 40, rng.integers(2, 12)).tolist() for _ in range(60)]
    pieces = cut(sessions_of(*clicks), 20)
    batch = pack(pieces, np.arange(len(pieces.length)))
    counts = np.bincount(pieces.items, minlength=40)
    sampled = settings.full_softmax_items < 40
    sampler = candidate_sampler(counts, counts, 0.25, 20, len(batch.inputs)) if sampled else None
    given = draw(batch, 40, sampler, np.random.default_rng(0))
    drawn = new_network(architecture_for(settings, 40), torch.Generator().manual_seed(1))
    network = copy_of(drawn, device)
    looked_up = lookups(network, given)
    loss, _ = batch_loss(network, looked_up, given, settings, 0.0, torch.Generator(device))
    gradients = torch.autograd.grad(loss, [*looked_up.values, *network.dense])
    return [found.cpu() for found in (loss.detach(), *gradients)]


@pytest.mark.parametrize("settings", list(EVERY_KIND.values()), ids=list(EVERY_KIND))
def test_loss_and_gradients_are_those_of_the_cpu(settings: TrainSettings) -> None:
    for there, here in zip(
        loss_and_gradients(settings, DEVICE), loss_and_gradients(settings, "cpu"), strict=True
    ):
        assert here.any()
        torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-5 * float(here.abs().max()))


@pytest.mark.parametrize("settings", list(TRAININGS.values()), ids=list(TRAININGS))
def test_same_seed_same_bytes_other_seed_other_bytes(settings: TrainSettings) -> None:
    assert trained(settings) == trained(settings)
    assert trained(settings) != trained(replace(settings, seed=2))


@pytest.mark.parametrize("settings", list(TRAININGS.values()), ids=list(TRAININGS))
@pytest.mark.parametrize("steps", [1, 17])
def test_broken_off_anywhere_it_goes_on_bit_for_bit(
    tmp_path: Path, settings: TrainSettings, steps: int
) -> None:
    check_goes_on(tmp_path, settings, steps)
