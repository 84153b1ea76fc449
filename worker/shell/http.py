"""/metrics, /healthz and /readyz, served from a thread of its own."""

import contextlib
import io
import socket
import sys
import threading
import time
from collections.abc import Callable
from http.client import LineTooLong
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import IO, Any, NamedTuple

import orjson
import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from worker.shell.failures import CannotStart

log = structlog.get_logger()

MAX_REQUESTS = 16
"""Requests at a time, each with a thread of its own. A scraper and two probes are three."""

MAX_HEAD_BYTES = 16_384
"""Of request line and headers together; Prometheus sends about 300. http.server itself would take 6.5 MB."""

MAX_REQUEST_S = 20.0
"""A request that takes longer is cut off, or a few clients that dawdle would keep the probes out."""

_SILENT_S = 10.0
"""Within that time: how long a client may say nothing."""

_BUSY = b"HTTP/1.0 503 Service Unavailable\r\nContent-Type: text/plain\r\n\r\ntoo many requests at a time\n"


class Probe(NamedTuple):
    """The answer of /healthz or /readyz: 200 if `ok`, else 503; `detail` says why."""

    ok: bool
    detail: dict[str, object]


class StatusServer:
    """The HTTP side of a worker: bounded in threads, in bytes read and in time per request.

    Args:
        host: address to bind.
        port: to bind; 0 picks a free one, see `port`.
        registry: what /metrics shows.
        probes: by path, called for each request from the server's threads.
        max_request_s: a request that takes longer is cut off.

    Raises:
        CannotStart: the address cannot be bound.
    """

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        probes: dict[str, Callable[[], Probe]],
        max_request_s: float = MAX_REQUEST_S,
    ) -> None:
        try:
            self._server = _Server((host, port), _handler_class(registry, probes), max_request_s)
        except OSError as error:
            raise CannotStart(
                f"cannot listen on {host}:{port}: {error.strerror}; choose another --http-port, 0 for any"
            ) from None
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = MAX_REQUESTS  # with the base class's 5, a burst waits a second for its next SYN

    def __init__(
        self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], max_request_s: float
    ) -> None:
        self._max_request_s = max_request_s
        self._slots = threading.BoundedSemaphore(MAX_REQUESTS)
        self._began_s: dict[socket.socket, float] = {}
        """Open requests; at most one per slot."""
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give the request a thread, or close it with 503 at once where all are taken."""
        if not self._slots.acquire(blocking=False):
            self._refuse(request)
            return
        self._began_s[request] = time.monotonic()
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread was to be had: the base class reports it and closes the connection
            self._release(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Runs in the thread of one request."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._release(request)

    def service_actions(self) -> None:
        """Cut off what takes too long; called twice a second."""
        too_old_s = time.monotonic() - self._max_request_s
        for request, began_s in list(self._began_s.items()):
            if began_s < too_old_s:
                with contextlib.suppress(OSError):  # it ended by itself meanwhile
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        """A client that left in the middle, as a log line; the base class prints a traceback."""
        log.warning("http_request_failed", client=str(client_address), error=repr(sys.exception()))

    def _release(self, request: socket.socket) -> None:
        del self._began_s[request]
        self._slots.release()

    def _refuse(self, request: socket.socket) -> None:
        """Without waiting for anything: this runs in the thread that accepts."""
        with contextlib.suppress(OSError):  # it has left, then it needs no answer
            request.setblocking(False)
            request.send(_BUSY)
        self.shutdown_request(request)


class _Head(io.BufferedIOBase):
    """What a client sends, up to the end of the headers, cut at MAX_HEAD_BYTES."""

    def __init__(self, stream: IO[bytes] | io.BufferedIOBase) -> None:
        self._stream = stream
        self._left = MAX_HEAD_BYTES

    def readline(self, size: int | None = -1, /) -> bytes:
        """One line, or what is left of the allowance; after that LineTooLong, which is answered with 431."""
        if self._left <= 0:
            raise LineTooLong("request head")
        wanted = self._left if size is None or size < 0 else min(size, self._left)
        line = self._stream.readline(wanted)
        self._left -= len(line)
        return line

    def close(self) -> None:
        self._stream.close()
        super().close()


class _BoundedHandler(BaseHTTPRequestHandler):
    """Reads a bounded head, and waits a bounded time for it."""

    timeout = _SILENT_S
    raw_requestline: bytes

    def setup(self) -> None:
        super().setup()
        self.rfile = _Head(self.rfile)

    def parse_request(self) -> bool:
        """As the base class does, which would take the first part of a cut request line for a whole one."""
        if len(self.raw_requestline) == MAX_HEAD_BYTES:
            self.requestline, self.request_version, self.command = "", "HTTP/1.0", ""
            self.send_error(414)
            return False
        return super().parse_request()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
        """Say nothing: a scrape every few seconds is no news."""


def _handler_class(
    registry: CollectorRegistry, probes: dict[str, Callable[[], Probe]]
) -> type[BaseHTTPRequestHandler]:
    class Handler(_BoundedHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                self._answer(200, content_type, encode(registry))
            elif path in probes:
                probe = probes[path]()
                body = orjson.dumps({"ok": probe.ok, **probe.detail})
                self._answer(200 if probe.ok else 503, "application/json", body)
            else:
                known = ", ".join(["/metrics", *probes])
                self._answer(404, "text/plain; charset=utf-8", f"not here; there is {known}\n".encode())

        def do_HEAD(self) -> None:
            """As GET, without the body: some load balancers ask so."""
            self.do_GET()

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    return Handler
