"""The table of scores that `nextclick train` and `nextclick evaluate` end with."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from training.evaluate import Scores

_K = 20


def print_scores(
    console: Console, rows: "Mapping[str, Scores]", all_targets: "Scores", unknown_share: float
) -> None:
    """A row per model; below it what becomes of the first one when unknown items count as misses."""
    first = next(iter(rows.values()))
    table = Table(title=f"{first.targets:,} clicks to predict")
    table.add_column("model", no_wrap=True)
    table.add_column(f"recall@{_K}", justify="right")
    table.add_column(f"MRR@{_K}", justify="right")
    for name, found in rows.items():
        table.add_row(name, f"{found.recall[_K]:.4f}", f"{found.mrr[_K]:.4f}")
    console.print(table)
    console.print(
        f"Of all {all_targets.targets:,} clicks to predict, {unknown_share:.1%} are on items that the model"
        f" does not know. With every one counted: recall@{_K} {all_targets.recall[_K]:.4f},"
        f" MRR@{_K} {all_targets.mrr[_K]:.4f}. Ties count against the model.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
