"""The sinks, with brokers that do not answer."""

import time

import pytest

from worker.shell import sink as sink_module
from worker.shell import transactions
from worker.shell.brokers_answer import do_brokers_answer
from worker.shell.failures import CannotStart, MustRestart
from worker.shell.sink import AtLeastOnceSink
from worker.shell.transactions import ExactlyOnceSink

NOBODY = {"bootstrap.servers": "127.0.0.1:1", "log_level": "0"}
WRONG = {**NOBODY, "max.in.flight.requests.per.connection": "10"}


def stop_waiting() -> None:
    pytest.fail("this is not to be waited for")


def at_least_once(config: dict[str, str]) -> AtLeastOnceSink:
    return AtLeastOnceSink(config, "clicks", stop_waiting, lambda error, _: error.str())


def exactly_once(config: dict[str, str]) -> ExactlyOnceSink:
    return ExactlyOnceSink(config, "id", "clicks", lambda _: None, stop_waiting, lambda error, _: error.str())


def test_what_waits_is_dropped_without_a_complaint_and_holds_back_no_offset() -> None:
    sink = at_least_once(NOBODY)
    for number in range(3):
        sink.send("outputs", 0, "s", b"value", [])
        sink.end_batch({0: number + 1})
    assert len(sink) == 3
    assert sink.committable() == {}
    sink.forget_partitions({0})
    sink.drop_unsent()
    assert len(sink) == 0
    assert sink.committable() == {}
    assert sink.flush(0)


@pytest.mark.parametrize("make", [at_least_once, exactly_once])
def test_a_setting_that_idempotence_forbids_is_told(make: type[AtLeastOnceSink | ExactlyOnceSink]) -> None:
    with pytest.raises(CannotStart, match=r"a Kafka setting is wrong: .*max.in.flight"):
        make(WRONG)  # type: ignore[call-arg]


def test_who_gets_no_transactions_in_time_is_to_be_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the middle of a run: nothing has to be mended here, a coordinator is away."""
    monkeypatch.setattr(transactions, "OPEN_S", 0.0)
    with pytest.raises(MustRestart, match="no transactions"):
        exactly_once(NOBODY).open()


@pytest.mark.parametrize("answer", [True, False])
def test_outputs_that_nobody_takes_though_brokers_answer(
    answer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While brokers are away they are waited for; a producer that waits on when they are back hangs."""
    sink = at_least_once(NOBODY)
    sink.send("outputs", 0, "s", b"value", [])
    sink.end_batch({0: 1})
    assert sink.committable() == {}
    monkeypatch.setattr(sink_module, "STALLED_S", 0.0)
    monkeypatch.setattr(sink_module, "do_brokers_answer", lambda *_: answer)
    if answer:
        with pytest.raises(MustRestart, match="though brokers answer"):
            sink.committable()
    else:
        assert sink.committable() == {}


class Producer:
    """As many outputs wait in it as its length says, now and then one event of its own more."""

    def __init__(self) -> None:
        self.waiting = 0

    def __len__(self) -> int:
        return self.waiting

    def poll(self, _: float) -> int:
        return 0


def test_events_of_the_client_are_no_deliveries(monkeypatch: pytest.MonkeyPatch) -> None:
    """They come and go in the length of its queue while its outputs hang."""
    now_s = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    sink = at_least_once(NOBODY)
    sink.send("outputs", 0, "s", b"value", [])
    producer = Producer()
    monkeypatch.setattr(sink, "_producer", producer)
    monkeypatch.setattr(sink_module, "do_brokers_answer", lambda *_: True)
    with pytest.raises(MustRestart, match="though brokers answer"):  # noqa: PT012
        for turn in range(20):
            producer.waiting = 1 + turn % 2
            sink.committable()
            now_s += sink_module.STALLED_S / 10
    assert turn > 10


def test_brokers_that_are_not_there_do_not_answer() -> None:
    assert not do_brokers_answer(NOBODY, "clicks")
