"""Going on from an older model: what it knows, the new sessions, and a sample of the old ones.

The idea is that of ADER (Mi, Lin & Faltings, RecSys 2020, arXiv 2007.12000): a model that is trained on new
clicks alone forgets, unless a bounded sample of the older ones, the exemplars, is replayed beside them. Taken
from it: the number of exemplars of an item is proportional to how often the item was a label. Left out, on
purpose: herding (it costs a pass of the old model over all old sessions; here chance decides within an item)
and the distillation loss (the old model's scores of the whole catalogue for every exemplar). An exemplar here
is a whole session, because the trainer learns all steps of a session at once; its label is the last item.

A converged model also learns new clicks worse than a fresh one would. The cure is that of Ash & Adams ("On
Warm-Starting Neural Network Training", NeurIPS 2020, arXiv 1910.08475): shrink the weights, which keeps what
they say and makes it easy to unlearn. Their noise is left out, new items bring enough of it. A single pass is
too short for that (see `Manner`).

What was measured: `python -m tests.bench.warm_start`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from schemas.model_artefact import Artefact
from schemas.model_manifest import Architecture, ModelManifest
from training.errors import WarmStartError
from training.network import Network, new_network, parameters
from training.sessions import UNKNOWN, Sessions, rows_in
from training.settings import (
    TrainSettings,
    architecture_for,
    batch_transitions_for,
    embedding_dropout_for,
    epochs_for,
)

TRAINED_UNTIL_MS = "trained_until_ms"
"""Hyperparameter of the manifest: time of the last click that the model has learned. The log that it came
from goes further, by the part that tested it, and those clicks are still to be learned."""


def _check_share(name: str, share: float) -> None:
    if not 0 < share <= 1:
        raise ValueError(f"{name} must be above 0 and at most 1, not {share}")


@dataclass(frozen=True)
class Manner:
    """How old weights are treated."""

    shrink: float
    """Factor on each of them (Ash & Adams, see above)."""
    rate_share: float
    """Of the peak learning rate."""
    new_repeats: int
    """Times that each new session is gone through in a pass."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.new_repeats < 1:
            raise ValueError(f"new_repeats must be at least 1, not {self.new_repeats}")
        _check_share("shrink", self.shrink)
        _check_share("rate_share", self.rate_share)


IN_SEVERAL_PASSES = Manner(shrink=0.5, rate_share=1.0, new_repeats=1)
"""Learn the log again, with a good start. On rsc15_100k_ts with a fifth of new sessions, 3 of 10 passes,
recall@20 was 0.999 of that of full retraining; in the manner of one pass 0.987."""
IN_ONE_PASS = Manner(shrink=1.0, rate_share=0.25, new_repeats=3)
"""Keep what is known. On diginetica, where training from nothing takes three passes, recall@20 was 0.996 of
that of full retraining; 0.942 with halved weights, which one pass does not bring back; and 0.977 with new
sessions once, whose items are seen too seldom."""


