"""What a service says of somebody else's texts, made to fit into an event. Pure.

An answer quotes what it answers, and that may be as large as an event can be, or hold what no header can. What could
not be said would halt the lane of everybody; so what is for people is cut, and only where it must be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, Final, TypeVar

from ai_infra.events.body import Body
from ai_infra.events.codec import MAX_BODY_BYTES, encode_body
from ai_infra.events.exceptions import BodyTooLarge
from ai_infra.events.generated import Reason
from ai_infra.events.headers import MAX_TEXT_BYTES
from ai_infra.events.text import sayable

B = TypeVar("B", bound=Body)

_REASONS: Final = 32
_CODE_BYTES: Final = 100
_DETAIL_BYTES: Final = 500
_TEXT_BYTES: Final = 1_000


def fitted(body: B, *quoted: str, room: int = 0) -> B:
    """`body` as it is where an event can carry it and `room` bytes more; else with its reasons, and the texts that are
    `quoted`, cut."""
    try:
        size = len(encode_body(body))
    except BodyTooLarge:
        size = MAX_BODY_BYTES + 1
    if size + room > MAX_BODY_BYTES:
        names = [f.name for f in fields(body) if f.name in ("reason", "reasons", *quoted)]  # type: ignore[arg-type]
        return replace(body, **{name: _cut(getattr(body, name)) for name in names})  # type: ignore[type-var]
    return body


def fitting_subject(subject: str | None) -> str | None:
    """`subject` where a header can carry it; none where it is somebody's text that can't be in one."""
    if subject is None or not 0 < len(subject.encode("utf-8", "replace")) <= MAX_TEXT_BYTES["ce_subject"]:
        return None
    return None if any(char < " " or char == "\x7f" for char in subject) else subject


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return sayable(value, _TEXT_BYTES)
    if isinstance(value, tuple):
        return cut_reasons(value, _DETAIL_BYTES)
    return value


def cut_reasons(reasons: Sequence[Reason], detail_bytes: int) -> tuple[Reason, ...]:
    """As many reasons, and as much of each, as one event should carry."""
    return tuple(
        Reason(code=sayable(r.code, _CODE_BYTES), detail=sayable(r.detail, detail_bytes)) for r in reasons[:_REASONS]
    )
