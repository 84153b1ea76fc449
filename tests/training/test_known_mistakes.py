"""The mistakes that were found in other versions of GRU4Rec (Hidasi & Czapp 2023, arXiv 2307.14956).

Each has a test that fails when the mistake is made: here, its docstring naming the mistake, or where
`HELD_ELSEWHERE` says. These tests look at what `fit` returns, not at how it gets there.
"""

import importlib
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from tests.training.logs import habit_log, sessions_of
from training.batches import session_weights
from training.fit import fit
from training.losses import loss_function
from training.meter import FitProgress
from training.network import weights
from training.optimiser import Adagrad
from training.sessions import Sessions, TestShare, split_log
from training.settings import TrainSettings, temperature_for

HELD_ELSEWHERE = {
    "state not reset at session end in evaluation": "test_evaluate.test_state_ends_with_its_session",
    "unknown test items mishandled": "test_evaluate.test_batched_ranks_equal_slow_ones",
    "reset mask recomputed only when some session ends": (
        "test_session_parallel.test_each_state_is_that_of_a_fresh_walk_through_its_session"
    ),
    "epoch ends when fewer sessions than the batch are left (session-parallel)": (
        "test_session_parallel.test_an_epoch_holds_every_transition_once"
    ),
    "epoch ends when fewer sessions than the batch are left (whole sessions)": (
        "test_batches.test_an_epoch_holds_every_transition_once"
    ),
    "softmax before sampling": "test_fit.test_sampling_the_whole_catalogue_gives_the_full_loss_and_gradient",
    "wrong BPR-max or missing score regularisation": "test_losses.test_loss_and_gradient_are_the_formula",
    "log(0) in BPR-max": "test_losses.test_scores_far_apart_give_numbers",
    "non-Glorot initialisation": "test_network.test_start",
}

START = 1e-30
"""A learning rate that leaves the weights as they are drawn: what `fit` returns is where it starts."""


def quiet(_: FitProgress) -> None:
    """Show nothing."""


def fitted(sessions: Sessions, items: int, settings: TrainSettings) -> dict[str, NDArray[np.float32]]:
    """The weights after a training."""
    return weights(fit(sessions, items, settings, quiet))


def moved(sessions: Sessions, items: int, settings: TrainSettings, name: str) -> NDArray[np.bool_]:
    """Which entries of a weight a training moves."""
    start = fitted(sessions, items, replace(settings, learning_rate=START))[name]
    changed: NDArray[np.bool_] = np.abs(fitted(sessions, items, settings)[name] - start) > 1e-6
    return changed


@pytest.mark.parametrize("mistake", HELD_ELSEWHERE)
def test_named_tests_exist(mistake: str) -> None:
    module, name = HELD_ELSEWHERE[mistake].split(".")
    assert callable(getattr(importlib.import_module(f"tests.training.{module}"), name))


# What is computed, step by step


def literal_fit(
    start: dict[str, NDArray[np.float32]], clicks: list[list[int]], settings: TrainSettings
) -> dict[str, Tensor]:
    """Train for `epochs` steps of one batch at a constant rate: torch's cell and Adam, click by click."""
    learned, adam = literal_start(start, settings)
    session_weight = session_weights(sessions_of(*clicks)).tolist()
    for _ in range(settings.epochs or 0):
        losses = []
        for items, weight in zip(clicks, session_weight, strict=True):
            state = torch.zeros(1, settings.hidden_size, dtype=torch.float64)
            for click, following in itertools.pairwise(items):
                state, missed = literal_click(learned, settings, state, click, following)
                losses.append(weight * missed)
        literal_update(adam, losses)
    return {name: tensor.detach() for name, tensor in learned.items()}


def literal_start(
    start: dict[str, NDArray[np.float32]], settings: TrainSettings
) -> tuple[dict[str, Tensor], torch.optim.Adam]:
    """The same weights in float64, and what learns them."""
    learned = {name: torch.tensor(array, dtype=torch.float64) for name, array in start.items()}
    for tensor in learned.values():
        tensor.requires_grad_()
    return learned, torch.optim.Adam(learned.values(), lr=settings.learning_rate)


