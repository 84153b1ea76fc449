"""The tables of scores that `nextclick train` and `nextclick evaluate` end with."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from training.evaluation import Evaluation, Metrics


def print_scores(
    console: Console,
    version: str,
    found: "Evaluation",
    baselines: "Mapping[str, Metrics]",
    beside: "Mapping[str, Metrics] | None" = None,
) -> None:
    """The model and what stands beside it, the model by group, and below it what to make of that.

    Args:
        console: where to.
        version: of the model.
        found: of the model.
        baselines: what it has to beat.
        beside: the rows under the model's; the baselines if not given.
    """
    from training.evaluation import verdict

    others = baselines if beside is None else beside
    _print_comparison(console, {version: found.overall, **others}, baselines)
    _print_groups(console, found)
    _say(console, verdict(found.overall, baselines))
    _say(console, _sureness(found))
    _say(console, _reach(found))


def _print_comparison(
    console: Console, rows: "Mapping[str, Metrics]", baselines: "Mapping[str, Metrics]"
) -> None:
    """A row per model; bold what is best at 20, a star at each baseline that the first row does not beat."""
    first = next(iter(rows.values()))
    table = Table(title=f"{first.targets:,} clicks to predict", caption=_caption(rows, baselines))
    table.add_column("model", no_wrap=True)
    for metric in ("recall@1", "recall@5", "recall@20", "MRR@20", "NDCG@20"):
        table.add_column(metric.replace("@", "\n@"), justify="right")  # in two lines, so that 80 columns do
    best = max(found.recall["20"] for found in rows.values())
    for name, found in rows.items():
        starred = name in baselines and _unbeaten(first, found)
        style = "bold" if found.recall["20"] == best else None
        table.add_row(f"{name} *" if starred else name, *_figures(found), style=style)
    console.print(table)


def _caption(rows: "Mapping[str, Metrics]", baselines: "Mapping[str, Metrics]") -> str | None:
    first = next(iter(rows.values()))
    if any(_unbeaten(first, found) for found in baselines.values()):
        return "* not beaten by the model, in recall@20 or MRR@20"
    return None


def _unbeaten(model: "Metrics", baseline: "Metrics") -> bool:
    return baseline.recall["20"] >= model.recall["20"] or baseline.mrr["20"] >= model.mrr["20"]


def _figures(found: "Metrics") -> Iterable[str]:
    values = (*(found.recall[cutoff] for cutoff in ("1", "5", "20")), found.mrr["20"], found.ndcg["20"])
    return (f"{value:.4f}" for value in values)


def _print_groups(console: Console, found: "Evaluation") -> None:
    """The model by how much of the session it had seen, and by how popular the item was that came."""
    table = Table(title="the model by group")
    table.add_column("group", no_wrap=True)
    table.add_column("clicks", justify="right")
    for metric in ("recall@5", "recall@20", "MRR@20"):
        table.add_column(metric, justify="right")
    named = [
        [
            (f"after {seen} click{'' if seen == '1' else 's'}", of_group)
            for seen, of_group in found.by_position
        ],
        [(f"{name} of the catalogue", of_group) for name, of_group in found.by_popularity],
    ]
    for groups in named:
        for name, of_group in groups:
            values = (of_group.recall["5"], of_group.recall["20"], of_group.mrr["20"])
            table.add_row(name, f"{of_group.targets:,}", *(f"{value:.4f}" for value in values))
        table.add_section()
    console.print(table)


def _sureness(found: "Evaluation") -> str:
    overall = found.overall
    return (
        f"Another sample of sessions would move these figures: recall@20 {overall.recall['20']:.4f}"
        f" ± {found.recall_error:.4f}, MRR@20 {overall.mrr['20']:.4f} ± {found.mrr_error:.4f} (standard"
        " error). Ties count against a model. Head, middle and tail are the items that hold a third of the"
        " training clicks each."
    )


def _reach(found: "Evaluation") -> str:
    every = found.all_targets
    return (
        f"{found.coverage['20']:.1%} of the catalogue was among the best 20 at least once."
        f" Of all {every.targets:,} clicks to predict, {found.unknown_share:.1%} are on items that the model"
        f" does not know. With every one counted: recall@20 {every.recall['20']:.4f},"
        f" MRR@20 {every.mrr['20']:.4f}."
    )


def _say(console: Console, sentence: str) -> None:
    console.print(sentence, markup=False, highlight=False, soft_wrap=True)
