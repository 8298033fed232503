"""What the rules give, compared with what was said, and told to people. Pure."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import Any

from ai_infra.bus.replay.words import Known
from ai_infra.errors import AiInfraError
from ai_infra.events.codec import encode_body
from ai_infra.events.event import Event
from ai_infra.events.exceptions import EventError, UndecodableBody, UnknownSchema
from ai_infra.trust.exceptions import RevokedKey, TrustError


def different(said: Any, given: Any) -> list[str]:
    """The fields in which two bodies differ, with both values."""
    if type(said) is not type(given):
        return [f"{type(given).__name__}, not {type(said).__name__}"]
    unequal = unlike(said, given)
    return [
        f"{f.name} {_text(getattr(given, f.name))}, not {_text(getattr(said, f.name))}"
        for f in fields(said)
        if f.name in unequal
    ]


def unlike(one: Any, other: Any) -> set[str]:
    """The names of the fields in which two bodies of one type differ."""
    if encode_body(one) == encode_body(other):
        return set()
    return {f.name for f in fields(one) if getattr(one, f.name) != getattr(other, f.name)}


def short(body: Any) -> str:
    status = getattr(body, "status", None) or getattr(body, "state", None)
    reasons = ", ".join(r.code for r in getattr(body, "reasons", ()))
    words = (body.TOPIC, getattr(status, "value", status) or "", f"({reasons})" if reasons else "")
    return " ".join(word for word in words if word)


def unfounded(said: Event[Any], refused: Event[Any], known: Known) -> str:
    """Why a refusal before any rules can't be true of an event that the log has verified; nothing where it may be.

    What a key may say depends on the keyring: the service may have had another than was in force in the log.
    """
    code, version, newest = said.body.reasons[0].code, said.attributes.keyring, known.keyrings.latest_version
    if code in form_codes():
        return "the log has this very event, verified"
    keyring = known.keyrings.get(version)
    if code == RevokedKey.code and keyring is not None and refused.signer not in keyring.revocations:
        return f"keyring {version}, by which it was said, does not revoke {refused.signer}"
    if code in _trust_codes() and version == newest == refused.attributes.keyring:
        return f"the log has this very event, verified by keyring {version}, the only one that the service can have had"
    return ""


def _text(value: Any) -> str:
    text = repr(getattr(value, "value", value))
    return text if len(text) <= 200 else f"{text[:197]}..."


@cache
def form_codes() -> frozenset[str]:
    """Codes of refusals for an event's form or its own signature, which are the same whoever looks at it, and when;
    without those of a schema that an older program does not know."""
    return frozenset(_codes_below(EventError) - {UnknownSchema.code, UndecodableBody.code})


@cache
def _trust_codes() -> frozenset[str]:
    return frozenset(_codes_below(TrustError))


@cache
def runtime_codes() -> frozenset[str]:
    """Codes of refusals that the runtime says before any rules are asked."""
    return frozenset({"decide_failed", "not_listened_to", *_codes_below(EventError), *_codes_below(TrustError)})


def _codes_below(kind: type[AiInfraError]) -> set[str]:
    return {kind.code}.union(*map(_codes_below, kind.__subclasses__()))
