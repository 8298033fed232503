"""The health server, over real HTTP and real TLS."""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from ai_infra.errors import ConfigurationError
from ai_infra.telemetry.health import HealthServer


def ask(url: str, verify: ssl.SSLContext | bool = False) -> httpx.Response:
    """By default without the authorities of the world, which take longer to read than an answer over plain HTTP."""
    return httpx.get(url, verify=verify)


def test_ready_lists_each_check_with_its_reason_and_answers_503_while_one_fails() -> None:
    reasons: dict[str, str | None] = {"lanes": "waiting for lanes 3, 4", "keys": None}
    checks = {"lanes": lambda: reasons["lanes"], "keys": lambda: reasons["keys"]}
    with HealthServer(0, checks) as server:
        answer = ask(f"{server.url}/readyz")
        assert answer.status_code == 503
        assert answer.json() == {"ready": False, "checks": {"lanes": "waiting for lanes 3, 4", "keys": "ok"}}
        reasons["lanes"] = None
        assert ask(f"{server.url}/readyz").status_code == 200


def test_a_check_that_is_added_later_counts() -> None:
    checks: dict[str, object] = {}
    with HealthServer(0, checks) as server:  # type: ignore[arg-type]  # grows below
        assert ask(f"{server.url}/readyz").status_code == 200
        checks["database"] = lambda: "no answer"
        assert ask(f"{server.url}/readyz").status_code == 503


def test_alive_is_not_ready() -> None:
    with HealthServer(0, {"kafka": lambda: "no broker"}, liveness={"loop": lambda: None}) as server:
        assert ask(f"{server.url}/healthz").status_code == 200
        assert ask(f"{server.url}/readyz").status_code == 503
        health = ask(f"{server.url}/health")
        assert health.status_code == 200
        assert health.json()["status"] == "not ready"
        assert health.json()["checks"] == {"loop": "ok", "kafka": "no broker"}


def test_a_stuck_loop_fails_liveness_and_readiness() -> None:
    with HealthServer(0, {}, liveness={"loop": lambda: "stuck for 90 s"}) as server:
        assert ask(f"{server.url}/healthz").status_code == 503
        assert ask(f"{server.url}/readyz").status_code == 503


def test_a_check_that_raises_is_a_failed_check() -> None:
    def broken() -> str | None:
        raise RuntimeError("boom")

    with HealthServer(0, {"odd": broken}) as server:
        answer = ask(f"{server.url}/readyz")
        assert answer.status_code == 503
        assert "RuntimeError: boom" in answer.json()["checks"]["odd"]


def test_metrics_are_shown_and_an_unknown_path_names_the_known_ones() -> None:
    registry = CollectorRegistry()
    Counter("ai_infra_test_things_total", "Things.", registry=registry).inc(3)
    with HealthServer(0, {}, registry=registry) as server:
        assert "ai_infra_test_things_total 3.0" in ask(f"{server.url}/metrics").text
        assert ask(f"{server.url}/metricz").status_code == 404
        assert "/metrics" in ask(f"{server.url}/nothing").json()["paths"]


def test_requests_are_timed_by_route_and_what_strangers_ask_for_is_one_route() -> None:
    with HealthServer(0, {}, service="timed") as server:
        for path in ("/healthz", "/.git/config", "/etc/passwd"):
            ask(f"{server.url}{path}")
        text = ask(f"{server.url}/metrics").text
    counts = [line for line in text.splitlines() if "_count{" in line and 'service="timed"' in line]
    assert sorted(counts) == [
        'http_request_duration_seconds_count{method="GET",route="/healthz",service="timed",status="200"} 1.0',
        'http_request_duration_seconds_count{method="GET",route="other",service="timed",status="404"} 2.0',
    ]


def test_it_stops_at_once() -> None:
    began = time.monotonic()
    for _ in range(60):
        with HealthServer(0, {}) as server:
            pass
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), timeout=10)
    assert time.monotonic() - began < 15  # milliseconds each; half a second each where it is looked for by the clock


def test_a_port_that_is_taken_is_said_with_what_to_do() -> None:
    with HealthServer(0, {}) as server, pytest.raises(ConfigurationError, match="AI_INFRA_HTTP_PORT"):
        HealthServer(server.port, {})


def test_a_certificate_without_its_key_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="both a certificate and its key"):
        HealthServer(0, {}, tls_cert=Path("x.pem"))


def test_with_a_client_authority_only_its_clients_are_served(tmp_path: Path) -> None:
    cert, key = _self_signed(tmp_path, "server")
    client_cert, client_key = _self_signed(tmp_path, "client")
    with HealthServer(0, {}, tls_cert=cert, tls_key=key, tls_client_ca=client_cert) as server:
        assert server.url.startswith("https://")
        stranger = ssl.create_default_context(cafile=str(cert))
        with pytest.raises(httpx.HTTPError):
            ask(f"{server.url}/healthz", verify=stranger)
        known = ssl.create_default_context(cafile=str(cert))
        known.load_cert_chain(client_cert, client_key)
        assert ask(f"{server.url}/healthz", verify=known).status_code == 200


def _self_signed(directory: Path, name: str) -> tuple[Path, Path]:
    cert, key = directory / f"{name}.pem", directory / f"{name}.key"
    subprocess.run(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN={name} "
        f"-addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {cert}".split(),
        check=True,
        capture_output=True,
    )
    return cert, key
