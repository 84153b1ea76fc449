"""Live recall, its books, and the verdict of the demo."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.demo.play import K, LiveClick
from deploy.demo.score import LiveScore, Outcome, outcome

POPULAR = frozenset({"p", "q"})
GOOD = Outcome(
    clicks=100,
    recommendations=100,
    unanswered=0,
    surplus=0,
    bad_records=3,
    dead_letters=3,
    recall=0.5,
    popularity_recall=0.1,
    oracle_recall=0.7,
    clicks_per_s=299.96,
)


def click(
    session: str, number: int, item: str, *, last: bool = False, oracle: tuple[str, ...] | None = None
) -> LiveClick:
    """Click `number` of a session, with the event id "<session>.<number>"."""
    return LiveClick(
        session, item, f"{session}.{number}", last, None if oracle is None else frozenset(oracle)
    )


def test_model_popularity_and_oracle_are_scored_on_the_same_pairs() -> None:
    score = LiveScore(POPULAR)
    score.clicked(click("s", 0, "a", oracle=("b",)))
    score.recommended("s.0", ["b", "x"])
    score.clicked(click("s", 1, "b", oracle=("z",)))  # model and oracle had it
    score.recommended("s.1", ["x"])
    score.clicked(click("s", 2, "p", last=True, oracle=("x",)))  # only popularity had it
    score.recommended("s.2", ["never asked"])
    assert (score.judged, score.recall(), score.popularity_recall(), score.oracle_recall()) == (
        2,
        0.5,
        0.5,
        0.5,
    )
    assert (score.clicks, score.recommendations, score.unanswered, score.live_sessions) == (3, 3, 0, 0)


def test_a_recommendation_that_comes_after_the_next_click_counts_for_its_own_click() -> None:
    score = LiveScore(POPULAR)
    score.clicked(click("s", 0, "a"))
    score.clicked(click("s", 1, "b"))
    score.recommended("s.1", ["b"])  # no pair: nothing has followed click 1
    assert score.judged == 0
    score.recommended("s.0", ["b"])
    assert (score.judged, score.recall()) == (1, 1.0)


def test_sessions_do_not_mix() -> None:
    score = LiveScore(POPULAR)
    score.clicked(click("s", 0, "a"))
    score.clicked(click("t", 0, "b"))
    score.recommended("s.0", ["b"])
    score.recommended("t.0", ["a"])
    score.clicked(click("s", 1, "b", last=True))
    score.clicked(click("t", 1, "c", last=True))
    assert (score.judged, score.recall()) == (2, 0.5)


def test_only_the_first_k_items_count() -> None:
    score = LiveScore(POPULAR)
    score.clicked(click("s", 0, "a"))
    score.recommended("s.0", [f"i{number}" for number in range(K + 1)])
    score.clicked(click("s", 1, f"i{K}"))
    assert score.recall() == 0.0


def test_second_and_foreign_answers_are_surplus() -> None:
    score = LiveScore(POPULAR)
    score.clicked(click("s", 0, "a"))
    score.recommended("s.0", ["b"])
    score.recommended("s.0", ["b"])
    score.recommended("foreign", ["b"])
    assert (score.recommendations, score.surplus, score.unanswered) == (3, 2, 0)


def test_nothing_judged_is_no_number() -> None:
    score = LiveScore(POPULAR)
    score.clicked(click("s", 0, "a", oracle=("b",)))
    assert (score.recall(), score.popularity_recall(), score.oracle_recall()) == (None, None, None)


def test_without_an_oracle_there_is_no_oracle_recall() -> None:
    score = LiveScore(POPULAR)
    for number, item in enumerate(("a", "b")):
        score.clicked(click("s", number, item))
        score.recommended(f"s.{number}", ["b"])
    assert (score.recall(), score.oracle_recall()) == (1.0, None)


@given(st.data())
def test_the_order_in_which_answers_come_does_not_matter(data: st.DataObject) -> None:
    items = data.draw(st.lists(st.sampled_from("abpq"), min_size=2, max_size=8))
    clicks = [click("s", number, item, last=number == len(items) - 1) for number, item in enumerate(items)]
    answers = {one.event_id: data.draw(st.lists(st.sampled_from("abpq"), max_size=2)) for one in clicks}
    in_step, late = LiveScore(POPULAR), LiveScore(POPULAR)
    for one in clicks:
        in_step.clicked(one)
        in_step.recommended(one.event_id, answers[one.event_id])
        late.clicked(one)
    for event_id in data.draw(st.permutations(list(answers))):
        late.recommended(event_id, answers[event_id])
    pairs = list(zip(clicks, items[1:], strict=False))
    hits = sum(item in answers[one.event_id] for one, item in pairs)
    for score in (in_step, late):
        assert (score.judged, score.recall()) == (len(pairs), hits / len(pairs))
        assert (score.unanswered, score.live_sessions) == (0, 0)


def test_finished_sessions_leave_nothing_behind() -> None:
    score = LiveScore(POPULAR)
    for session in range(1_000):
        score.clicked(click(f"s{session}", 0, "a"))
        score.clicked(click(f"s{session}", 1, "b", last=True))
        score.recommended(f"s{session}.0", ["b"])
        score.recommended(f"s{session}.1", ["b"])
    assert (score.live_sessions, score.unanswered) == (0, 0)


def test_a_good_outcome_has_no_trouble_and_the_promised_fields() -> None:
    assert (GOOD.losses(), GOOD.weakness()) == ([], None)
    assert GOOD.fields() == {
        "clicks": 100,
        "recommendations": 100,
        "dead_letters": 3,
        "recall@20": 0.5,
        "popularity_recall@20": 0.1,
        "oracle_recall@20": 0.7,
        "clicks_per_s": 300.0,
    }
    assert replace(GOOD, oracle_recall=None).fields()["oracle_recall@20"] is None


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (replace(GOOD, recommendations=99, unanswered=1), "1 clicks unanswered"),
        (replace(GOOD, recommendations=101, surplus=1), "1 answers too many"),
        # One click answered twice and another never: the totals agree, and still it is a loss.
        (replace(GOOD, unanswered=1, surplus=1), "1 clicks unanswered"),
        (replace(GOOD, dead_letters=2), "3 bad records but 2 dead letters"),
        (replace(GOOD, dead_letters=4), "3 bad records but 4 dead letters"),
    ],
)
def test_what_is_lost_or_doubled_is_told(bad: Outcome, said: str) -> None:
    assert len(bad.losses()) == 1
    assert said in bad.losses()[0]
    assert bad.weakness() is None


def test_recall_must_lie_above_popularity() -> None:
    assert "not above popularity" in (replace(GOOD, recall=0.1).weakness() or "")
    assert "nothing could be judged" in (replace(GOOD, recall=None, popularity_recall=None).weakness() or "")


def test_the_outcome_of_a_score() -> None:
    score = LiveScore(POPULAR)
    score.clicked(click("s", 0, "a", oracle=("p",)))
    score.recommended("s.0", ["b"])
    score.clicked(click("s", 1, "p", oracle=("p",)))
    found = outcome(score, bad_records=1, dead_letters=0, clicks_per_s=2.0)
    assert found == Outcome(2, 1, 1, 0, 1, 0, 0.0, 1.0, 1.0, 2.0)
    assert len(found.losses()) == 2