@dataclass(frozen=True)
class WarmStartSettings:
    """How a model is gone on with; the reason stands beside each default."""

    work_share: float = 0.3
    """Of the work of training from nothing: so many fewer passes, and in each as many exemplars as the new
    sessions leave room for."""
    max_exemplars: int = 2_000_000
    """Bound on the sample, some 10 million clicks."""
    manner: Manner | None = None
    """None: by the number of passes that the work is enough for."""
    since_ms: int | None = None
    """Sessions that end after this are new; None asks the model."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.max_exemplars < 0:
            raise ValueError(f"max_exemplars must be at least 0, not {self.max_exemplars}")
        _check_share("work_share", self.work_share)


@dataclass(frozen=True, eq=False)
class WarmStart:
    """Where training begins.

    Attributes:
        network: of the vocabulary of the new model.
        sessions: to train on, oldest first: exemplars, and each new one several times.
        settings: for `fit`, nothing left open.
        new_sessions, exemplars: how many there are of each.
        known_items, forgotten_items: of the new vocabulary, known to the old model; of the old one, left out.
    """

    network: Network
    sessions: Sessions
    settings: TrainSettings
    new_sessions: int
    exemplars: int
    known_items: int
    forgotten_items: int


def warm_start(
    old: Artefact,
    sessions: Sessions,
    item_ids: list[str],
    settings: TrainSettings,
    warm: WarmStartSettings,
) -> WarmStart:
    """Prepare to go on from `old`.

    Args:
        old: the model.
        sessions: training sessions old and new, oldest first; item indices are rows of `item_ids`.
        item_ids: the vocabulary of the new model.
        settings: as for a training from nothing.
        warm: see there.

    Raises:
        WarmStartError: the old model is of another architecture, knows no item, or no session is new.
    """
    if (
        settings.temperature is None and settings.score == "cosine"
    ):  # a little more or less is no reason to refuse
        settings = replace(settings, temperature=old.manifest.architecture.temperature)
    check_architecture(old.manifest.architecture, settings)
    if warm.since_ms is None and old.manifest.hyperparameters.get("interrupted"):
        raise WarmStartError(
            f"the training of {old.manifest.model_version} was interrupted: it has not learned all of its"
            " clicks. Let --resume end it, or say with --new-since what is new"
        )
    since_ms = trained_until_ms(old.manifest) if warm.since_ms is None else warm.since_ms
    new = sessions.last_ms > since_ms
    if not new.any():
        raise WarmStartError(
            f"no training session ends after {since_ms} (ms since the epoch), where the clicks that"
            f" {old.manifest.model_version} has learned end: nothing is new. See --new-since"
        )
    rows = rows_in(item_ids, old.items)
    known = int((rows != UNKNOWN).sum())
    if not known:
        raise WarmStartError(f"{old.manifest.model_version} knows none of these items: is it of this shop?")
    fresh, manner = np.flatnonzero(new), manner_of(sessions, settings, warm)
    wanted = exemplars_wanted(sessions, len(fresh), settings, warm, manner)
    rng = np.random.default_rng(settings.seed)
    exemplars = choose_exemplars(sessions, np.flatnonzero(~new), wanted, rng)
    chosen = np.sort(np.concatenate([exemplars, np.repeat(fresh, manner.new_repeats)]))
    return WarmStart(
        network=warm_network(old.tensors, rows, sessions.take(fresh), settings, manner.shrink),
        sessions=sessions.take(chosen),
        settings=warm_settings(settings, warm, manner, sessions),
        new_sessions=len(fresh),
        exemplars=len(exemplars),
        known_items=known,
        forgotten_items=len(old.items) - known,
    )


def exemplars_wanted(
    sessions: Sessions, new: int, settings: TrainSettings, warm: WarmStartSettings, manner: Manner
) -> int:
    """How many old sessions to replay in a pass: what the share of the work leaves, and as many as are new.

    Args:
        sessions: old and new.
        new: how many are.
        settings: as for a training from nothing.
        warm, manner: see there.
    """
    work = warm.work_share * epochs_for(settings, sessions.transitions) * len(sessions)
    per_pass = round(work / passes(sessions, settings, warm))
    return min(warm.max_exemplars, max(per_pass - manner.new_repeats * new, new))


def manner_of(sessions: Sessions, settings: TrainSettings, warm: WarmStartSettings) -> Manner:
    """The manner that is asked for, else the one that suits the number of passes."""
    several = passes(sessions, settings, warm) > 1
    return warm.manner or (IN_SEVERAL_PASSES if several else IN_ONE_PASS)


def passes(sessions: Sessions, settings: TrainSettings, warm: WarmStartSettings) -> int:
    """Epochs of a warm start, where training from nothing makes those of `settings`."""
    return max(1, round(warm.work_share * epochs_for(settings, sessions.transitions)))


def check_architecture(old: Architecture, settings: TrainSettings) -> None:
    """Refuse a model whose weights do not fit.

    Raises:
        WarmStartError: see there.
    """
    asked = architecture_for(settings, old.items)
    odd = [
        f"{name} {getattr(old, name)}, not {getattr(asked, name)}"
        for name in Architecture.__struct_fields__
        if getattr(old, name) != getattr(asked, name)
    ]
    if odd:
        raise WarmStartError(
            f"the model to start from has {' and '.join(odd)}: say the same, or train without --from"
        )


def trained_until_ms(manifest: ModelManifest) -> int:
    """Time of the last click that a model has learned; of the last in its log where it does not say."""
    return int(manifest.hyperparameters.get(TRAINED_UNTIL_MS, manifest.training_data.last_timestamp_ms))


def warm_settings(
    settings: TrainSettings, warm: WarmStartSettings, manner: Manner, sessions: Sessions
) -> TrainSettings:
    """Fewer passes; all else as for the whole log, which the old model was trained on."""
    clicks = len(sessions.items)
    return replace(
        settings,
        epochs=passes(sessions, settings, warm),
        learning_rate=settings.learning_rate * manner.rate_share,
        batch_transitions=batch_transitions_for(settings, clicks),
        embedding_dropout=embedding_dropout_for(settings, clicks),
    )


def choose_exemplars(
    sessions: Sessions, old: NDArray[np.int64], wanted: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Choose old sessions to replay, for each last item in proportion to how many end with it.

    Args:
        sessions: all.
        old: int64, indices of those to choose from.
        wanted: at most so many are chosen.
        rng: decides which ones of an item.

    Returns:
        int64, distinct indices, in no order.
    """
    if wanted >= len(old):
        return old
    shuffled = rng.permutation(old)
    label = sessions.items[sessions.starts[1:][shuffled] - 1]
    by_label = shuffled[np.argsort(label, kind="stable")]
    # Evenly spaced places in a list sorted by label: each label gets its share, rounded up or down.
    places = ((np.arange(wanted) + rng.random()) * len(old) / max(1, wanted)).astype(np.int64)
    return by_label[places]


