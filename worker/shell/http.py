"""/metrics, /healthz and /readyz, served from a thread of its own."""

import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import orjson
import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from worker.shell.failures import CannotStart

log = structlog.get_logger()


class Probe(NamedTuple):
    """The answer of /healthz or /readyz: 200 if `ok`, else 503; `detail` says why."""

    ok: bool
    detail: dict[str, object]


class StatusServer:
    """The HTTP side of a worker.

    Args:
        host: address to bind.
        port: to bind; 0 picks a free one, see `port`.
        registry: what /metrics shows.
        probes: by path, called for each request from the server's threads.

    Raises:
        CannotStart: the address cannot be bound.
    """

    def __init__(
        self, host: str, port: int, registry: CollectorRegistry, probes: dict[str, Callable[[], Probe]]
    ) -> None:
        try:
            self._server = _Server((host, port), _handler_class(registry, probes))
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

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        """A client that left in the middle, as a log line; the base class prints a traceback."""
        log.warning("http_request_failed", client=str(client_address), error=repr(sys.exception()))


def _handler_class(
    registry: CollectorRegistry, probes: dict[str, Callable[[], Probe]]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # seconds; a client that says nothing does not hold a thread for ever

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

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
            """Say nothing: a scrape every few seconds is no news."""

    return Handler
