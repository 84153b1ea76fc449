"""The worker's HTTP side, over real sockets."""

import contextlib
import http.client
import json
import socket
import struct
import time
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter
from structlog.testing import capture_logs

from worker.shell.failures import CannotStart
from worker.shell.http import MAX_HEAD_BYTES, MAX_REQUESTS, Probe, StatusServer


@pytest.fixture
def registry() -> CollectorRegistry:
    """A registry with one counter that stands at 7."""
    registry = CollectorRegistry()
    Counter("apples", "Apples eaten", registry=registry).inc(7)
    return registry


@pytest.fixture
def server(registry: CollectorRegistry) -> Iterator[StatusServer]:
    """A server with one probe that is well and one that is not."""
    server = StatusServer(
        "127.0.0.1",
        0,
        registry,
        {
            "/healthz": lambda: Probe(True, {"seconds_since_last_turn": 0.1}),
            "/readyz": lambda: Probe(False, {"partitions": []}),
        },
    )
    yield server
    server.close()


class Answer:
    """What came back for one request."""

    def __init__(
        self, port: int, path: str, method: str = "GET", headers: dict[str, str] | None = None
    ) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        self.status = answer.status
        self.headers = dict(answer.getheaders())
        self.body = answer.read().decode()
        connection.close()


def test_metrics_come_as_prometheus_text(server: StatusServer) -> None:
    answer = Answer(server.port, "/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert "# HELP apples_total Apples eaten" in answer.body
    assert "apples_total 7.0" in answer.body


def test_metrics_come_as_openmetrics_to_whom_asks_for_them(server: StatusServer) -> None:
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    answer = Answer(server.port, "/metrics", headers={"Accept": accept})
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert answer.body.endswith("# EOF\n")


def test_probes_say_yes_or_no_and_why(server: StatusServer) -> None:
    healthy, ready = Answer(server.port, "/healthz"), Answer(server.port, "/readyz")
    assert (healthy.status, json.loads(healthy.body)) == (200, {"ok": True, "seconds_since_last_turn": 0.1})
    assert (ready.status, json.loads(ready.body)) == (503, {"ok": False, "partitions": []})
    assert ready.headers["Content-Type"] == "application/json"


def test_what_stands_behind_a_question_mark_is_ignored(server: StatusServer) -> None:
    assert Answer(server.port, "/healthz?verbose=1").status == 200


@pytest.mark.parametrize("path", ["/", "/metric", "/metrics/", "/healthz/x", "/../etc/passwd"])
def test_an_unknown_path_is_not_found_and_the_answer_names_the_known_ones(
    server: StatusServer, path: str
) -> None:
    answer = Answer(server.port, path)
    assert answer.status == 404
    assert answer.body == "not here; there is /metrics, /healthz, /readyz\n"


@pytest.mark.parametrize(("path", "status"), [("/metrics", 200), ("/readyz", 503), ("/x", 404)])
def test_head_answers_as_get_without_the_body(server: StatusServer, path: str, status: int) -> None:
    length = len(Answer(server.port, path).body)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(f"HEAD {path} HTTP/1.0\r\n\r\n".encode())
        # An HTTP client would hide a body that should not be there.
        head, _, body = b"".join(iter(lambda: client.recv(65_536), b"")).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.0 {status} ".encode())
    assert f"Content-Length: {length}".encode() in head
    assert body == b""


def test_nothing_can_be_posted(server: StatusServer) -> None:
    assert Answer(server.port, "/metrics", "POST").status == 501


def test_a_port_in_use_is_refused_with_what_to_do(server: StatusServer, registry: CollectorRegistry) -> None:
    with pytest.raises(CannotStart, match=rf"127\.0\.0\.1:{server.port}.*in use.*--http-port, 0 for any"):
        StatusServer("127.0.0.1", server.port, registry, {})
    assert Answer(server.port, "/healthz").status == 200


def test_an_address_of_another_machine_is_refused(registry: CollectorRegistry) -> None:
    with pytest.raises(CannotStart, match=r"cannot listen on 192\.0\.2\.1:0"):  # TEST-NET-1, RFC 5737
        StatusServer("192.0.2.1", 0, registry, {})


def test_a_closed_server_gives_its_port_back(registry: CollectorRegistry) -> None:
    first = StatusServer("127.0.0.1", 0, registry, {})
    first.close()
    with pytest.raises(ConnectionRefusedError):
        Answer(first.port, "/metrics")
    StatusServer("127.0.0.1", first.port, registry, {}).close()


def test_a_client_that_breaks_off_is_one_log_line_and_no_traceback(
    server: StatusServer, capfd: pytest.CaptureFixture[str]
) -> None:
    with capture_logs() as lines:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost:")
            # No goodbye: closing sends a reset.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        deadline_s = time.monotonic() + 10
        while not lines and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert Answer(server.port, "/healthz").status == 200
    assert [line["event"] for line in lines] == ["http_request_failed"]
    assert "ConnectionResetError" in lines[0]["error"]
    assert capfd.readouterr().err == ""


def read_all(client: socket.socket) -> bytes:
    """What the server sends until it closes; a reset, for what it did not read, ends it too."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(65_536):
            parts.append(part)
    return b"".join(parts)


def test_beyond_so_many_requests_at_a_time_one_is_refused_at_once(server: StatusServer) -> None:
    address = ("127.0.0.1", server.port)
    with contextlib.ExitStack() as open_clients:
        for _ in range(MAX_REQUESTS):
            open_clients.enter_context(socket.create_connection(address, timeout=5))
        with socket.create_connection(address, timeout=5) as refused:
            assert read_all(refused).startswith(b"HTTP/1.0 503 ")
    wait_until_answers(server.port)


def wait_until_answers(port: int) -> None:
    """Until clients that left have given their places back; fails after ten seconds."""
    deadline_s = time.monotonic() + 10
    while True:
        with contextlib.suppress(OSError):  # refused with a reset, for it had sent its request already
            if Answer(port, "/healthz").status == 200:
                return
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_many_requests_one_after_another_leave_no_place_taken(server: StatusServer) -> None:
    for number in range(3 * MAX_REQUESTS):
        path = ("/healthz", "/readyz", "/unknown")[number % 3]
        assert Answer(server.port, path).status in {200, 404} or path == "/readyz"
    wait_until_answers(server.port)


def test_a_client_that_dawdles_is_cut_off(registry: CollectorRegistry) -> None:
    server = StatusServer("127.0.0.1", 0, registry, {}, max_request_s=0.2)
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n")  # and never the end of the headers
        assert read_all(client) == b""
    server.close()


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET /" + b"a" * (MAX_HEAD_BYTES - 5), 414),
        (b"GET /healthz" + b" " * MAX_HEAD_BYTES, 414),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"a" * MAX_HEAD_BYTES, 431),
        (b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * (MAX_HEAD_BYTES // 6), 431),
        (b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 101, 431),
    ],
)
def test_a_head_that_does_not_end_is_refused(server: StatusServer, request_head: bytes, status: int) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
        # No more than the server reads, or its answer would be lost in a reset.
        client.sendall(request_head[:MAX_HEAD_BYTES])
        assert read_all(client).startswith(f"HTTP/1.0 {status} ".encode())
    assert Answer(server.port, "/healthz").status == 200


def test_a_head_just_within_the_bound_is_answered(server: StatusServer) -> None:
    start, end = b"GET /healthz HTTP/1.1\r\nX: ", b"\r\n\r\n"
    head = start + b"a" * (MAX_HEAD_BYTES - len(start) - len(end)) + end
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
        client.sendall(head)
        assert read_all(client).startswith(b"HTTP/1.0 200 ")
