"""The gate: its rule, at and around its edges."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.gate import GateScores, GateSettings, decide

STRICT = GateSettings()
SERVING = GateScores(0.5, 0.25)

scores = st.builds(GateScores, st.floats(0, 1), st.floats(0, 1))


@pytest.mark.parametrize(
    ("candidate", "accepted", "said"),
    [
        (GateScores(0.51, 0.01), True, "better"),  # recall comes first
        (GateScores(0.5, 0.25), True, "not worse"),
        (GateScores(0.5, 0.26), True, "not worse"),
        (GateScores(0.5, 0.24), False, "tie"),
        (GateScores(0.4999, 0.9), False, "worse than the serving model"),
    ],
)
def test_against_the_serving_model(candidate: GateScores, accepted: bool, said: str) -> None:
    verdict = decide(candidate, SERVING, 0.1, STRICT)
    assert verdict.accepted is accepted
    assert said in verdict.reason


@pytest.mark.parametrize(
    ("candidate", "accepted"),
    [
        (GateScores(0.4925, 0.25), True),
        (GateScores(0.4925, 0.2425), True),
        (GateScores(0.4925, 0.2375), False),
        (GateScores(0.4875, 0.9), False),
        (GateScores(0.5, 0.2375), False),
    ],
)
def test_the_tolerance_widens_the_tie(candidate: GateScores, accepted: bool) -> None:
    assert decide(candidate, SERVING, 0.1, GateSettings(tolerance=0.01)).accepted is accepted


@pytest.mark.parametrize(("recall", "accepted"), [(0.31, True), (0.3, False), (0.29, False)])
def test_a_first_model_must_beat_popularity(recall: float, accepted: bool) -> None:
    verdict = decide(GateScores(recall, 0.1), None, 0.3, STRICT)
    assert verdict.accepted is accepted
    assert "popularity" in verdict.reason


def test_popularity_is_not_asked_where_a_model_serves() -> None:
    assert decide(GateScores(0.6, 0.3), SERVING, 0.9, STRICT).accepted


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -0.01, 1.01])
def test_what_is_no_score_never_passes(bad: float) -> None:
    good = GateScores(1.0, 1.0)
    for candidate, serving, popularity in [
        (GateScores(bad, 1.0), SERVING, 0.1),
        (GateScores(1.0, bad), SERVING, 0.1),
        (good, GateScores(bad, 0.0), 0.1),
        (good, GateScores(0.0, bad), 0.1),
        (GateScores(bad, 1.0), None, 0.1),
        (good, None, bad),
    ]:
        verdict = decide(candidate, serving, popularity, STRICT)
        assert not verdict.accepted
        assert "no score" in verdict.reason


@pytest.mark.parametrize("tolerance", [-0.1, 1.0, math.nan])
def test_a_senseless_tolerance_is_refused(tolerance: float) -> None:
    with pytest.raises(ValueError, match="tolerance"):
        GateSettings(tolerance=tolerance)


@given(scores)
def test_a_model_is_never_worse_than_itself(one: GateScores) -> None:
    assert decide(one, one, 0.0, STRICT).accepted


@given(scores, scores)
def test_without_tolerance_two_models_that_differ_cannot_replace_each_other_for_ever(
    one: GateScores, other: GateScores
) -> None:
    both_ways = decide(one, other, 0.0, STRICT).accepted and decide(other, one, 0.0, STRICT).accepted
    assert both_ways == (one == other)


@given(scores, scores, st.floats(0, 0.5))
def test_tolerance_only_ever_lets_more_through(one: GateScores, other: GateScores, tolerance: float) -> None:
    if decide(one, other, 0.0, STRICT).accepted:
        assert decide(one, other, 0.0, GateSettings(tolerance)).accepted
