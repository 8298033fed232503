"""The small HTTP server of every service: /metrics, /health, /healthz, /readyz.

- `/healthz`: is this process alive? 503 only for what a restart cures (a stuck loop).
- `/readyz`: does it work now? Each check by name with its reason; 503 when one isn't well.
- `/health`: both, with version and since when, for people. 200 whenever it can answer.
- `/metrics`: Prometheus text (or OpenMetrics, as the scraper asks).

It only reports: it takes no command, reads no body, and must never wait for a lock that the service's loop holds, so a
check has to be quick and free of I/O (it reads what the loop has noted).
"""

from __future__ import annotations

import json
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Self

import structlog
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder

from ai_infra.errors import ConfigurationError
from ai_infra.telemetry.metrics import HTTP_REQUEST_DURATION

log = structlog.get_logger(__name__)

Check = Callable[[], str | None]
"""Returns None when well, else one sentence that says why not."""

ROUTES: Final = ("/health", "/healthz", "/readyz", "/metrics")
_CLIENT_TIMEOUT: Final = 10.0  # seconds that a client may take: a slow one must not hold a thread for ever


class HealthServer:
    """Serves on a thread of its own until `close()`. `checks` and `liveness` may grow while it runs.

    `port` 0 takes a free one; `port` then says which. With `tls_cert` and `tls_key` it speaks TLS 1.2 or newer, with
    `tls_client_ca` too it serves only who shows a certificate of that authority. Raises ConfigurationError when the
    port is taken or a file can't be read.
    """

    def __init__(
        self,
        port: int,
        checks: Mapping[str, Check],
        *,
        liveness: Mapping[str, Check] | None = None,
        details: Callable[[], Mapping[str, Any]] | None = None,
        service: str = "",
        host: str = "127.0.0.1",
        tls_cert: Path | None = None,
        tls_key: Path | None = None,
        tls_client_ca: Path | None = None,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        self._checks = checks
        self._liveness = {} if liveness is None else liveness
        self._details = details
        self.service = service
        self._registry = registry
        self._since = datetime.now(UTC)
        self._tls = _tls_context(tls_cert, tls_key, tls_client_ca)
        try:
            self._server = _Server((host, port), _Handler, self, self._tls)
        except OSError as error:
            raise ConfigurationError(
                f"the health server can't listen on {host}:{port}: {error.strerror or error}; "
                "set AI_INFRA_HTTP_PORT to a free port, or 0 for any"
            ) from None
        self._thread = threading.Thread(target=self._server.serve, name="health", daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Where it answers, without a path."""
        host = str(self._server.server_address[0])
        host = "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104 - compared, not bound
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}"

    def start(self) -> Self:
        """Begin to serve."""
        self._thread.start()
        log.info("health server up", url=self.url)
        return self

    def close(self) -> None:
        """Stop serving and free the port."""
        if self._thread.is_alive():
            self._server.stop()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def answer(self, path: str, accept: str) -> tuple[int, str, bytes]:
        """Status, content type and body for a path."""
        match path:
            case "/metrics":
                encode, content_type = choose_encoder(accept)
                return 200, content_type, encode(self._registry)
            case "/healthz":
                live = _results(self._liveness)
                return _json(503 if _failed(live) else 200, {"alive": not _failed(live), "checks": live})
            case "/readyz":
                ready = _results({**self._liveness, **self._checks})
                return _json(503 if _failed(ready) else 200, {"ready": not _failed(ready), "checks": ready})
            case "/health":
                live, ready = _results(self._liveness), _results(self._checks)
                status = "failing" if _failed(live) else "not ready" if _failed(ready) else "ok"
                body = {
                    "service": self.service,
                    "status": status,
                    "version": _version(),
                    "since": self._since.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                    "checks": {**live, **ready},
                }
                if self._details is not None:
                    body.update(self._details())
                return _json(200, body)
        return _json(404, {"error": "not found", "paths": ROUTES})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    timeout = 0  # `handle_request` need not wait: `serve` has

    def __init__(
        self,
        address: tuple[str, int],
        handler: type[BaseHTTPRequestHandler],
        health: HealthServer,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.health = health
        self._tls = tls
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self._stopped, self._stopping = socket.socketpair()
        super().__init__(address, handler)

    def serve(self) -> None:
        """Until `stop`, which it hears at once; `serve_forever` looks for it twice a second."""
        with selectors.DefaultSelector() as selector:
            selector.register(self, selectors.EVENT_READ)
            selector.register(self._stopped, selectors.EVENT_READ)
            while all(key.fileobj is self for key, _ in selector.select()):
                self.handle_request()

    def stop(self) -> None:
        self._stopping.close()

    def server_close(self) -> None:
        super().server_close()
        self._stopping.close()
        self._stopped.close()

    def finish_request(self, request: Any, client_address: Any) -> None:
        # On the request's own thread: a client that never finishes its handshake holds up nobody else.
        request.settimeout(_CLIENT_TIMEOUT)
        if self._tls is None:
            super().finish_request(request, client_address)
            return
        with self._tls.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("health request failed", client=str(client_address[0]), exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "ai-infra"
    sys_version = ""

    def do_GET(self) -> None:
        self._reply(with_body=True)

    def do_HEAD(self) -> None:
        self._reply(with_body=False)

    def _reply(self, *, with_body: bool) -> None:
        started = time.perf_counter()
        path = self.path.partition("?")[0]
        status, content_type, body = self.server.health.answer(path, self.headers.get("Accept", ""))
        # What strangers ask for must not become a label each.
        route = path if path in ROUTES else "other"
        labels = (self.server.health.service, route, self.command, str(status))
        HTTP_REQUEST_DURATION.labels(*labels).observe(time.perf_counter() - started)
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """A scrape every few seconds isn't news."""


def _results(checks: Mapping[str, Check]) -> dict[str, str]:
    results: dict[str, str] = {}
    for name, check in list(checks.items()):
        try:
            results[name] = check() or "ok"
        except Exception as error:  # noqa: BLE001 - a broken check is a failed check, not a broken server
            results[name] = f"the check itself failed: {type(error).__name__}: {error}"
    return results


def _failed(results: Mapping[str, str]) -> bool:
    return any(result != "ok" for result in results.values())


def _json(status: int, body: Mapping[str, Any]) -> tuple[int, str, bytes]:
    return status, "application/json", json.dumps(body, default=str).encode()


def _version() -> str:
    try:
        return version("ai-infra")
    except PackageNotFoundError:
        return "unknown"


def _tls_context(cert: Path | None, key: Path | None, client_ca: Path | None) -> ssl.SSLContext | None:
    if cert is None and key is None and client_ca is None:
        return None
    if cert is None or key is None:
        raise ConfigurationError(
            "TLS for the health server needs both a certificate and its key; "
            "set AI_INFRA_HTTP_TLS_CERT and AI_INFRA_HTTP_TLS_KEY, or neither"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"the health server's TLS files can't be used ({cert}, {key}): {error}") from None
    return context
