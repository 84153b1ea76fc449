"""What the demo plays: the past lies in the past, the live part does not meet it, all is consistent."""

import itertools

import pytest

from deploy.demo.play import K, log_play, shop_play
from schemas.click import MIN_TIMESTAMP_MS, decode_click, encode_click
from training.click_log import ClickLogBuilder, LoadedLog
from training.errors import SplitError
from training.sessions import TestSessions

NOW_MS = 1_760_000_000_000


@pytest.mark.parametrize("sessions", [100, 3_000])
def test_the_past_of_the_shop_is_good_clicks_in_order_of_time_up_to_now(sessions: int) -> None:
    play = shop_play(7, sessions, 300.0, NOW_MS)
    past = list(play.past)
    times = [click.timestamp_ms for click in past]
    assert len(past) == play.past_clicks
    assert len({click.session_id for click in past}) == play.past_sessions == sessions
    assert len({click.event_id for click in past}) == len(past)
    assert times == sorted(times)
    assert times[-1] <= NOW_MS
    assert all(decode_click(encode_click(click), NOW_MS) == click for click in past[:100])


def test_popular_items_are_the_most_clicked_of_the_past() -> None:
    play = shop_play(7, 500, 300.0, NOW_MS)
    counts: dict[str, int] = {}
    for click in play.past:
        counts[click.item_id] = counts.get(click.item_id, 0) + 1
    least = min(counts[item] for item in play.popular)
    assert len(play.popular) == K
    assert all(count <= least for item, count in counts.items() if item not in play.popular)


def test_the_live_part_of_the_shop_has_new_sessions_that_end_and_an_oracle_that_is_right() -> None:
    play = shop_play(7, 100, 300.0, NOW_MS)
    past_sessions = {click.session_id for click in play.past}
    live = list(itertools.islice(play.live, 6_000))
    ended: set[str] = set()
    before: dict[str, frozenset[str]] = {}
    hits = pairs = 0
    for click in live:
        assert click.session_id not in ended
        assert click.oracle is not None
        assert len(click.oracle) == K
        if click.session_id in before:
            pairs += 1
            hits += click.item_id in before[click.session_id]
        before[click.session_id] = click.oracle
        if click.is_last:
            ended.add(click.session_id)
    assert play.live_clicks is None
    assert not past_sessions & {click.session_id for click in live}
    assert len({click.event_id for click in live}) == len(live)
    assert len(ended) > 500
    assert 0.65 < hits / pairs < 0.78  # 0.72, see ShopSettings
    assert play.item_name(live[0].item_id) != live[0].item_id


def test_the_same_seed_plays_the_same_and_another_one_does_not() -> None:
    first, again, other = (
        list(itertools.islice(shop_play(seed, 100, 300.0, NOW_MS).live, 50)) for seed in (1, 1, 2)
    )
    assert first == again
    assert [click.item_id for click in first] != [click.item_id for click in other]


def small_log() -> LoadedLog:
    builder = ClickLogBuilder()
    for session, item, at_s in (
        ("old", "a", 0),
        ("held", "b", 5),
        ("old", "b", 10),
        ("one-click", "a", 11),
        ("held", "c", 12),
        ("held", "a", 13),
        ("later", "b", 20),
        ("later", "b", 21),
    ):
        builder.add(session, item, MIN_TIMESTAMP_MS + at_s * 1000)
    return LoadedLog(builder.build(), "file", "small.tsv")


def test_a_log_is_split_into_past_and_live_without_overlap() -> None:
    play = log_play(small_log(), TestSessions(frozenset({"held"})))
    past, live = list(play.past), list(play.live)
    assert [(click.session_id, click.item_id) for click in past] == [
        ("old", "a"),
        ("old", "b"),
        ("later", "b"),
        ("later", "b"),
    ]
    assert (play.past_clicks, play.past_sessions, play.live_clicks) == (4, 2, 3)
    assert [(click.session_id, click.item_id, click.is_last) for click in live] == [
        ("held", "b", False),
        ("held", "c", False),
        ("held", "a", True),
    ]
    assert {click.oracle for click in live} == {None}
    assert len({click.event_id for click in past} | {click.event_id for click in live}) == 7
    assert play.popular == {"a", "b"}


def test_a_log_without_its_test_sessions_is_refused() -> None:
    with pytest.raises(SplitError):
        log_play(small_log(), TestSessions(frozenset({"nobody"})))
