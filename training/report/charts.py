"""Which pictures a report has, as data: `page` draws them into HTML, `pictures` into PNG files.

No foreign text gets in here but the version of the model compared with.
"""

from dataclasses import dataclass
from typing import Literal

from training.evaluation import Metrics
from training.report.data import Bin, ReportData
from training.report.wording import K, count, score

Kind = Literal["model", "serving", "baseline"]


@dataclass(frozen=True)
class Bar:
    """One horizontal bar, from zero; `shown` is its value in words, `note` stands beside the label."""

    label: str
    value: float
    shown: str
    kind: Kind = "model"
    note: str = ""


@dataclass(frozen=True)
class Bars:
    """Horizontal bars; `error` is the standard error of the one of the model, 0 if not known."""

    title: str
    subtitle: str
    bars: list[Bar]
    error: float = 0.0

    @property
    def alt(self) -> str:
        """The whole of it in words."""
        return f"{self.title}: " + ", ".join(f"{bar.label} {bar.shown}" for bar in self.bars)


@dataclass(frozen=True)
class Line:
    """One value per epoch, first epoch first, in epochs from `first`."""

    title: str
    subtitle: str
    values: list[float]
    digits: int
    first: int = 1

    @property
    def alt(self) -> str:
        """The whole of it in words."""
        shown = ", ".join(f"{value:.{self.digits}f}" for value in self.values)
        return f"{self.title}, by epoch: {shown}"


@dataclass(frozen=True)
class Columns:
    """A histogram. `ticks` are the places of the columns with something written below, and what."""

    title: str
    subtitle: str
    bins: list[Bin]
    ticks: dict[int, str]
    alt: str


Chart = Bars | Line | Columns


def chart_groups(data: ReportData) -> dict[str, list[Chart]]:
    """All pictures by the name of their group, which is the name of the PNG file."""
    groups: dict[str, list[Chart]] = {
        "comparison": [*comparison(data)],
        "learning": [*learning(data)],
        "strengths": [*strengths(data)],
        "log": [*log_shape(data)],
    }
    return {name: charts for name, charts in groups.items() if charts}


def comparison(data: ReportData) -> list[Bars]:
    """The model beside the baselines and the model that serves, best first."""
    found = data.evaluation
    rows: list[tuple[str, Kind, Metrics]] = [("this model", "model", found.overall)]
    if data.serving is not None:
        rows.append(("serving model", "serving", data.serving))
    rows += [(name, "baseline", metrics) for name, metrics in data.baselines.items()]
    charts = []
    for title, subtitle, values, error in (
        ("Recall@20", "how often the next click was among twenty", _recall, found.recall_error),
        ("MRR@20", "how near to the top of the twenty", _mrr, found.mrr_error),
    ):
        best_first = sorted(rows, key=lambda row: -values(row[2]))
        bars = [
            Bar(name, values(metrics), score(values(metrics)), kind) for name, kind, metrics in best_first
        ]
        charts.append(Bars(title, subtitle, bars, error))
    return charts


def learning(data: ReportData) -> list[Line]:
    """Loss and recall by epoch; nothing of either where it was not measured."""
    charts = []
    if data.epochs:
        charts.append(
            Line("Loss", "mean over the training clicks, by epoch", [e.loss for e in data.epochs], 2)
        )
    recall = [(point.epoch, point.recall) for point in data.epochs if point.recall is not None]
    if recall:
        about = f"on {count(data.epoch_targets)} held-out clicks, by epoch; shown only, never used"
        charts.append(Line("Recall@20", about, [value for _, value in recall], 3, recall[0][0]))
    return charts


def strengths(data: ReportData) -> list[Bars]:
    """Recall by place in the session and by popularity of what came; groups without a target left out."""
    names = {"head": "popular items", "middle": "middle", "tail": "rare items"}
    groups: tuple[tuple[str, str, list[tuple[str, Metrics]], dict[str, str]], ...] = (
        ("Recall@20 by clicks seen", "how many clicks the session had made", data.evaluation.by_position, {}),
        (
            "Recall@20 by popularity",
            "each group holds a third of the training clicks",
            data.evaluation.by_popularity,
            names,
        ),
    )
    charts = []
    for title, subtitle, rows, renamed in groups:
        bars = [
            Bar(renamed.get(name, name), _recall(found), score(_recall(found)), note=count(found.targets))
            for name, found in rows
            if found.targets
        ]
        if bars:
            charts.append(Bars(title, subtitle, bars))
    return charts


def log_shape(data: ReportData) -> list[Columns]:
    """When the clicks came, how long the sessions are, how clicks spread over the items."""
    log = data.log
    held_out = f"{count(log.events_test)} of {count(log.events_train + log.events_test)}"
    last = log.timeline[-1].label if log.timeline else ""
    return [
        Columns(
            "Clicks over time",
            "by the end of their session",
            log.timeline,
            _spread([b.label[:10] for b in log.timeline], 2),
            f"Clicks over time, up to {last}; the test part holds {held_out}",
        ),
        Columns(
            "Length of the sessions",
            f"sessions by number of clicks; median {log.median_length:g}",
            log.lengths,
            _spread([b.label for b in log.lengths], 6),
            f"Sessions by number of clicks: median {log.median_length:g}, longest {log.longest}",
        ),
        Columns(
            "Popularity of the items",
            "items by their clicks in the training part",
            log.item_clicks,
            _spread([b.label.split("–")[0] for b in log.item_clicks], 12),
            "Items by number of training clicks: "
            + ", ".join(f"{b.label}: {count(b.train)}" for b in log.item_clicks),
        ),
    ]


def _spread(labels: list[str], shown: int) -> dict[int, str]:
    """At most so many of the labels, evenly spaced, by their places, and the last one."""
    last = len(labels) - 1
    step = max(1, -(-last // max(1, shown - 1)))
    places = [place for place in range(0, last, step) if last - place >= step / 2]
    return {place: labels[place] for place in (*places, last)}


def _recall(found: Metrics) -> float:
    return found.recall[K]


def _mrr(found: Metrics) -> float:
    return found.mrr[K]
