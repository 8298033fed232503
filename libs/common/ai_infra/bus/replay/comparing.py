"""What the rules give, compared with what was said, and told to people. Pure."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import Any

from ai_infra.errors import AiInfraError
from ai_infra.events.codec import encode_body
from ai_infra.events.exceptions import EventError
from ai_infra.trust.exceptions import TrustError


def different(said: Any, given: Any) -> list[str]:
    """The fields in which two bodies differ, with both values."""
    if type(said) is not type(given):
        return [f"{type(given).__name__}, not {type(said).__name__}"]
    if encode_body(said) == encode_body(given):
        return []
    return [
        f"{f.name} {_text(getattr(given, f.name))}, not {_text(getattr(said, f.name))}"
        for f in fields(said)
        if getattr(said, f.name) != getattr(given, f.name)
    ]


def short(body: Any) -> str:
    status = getattr(body, "status", None) or getattr(body, "state", None)
    reasons = ", ".join(r.code for r in getattr(body, "reasons", ()))
    words = (body.TOPIC, getattr(status, "value", status) or "", f"({reasons})" if reasons else "")
    return " ".join(word for word in words if word)


def _text(value: Any) -> str:
    text = repr(getattr(value, "value", value))
    return text if len(text) <= 200 else f"{text[:197]}..."


@cache
def runtime_codes() -> frozenset[str]:
    """Codes of refusals that the runtime says before any rules are asked."""
    codes: set[str] = {"decide_failed", "not_listened_to"}
    kinds: list[type[AiInfraError]] = [EventError, TrustError]
    while kinds:
        kind = kinds.pop()
        codes.add(kind.code)
        kinds += kind.__subclasses__()
    return frozenset(codes)
