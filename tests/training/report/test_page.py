"""The page and the card as their readers meet them."""

import re

import msgspec
import pytest

from tests.training.report.samples import HEBREW, LONG, OVERRIDE, SCRIPT, hostile_report, metrics, report_data
from tests.training.report.test_markup import read
from training.report.data import ReportData
from training.report.model_card import code, model_card, weaknesses
from training.report.page import page

LOSING = {"markov": metrics(0.581, 0.346), "VS-kNN": metrics(0.74, 0.35)}


def test_the_page_needs_nothing_from_elsewhere() -> None:
    drawn = page(report_data())
    found = read(drawn)
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & set(found.tags)
    assert not {"src", "href", "onload"} & {name for name, _ in found.attributes}
    assert "url(" not in drawn
    assert "@import" not in drawn
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in found.attributes
    assert "prefers-color-scheme: dark" in drawn


def test_the_page_says_what_was_found() -> None:
    said = read(page(report_data())).said
    for expected in (
        *("72% of the time", "0.715", "± 0.004", "2.12", "0.701", "83,846", "VS-kNN", "rank 2"),
        *("rank 1,204 of 2,933", "unknown to the model", "from the log", "asked for", "78,012 clicks/s"),
        *("ab" * 32, "58% of the catalogue", "hit", "miss"),
    ):
        assert expected in said, expected
    assert "nan" not in said.lower()


def test_every_picture_has_words_for_who_cannot_see_it() -> None:
    drawn = page(report_data())
    assert drawn.count("<svg") == drawn.count('role="img"') > 0
    labels = re.findall(r'<(?:svg|table)[^>]*aria-label="([^"]*)"', drawn)
    assert len(labels) == drawn.count("<svg") + drawn.count('class="bars"')
    assert all(len(label) > 20 for label in labels)
    assert "Recall@20: this model 0.715, VS-kNN 0.660, markov 0.581" in labels


def test_a_model_that_loses_says_so_in_both() -> None:
    for data, loses in ((report_data(baselines=LOSING), True), (report_data(), False)):
        assert ("NOT beat" in read(page(data)).said) is loses
        assert ("NOT beat" in model_card(data, [])) is loses
        assert ('class="alert"' in page(data)) is loses


def test_few_targets_are_a_warning() -> None:
    data = report_data()
    few = msgspec.structs.replace(data.evaluation, overall=metrics(0.7, 0.3, 46), recall_error=0.0)
    said = read(page(report_data(evaluation=few))).said
    assert "Few clicks were held out" in said
    assert "sampling error not known" in said
    assert "Few clicks were held out" not in read(page(data)).said


def test_bars_are_sorted_and_start_at_zero() -> None:
    drawn = page(report_data(baselines=LOSING))
    first = drawn[drawn.index('class="bars"') :]
    widths = [float(width) for width in re.findall(r"<i style=\"width:([\d.]+)%", first)][:3]
    assert widths == sorted(widths, reverse=True)
    largest = 0.74 + 0.0044  # with room for the error
    assert widths == pytest.approx([100 * value / largest for value in (0.74, 0.715, 0.581)], abs=0.01)


def test_hostile_names_get_neither_into_page_nor_card() -> None:
    data = hostile_report()
    drawn, card = page(data), model_card(data, [])
    honest = read(page(report_data()))
    assert set(read(drawn).tags) <= set(honest.tags) | {"ul", "li"}
    assert {name for name, _ in read(drawn).attributes} <= {name for name, _ in honest.attributes} | {"title"}
    for text in (drawn, card):
        text.encode()
        assert LONG[:400] not in text
        assert not set(OVERRIDE) & set("\u202e\u2066\u2069") & set(text)
    assert SCRIPT not in drawn
    assert HEBREW in drawn
    # In the card the name stands in a code span: all of its line is between two backticks.
    line = next(line for line in card.splitlines() if line.startswith("- Topic"))
    assert line.count("`") == 2
    assert line.endswith("`")


def test_code_spans_cannot_be_left() -> None:
    assert code("a`b|c\nd") == "`aʹb¦c�d`"


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": [], "epoch_targets": 0},
        {"epochs": report_data().epochs[:1]},
        {"baselines": {}},
        {"examples": []},
        {"serving": metrics(0.7, 0.39), "serving_version": "20260101T000000-ffffffff"},
        {"baselines": {"markov": metrics(0.0, 0.0)}},
    ],
    ids=["no epochs", "one epoch", "no baselines", "no examples", "serving", "zeros"],
)
def test_it_draws_whatever_is_there(changes: dict[str, object]) -> None:
    data = report_data(**changes)
    said = read(page(data)).said
    assert "nan" not in said.lower()
    if data.serving is not None:
        assert "serving model" in said
        assert "20260101T000000-ffffffff" in said


def test_the_card_names_the_weak_spots() -> None:
    said = " ".join(weaknesses(report_data()))
    for expected in ("0.600 where the next click is on a rare item", "0.700 after 1 click to", "3.4%", "58%"):
        assert expected in said
    assert "![" not in model_card(report_data(), [])
    assert "](plots/comparison.png)" in model_card(report_data(), ["plots/comparison.png"])


def test_the_data_survive_their_file() -> None:
    data = report_data()
    assert msgspec.json.decode(msgspec.json.encode(data), type=ReportData) == data
