"""What is no markup is escaped, whatever it is."""

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.report.samples import ATTRIBUTE, HEBREW, HOSTILE, LONG, OVERRIDE, SCRIPT
from training.report.markup import MAX_HINT, MAX_SHOWN, Markup, clean, foreign, joined, shortened, tag


class Reader(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.said = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.said += data


def read(page: str) -> Reader:
    """Parse a page."""
    reader = Reader()
    reader.feed(page)
    reader.close()
    return reader


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_as_text_alone(value: str) -> None:
    found = read(tag("p", value, title=value))
    assert found.tags == ["p"]
    assert found.said == clean(value)
    assert found.attributes == [("title", clean(value))]


@given(st.text())
def test_any_identifier_stays_short_and_can_be_written(value: str) -> None:
    found = read(foreign(value))
    assert found.tags == ["bdi"]
    assert len(found.said) <= MAX_SHOWN
    assert all(len(hint or "") <= MAX_HINT for _, hint in found.attributes)
    assert foreign(value).encode()  # halves of surrogate pairs would raise


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_names_do_no_more_than_stand_there(value: str) -> None:
    assert read(joined(foreign(value), "after")).tags == ["bdi"]


def test_markup_is_not_escaped_twice() -> None:
    assert joined(tag("b", "<"), Markup("<i>"), "&") == "<b>&lt;</b><i>&amp;"
    assert tag("td", None, "x", class_="num", aria_label="a\"b", hidden=None) == (
        '<td class="num" aria-label="a&quot;b">x</td>'
    )  # fmt: skip


def test_right_to_left_names_stay_and_are_isolated() -> None:
    assert foreign(HEBREW) == f"<bdi>{HEBREW}</bdi>"
    assert not set(clean(OVERRIDE)) & set("\u202e\u2066\u2069")  # they would reorder what stands beside them


def test_long_names_lose_their_middle() -> None:
    short = shortened("item-" + LONG + "-end")
    assert len(short) == MAX_SHOWN
    assert short.startswith("item-x")
    assert short.endswith("x-end")
    assert SCRIPT not in foreign(SCRIPT)
    assert ATTRIBUTE not in foreign(ATTRIBUTE)
