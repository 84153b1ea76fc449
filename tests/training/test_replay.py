"""What of replaying needs no broker: offsets as text, and a broker that is not there."""

import socket

import pytest

from tests.training.logs import NOW_MS
from training.errors import ReplayError
from training.progress import silent
from training.replay import ReplayRange, parse_offsets, replay


def test_offsets() -> None:
    assert parse_offsets("0:100-2000, 3:0-5") == {0: (100, 2000), 3: (0, 5)}


@pytest.mark.parametrize("text", ["", "0", "0:5", "0:5-", "0:5-5", "0:9-5", "x:1-2", "0:-1-2", "0:1-2,0:3-4"])
def test_bad_offsets_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"PARTITION:START-END|after the start|named twice"):
        parse_offsets(text)


def test_an_unreachable_broker_is_reported_with_its_address() -> None:
    with socket.socket() as taken:  # bound but not listening: nobody answers, and nobody else can take it
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ReplayError, match=f"no Kafka broker answers at {address}"):
            replay({"bootstrap.servers": address}, "clicks", ReplayRange(), NOW_MS, silent, timeout_s=1.0)


def test_a_bad_kafka_setting_is_reported() -> None:
    with pytest.raises(ReplayError, match="bad Kafka setting"):
        replay({"no.such.setting": "1"}, "clicks", ReplayRange(), NOW_MS, silent)
