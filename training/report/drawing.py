"""Charts as HTML and inline SVG. Colours and type come from the style sheet, so they follow light and dark.

Bars are a table, so they are as wide as there is room and read aloud well. Lines and columns are SVG in a
fixed frame of `WIDTH` units, about a pixel each on a desk.
"""

from training.report.charts import Bars, Chart, Columns, Line
from training.report.data import Bin
from training.report.markup import Markup, joined, tag
from training.report.wording import count

WIDTH, HEIGHT = 360, 170
LEFT, RIGHT, TOP, BOTTOM = 6, 6, 22, 24


def draw(chart: Chart) -> Markup:
    """A figure with its title and subtitle."""
    if isinstance(chart, Bars):
        drawn = _bars(chart)
    elif isinstance(chart, Line):
        drawn = _line(chart)
    else:
        drawn = _columns(chart)
    caption = tag("figcaption", tag("b", chart.title), tag("span", chart.subtitle))
    return tag("figure", caption, drawn)


def _bars(chart: Bars) -> Markup:
    largest = max(max(bar.value for bar in chart.bars) + chart.error, 1e-9)
    rows, noted = [], any(bar.note for bar in chart.bars)
    for bar in chart.bars:
        track = [tag("i", style=f"width:{100 * bar.value / largest:.2f}%")]
        if bar.kind == "model" and chart.error:
            low = 100 * max(0.0, bar.value - chart.error) / largest
            wide = min(200 * chart.error / largest, 100 - low)
            track.append(tag("u", style=f"left:{low:.2f}%;width:{wide:.2f}%"))
        rows.append(
            tag(
                "tr",
                tag("th", bar.label, scope="row"),
                tag("td", bar.note, class_="num note") if noted else None,
                tag("td", *track, class_="track"),
                tag("td", bar.shown, class_="num"),
                class_=bar.kind,
            )
        )
    return tag("table", *rows, class_="bars", aria_label=chart.alt)


def _line(chart: Line) -> Markup:
    values = chart.values
    low, high = min(values), max(values)
    pad = (high - low) * 0.08 or max(abs(high), 1.0) * 0.05
    low, high = low - pad, high + pad
    left, right = LEFT + 34, WIDTH - RIGHT - 40

    def x(index: int) -> float:
        return (left + right) / 2 if len(values) == 1 else left + (right - left) * index / (len(values) - 1)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    points = [(x(index), y(value)) for index, value in enumerate(values)]
    path = "M" + "L".join(f"{at_x:.1f} {at_y:.1f}" for at_x, at_y in points)
    dots = [
        tag("circle", cx=f"{at_x:.1f}", cy=f"{at_y:.1f}", r=3 if index in {0, len(values) - 1} else 2)
        for index, (at_x, at_y) in enumerate(points)
    ]
    shown = [_number(points[-1], f"{values[-1]:.{chart.digits}f}", 8, "start", "now")]
    if len(values) > 1:
        shown.append(_number(points[0], f"{values[0]:.{chart.digits}f}", -8, "end", "then"))
    ends = sorted({0, (len(values) - 1) // 2, len(values) - 1})
    under = [
        tag("text", f"{'epoch ' if index == 0 else ''}{chart.first + index}", x=f"{x(index):.1f}",
            y=HEIGHT - 6, text_anchor="middle")
        for index in ends
    ]  # fmt: skip
    base = _baseline(left - 4, right + 4)
    return _svg(chart.alt, base, tag("path", d=path, class_="curve"), *dots, *shown, *under)


def _columns(chart: Columns) -> Markup:
    largest = max(1.0, *(b.train + b.test for b in chart.bins))
    step = (WIDTH - LEFT - RIGHT) / len(chart.bins)
    wide = max(step - (2 if len(chart.bins) <= 30 else 1), 1)
    drawn = []
    for index, b in enumerate(chart.bins):
        at_x = LEFT + index * step + (step - wide) / 2
        scale = (HEIGHT - TOP - BOTTOM) / largest
        base = HEIGHT - BOTTOM
        parts = []
        for value, kind, below in ((b.train, "train", 0.0), (b.test, "test", b.train)):
            if value:
                top = base - (below + value) * scale
                parts.append(
                    tag("rect", x=f"{at_x:.2f}", y=f"{top:.2f}", width=f"{wide:.2f}",
                        height=f"{max(value * scale, 0.6):.2f}", class_=kind)
                )  # fmt: skip
        drawn.append(tag("g", tag("title", _in_words(b)), *parts))
    highest = max(range(len(chart.bins)), key=lambda index: chart.bins[index].train + chart.bins[index].test)
    ticks = [_tick(chart, index, shown, step) for index, shown in chart.ticks.items()]
    return _svg(chart.alt, *drawn, _peak(chart, highest, step), _baseline(LEFT, WIDTH - RIGHT), *ticks)


def _in_words(b: Bin) -> str:
    if not b.test:
        return f"{b.label}: {count(b.train)}"
    return f"{b.label}: {count(b.train)} training, {count(b.test)} test"


def _tick(chart: Columns, index: int, shown: str, step: float) -> Markup:
    """The label under a column; the outermost ones stay inside the frame."""
    middle, anchor = LEFT + (index + 0.5) * step, "middle"
    if len(shown) * 7 > 2 * step and index in {0, len(chart.bins) - 1} and len(chart.bins) > 1:
        middle, anchor = (LEFT, "start") if index == 0 else (WIDTH - RIGHT, "end")
    return tag("text", shown, x=f"{middle:.1f}", y=HEIGHT - 6, text_anchor=anchor)


def _peak(chart: Columns, index: int, step: float) -> Markup:
    """The count of the highest column, above it: it stands for the axis."""
    middle = min(max(LEFT + (index + 0.5) * step, 26), WIDTH - 26)
    value = chart.bins[index].train + chart.bins[index].test
    return tag("text", count(value), x=f"{middle:.1f}", y=TOP - 6, text_anchor="middle", class_="strong")


def _number(at: tuple[float, float], shown: str, aside: float, anchor: str, kind: str) -> Markup:
    return tag("text", shown, x=f"{at[0] + aside:.1f}", y=f"{at[1] + 4:.1f}", text_anchor=anchor, class_=kind)


def _baseline(left: float, right: float) -> Markup:
    return tag("line", x1=left, x2=right, y1=HEIGHT - BOTTOM, y2=HEIGHT - BOTTOM, class_="base")


def _svg(alt: str, *children: Markup) -> Markup:
    return tag(
        "svg", tag("title", alt), joined(*children), viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img",
        aria_label=alt, class_="chart",
    )  # fmt: skip
