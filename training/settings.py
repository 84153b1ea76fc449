"""The settings of the trainer. What was measured: `deploy/decisions/0003-training-recipe.md`."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from schemas.model_manifest import MAX_LAYERS, Architecture, Cell, ItemEmbedding, Score

LossName = Literal["cross_entropy", "top1", "bpr", "top1_max", "bpr_max"]
Batching = Literal["sessions", "session_parallel"]
OptimiserName = Literal["adam", "adagrad"]
Precision = Literal["auto", "float32", "bfloat16"]
Device = Literal["cpu", "cuda"]


CHOICES = {
    "cell": get_args(Cell),
    "item_embedding": get_args(ItemEmbedding),
    "score": get_args(Score),
    "loss": get_args(LossName),
    "batching": get_args(Batching),
    "optimiser": get_args(OptimiserName),
    "precision": get_args(Precision),
    "device": get_args(Device),
}


@dataclass(frozen=True)
class TrainSettings:
    """How a model is fitted; the reason stands beside each default.

    None stands for a value that follows from the log; `training.fit` says which.

    Raises:
        ValueError: a value is out of its range.
    """

    hidden_size: int = 128
    """0.000 to 0.003 recall above 100, and matrix units, which pad 100 to 128, take no longer; 192 was no
    better, and serving pays for it on every click."""
    cell: Cell = "gru"
    """The cell of the published results, and one vector of state where an LSTM has two."""
    layers: int = 1
    """Each further one makes state and step that much larger."""
    item_embedding: ItemEmbedding = "shared"
    """Half of the parameters of separate ones, and each click teaches an item both of its sides."""
    score: Score = "cosine"
    """0.014 to 0.019 recall above a dot product."""
    temperature: float | None = None
    """Score = temperature · cos. None: 1.25 · ln(items), at most ln(training transitions / 2); 8 to 16.
    A cosine alone spans too little for a softmax, the more so the more items there are; few clicks do not
    tell chances far apart. A learned one was worse. A dot product has none."""
    last_click_query: bool = True
    """The query's term of the last click: 0.002 to 0.004 recall. Without an item embedding there is none."""
    epochs: int | None = None
    """None: about two million transitions in all, at least 3 passes and at most 10."""
    batch_transitions: int | None = None
    """None: 512 on logs under 200,000 training clicks, then 1,024 and from 400,000 on 2,048, which lose
    nothing by it and go through the catalogue less often."""
    max_transitions: int = 20
    """Full back-propagation through this many steps; 95% of the sessions of public logs are shorter."""
    learning_rate: float = 0.01
    """The largest that Adam took without loss; ends at 2% of it."""
    warm_up: float = 0.02
    """Share of the steps; Adam's moments are noise before."""
    final_rate: float = 0.02
    """Where the cosine ends, relative to the learning rate."""
    embedding_dropout: float | None = None
    """None: 0.4 on logs under 200,000 training clicks, else 0.25. Probability to drop, on inputs alone."""
    hidden_dropout: float = 0.0
    """Probability to drop an entry of the state that the query is made from; any hurt with these defaults."""
    batching: Batching = "sessions"
    """Whole sessions with full back-propagation; "session_parallel" as in the first paper, without."""
    parallel_sessions: int = 64
    """Sessions side by side where batching is session-parallel; published settings go from 32 to 128."""
    loss: LossName = "cross_entropy"
    """Over a large sample of candidates it is ahead of the losses of pairs; see `training.losses`."""
    bpreg: float = 0.01
    """Weight of the score regularisation of BPR-max; no other loss looks at it. Published values around 1 are
    for scores of a few units: with scores up to 11, 1 took MRR on a made-up log from 0.81 to 0.62."""
    logq: bool = True
    """Correct sampled logits by the log of their chance to be drawn; accuracy falls without. Cross-entropy
    over a sample only."""
    full_softmax_items: int = 6_000
    """Catalogues up to this size are scored in full: about as dear as drawing 8,192 candidates."""
    negatives: int = 8_192
    """Draws per batch beyond; 2,048 cost 0.019 recall on a catalogue of 43,000."""
    negative_alpha: float = 0.25
    """Negatives ∝ support^alpha: nearer to uniform than to popularity."""
    seed: int = 1
    optimiser: OptimiserName = "adam"
    """Adagrad, of the papers, did worse with these defaults; it wants a learning rate of its own."""
    momentum: float = 0.0
    """Of Adagrad."""
    precision: Precision = "auto"
    """Of the factors of products on a CPU; auto: bfloat16 where the processor multiplies them."""
    device: Device = "cpu"
    threads: int = 2
    """The same number gives the same bytes each time. With the fused step, of the defaults, one and two give
    the same ones, and each number above two its own; with the plain step (another cell, loss, batching,
    items, score or device, more layers, hidden dropout, no logQ) any two may differ."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        positive = ("hidden_size", "temperature", "max_transitions", "learning_rate", "negatives", "threads")
        for name in (*positive, "parallel_sessions", "epochs", "batch_transitions", "layers"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, not {value}")
        if self.hidden_size > MAX_HIDDEN_SIZE:
            raise ValueError(f"hidden_size must be at most {MAX_HIDDEN_SIZE:,}, not {self.hidden_size}")
        for name in ("seed", "bpreg"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)}")
        self._check_architecture()
        for name in ("warm_up", "final_rate", "embedding_dropout", "hidden_dropout", "momentum"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"{name} must be at least 0 and under 1, not {value}")

    def _check_architecture(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}")
        if self.layers > MAX_LAYERS:
            raise ValueError(f"layers must be at most {MAX_LAYERS}, not {self.layers}")
        architecture_for(self, items=1)


MAX_HIDDEN_SIZE = 4_096
"""As the manifest has it."""
SMALL_LOG_CLICKS = 200_000
"""Under this a log counts as small."""
BATCH_TRANSITIONS = ((SMALL_LOG_CLICKS, 512), (400_000, 1_024), (math.inf, 2_048))
"""Training clicks, and the transitions a step under that; measured in 0011."""
TOTAL_TRANSITIONS = 2_000_000
MIN_EPOCHS, MAX_EPOCHS = 3, 10
TEMPERATURE_PER_LOG, MIN_TEMPERATURE, MAX_TEMPERATURE = 1.25, 8.0, 16.0
TRANSITIONS_PER_ODDS = 2
"""Chances one to a thousand are believed from two thousand transitions on."""


def architecture_for(settings: TrainSettings, items: int, transitions: int | None = None) -> Architecture:
    """What these settings make of a catalogue of so many items, and of so many training transitions.

    Raises:
        ValueError: they do not fit together.
    """
    return Architecture(
        settings.cell,
        settings.hidden_size,
        items,
        settings.score,
        temperature_for(settings, items, transitions) if settings.score == "cosine" else 1.0,
        settings.layers,
        settings.item_embedding,
        settings.last_click_query,
    )


def temperature_for(settings: TrainSettings, items: int, transitions: int | None = None) -> float:
    """Length of a query over a catalogue of so many items, to a tenth.

    One item at cosine 1 against V at cosine 0 has the share 1 / (1 + V·e^−t): with t = 1.25 · ln V there is
    something to spare for those that come close. And e^t is the ratio of two items' chances at most; of N
    transitions none can be learned that is far above N.
    """
    wanted = TEMPERATURE_PER_LOG * math.log(items)
    if transitions:
        wanted = min(wanted, math.log(transitions / TRANSITIONS_PER_ODDS))
    return settings.temperature or min(MAX_TEMPERATURE, max(MIN_TEMPERATURE, round(wanted, 1)))


def epochs_for(settings: TrainSettings, transitions: int) -> int:
    """Passes over a log of so many training transitions."""
    by_size = min(MAX_EPOCHS, max(MIN_EPOCHS, round(TOTAL_TRANSITIONS / transitions)))
    return settings.epochs or by_size


def batch_transitions_for(settings: TrainSettings, clicks: int) -> int:
    """Transitions a step on a log of so many training clicks."""
    if settings.batching == "session_parallel":
        return settings.parallel_sessions
    by_size = next(transitions for below, transitions in BATCH_TRANSITIONS if clicks < below)
    return settings.batch_transitions or by_size


def embedding_dropout_for(settings: TrainSettings, clicks: int) -> float:
    """Probability to drop an entry of an input embedding on a log of so many training clicks."""
    if settings.embedding_dropout is not None:
        return settings.embedding_dropout
    return 0.4 if clicks < SMALL_LOG_CLICKS else 0.25
