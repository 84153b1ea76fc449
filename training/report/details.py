"""The parts of the report that are lists: the log in figures, sessions, settings, cost and origin."""

from training.report.data import ExampleStep, ReportData
from training.report.examples import is_hit
from training.report.markup import Child, Markup, foreign, joined, tag
from training.report.wording import count, instant, percent, seconds, span

MAX_OFFSETS_SHOWN = 64
MAX_NOTES_SHOWN = 10
MAX_REMARK = 300


def facts_of_log(data: ReportData) -> Markup:
    """Figures of the log, and what was assumed or left out on reading it."""
    log = data.log
    parts: list[tuple[str, Child]] = [
        ("Training part", f"{count(log.events_train)} clicks in {count(log.sessions_train)} sessions"),
        ("Test part", f"{count(log.events_test)} clicks in {count(log.sessions_test)} sessions"),
        ("Sessions of one click", f"{count(log.one_click_sessions)}, left out: nothing to predict"),
        (
            "Catalogue",
            f"{count(log.items_train)} items, {percent(log.half_items_share)} of them make half the clicks",
        ),
    ]
    times: list[tuple[str, Child]] = [
        ("First click", instant(log.first_ms)),
        ("Last click", f"{instant(log.last_ms)}, {span(log.last_ms - log.first_ms)} later"),
        ("Session length", f"median {log.median_length:g} clicks, longest {count(log.longest)}"),
        ("On unknown items", f"{percent(data.evaluation.unknown_share)} of the clicks to predict"),
    ]
    notes = [tag("li", foreign_note(remark)) for remark in log.remarks[:MAX_NOTES_SHOWN]]
    notes += [
        tag("li", f"{count(number)} records left out: ", foreign(reason))
        for reason, number in sorted(log.skipped.items())[:MAX_NOTES_SHOWN]
    ]
    return joined(
        tag("div", _pairs(parts), _pairs(times), class_="two", style="margin-top:1.6rem"),
        tag("ul", *notes, class_="notes") if notes else None,
    )


def sessions(data: ReportData) -> Markup:
    """The example sessions, click by click."""
    if not data.examples:
        return tag("p", "The test part has no session that is short enough to be shown.")
    drawn = []
    for number, steps in enumerate(data.examples, 1):
        hits = sum(is_hit(step) for step in steps)
        title = f"Session {number}: {hits} of {len(steps)} among twenty"
        drawn.append(tag("div", tag("h3", title), _session(steps, data.architecture.items)))
    return tag("div", *drawn, class_="sessions")


def _session(steps: list[ExampleStep], items: int) -> Markup:
    """The clicks one below the other; each says where the list above it had it."""
    drawn, outcome = [], None
    for step in steps:
        note = None if step.known else tag("small", "unknown to the model")
        listed = [
            tag("span", foreign(item), class_="came" if item == step.came else None)
            for item in step.recommended
        ] or [tag("small", "popular items: nothing known was clicked yet")]
        clicked = tag("p", tag("b", foreign(step.clicked)), note, outcome)
        drawn.append(tag("li", clicked, tag("p", *listed, class_="list")))
        outcome = _outcome(step, items)
    drawn.append(tag("li", tag("p", tag("b", foreign(steps[-1].came)), outcome)))
    return tag("ol", *drawn, class_="steps")


def _outcome(step: ExampleStep, items: int) -> Markup:
    """Where the click that came stood in the recommendation before it."""
    if step.rank is None:
        unknown = "nothing known before" if not step.recommended else "unknown to the model"
        return tag("span", f"○ miss, {unknown}", class_="miss")
    if is_hit(step):
        return tag("span", f"● hit, rank {count(step.rank)}", class_="hit")
    return tag("span", f"○ miss, rank {count(step.rank)} of {count(items)}", class_="miss")


def settings(data: ReportData) -> Markup:
    """Every setting, in two columns; what followed from the log or was asked for is marked."""
    marks = {"log": ("from the log", "mark"), "chosen": ("asked for", "mark chosen"), "default": None}
    rows: list[tuple[str, Child]] = []
    for setting in data.settings:
        mark = marks[setting.origin]
        value = f"{setting.value:g}" if isinstance(setting.value, float) else str(setting.value)
        rows.append(
            (setting.name, joined(foreign(value), tag("span", mark[0], class_=mark[1]) if mark else None))
        )
    half = (len(rows) + 1) // 2
    return tag("div", _pairs(rows[:half]), _pairs(rows[half:]), class_="two")


def provenance(data: ReportData) -> Markup:
    """What the training took, and everything that is needed to find the clicks again."""
    cost, origin, shape = data.cost, data.provenance, data.architecture
    left: list[tuple[str, Child]] = [
        ("Training loop", f"{seconds(cost.fit_s)}, {count(cost.events_per_s)} clicks learned per second"),
        ("All in all", f"{seconds(cost.total_s)} without the reading of the log"),
        ("Peak memory", f"{count(cost.peak_rss_mb)} MB, the whole process"),
        ("Threads", str(cost.threads)),
        ("Model", f"{shape.cell}, {shape.hidden_size} wide, {count(shape.items)} items"),
        *((name, version) for name, version in origin.versions.items()),
    ]
    right: list[tuple[str, Child]] = [
        ("Model version", tag("code", data.model_version)),
        ("Topic" if origin.kind == "topic" else "File", foreign(origin.name)),
    ]
    if origin.file_sha256 is not None:
        right.append(("sha256 of the file", tag("code", origin.file_sha256)))
    for part in origin.offsets[:MAX_OFFSETS_SHOWN]:
        right.append((f"Partition {part.partition}", f"offsets {count(part.start)} to {count(part.end)}"))  # noqa: PERF401
    if len(origin.offsets) > MAX_OFFSETS_SHOWN:
        right.append(("More partitions", f"{len(origin.offsets) - MAX_OFFSETS_SHOWN}, in manifest.json"))
    right += [(f"sha256 of {name}", tag("code", entry.sha256)) for name, entry in origin.files.items()]
    return tag("div", _pairs(left), _pairs(right), class_="two")


def foreign_note(remark: str) -> Markup:
    """A sentence that may quote a foreign name: cleaned, bounded, isolated."""
    return foreign(remark) if len(remark) > MAX_REMARK else tag("bdi", remark)


def _pairs(rows: list[tuple[str, Child]]) -> Markup:
    return tag(
        "table",
        tag("tbody", *(tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in rows)),
        class_="grid wrap",
    )
