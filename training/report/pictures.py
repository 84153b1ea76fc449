"""The charts as PNG files, for slides, wikis and the model card. Needs matplotlib, the extra `report`.

matplotlib takes a second to import and is not needed to serve or train, so it is imported where it draws; no
state of pyplot is touched.
"""

import io
import warnings
from typing import TYPE_CHECKING

from training.report.charts import Bars, Chart, Columns, Line
from training.report.wording import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, RULE = "#1d2227", "#5c6670", "#dfe2e5"
FILL = {"model": "#0072b2", "baseline": "#b3bcc5", "serving": "#cc79a7", "test": "#d98c00"}
PANEL_WIDTH_IN = 4.4
DOTS_PER_INCH = 150


class NoMatplotlibError(Exception):
    """matplotlib is not installed."""


def pictures(groups: dict[str, list[Chart]]) -> dict[str, bytes]:
    """One PNG per group, its charts side by side, on white.

    Raises:
        NoMatplotlibError: see there.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise NoMatplotlibError(str(error)) from None
    drawn = {}
    for name, charts in groups.items():
        height = max(_height_in(chart) for chart in charts)
        figure = Figure(
            figsize=(PANEL_WIDTH_IN * len(charts), height), layout="constrained", facecolor="white"
        )
        figure.get_layout_engine().set(w_pad=0.15, h_pad=0.1, wspace=0.06)  # type: ignore[union-attr, call-arg]
        for axes, chart in zip(figure.subplots(1, len(charts), squeeze=False)[0], charts, strict=True):
            _draw(axes, chart, max(_rows(chart) for chart in charts))
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a glyph that the font lacks is drawn as a box
            figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
        drawn[name] = buffer.getvalue()
    return drawn


def _height_in(chart: Chart) -> float:
    return 0.95 + 0.27 * max(len(chart.bars), 3) if isinstance(chart, Bars) else 2.4


def _rows(chart: Chart) -> int:
    return len(chart.bars) if isinstance(chart, Bars) else 0


def _draw(axes: "Axes", chart: Chart, rows: int) -> None:
    """Draw a chart; `rows` are the most bars of any chart beside it, so that all bars are equally thick."""
    axes.set_title(chart.title, loc="left", color=INK, fontsize=10.5, fontweight="bold", pad=26)
    axes.annotate(
        chart.subtitle, (0, 1), xytext=(0, 13), xycoords="axes fraction", textcoords="offset points",
        color=MUTED, fontsize=8, parse_math=False,
    )  # fmt: skip
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelcolor=MUTED, labelsize=8.5)
    if isinstance(chart, Bars):
        _bars(axes, chart, rows)
    elif isinstance(chart, Line):
        _line(axes, chart)
    else:
        _columns(axes, chart)


def _bars(axes: "Axes", chart: Bars, rows: int) -> None:
    places = list(range(len(chart.bars)))
    axes.barh(
        places, [bar.value for bar in chart.bars], height=0.62, color=[FILL[bar.kind] for bar in chart.bars]
    )
    largest = max(max(bar.value for bar in chart.bars) + chart.error, 1e-9)
    for place, bar in zip(places, chart.bars, strict=True):
        own = bar.kind == "model" and bool(chart.error)
        if own:
            axes.errorbar(bar.value, place, xerr=chart.error, color=INK, linewidth=0.8, capsize=2)
        axes.text(
            bar.value + (chart.error if own else 0) + largest * 0.015, place, bar.shown, va="center",
            color=INK if own else MUTED, fontsize=8.5, fontweight="bold" if own else "normal",
        )  # fmt: skip
    labels = [f"{bar.label}  ({bar.note})" if bar.note else bar.label for bar in chart.bars]
    axes.set_yticks(places, labels, parse_math=False)
    axes.set_xlim(0, largest * 1.15)
    axes.set_xticks([])
    axes.set_ylim(rows - 0.5, -0.5)


def _line(axes: "Axes", chart: Line) -> None:
    epochs = list(range(chart.first, chart.first + len(chart.values)))
    axes.plot(epochs, chart.values, color=FILL["model"], linewidth=1.8, marker="o", markersize=3.5)
    ends = {0, len(epochs) - 1}
    for index in sorted(ends):
        last = index == len(epochs) - 1
        axes.annotate(
            f"{chart.values[index]:.{chart.digits}f}", (epochs[index], chart.values[index]),
            xytext=(7 if last else -7, 0), textcoords="offset points", va="center", fontsize=8.5,
            ha="left" if last else "right", color=INK if last else MUTED,
            fontweight="bold" if last else "normal",
        )  # fmt: skip
    shown = sorted({epochs[0], epochs[(len(epochs) - 1) // 2], epochs[-1]})
    axes.set_xticks(shown, [f"epoch {epoch}" if epoch == shown[0] else str(epoch) for epoch in shown])
    axes.set_yticks([])
    axes.margins(x=0.16, y=0.12)
    axes.spines["bottom"].set(visible=True, color=RULE)


def _columns(axes: "Axes", chart: Columns) -> None:
    places = list(range(len(chart.bins)))
    train, test = [b.train for b in chart.bins], [b.test for b in chart.bins]
    axes.bar(places, train, width=0.86, color=FILL["baseline"])
    axes.bar(places, test, width=0.86, bottom=train, color=FILL["test"])
    total = [below + above for below, above in zip(train, test, strict=True)]
    highest = max(places, key=lambda place: total[place])
    axes.annotate(
        count(total[highest]), (highest, total[highest]), xytext=(0, 3), textcoords="offset points",
        ha="center", fontsize=8.5, color=INK, fontweight="bold",
    )  # fmt: skip
    if any(test):
        axes.text(
            0.99, 0.97, "training", transform=axes.transAxes, ha="right", va="top", color=MUTED, fontsize=8
        )
        axes.text(
            0.99, 0.86, "test", transform=axes.transAxes, ha="right", va="top", color=FILL["test"], fontsize=8
        )
    axes.set_xticks(list(chart.ticks), list(chart.ticks.values()), parse_math=False)
    if len(chart.ticks) > 1:
        axes.get_xticklabels()[0].set_horizontalalignment("left" if len(places) > 30 else "center")
        axes.get_xticklabels()[-1].set_horizontalalignment("right" if len(places) > 30 else "center")
    axes.set_yticks([])
    axes.margins(x=0.01)
    axes.set_ylim(0, 1.14 * max(1.0, total[highest]))
    axes.spines["bottom"].set(visible=True, color=RULE)
