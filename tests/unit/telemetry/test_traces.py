"""Trace context without and with the OpenTelemetry packages."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_infra.telemetry import traces

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@given(st.text(max_size=80))
def test_no_text_breaks_the_reader(text: str) -> None:
    parsed = traces.parse_traceparent(text)
    assert parsed is None or str(parsed)[:53] == text[:53]


@pytest.mark.parametrize(
    "bad", ["", "00-" + "0" * 32 + "-b7ad6b7169203331-01", PARENT.upper(), PARENT + "-x", "ff" + PARENT[2:]]
)
def test_an_invalid_header_is_no_context(bad: str) -> None:
    assert traces.parse_traceparent(bad) is None


def test_a_child_keeps_the_trace_and_has_its_own_span() -> None:
    parent, child = traces.parse_traceparent(PARENT), traces.parse_traceparent(traces.child_of(PARENT))
    assert parent is not None
    assert child is not None
    assert (child.trace_id, child.sampled) == (parent.trace_id, True)
    assert child.span_id != parent.span_id


def test_without_a_collector_a_span_passes_the_header_on_unchanged() -> None:
    with traces.span("decide", traceparent=PARENT) as inside:
        assert inside == PARENT
    with traces.span("decide") as inside:
        assert inside is None


def test_with_a_collector_spans_are_sent_and_the_trace_goes_on() -> None:
    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    settings = SimpleNamespace(
        telemetry=SimpleNamespace(otel_collector_url=f"http://127.0.0.1:{server.server_address[1]}")
    )
    try:
        assert traces.configure_tracing(settings, "trainer")  # type: ignore[arg-type]
        with traces.span("decide", traceparent=PARENT, attributes={"lane": 3}) as inside:
            context = traces.parse_traceparent(inside)
            assert context is not None
            assert context.trace_id == "0af7651916cd43dd8448eb211c80319c"
            assert inside != PARENT
    finally:
        traces.close_tracing()
        server.shutdown()
        server.server_close()
    assert received
    assert received[0][0] == "/v1/traces"
    assert b"ai-infra-trainer" in received[0][1]