@torch.no_grad()
def warm_network(
    old: Mapping[str, NDArray[np.float32]],
    rows: NDArray[np.int32],
    sessions: Sessions,
    settings: TrainSettings,
    shrink: float,
) -> Network:
    """Weights to begin with: the old ones; a new item begins as a mean of its neighbours, else at random.

    Args:
        old: tensors of the old model.
        rows: int32 [V], the old model's row of each item, or `UNKNOWN`.
        sessions: to find the neighbours of new items in.
        settings: of the old model's architecture.
        shrink: factor on every weight.
    """
    network = new_network(architecture_for(settings, len(rows)), Generator().manual_seed(settings.seed))
    for name, parameter in parameters(network).items():
        if "embedding" in name:
            fill_rows(parameter, torch.from_numpy(old[name]), rows, sessions)
        else:
            parameter.copy_(torch.from_numpy(old[name]))
        parameter.mul_(shrink)
    return network


def fill_rows(table: Tensor, old: Tensor, rows: NDArray[np.int32], sessions: Sessions) -> None:
    """Fill the rows of an item table [V, H] in place; rows without a known neighbour stay as they are.

    A new item takes the mean of the known items clicked just before or after it, once per click, scaled to
    the old table's typical length; a tenth of its random start stays in, to tell apart what has the same
    neighbours.
    """
    known = rows != UNKNOWN
    table[torch.from_numpy(known)] = old[torch.from_numpy(rows[known])]
    new, neighbour = neighbours(sessions, known)
    if not len(new):
        return
    place = np.cumsum(~known) - 1  # of each new item among the new ones
    sums = torch.zeros(int((~known).sum()), table.shape[1])
    sums.index_add_(0, torch.from_numpy(place[new]), table[torch.from_numpy(neighbour)])
    found = np.unique(new)
    mean = torch.nn.functional.normalize(sums[torch.from_numpy(place[found])])
    at = torch.from_numpy(found)
    table[at] = mean * old.norm(dim=1).median() + 0.1 * table[at]


def neighbours(sessions: Sessions, known: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs (new item, known item) that were clicked one after the other, in either order; int64 [P] each."""
    items = sessions.items.astype(np.int64)
    inside = np.ones(len(items), bool)
    inside[sessions.starts[1:] - 1] = False  # the last click of a session has no successor
    before, after = items[:-1][inside[:-1]], items[1:][inside[:-1]]
    one, other = np.concatenate([before, after]), np.concatenate([after, before])
    wanted = ~known[one] & known[other]
    return one[wanted], other[wanted]
