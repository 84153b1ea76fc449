"""The screen of the demo: what it follows, and that it draws in a terminal and in a log."""

import io

import pytest
from rich.console import Console

from deploy.demo.play import LiveClick
from deploy.demo.score import LiveScore
from deploy.demo.view import FOLLOWED, STAYS_S, Followed, LiveView


def click(session: str, number: int, item: str, *, last: bool = False) -> LiveClick:
    return LiveClick(session, item, f"{session}.{number}", last, frozenset({"b"}))


def test_a_click_shows_at_which_place_it_had_been_recommended() -> None:
    followed = Followed()
    followed.clicked(click("s", 0, "a"), 0.0)
    followed.recommended("s", "s.0", ["x", "b"])
    followed.clicked(click("s", 1, "b"), 1.0)
    session = followed.sessions[0]
    assert [(one.item_id, one.place) for one in session.clicks] == [("a", None), ("b", 2)]
    assert session.items == []  # the answer to the click before is no answer to this one
    followed.recommended("s", "s.0", ["late"])
    assert session.items == []
    followed.recommended("s", "s.1", ["c"])
    assert session.items == ["c"]


def test_a_session_that_has_left_makes_room_after_a_while() -> None:
    followed = Followed()
    for number in range(FOLLOWED + 1):
        followed.clicked(click(f"s{number}", 0, "a"), 0.0)
    assert [session.session_id for session in followed.sessions] == [f"s{n}" for n in range(FOLLOWED)]
    followed.clicked(click("s1", 1, "b", last=True), 1.0)
    followed.clicked(click("too-soon", 0, "a"), 1.0 + STAYS_S / 2)
    followed.clicked(click("one-click", 0, "a", last=True), 1.1 + STAYS_S)  # nothing to follow
    followed.clicked(click("new", 0, "a"), 1.1 + STAYS_S)
    assert [session.session_id for session in followed.sessions] == ["s0", "new", "s2", "s3"]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_view_shows_numbers_names_and_recall(is_terminal: bool) -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=is_terminal, width=100, height=40, color_system=None)
    score = LiveScore(frozenset())
    with LiveView(console, "a shop", str.upper, clicks=1_234, until_stopped=False, every_s=0.0) as view:
        for number, item in enumerate(("a", "b")):
            one = click("s", number, item)
            score.clicked(one)
            view.clicked(one)
            score.recommended(one.event_id, ["b", "c"])
            view.recommended("s", one.event_id, ["b", "c"])
        view.refresh(score, dead_letters=5, clicks_per_s=299.6)
    for expected in ("300 clicks/s", "1 live sessions", "2 recommendations", "5 dead letters", "C", "1.000"):
        assert expected in text.getvalue()
    assert ("B ✓1" in text.getvalue()) == is_terminal
