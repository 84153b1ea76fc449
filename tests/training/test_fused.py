"""The fused step against autograd, kernel by kernel and as a whole; and that threads change nothing."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.training.logs import sessions_of
from training.batches import cut, pack
from training.deal import deal
from training.draws import Draw, draw
from training.fit import fit, torch_threads
from training.fused import FusedStep
from training.fused_part import APART
from training.kernels_rows import gather_inputs, group
from training.network import Network, copy_of, new_network, parameters
from training.optimiser import Adagrad
from training.plain import loss_of_inputs
from training.sampling import CandidateSampler, candidate_sampler
from training.settings import Precision, TrainSettings, architecture_for

ITEMS = 300
NAMES = ("embedding", "w_ih", "w_hh", "b_ih", "b_hh", "query_hidden", "query_item")


def clicks(sessions: int, longest: int) -> list[list[int]]:
    """Random sessions of two clicks up to this many."""
    rng = np.random.default_rng(5)
    return [rng.integers(0, ITEMS, rng.integers(2, longest + 1)).tolist() for _ in range(sessions)]


def drawn(sessions: Sequence[list[int]], negatives: int | None) -> Draw:
    """A draw of these sessions as one batch; None for the whole catalogue."""
    pieces = cut(sessions_of(*sessions), 20)
    batch = pack(pieces, np.arange(len(pieces.length)))
    sampler: CandidateSampler | None = None
    if negatives is not None:
        support = np.bincount(pieces.items, minlength=ITEMS)
        sampler = candidate_sampler(support, support, 0.25, negatives, len(batch.inputs))
    return draw(batch, ITEMS, sampler, np.random.default_rng(3))


def network_of(size: int) -> Network:
    """With biases and a last-click term, unlike a new one: zeros hide mistakes."""
    network = new_network(
        architecture_for(TrainSettings(hidden_size=size), ITEMS), torch.Generator().manual_seed(1)
    )
    (cell,) = network.layers
    assert network.query.query_item is not None
    with torch.no_grad():
        for tensor in (network.query.query_item, cell.b_ih, cell.b_hh):
            tensor.normal_(std=0.3, generator=torch.Generator().manual_seed(2))
    return network


def dropped(embedding: torch.Tensor, given: Draw, dropout: float, parts: int) -> torch.Tensor:
    """The factors [N, H] that the fused step multiplies inputs with, in the order of the batch."""
    dealt, size = deal(given, parts), embedding.shape[1]
    keep = np.empty((len(dealt.inputs), size), np.float32)
    for place, part in enumerate(dealt.parts):
        rows, mine = dealt.inputs[part.begin : part.end], slice(part.begin, part.end)
        seed = (given.seed + place * APART) % (1 << 63)
        x = np.empty_like(keep[mine])
        gather_inputs(embedding.numpy(), rows, dropout, seed, x, keep[mine])
        np.testing.assert_array_equal(x, embedding.numpy()[rows] * keep[mine])
    order = np.argsort(session_of(given) % parts, kind="stable")
    return torch.from_numpy(keep[np.argsort(order)])


def session_of(given: Draw) -> NDArray[np.int64]:
    """Which session of the batch each transition is of."""
    return np.concatenate([np.arange(sessions) for sessions in given.batch.active])


def by_autograd(network: Network, given: Draw, dropout: float, parts: int) -> dict[str, torch.Tensor]:
    """Loss and gradients of all parameters."""
    embedding = network.embedding[torch.from_numpy(given.touched)].detach().requires_grad_()
    x = embedding[torch.from_numpy(given.places)] * dropped(network.embedding, given, dropout, parts)
    items = embedding[: given.candidates]
    loss, _ = loss_of_inputs(network, x, items, given, TrainSettings(), torch.Generator(), None)
    of_rows, *of_others = torch.autograd.grad(loss, [embedding, *network.dense])
    of_embedding = torch.zeros_like(network.embedding)
    of_embedding[torch.from_numpy(given.touched)] = of_rows
    return {"loss": loss.detach(), **dict(zip(NAMES, [of_embedding, *of_others], strict=True))}


def by_hand(
    network: Network, given: Draw, dropout: float, threads: int, low: torch.dtype
) -> dict[str, torch.Tensor]:
    """The same from the fused step: a first step of Adagrad with rate 1 moves by the sign of the gradient and
    leaves its square behind."""
    trained = copy_of(network)
    optimisers = [Adagrad(tensor) for tensor in (*trained.tables, *trained.dense)]
    settings = TrainSettings(hidden_size=network.embedding.shape[1], threads=threads)
    step = FusedStep(trained, optimisers[0], list(optimisers[1:]), settings, dropout, low)
    loss = step(step.prepare(given), 1.0)
    step.close()
    found = {
        name: optimiser.second.sqrt() * -optimiser.first.sign()
        for name, optimiser in zip(NAMES, optimisers, strict=True)
    }
    return {"loss": torch.tensor(loss), **found}


@pytest.mark.parametrize("negatives", [None, 100])
@pytest.mark.parametrize(
    ("sessions", "longest", "size", "dropout", "threads"),
    [(60, 9, 12, 0.0, 2), (40, 21, 33, 0.3, 1), (5, 30, 12, 0.3, 3), (1, 2, 5, 0.0, 2)],
)
@pytest.mark.parametrize(
    ("low", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 2e-2)], ids=["float32", "bfloat16"]
)
def test_loss_and_gradients_equal_autograd(
    sessions: int,
    longest: int,
    size: int,
    dropout: float,
    threads: int,
    negatives: int | None,
    low: torch.dtype,
    tolerance: float,
) -> None:
    given, network = drawn(clicks(sessions, longest), negatives), network_of(size)
    expected = by_autograd(network, given, dropout, max(2, threads))
    found = by_hand(network, given, dropout, threads, low)
    for name, wanted in expected.items():
        scale = wanted.abs().max().item()
        torch.testing.assert_close(found[name], wanted, atol=tolerance * scale, rtol=tolerance, msg=name)


def test_one_and_two_threads_give_the_same_bytes() -> None:
    given, network = drawn(clicks(50, 12), 100), network_of(16)
    one, two = (by_hand(network, given, 0.25, threads, torch.float32) for threads in (1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("size", "transitions"), [(64, 256), (32, 512)])
def test_one_and_two_threads_give_the_same_bytes_with_real_buffers(
    size: int, transitions: int, precision: Precision
) -> None:
    """Large enough for memory of another kind, and for products that more threads would cut elsewhere."""
    rng, items = np.random.default_rng(6), 9_000
    sessions = sessions_of(*(rng.integers(0, items, length).tolist() for length in rng.integers(2, 9, 300)))
    one, two = (
        fit(
            sessions,
            items,
            TrainSettings(
                hidden_size=size,
                batch_transitions=transitions,
                epochs=1,
                threads=threads,
                precision=precision,
            ),
            lambda _: None,
        )
        for threads in (1, 2)
    )
    for name, tensor in parameters(one).items():
        assert torch.equal(tensor, parameters(two)[name]), name


@pytest.mark.parametrize("low", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("negatives", [None, 100])
def test_what_lies_in_the_buffers_makes_no_difference(negatives: int | None, low: torch.dtype) -> None:
    """Batches of changing shape, through a step that goes on and through a new one each time."""
    networks = [copy_of(network_of(33)) for _ in range(2)]
    optimisers = [[Adagrad(tensor) for tensor in (*network.tables, *network.dense)] for network in networks]
    steps = [
        FusedStep(network, mine[0], list(mine[1:]), TrainSettings(hidden_size=33), 0.3, low)
        for network, mine in zip(networks, optimisers, strict=True)
    ]
    with torch_threads(1):
        for sessions, longest in [(40, 9), (3, 20), (70, 4), (1, 2), (25, 21), (2, 2), (60, 12)]:
            given = drawn(clicks(sessions, longest), negatives)
            losses = [step(step.prepare(given), 0.05) for step in steps]
            assert losses[0] == losses[1]
            steps[1].close()
            steps[1] = FusedStep(
                networks[1],
                optimisers[1][0],
                list(optimisers[1][1:]),
                TrainSettings(hidden_size=33),
                0.3,
                low,
            )
    for step in steps:
        step.close()
    for name, tensor in parameters(networks[0]).items():
        assert torch.equal(tensor, parameters(networks[1])[name]), name


def test_rows_that_no_one_touches_stay() -> None:
    given, network = drawn(clicks(4, 4), 20), network_of(8)
    trained = copy_of(network)
    optimisers = [Adagrad(tensor) for tensor in (*trained.tables, *trained.dense)]
    step = FusedStep(trained, optimisers[0], list(optimisers[1:]), TrainSettings(), 0.0, torch.float32)
    step(step.prepare(given), 1.0)
    step.close()
    moved = (trained.embedding != network.embedding).any(1).nonzero()[:, 0].numpy()
    np.testing.assert_array_equal(moved, np.sort(given.touched))


def test_dropped_entries_are_of_the_share_asked_for_and_others_each_time() -> None:
    embedding = np.ones((1, 200), np.float32)
    rows = np.zeros(500, np.int64)
    x, keep, other = (np.empty((500, 200), np.float32) for _ in range(3))
    gather_inputs(embedding, rows, 0.4, 7, x, keep)
    assert (x == 0).mean() == pytest.approx(0.4, abs=0.01)
    assert x.mean() == pytest.approx(1, abs=0.01)
    for axis in (0, 1):
        spread = (x == 0).mean(axis)
        assert spread.std() == pytest.approx((0.24 / x.shape[axis]) ** 0.5, rel=0.3)
    for seed in (8, 7 + (1 << 32), 7 + (1 << 62)):
        gather_inputs(embedding, rows, 0.4, seed, other, keep)
        assert ((x == 0) == (other == 0)).mean() == pytest.approx(0.4**2 + 0.6**2, abs=0.01)
    gather_inputs(embedding, rows, 0.0, 7, x, keep)
    assert (x == 1).all()


def test_groups_are_a_stable_sort() -> None:
    places = np.random.default_rng(0).integers(0, 7, 40)
    starts, order = np.empty(9, np.int64), np.empty(40, np.int64)
    group(places, starts, order)
    np.testing.assert_array_equal(order, np.argsort(places, kind="stable"))
    np.testing.assert_array_equal(np.diff(starts), np.bincount(places, minlength=8))


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_parts_hold_every_session_whole(parts: int) -> None:
    given = drawn(clicks(11, 8), 50)
    dealt, sessions = deal(given, parts), session_of(given)
    order = np.argsort(sessions % parts, kind="stable")
    np.testing.assert_array_equal(dealt.inputs, given.batch.inputs[order])
    for part in dealt.parts:
        mine = sessions[order][part.begin : part.end]
        expected = np.concatenate([np.arange(count) for count in part.active])
        np.testing.assert_array_equal(np.unique(mine, return_inverse=True)[1], expected)
    assert sum(part.end - part.begin for part in dealt.parts) == len(sessions)
    for groups, rows in ((dealt.by_input, dealt.inputs), (dealt.by_target, dealt.targets)):
        of = np.repeat(np.arange(len(given.touched)), np.diff(groups.starts))
        np.testing.assert_array_equal(given.touched[of], rows[groups.order])
    assert dealt.weights.sum() == pytest.approx(given.batch.weights.mean(), rel=1e-5)


TRAINS = """
import hashlib
from tests.training.test_fused import clicks, sessions_of
from training.fit import fit
from training.network import weights
from training.settings import TrainSettings

settings = TrainSettings(hidden_size=33, epochs=2, batch_transitions=64)
network = fit(sessions_of(*clicks(80, 12)), 300, settings, lambda _: None)
print(hashlib.sha256(b"".join(array.tobytes() for array in weights(network).values())).hexdigest())
"""


def test_compiled_by_this_process_or_by_another_gives_the_same_bytes(tmp_path: Path) -> None:
    """The first training after an installation compiles the kernels, the second has them from disk."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    first, second = (
        subprocess.run(
            [sys.executable, "-c", TRAINS],
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=True,
        ).stdout
        for _ in range(2)
    )
    assert list(tmp_path.rglob("*.nbc"))
    assert first == second
