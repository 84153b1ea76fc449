"""What makes starts of the local broker quick: it is made once, fits, and nothing depends on it."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from deploy.broker_host import QUIET_JAVA, java_binary
from deploy.kafka_jars import BrokerUnavailableError, default_cache_dir, ensure_jars
from deploy.kafka_start_cache import KEPT, start_cache_options
from deploy.local_broker import LocalBroker


def never(options: Sequence[str]) -> None:
    raise AssertionError(f"a broker was run with {options}")


def jars_in(folder: Path) -> list[Path]:
    """Two files that stand for jars."""
    folder.mkdir(exist_ok=True)
    jars = [folder / "one.jar", folder / "two.jar"]
    for jar in jars:
        jar.write_bytes(b"jar")
    return jars


def test_java_takes_the_cache_that_the_first_broker_has_made() -> None:
    with LocalBroker(say=lambda _: None):
        pass
    java, jars = java_binary(), ensure_jars(say=print)
    options = start_cache_options(java, jars, default_cache_dir(), print, never)
    assert len(options) == 1
    strict = [str(java), *QUIET_JAVA, "-XX:AOTMode=on", *options, "-cp", ":".join(map(str, jars)), "-version"]
    done = subprocess.run(strict, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_broker_starts_whatever_lies_where_its_cache_should_be(tmp_path: Path) -> None:
    garbage = tmp_path / "start.aot"
    garbage.write_bytes(b"garbage")
    with LocalBroker(say=lambda _: None, java_options=[f"-XX:AOTCache={garbage}"]) as broker:
        assert broker.is_running


def test_a_cache_that_cannot_be_made_is_told_and_tried_once(tmp_path: Path) -> None:
    said: list[str] = []

    def fail(_: Sequence[str]) -> None:
        raise BrokerUnavailableError("no memory")

    jars = jars_in(tmp_path)
    assert start_cache_options(java_binary(), jars, tmp_path, said.append, fail) == ()
    assert "no memory" in said[-1]
    assert str(tmp_path) in said[-1]
    assert start_cache_options(java_binary(), jars, tmp_path, said.append, never) == ()
    assert not list(tmp_path.glob("start-*.aot"))


def test_what_java_cannot_make_a_cache_of_is_a_failure_too(tmp_path: Path) -> None:
    """The broker ran, and left nothing behind of what it should have learned."""
    said: list[str] = []
    assert start_cache_options(java_binary(), jars_in(tmp_path), tmp_path, said.append, lambda _: None) == ()
    assert "Java made no cache: " in said[-1]
    assert "AOT" in said[-1], "what Java said"


@pytest.mark.parametrize("change", ["size", "time"])
def test_other_jars_need_another_cache(tmp_path: Path, change: str) -> None:
    runs: list[Sequence[str]] = []
    jars = jars_in(tmp_path)
    start_cache_options(java_binary(), jars, tmp_path, print, runs.append)
    if change == "size":
        jars[1].write_bytes(b"another jar")
    else:
        jars[1].touch()
    start_cache_options(java_binary(), jars, tmp_path, print, runs.append)
    assert len(runs) == 2


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    jars = jars_in(tmp_path / "jars")
    (tmp_path / "file").write_text("")
    assert start_cache_options(java_binary(), jars, tmp_path / "file" / "cache", print, never) == ()


def test_only_so_many_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def create(command: Sequence[str], **_: object) -> "subprocess.CompletedProcess[str]":
        made = next(option for option in command if option.startswith("-XX:AOTCache="))
        Path(made.partition("=")[2]).write_bytes(b"cache")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", create)
    used: list[str] = []
    for number in range(KEPT + 2):
        jars = jars_in(tmp_path)
        jars[0].write_bytes(bytes(number))
        used += start_cache_options(java_binary(), jars, tmp_path, print, lambda _: None)
    kept = {f"-XX:AOTCache={path}" for path in tmp_path.glob("start-*.aot")}
    assert len(used) == KEPT + 2
    assert len(kept) == KEPT
    assert used[-1] in kept
