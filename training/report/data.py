"""What a report shows, as plain data: `report.json`, from which page, plots and model card are drawn.

Identifiers in here are foreign input; whatever draws them escapes and shortens them. There are no session
ids: they may stand for people, and nobody needs them to judge a model.
"""

from typing import Literal

import msgspec

from schemas.model_manifest import Architecture, FileEntry, OffsetRange
from training.evaluation import Evaluation, Metrics


class EpochPoint(msgspec.Struct, frozen=True):
    """One epoch: mean loss, recall@20 on a sample of the held-out part (None: not measured)."""

    epoch: int
    loss: float
    recall: float | None


class Bin(msgspec.Struct, frozen=True):
    """One column of a histogram; `train` and `test` are counted apart."""

    label: str
    train: float
    test: float = 0.0


class LogSummary(msgspec.Struct, frozen=True):
    """The log that was learned from.

    Attributes:
        events, sessions, items: of the log as it was read.
        one_click_sessions: sessions with nothing to predict, left out of both parts.
        items_train: size of the catalogue: items of the training part.
        events_train, events_test, sessions_train, sessions_test: of the two parts.
        first_ms, last_ms: event times of the log, ms since the epoch.
        learned_until_ms: the last click of the training part.
        median_length, longest: clicks of the sessions of both parts.
        half_items_share: the most clicked items that hold half of the training clicks, as a share of items.
        lengths: sessions by number of clicks.
        item_clicks: items of the catalogue by number of training clicks.
        timeline: clicks by the end of their session, equal spans of time.
        skipped: records left out on reading, by reason.
        remarks: what was assumed on reading.
    """

    events: int
    sessions: int
    items: int
    one_click_sessions: int
    items_train: int
    events_train: int
    events_test: int
    sessions_train: int
    sessions_test: int
    first_ms: int
    last_ms: int
    learned_until_ms: int
    median_length: float
    longest: int
    half_items_share: float
    lengths: list[Bin]
    item_clicks: list[Bin]
    timeline: list[Bin]
    skipped: dict[str, int] = {}
    remarks: list[str] = []


class ExampleStep(msgspec.Struct, frozen=True):
    """One click, what would have been recommended after it, and what came.

    Attributes:
        clicked: item id.
        known: whether training has seen it; if not, the recommendation is that of the click before.
        recommended: item ids, best first; empty while nothing known was clicked.
        came: the next click.
        rank: of `came` in the whole catalogue, ties counted against the model; None: unknown to the model,
            or nothing known was clicked before.
    """

    clicked: str
    known: bool
    recommended: list[str]
    came: str
    rank: int | None


class Setting(msgspec.Struct, frozen=True):
    """One setting of the recipe; `origin` says whether it followed from the log or was asked for."""

    name: str
    value: float | int | str | bool
    origin: Literal["default", "log", "chosen"]


class Cost(msgspec.Struct, frozen=True):
    """What the training took. `fit_s` is the training loop alone; `peak_rss_mb` that of the whole process."""

    events_per_s: float
    fit_s: float
    total_s: float
    peak_rss_mb: float
    threads: int


class Provenance(msgspec.Struct, frozen=True):
    """Where the clicks came from and what the model was made with."""

    kind: Literal["topic", "file"]
    name: str
    offsets: list[OffsetRange]
    file_sha256: str | None
    files: dict[str, FileEntry]
    versions: dict[str, str]


class ReportData(msgspec.Struct, frozen=True):
    """Everything that a report shows. Baselines and `serving` are scored on the targets of `overall`."""

    model_version: str
    created_at_ms: int
    architecture: Architecture
    settings: list[Setting]
    epochs: list[EpochPoint]
    epoch_targets: int
    evaluation: Evaluation
    baselines: dict[str, Metrics]
    log: LogSummary
    examples: list[list[ExampleStep]]
    cost: Cost
    provenance: Provenance
    serving_version: str | None = None
    serving: Metrics | None = None
