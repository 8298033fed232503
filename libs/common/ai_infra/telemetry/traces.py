"""Traces: which event led to which, in the words of W3C Trace Context, and spans by OTLP where a collector is named.

`traceparent` travels in an event's header. It isn't signed and means nothing to a decision: here it's only read,
passed on, and never trusted. Without `OTEL_COLLECTOR_URL` no span is made and a `traceparent` is passed on unchanged;
the OpenTelemetry packages (extra `traces`) are needed only where the variable is set.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ai_infra.errors import ConfigurationError

if TYPE_CHECKING:
    from ai_infra.settings import Settings

# https://www.w3.org/TR/trace-context/#traceparent-header, version 00: ids in lower-case hex, none of them all zeros.
_TRACEPARENT: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")

_state: dict[str, Any] = {"tracer": None, "provider": None}


@dataclass(frozen=True, slots=True)
class TraceContext:
    """What a `traceparent` says: 32 and 16 hex digits, and whether the trace is sampled."""

    trace_id: str
    span_id: str
    sampled: bool

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


def parse_traceparent(text: str | None) -> TraceContext | None:
    """The context that a header names, or None where it's absent or not a valid version 00 header."""
    match = _TRACEPARENT.fullmatch(text or "")
    if match is None:
        return None
    return TraceContext(match[1], match[2], bool(int(match[3], 16) & 1))


def new_traceparent() -> str:
    """The start of a new, sampled trace, for who sends the first event of a flow."""
    return str(TraceContext(_nonzero(16), _nonzero(8), sampled=True))


def child_of(traceparent: str | None) -> str:
    """A new span id in the trace of `traceparent`; a new trace where that is absent or invalid."""
    parent = parse_traceparent(traceparent)
    if parent is None:
        return new_traceparent()
    return str(TraceContext(parent.trace_id, _nonzero(8), parent.sampled))


def configure_tracing(settings: Settings, service: str) -> bool:
    """Send spans to `OTEL_COLLECTOR_URL`; returns whether it's set. Raises ConfigurationError without the extra."""
    url = settings.telemetry.otel_collector_url
    if not url:
        return False
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigurationError(
            f"OTEL_COLLECTOR_URL is set, but {error.name} isn't installed; "
            'install `pip install "ai-infra[traces]"` or unset the variable'
        ) from None
    endpoint = url if url.rstrip("/").endswith("/v1/traces") else f"{url.rstrip('/')}/v1/traces"
    provider = TracerProvider(resource=Resource.create({"service.name": f"ai-infra-{service}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    _state["provider"], _state["tracer"] = provider, provider.get_tracer("ai_infra")
    return True


def close_tracing() -> None:
    """Send what is still buffered and stop; harmless where tracing is off."""
    provider = _state["provider"]
    _state["provider"] = _state["tracer"] = None
    if provider is not None:
        provider.shutdown()


@contextmanager
def span(
    name: str, *, traceparent: str | None = None, attributes: Mapping[str, str | int] | None = None
) -> Iterator[str | None]:
    """A span as child of `traceparent`. Yields the `traceparent` for what is said inside it.

    With tracing off this yields `traceparent` itself: the events still link up, with the sender's span as parent.
    """
    tracer = _state["tracer"]
    if tracer is None:
        yield traceparent
        return
    from opentelemetry.trace import set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    propagator = TraceContextTextMapPropagator()
    parent = propagator.extract({"traceparent": traceparent} if traceparent else {})
    with tracer.start_as_current_span(name, context=parent, attributes=dict(attributes or {})) as current:
        carrier: dict[str, str] = {}
        propagator.inject(carrier, context=set_span_in_context(current))
        yield carrier.get("traceparent", traceparent)


def _nonzero(size: int) -> str:
    while not any(raw := secrets.token_bytes(size)):
        pass
    return raw.hex()