def literal_click(
    learned: dict[str, Tensor], settings: TrainSettings, state: Tensor, click: int, following: int
) -> tuple[Tensor, Tensor]:
    """The state after a click, [1, H], and −log of the share that the next one gets."""
    cell = [learned[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh")]
    x = learned["embedding"][click][None]
    state = torch.gru_cell(x, state, *cell)
    query = state @ learned["query_hidden"].t() + x @ learned["query_item"].t()
    cosines = functional.normalize(query) @ functional.normalize(learned["embedding"]).t()
    log_share = torch.log(torch.softmax(temperature_for(settings, 12) * cosines[0], 0))
    return state, -log_share[following]


def literal_update(adam: torch.optim.Adam, losses: list[Tensor]) -> None:
    """One step down the mean of these."""
    adam.zero_grad()
    torch.stack(losses).mean().backward()  # type: ignore[no-untyped-call]
    adam.step()


def literal_session_parallel_fit(
    start: dict[str, NDArray[np.float32]], clicks: list[list[int]], settings: TrainSettings
) -> dict[str, Tensor]:
    """The same with a step at every click: slots that take one session after the other, no back-propagation
    through time."""
    learned, adam = literal_start(start, settings)
    session_weight = session_weights(sessions_of(*clicks)).tolist()
    nothing = torch.zeros(1, settings.hidden_size, dtype=torch.float64)
    for _ in range(settings.epochs or 0):
        waiting = list(range(len(clicks)))
        slots: list[tuple[int, int, Tensor]] = []  # session, its next click, the state before it
        while True:
            while waiting and len(slots) < settings.parallel_sessions:
                slots.append((waiting.pop(0), 0, nothing))
            if not slots:
                break
            losses, going_on = [], []
            for session, at, state in slots:
                click, following = clicks[session][at : at + 2]
                after, missed = literal_click(learned, settings, state.detach(), click, following)
                losses.append(session_weight[session] * missed)
                if at + 2 < len(clicks[session]):
                    going_on.append((session, at + 1, after))
            literal_update(adam, losses)
            slots = going_on
    return {name: tensor.detach() for name, tensor in learned.items()}


def test_training_is_the_recipe_to_the_letter() -> None:
    """Softmax twice; another default optimiser; unasked learning-rate decay; state not reset in training."""
    clicks = [[0, 5, 5, 2], [3, 1], [7, 7, 6, 4, 7, 9], [11, 0, 3], [10, 8]]
    settings = TrainSettings(
        hidden_size=6,
        epochs=4,
        batch_transitions=100,
        embedding_dropout=0.0,
        warm_up=0.0,
        final_rate=1 - 1e-9,
        precision="float32",
    )
    sessions = sessions_of(*clicks)
    start = fitted(sessions, 12, replace(settings, learning_rate=START))
    expected = literal_fit(start, clicks, settings)
    for name, array in fitted(sessions, 12, settings).items():
        # 4 steps of 0.01: a wrong one is off by thousandths
        torch.testing.assert_close(torch.from_numpy(array).double(), expected[name], atol=2e-4, rtol=0)


def test_session_parallel_training_is_the_recipe_to_the_letter() -> None:
    """State never reset where a session ends, or always; reset where only the neighbour's ends."""
    clicks = [[0, 5, 5, 2], [3, 1], [7, 7, 6, 4, 7, 9], [11, 0, 3], [10, 8]]
    settings = TrainSettings(
        hidden_size=6,
        epochs=2,
        batching="session_parallel",
        parallel_sessions=2,
        temperature=2.0,  # the loss of two clicks jumps about with more, as if it exploded
        embedding_dropout=0.0,
        warm_up=0.0,
        final_rate=1 - 1e-9,
    )
    sessions = sessions_of(*clicks)
    start = fitted(sessions, 12, replace(settings, learning_rate=START))
    expected = literal_session_parallel_fit(start, clicks, settings)
    for name, array in fitted(sessions, 12, settings).items():
        torch.testing.assert_close(torch.from_numpy(array).double(), expected[name], atol=1e-4, rtol=0)


TWO_VALUES = {
    "hidden_size": (8, 12),
    "temperature": (11.0, 5.0),
    "epochs": (1, 2),
    "batch_transitions": (32, 64),
    "max_transitions": (20, 3),
    "learning_rate": (0.01, 0.02),
    "warm_up": (0.02, 0.5),
    "final_rate": (0.02, 0.5),
    "embedding_dropout": (0.0, 0.3),
    "hidden_dropout": (0.0, 0.3),
    "parallel_sessions": (16, 24),
    "loss": ("top1", "bpr"),
    "bpreg": (0.0, 0.5),
    "logq": (True, False),
    "full_softmax_items": (10, 1_000),
    "negatives": (5, 20),
    "negative_alpha": (0.0, 1.0),
    "seed": (1, 2),
    "cell": ("gru", "rnn"),
    "layers": (1, 2),
    "item_embedding": ("shared", "separate"),
    "score": ("cosine", "dot"),
    "last_click_query": (True, False),
    "batching": ("sessions", "session_parallel"),
    "optimiser": ("adam", "adagrad"),
    "momentum": (0.0, 0.5),
    "precision": ("float32", "bfloat16"),
}
WITH: dict[str, dict[str, object]] = {
    "parallel_sessions": {"batching": "session_parallel"},
    "bpreg": {"loss": "bpr_max"},
    "momentum": {"optimiser": "adagrad"},
    **{name: {"full_softmax_items": 10} for name in ("logq", "negatives", "negative_alpha")},
}


@pytest.mark.parametrize("name", TWO_VALUES)
def test_a_setting_is_not_hard_coded(name: str) -> None:
    """Hard-coded batch, layer or rate; hard-coded bpreg; dropout on embedding or last layer missing."""
    split = split_log(habit_log(60).clicks, TestShare())
    common = TrainSettings(
        hidden_size=8, epochs=1, batch_transitions=32, negatives=10, embedding_dropout=0.1, threads=1
    )
    outcomes = []
    for value in TWO_VALUES[name]:
        settings = replace(common, **{**WITH.get(name, {}), name: value})  # type: ignore[arg-type]
        outcomes.append(fitted(split.train, len(split.item_ids), settings)["w_ih"].tobytes())
    assert outcomes[0] != outcomes[1]


# Losses


@pytest.mark.parametrize("bpreg", [0.0, 0.25, 2.0])
def test_bpreg_weighs_the_size_of_scores(bpreg: float) -> None:
    """Hard-coded bpreg; missing score regularisation."""
    logits, target, weight = torch.tensor([[0.0, 1.0, 3.0]]), torch.tensor([0]), torch.ones(1)
    share = [math.exp(1) / (math.exp(1) + math.exp(3)), math.exp(3) / (math.exp(1) + math.exp(3))]
    size = share[0] * 1 + share[1] * 9
    loss = [
        loss_function(TrainSettings(loss="bpr_max", bpreg=by))(logits, target, weight, None).item()
        for by in (0.0, bpreg)
    ]
    assert loss[1] - loss[0] == pytest.approx(bpreg * size, rel=1e-5)


def test_bpr_max_learns_where_its_sum_is_zero() -> None:
    """log(0) in BPR-max, or a log kept from it by a constant: the worst ranks would teach nothing."""
    logits = torch.tensor([[-150.0, 150.0, 0.0]], requires_grad=True)
    loss = loss_function(TrainSettings(loss="bpr_max", bpreg=0.0))(
        logits, torch.tensor([0]), torch.ones(1), None
    )
    assert loss.item() == pytest.approx(300, rel=0.01)
    gradient = torch.autograd.grad(loss, logits)[0][0].tolist()
    assert gradient[0] == pytest.approx(-1, abs=1e-4)


# Negatives


class LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the size of the largest tensor that any operation of torch returns."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        """Run the operation."""
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.entries = max(self.entries, tensor.numel())
        return result


def test_a_large_catalogue_is_never_scored_whole() -> None:
    """All items scored before sampling; softmax before sampling."""
    items, hidden_size, transitions = 4_000, 4, 60
    sessions = sessions_of(*[[i, i + 1, i + 2] for i in range(transitions // 2)])
    settings = TrainSettings(
        hidden_size=hidden_size, epochs=1, batch_transitions=transitions, full_softmax_items=10, negatives=50
    )
    with LargestTensor() as largest:
        fit(sessions, items, settings, quiet)
    assert largest.entries <= 2 * items * hidden_size < transitions * items


def test_drawn_negatives_learn_too() -> None:
    """No negative sampling: the positives of the batch alone to tell apart."""
    sessions = sessions_of([0, 1, 2], [1, 2, 0])
    settings = TrainSettings(hidden_size=8, epochs=1, full_softmax_items=1, negatives=40, negative_alpha=0.0)
    rows = moved(sessions, 5_000, settings, "embedding").max(axis=1)
    assert rows[:3].all()
    assert 30 <= rows[3:].sum() <= 40  # distinct ones among 40 draws


# Dropout. Of the query A·h + B·x, a single click moves the columns of A whose entry of h is there, and of B
# whose entry of x is there: the masks can be read off.

ONE_CLICK = sessions_of([0, 1])
WIDE = TrainSettings(hidden_size=200, epochs=1, warm_up=0.0, threads=1)


def masks(embedding_dropout: float, hidden_dropout: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which entries of the input embedding and of the state were there, bool [H] each."""
    settings = replace(WIDE, embedding_dropout=embedding_dropout, hidden_dropout=hidden_dropout)
    of_state, of_input = (
        moved(ONE_CLICK, 5, settings, name).max(axis=0) for name in ("query_hidden", "query_item")
    )
    return of_input, of_state


@pytest.mark.parametrize("rates", [(0.0, 0.0), (0.1, 0.0), (0.0, 0.1), (0.1, 0.75), (0.75, 0.1)])
def test_dropout_drops_where_and_as_much_as_it_is_told(rates: tuple[float, float]) -> None:
    """Dropout on embedding or last layer missing; keep probability taken for drop probability."""
    for there, dropout in zip(masks(*rates), rates, strict=True):
        if dropout == 0:
            assert there.all()
        assert 1 - there.mean() == pytest.approx(dropout, abs=0.12)  # standard deviation at most 0.031


def test_embedding_and_state_have_masks_of_their_own() -> None:
    """One dropout shared by embedding and hidden."""
    of_input, of_state = masks(0.5, 0.5)
    assert 0.3 < (of_input != of_state).mean() < 0.7


def test_the_state_that_goes_on_keeps_all_its_entries() -> None:
    """Dropout of the last layer taken for one of the recurrence."""
    settings = replace(WIDE, embedding_dropout=0.0, hidden_dropout=0.75)
    assert moved(sessions_of([0, 1, 2]), 5, settings, "w_hh").any(0).all()


# Optimisers


def test_adagrad_starts_with_steps_of_the_full_rate() -> None:
    """Large initial Adagrad accumulator: its first steps would be small, whatever the rate."""
    weight = torch.zeros(3)
    Adagrad(weight).step(torch.tensor([0.01, -1.0, 100.0]), 0.1)
    torch.testing.assert_close(weight, torch.tensor([-0.1, 0.1, -0.1]), rtol=1e-3, atol=0)


def test_adagrad_slows_down_by_its_sum_alone() -> None:
    """Unasked learning-rate decay: step t under a constant gradient is rate / √t."""
    weight = torch.zeros(1)
    adagrad = Adagrad(weight)
    before = 0.0
    for step in range(1, 50):
        adagrad.step(torch.ones(1), 0.1)
        assert before - weight.item() == pytest.approx(0.1 / math.sqrt(step), rel=1e-3)
        before = weight.item()


@pytest.mark.parametrize("momentum", [0.0, 0.4])
def test_momentum_carries_a_step_on(momentum: float) -> None:
    """Momentum missing: without a gradient the second step is momentum · the first."""
    weight = torch.zeros(1)
    adagrad = Adagrad(weight, momentum=momentum)
    adagrad.step(torch.ones(1), 0.1)
    adagrad.step(torch.zeros(1), 0.1)
    assert weight.item() == pytest.approx(-0.1 * (1 + momentum), rel=1e-4)
