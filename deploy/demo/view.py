"""What the live part looks like: a screen that keeps itself fresh in a terminal, plain lines elsewhere."""

import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from deploy.demo.play import K, LiveClick
from deploy.demo.score import LiveScore

FOLLOWED = 4
CLICKS_SHOWN = 3
ITEMS_SHOWN = 4
REFRESH_S = 0.2  # faster flickers, and costs the worker's core
LINE_EVERY_S = 5.0
STAYS_S = 2.0  # how long a session that has ended stays on the screen
BAR_WIDTH = 40

ItemName = Callable[[str], str]


class ShownClick(NamedTuple):
    """A click of a followed session; `place` is where it stood in the recommendation before it, from 1."""

    item_id: str
    place: int | None


class FollowedSession:
    """One session to look at: its last clicks, and what is recommended now."""

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.clicks: deque[ShownClick] = deque(maxlen=CLICKS_SHOWN)
        self.items: list[str] = []
        self.ended_s: float | None = None
        self._event_id = ""

    def clicked(self, click: LiveClick, now_s: float) -> None:
        """Note a click, and whether the recommendation on show had foreseen it."""
        seen = click.item_id in self.items[:K]
        self.clicks.append(ShownClick(click.item_id, self.items.index(click.item_id) + 1 if seen else None))
        self.items = []  # an answer to the click before
        self._event_id = click.event_id
        self.ended_s = now_s if click.is_last else None

    def recommended(self, event_id: str, items: list[str]) -> None:
        """Note a recommendation, unless the session has clicked on already."""
        if event_id == self._event_id:
            self.items = items


class Followed:
    """A few sessions; each is followed to its end, then the next one to begin takes its place."""

    def __init__(self) -> None:
        self.sessions: list[FollowedSession] = []

    def clicked(self, click: LiveClick, now_s: float) -> None:
        """Note a click of any session."""
        for session in self.sessions:
            if session.session_id == click.session_id:
                session.clicked(click, now_s)
                return
        if click.is_last:
            return
        if len(self.sessions) < FOLLOWED:
            self.sessions.append(FollowedSession(click.session_id))
            self.sessions[-1].clicked(click, now_s)
            return
        for place, session in enumerate(self.sessions):
            if session.ended_s is not None and now_s - session.ended_s > STAYS_S:
                self.sessions[place] = FollowedSession(click.session_id)
                self.sessions[place].clicked(click, now_s)
                return

    def recommended(self, session_id: str, event_id: str, items: list[str]) -> None:
        """Note a recommendation for any session."""
        for session in self.sessions:
            if session.session_id == session_id:
                session.recommended(event_id, items)


class LiveView:
    """Shows the live part, as a context manager."""

    def __init__(
        self,
        console: Console,
        title: str,
        item_name: ItemName,
        clicks: int | None,
        until_stopped: bool,
        every_s: float | None = None,
    ) -> None:
        """Make the view; it draws nothing before the block is entered.

        Args:
            console: to draw on.
            title: of what is played.
            item_name: an item id's name for people.
            clicks: how many there will be, None if nobody knows.
            until_stopped: whether it ends by Ctrl-C.
            every_s: how often it is drawn; None: as suits the console.
        """
        self._console = console
        self._title = title
        self._item_name = item_name
        self._clicks = clicks
        self._hint = "Ctrl-C ends" if until_stopped else "ends by itself"
        self._followed = Followed()
        self._shown_s = time.monotonic()
        usual_s = REFRESH_S if console.is_terminal else LINE_EVERY_S
        self._every_s = usual_s if every_s is None else every_s
        self._live = (
            Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else None
        )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def clicked(self, click: LiveClick) -> None:
        """A click was sent."""
        self._followed.clicked(click, time.monotonic())

    def recommended(self, session_id: str, event_id: str, items: list[str]) -> None:
        """A recommendation came."""
        self._followed.recommended(session_id, event_id, items)

    def refresh(self, score: LiveScore, dead_letters: int, clicks_per_s: float) -> None:
        """Show how things stand, if it is time for that."""
        now_s = time.monotonic()
        if now_s - self._shown_s < self._every_s:
            return
        self._shown_s = now_s
        if self._live is not None:
            self._live.update(self._screen(score, dead_letters, clicks_per_s), refresh=True)
        else:
            self._print_lines(score, dead_letters, clicks_per_s)

    def _screen(self, score: LiveScore, dead_letters: int, clicks_per_s: float) -> Panel:
        of = f" of {self._clicks:,}" if self._clicks is not None else ""
        numbers = Text.assemble(
            (f"{clicks_per_s:,.0f} clicks/s", "bold"),
            f"   {score.live_sessions:,} live sessions   {score.clicks:,}{of} clicks\n",
            f"{score.recommendations:,} recommendations   {dead_letters:,} dead letters (sent on purpose)",
        )
        return Panel(
            Group(numbers, Text(), recall_bars(score), Text(), *map(self._session, self._followed.sessions)),
            title=f"live: {self._title}",
            subtitle=self._hint,
            border_style="cyan",
        )

    def _session(self, session: FollowedSession) -> Group:
        """Two lines: what was clicked, and what is recommended after it."""
        clicks = Text(no_wrap=True, overflow="ellipsis")
        clicks.append(f"{session.session_id[-14:]:14} ", style="cyan")
        for number, click in enumerate(session.clicks):
            clicks.append(" → " if number else "")
            clicks.append(
                self._item_name(click.item_id), style="bold green" if click.place is not None else ""
            )
            if click.place is not None:
                clicks.append(f" ✓{click.place}", style="green")
        answer = Text(" " * 15, style="dim", no_wrap=True, overflow="ellipsis")
        if session.ended_s is not None:
            answer.append("(left)")
        elif session.items:
            answer.append("next? " + " · ".join(map(self._item_name, session.items[:ITEMS_SHOWN])))
        return Group(clicks, answer)

    def _print_lines(self, score: LiveScore, dead_letters: int, clicks_per_s: float) -> None:
        shares = "  ".join(f"{name} {share:.3f}" for name, share in recalls(score))
        self._print(
            f"{clicks_per_s:,.0f} clicks/s  {score.live_sessions:,} live sessions  {score.clicks:,} clicks  "
            f"{score.recommendations:,} recommendations  {dead_letters:,} dead letters  recall@{K}: {shares}"
        )
        answered = [session for session in self._followed.sessions if session.items]
        for session in answered[:1]:
            clicked = ", ".join(self._item_name(click.item_id) for click in session.clicks)
            items = ", ".join(map(self._item_name, session.items[:ITEMS_SHOWN]))
            self._print(f"  {session.session_id} clicked {clicked}; recommended: {items}, …")

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def recalls(score: LiveScore) -> list[tuple[str, float]]:
    """Names and live recall of what is known so far."""
    named = (
        ("model", score.recall()),
        ("popularity", score.popularity_recall()),
        ("oracle", score.oracle_recall()),
    )
    return [(name, share) for name, share in named if share is not None]


def recall_bars(score: LiveScore) -> Table:
    """One bar each, for the share of next clicks that were among the K items."""
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
    for name, share in recalls(score):
        style = "green" if name == "model" else "dim"
        bar = Text("█" * round(share * BAR_WIDTH), style=style)
        table.add_row(Text(f"recall@{K} {name}"), Text(f"{share:.3f}", style="bold"), bar)
    return table
