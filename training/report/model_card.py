"""`MODEL_CARD.md`: what the model is, what it is good for and what not, in plain words.

After Mitchell et al., Model Cards for Model Reporting (2019).
"""

from training.evaluation import Metrics
from training.report.data import ReportData
from training.report.markup import shortened
from training.report.verdict import verdict_of
from training.report.wording import K, count, instant, percent, score, seconds, span

MAX_OFFSETS_SHOWN = 16


def model_card(data: ReportData, pictures: list[str]) -> str:
    """The card as Markdown.

    Args:
        data: what the report shows.
        pictures: file names of the PNG plots that lie beside the card, as far as there are any.
    """
    sections = (
        f"# Model {data.model_version}",
        _what(data),
        "## Intended use",
        _use(),
        "## How good it is",
        _good(data),
        *_picture(pictures, "comparison", "recall@20 and MRR@20 of the model and the baselines"),
        "## Where it is weaker",
        "\n".join(f"- {line}" for line in weaknesses(data)),
        *_picture(pictures, "strengths", "recall@20 by clicks seen and by popularity"),
        "## What it learned from",
        _learned_from(data),
        "## How it was made",
        _made(data),
        "## What is in it, and what is not",
        _inside(),
    )
    return "\n\n".join(sections) + "\n"


def weaknesses(data: ReportData) -> list[str]:
    """What a reader should know before serving the model: one sentence each."""
    found, said = data.evaluation, []
    groups = {name: metrics for name, metrics in found.by_popularity if metrics.targets}
    if "head" in groups and "tail" in groups:
        said.append(
            f"Rare items: recall@20 is {_recall(groups['tail'])} where the next click is on a rare item,"
            f" {_recall(groups['head'])} where it is on a popular one."
        )
    positions = [(metrics.recall[K], name) for name, metrics in found.by_position if metrics.targets]
    if len(positions) > 1:
        (worst, after), (best, after_best) = min(positions), max(positions)
        said.append(
            f"Place in the session: recall@20 goes from {score(worst)} after {after} {_clicks(after)}"
            f" to {score(best)} after {after_best} {_clicks(after_best)}."
        )
    said.append(
        "New items: it never recommends what its training did not hold, until it is trained again."
        f" {percent(found.unknown_share)} of the held-out clicks to predict were on such items."
    )
    if K in found.coverage:
        said.append(
            f"Reach: {percent(found.coverage[K])} of the catalogue appeared in a list of twenty on the test"
            " part; the rest is hardly ever shown."
        )
    said.append(f"Age: the newest session it learned from ended {instant(data.log.learned_until_ms)}.")
    return said


def _what(data: ReportData) -> str:
    shape = data.architecture
    return (
        "A session model that recommends what a visitor will click next, from nothing but the clicks of the"
        f" running session. It is a recurrent network ({shape.cell.upper()}, {shape.hidden_size} wide) over"
        f" a catalogue of {count(shape.items)} items, made by `nextclick train`"
        f" on {instant(data.created_at_ms)}."
    )


def _use() -> str:
    return (
        "For ranking items of the same shop or site, in running sessions, by a nextclick worker. It is not"
        " made to judge people, to set prices, or to rank items of another catalogue."
    )


def _good(data: ReportData) -> str:
    found = data.evaluation
    rows = [("**this model**", found.overall)]
    if data.serving is not None:
        rows.append((f"serving model {data.serving_version}", data.serving))
    rows += sorted(data.baselines.items(), key=lambda row: -row[1].recall[K])
    rows.append(("this model, every click", found.all_targets))
    table = ["| | recall@20 | MRR@20 | clicks |", "|---|---:|---:|---:|"]
    table += [
        f"| {name} | {metrics.recall[K]:.4f} | {metrics.mrr[K]:.4f} | {count(metrics.targets)} |"
        for name, metrics in rows
    ]
    error = (
        f"The sampling error is {score(found.recall_error)} of recall@20 and {score(found.mrr_error)}"
        " of MRR@20. Every next click is ranked against the whole catalogue, ties count against the model."
        " *Every click* counts clicks on unknown items, too, as misses."
    )
    said = (
        f"Of {count(found.overall.targets)} held-out clicks, {percent(found.overall.recall[K])} were in its"
        f" twenty recommendations. {verdict_of(data)}"
    )
    return "\n\n".join((said, "\n".join(table), error))


def _learned_from(data: ReportData) -> str:
    log, origin = data.log, data.provenance
    lines = [
        f"- {'Topic' if origin.kind == 'topic' else 'File'}: {code(origin.name)}",
        f"- Training part: {count(log.events_train)} clicks, {count(log.sessions_train)} sessions,"
        f" {count(log.items_train)} items; test part: {count(log.events_test)} clicks,"
        f" {count(log.sessions_test)} sessions.",
        f"- From {instant(log.first_ms)} to {instant(log.last_ms)}: {span(log.last_ms - log.first_ms)}.",
    ]
    if origin.file_sha256 is not None:
        lines.append(f"- sha256 of the file: `{origin.file_sha256}`")
    lines += [
        f"- Partition {part.partition}: offsets {part.start} (included) to {part.end} (excluded)"
        for part in origin.offsets[:MAX_OFFSETS_SHOWN]
    ]
    if len(origin.offsets) > MAX_OFFSETS_SHOWN:
        lines.append(f"- and {len(origin.offsets) - MAX_OFFSETS_SHOWN} more partitions, see manifest.json")
    return "\n".join(lines)


def _made(data: ReportData) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in data.provenance.versions.items())
    told = {"default": "", "log": " (followed from the log)", "chosen": " (asked for)"}
    lines = [
        f"- `{setting.name}` {code(str(setting.value))}{told[setting.origin]}"
        for setting in data.settings
        if setting.origin != "default" or setting.name == "seed"
    ]
    said = (
        f"{seconds(data.cost.fit_s)} of training, {count(data.cost.events_per_s)} clicks per second,"
        f" {count(data.cost.peak_rss_mb)} MB at most; {versions}."
        " The seed, and the settings that were not left at their defaults:"
    )
    return said + "\n\n" + "\n".join(lines)


def _inside() -> str:
    return (
        "The weights hold one vector per item and the network. There are no session or user ids in it and no"
        " click log; the item ids are in `items.json`. `report.html` and `report.json` show a few held-out"
        " sessions without their ids. No file of the model is code. The worker checks `manifest.json` and the"
        " files named there; this card and the report are for people, and a model without them serves just as"
        " well."
    )


def code(value: str) -> str:
    """Foreign text as inline code of one line, so that nothing in it is taken for Markdown or HTML."""
    # A backtick or a bar would end the span or the cell; so would a line break, which `shortened` takes.
    return f"`{shortened(value, 120).replace('`', chr(0x2B9)).replace('|', chr(0xA6))}`"


def _picture(pictures: list[str], name: str, alt: str) -> list[str]:
    return [f"![{alt}]({picture})" for picture in pictures if picture.endswith(f"{name}.png")]


def _recall(found: Metrics) -> str:
    return score(found.recall[K])


def _clicks(group: str) -> str:
    return "click" if group == "1" else "clicks"
