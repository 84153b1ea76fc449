"""`make fuzz` as a whole: its JSON line, and what makes it fail."""

import json
from contextlib import nullcontext
from urllib.error import URLError

import pytest

from tests.fuzz import run
from tests.fuzz.examine import Tally
from tests.fuzz.run import MAX_DECODER_GROWTH_MB, MAX_GROWTH_MB, found_problems, main
from tests.fuzz.through_broker import BrokerFigures

FINE = BrokerFigures(10, 4, 1, 4, 5, {}, 600.0, 1.0, 1_000, [])


def tally(crashes: tuple[str, ...] = (), accepted: int = 100) -> Tally:
    made = Tally()
    made.accepted, made.crashed, made.crashes = accepted, len(crashes), list(crashes)
    return made


def test_the_decode_part_ends_with_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--records", "1000", "--broker-records", "0", "--seed", "3"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["records"] == said["accepted"] + said["dead_lettered"] == 1_000
    assert said["searched"] == 10
    assert said["dead_lettered"] == sum(said["by_reason"].values())
    assert (said["crashed"], said["problems"], said["seed"]) == (0, [], 3)


def test_what_is_fine_has_no_problems() -> None:
    assert found_problems(tally(), 100, MAX_DECODER_GROWTH_MB, FINE) == []


@pytest.mark.parametrize(
    ("made", "decoder_growth_mb", "broker", "said"),
    [
        (tally(("record 1: KeyError",), accepted=99), 0.0, FINE, "KeyError"),
        (tally(accepted=99), 0.0, FINE, "99 of 100 records"),
        (tally(), MAX_DECODER_GROWTH_MB + 1, FINE, "decode path grew"),
        (tally(), 0.0, FINE._replace(rss_growth_mb=MAX_GROWTH_MB + 1), "worker grew"),
        (tally(), 0.0, FINE._replace(problems=["one is lost"]), "one is lost"),
    ],
)
def test_each_trouble_is_a_problem(
    made: Tally, decoder_growth_mb: float, broker: BrokerFigures, said: str
) -> None:
    [problem] = found_problems(made, 100, decoder_growth_mb, broker)
    assert said in problem


@pytest.mark.parametrize("error", [AssertionError("the worker died"), URLError(ConnectionRefusedError(111))])
def test_a_worker_that_dies_is_told_in_the_json_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By what it logged, or by a request for its metrics that nobody answers any more."""

    def dies(*_: object) -> BrokerFigures:
        raise error

    monkeypatch.setattr(run, "a_broker", lambda: nullcontext("nowhere:9092"))
    monkeypatch.setattr(run, "a_namespace", lambda _: nullcontext("fuzz-"))
    monkeypatch.setattr(run, "through_broker", dies)
    assert main(["--records", "100", "--broker-records", "10"]) == 1
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["crashed"] == 1
    assert str(error) in said["problems"][0]
