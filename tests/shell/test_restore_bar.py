"""The bar of a restore: how far it is for whoever watches, gone at the end, nothing for machines."""

import pytest

from tests.shell.test_log import as_json_lines, on_a_terminal

WHOLE = """
from worker.shell.restore_bar import RestoreBar
with RestoreBar() as bar:
    bar.show(set(), 0, 0)
    bar.show({0, 2}, 250, 1_000)
    bar.show({2}, 700, 800)
    bar.show(set(), 0, 0)
    print("serving", file=__import__("sys").stderr)
"""
INTERRUPTED = """
from worker.shell.restore_bar import RestoreBar
try:
    with RestoreBar() as bar:
        bar.show({0, 2}, 250, 1_000)
        raise KeyboardInterrupt
except KeyboardInterrupt:
    print("serving", file=__import__("sys").stderr)
"""
HIDES_CURSOR, SHOWS_CURSOR, CLEARS_LINE = "\x1b[?25l", "\x1b[?25h", "\x1b[2K"


@pytest.fixture
def ansi_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the programs that are started: one that can move its cursor, wide enough for the whole bar."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")


@pytest.mark.usefixtures("ansi_terminal")
@pytest.mark.parametrize(
    ("program", "partitions", "count"),
    [(WHOLE, 1, "700/800"), (INTERRUPTED, 2, "250/1000")],
    ids=["whole", "interrupted"],
)
def test_the_bar_says_how_far_it_is_and_goes_away(program: str, partitions: int, count: str) -> None:
    shown = on_a_terminal(program)
    last_bar = shown.rpartition(CLEARS_LINE + "restoring")[2]
    assert last_bar.startswith(f" {partitions} partitions")
    assert f" {count} " in last_bar
    assert last_bar.endswith(f"{CLEARS_LINE}serving\r\n"), "the bar stays, or nothing follows it"
    assert shown.rfind(SHOWS_CURSOR) > shown.rfind(HIDES_CURSOR)


@pytest.mark.parametrize("program", [WHOLE, INTERRUPTED], ids=["whole", "interrupted"])
def test_there_is_no_bar_where_there_is_no_terminal(program: str) -> None:
    assert as_json_lines(program) == "serving\n"
