"""A small report, and names that somebody up to no good, or merely elsewhere, could have chosen."""

import msgspec

from schemas.model_manifest import Architecture, FileEntry, OffsetRange
from training.evaluation import Evaluation, Metrics
from training.report.data import (
    Bin,
    Cost,
    EpochPoint,
    ExampleStep,
    LogSummary,
    Provenance,
    ReportData,
    Setting,
)

SCRIPT = "<script>alert('x')</script>"
ATTRIBUTE = '" onmouseover="alert(1)" x=\''
HEBREW = "נעליים-42"
OVERRIDE = "abc\u202egnp.exe\u2069\u2066"
LONG = "x" * 5_000
BROKEN = "half \ud800 and null \x00 and line\nbreak"
MARKDOWN = "` ![x](http://evil.example/y.png) | <b>&amp;"
HOSTILE = (
    SCRIPT,
    ATTRIBUTE,
    HEBREW,
    OVERRIDE,
    LONG,
    MARKDOWN,
    "🛒 чай 茶",
    "</style></title></svg>",
    "$x^{$",
)


def metrics(recall: float, mrr: float, targets: int = 1_000) -> Metrics:
    """The same at all cutoffs."""
    cutoffs = ("1", "5", "10", "20")
    return Metrics(
        targets, dict.fromkeys(cutoffs, recall), dict.fromkeys(cutoffs, mrr), dict.fromkeys(cutoffs, mrr)
    )


def report_data(**changes: object) -> ReportData:
    """A report of a model that beats its baselines; `changes` replace fields."""
    data = ReportData(
        model_version="20261121T120000-0123abcd",
        created_at_ms=1_795_000_000_000,
        architecture=Architecture("gru", 100, 2_933, "cosine", 11.0),
        settings=[
            Setting("epochs", 3, "log"),
            Setting("seed", 1, "default"),
            Setting("threads", 2, "chosen"),
        ],
        epochs=[EpochPoint(1, 3.5, 0.61), EpochPoint(2, 2.5, 0.68), EpochPoint(3, 2.1234, 0.7012)],
        epoch_targets=2_024,
        evaluation=Evaluation(
            metrics(0.715, 0.381),
            metrics(0.69, 0.36, 1_100),
            0.034,
            [("1", metrics(0.70, 0.3, 600)), ("6-10", metrics(0.75, 0.4, 400))],
            [
                ("head", metrics(0.81, 0.5, 500)),
                ("middle", metrics(0.7, 0.3, 300)),
                ("tail", metrics(0.6, 0.2, 200)),
            ],
            {"5": 0.3, "10": 0.4, "20": 0.58},
            0.0044,
            0.0031,
        ),
        baselines={"markov": metrics(0.581, 0.346), "VS-kNN": metrics(0.66, 0.35)},
        log=LogSummary(
            events=83_846,
            sessions=21_210,
            items=2_950,
            one_click_sessions=12,
            items_train=2_933,
            events_train=70_278,
            events_test=13_568,
            sessions_train=17_794,
            sessions_test=3_416,
            first_ms=1_396_314_000_000,
            last_ms=1_396_918_000_000,
            learned_until_ms=1_396_820_000_000,
            median_length=3,
            longest=78,
            half_items_share=0.067,
            lengths=[Bin("2", 8_000, 1_153), Bin("3", 3_000, 700), Bin(">20", 60, 9)],
            item_clicks=[Bin("1", 10), Bin("2–3", 300), Bin("4–7", 1_225)],
            timeline=[Bin("2014-04-01 01:00 UTC", 70_278), Bin("2014-04-07 01:00 UTC", 0, 13_568)],
        ),
        examples=[
            [
                ExampleStep("shoe", True, ["shoe", "sock", "boot"], "sock", 2),
                ExampleStep("sock", True, ["hat", "cap", "boot"], "boat", 1_204),
                ExampleStep("boat", False, ["hat", "cap", "boot"], "ghost", None),
            ]
        ],
        cost=Cost(78_012.3, 21.04, 25.5, 721.4, 2),
        provenance=Provenance(
            "file",
            "clicks.tsv.gz",
            [],
            "ab" * 32,
            {"items.json": FileEntry("cd" * 32, 12)},
            {"torch": "2.15"},
        ),
    )
    return msgspec.structs.replace(data, **changes)


def hostile_report() -> ReportData:
    """Every foreign text in it is one that must not get through."""
    steps = [ExampleStep(name, True, list(HOSTILE), other, 3)
             for name, other in zip(HOSTILE, (*HOSTILE[1:], BROKEN), strict=True)]  # fmt: skip
    data = report_data(examples=[steps])
    return msgspec.structs.replace(
        data,
        provenance=msgspec.structs.replace(
            data.provenance, name=SCRIPT + MARKDOWN + LONG, kind="topic", offsets=[OffsetRange(0, 5, 9)]
        ),
        log=msgspec.structs.replace(data.log, remarks=[ATTRIBUTE + LONG, SCRIPT], skipped={SCRIPT: 3}),
    )
