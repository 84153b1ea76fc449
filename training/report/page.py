"""`report.html`: one file that needs nothing else, readable on a phone, on paper, in light and dark."""

from training.evaluation import Metrics
from training.report.charts import Chart, chart_groups
from training.report.data import ReportData
from training.report.details import facts_of_log, provenance, sessions, settings
from training.report.drawing import draw
from training.report.markup import Markup, foreign, joined, tag
from training.report.style import STYLE
from training.report.verdict import beats_baselines, verdict_of
from training.report.wording import K, count, instant, percent, score, seconds

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Nothing is loaded and no script runs, whatever an identifier looks like."""
FEW_TARGETS = 500
"""Under this the sampling error of recall@20 is above 0.02: more than most models differ by."""
FEW = " Few clicks were held out to judge it by: take every figure here with care."
CUTOFFS = ("1", "5", "10", "20")


def page(data: ReportData) -> str:
    """The whole report as HTML."""
    groups = chart_groups(data)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{data.model_version}: training report"),
        tag("style", Markup(STYLE)),
    )
    body = tag(
        "main",
        _header(data),
        _section("Against the baselines", _compared(data), _charts(groups.get("comparison", []))),
        _section("While it learned", _learned(data), _charts(groups.get("learning", []))),
        _section(
            "Where it does well, and where not",
            _strong(data),
            _charts(groups.get("strengths", []), "charts plain"),
        ),
        _section("All scores", _counting(data), _score_table(data)),
        _section(
            "A few real sessions",
            "Held-out sessions, picked by a fixed rule. In bold what the visitor clicked, below it the first"
            " five of what this model would have recommended right then. The rank says where the list before"
            " had the click; up to twenty is a hit.",
            sessions(data),
        ),
        _section("The clicks it learned from", _log(data), _legend(), _charts(groups.get("log", []))),
        facts_of_log(data),
        _section(
            "Settings",
            "Enough to repeat this training. What is marked was not left at its default.",
            settings(data),
        ),
        _section("Cost and origin", None, provenance(data)),
        _footer(),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', body), lang='en')}\n"


def _header(data: ReportData) -> Markup:
    found = data.evaluation
    ahead = beats_baselines(data)
    log = joined("Learned from ", foreign(data.provenance.name), f", finished {instant(data.created_at_ms)}.")
    facts = (
        ("Recall@20", score(found.overall.recall[K]), _error(found.recall_error)),
        ("MRR@20", score(found.overall.mrr[K]), _error(found.mrr_error)),
        ("Clicks to predict", count(found.overall.targets), "held out, never trained on"),
        ("On unknown items", percent(found.unknown_share), "of all held-out clicks"),
        ("Training", seconds(data.cost.fit_s), f"{count(data.cost.events_per_s)} clicks/s"),
    )
    title = f"The next click was among twenty recommendations {percent(found.overall.recall[K])} of the time."
    said = tag("p", verdict_of(data))
    return tag(
        "header",
        tag("p", f"Training report · {data.model_version}", class_="kicker"),
        tag("h1", title),
        tag("p", log, None if found.overall.targets >= FEW_TARGETS else FEW),
        said if ahead else tag("div", said, class_="alert", role="note"),
        tag(
            "dl",
            *(
                tag("div", tag("dt", name), tag("dd", value, tag("small", note)))
                for name, value, note in facts
            ),
            class_="facts",
        ),
    )


def _error(value: float) -> str:
    return f"± {score(value)} sampling error" if value else "sampling error not known"


def _section(title: str, about: str | None, *content: Markup) -> Markup:
    return tag("section", tag("h2", title), tag("p", about) if about else None, *content)


def _charts(charts: list[Chart], class_: str = "charts") -> Markup:
    return tag("div", *(draw(chart) for chart in charts), class_=class_)


def _compared(data: ReportData) -> str:
    said = f"The same {count(data.evaluation.overall.targets)} held-out clicks for each."
    if data.serving is not None:
        said += f" The serving model is {data.serving_version}."
    return f"{said} The thin line marks one sampling error either way: a gap under two may be chance."


def _learned(data: ReportData) -> str:
    if not data.epochs:
        return "No epochs were recorded."
    passes = len(data.epochs)
    return (
        f"{passes} {'pass' if passes == 1 else 'passes'} over {count(data.log.events_train)} clicks"
        f" in {count(data.log.sessions_train)} sessions."
    )


def _strong(data: ReportData) -> str:
    coverage = data.evaluation.coverage.get(K)
    said = "The small number is how many clicks each bar rests on."
    if coverage is not None:
        said += f" {percent(coverage)} of the catalogue is recommended to somebody, among twenty."
    return said


def _counting(data: ReportData) -> str:
    every = data.evaluation.all_targets
    return (
        "Each next click is ranked against the whole catalogue; ties count against the model. The first rows"
        " leave out clicks that nothing can predict, as published comparisons do. The last row counts all"
        f" {count(every.targets)} later clicks, and one on an unknown item as a miss."
    )


def _score_table(data: ReportData) -> Markup:
    rows: list[tuple[str, Metrics, str | None]] = [("this model", data.evaluation.overall, "own")]
    if data.serving is not None:
        rows.append(("serving model", data.serving, None))
    best_first = sorted(data.baselines.items(), key=lambda row: -row[1].recall[K])
    rows += [(name, found, None) for name, found in best_first]
    rows.append(("this model, every click", data.evaluation.all_targets, None))
    kinds = (tag("th", name, class_="kind", colspan=len(CUTOFFS)) for name in ("Recall", "MRR", "NDCG"))
    names = [f"@{k}" for _ in range(3) for k in CUTOFFS]
    head = joined(
        tag("tr", tag("th", ""), *kinds),
        tag("tr", tag("th", ""), *(tag("th", name, class_="num", scope="col") for name in names)),
    )
    body = [
        tag("tr", tag("th", name, scope="row"), *(tag("td", cell, class_="num") for cell in _cells(found)),
            class_=class_)
        for name, found, class_ in rows
    ]  # fmt: skip
    return tag(
        "div",
        tag("table", tag("thead", head), tag("tbody", *body), class_="grid scores"),
        class_="scroll",
        tabindex=0,
    )


def _cells(found: Metrics) -> list[str]:
    """Recall, MRR and NDCG at each cutoff; a dash where it was not measured."""
    kinds = (found.recall, found.mrr, found.ndcg)
    return [f"{kind[k]:.4f}" if k in kind else "–" for kind in kinds for k in CUTOFFS]


def _legend() -> Markup:
    return tag(
        "ul",
        tag("li", tag("i", class_="train"), "training part"),
        tag("li", tag("i", class_="test"), "test part, held out"),
        class_="legend",
    )


def _log(data: ReportData) -> str:
    return (
        f"{count(data.log.events)} clicks in {count(data.log.sessions)} sessions"
        f" on {count(data.log.items)} items."
    )


def _footer() -> Markup:
    said = (
        "Recall@k: share of clicks whose item was among the first k. MRR@k: mean of 1/rank, zero beyond k."
        " NDCG@k: mean of 1/log2(1 + rank), zero beyond k. Replaying a log cannot tell what visitors would"
        " have clicked had they been shown these recommendations: a live comparison can."
    )
    return tag("footer", tag("p", said))
