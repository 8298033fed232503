"""Foreign text, an error's message perhaps, made fit for an event: what Postgres and UTF-8 cannot hold is replaced.

Only for what is told about something. What is signed for somebody else is refused, never mended.
"""

from __future__ import annotations

_REPLACEMENT = "\ufffd"


def sayable(text: str, limit: int) -> str:
    """`text` without lone surrogates and U+0000, cut to `limit` bytes of UTF-8."""
    raw = text[:limit].encode("utf-8", "replace").replace(b"\0", _REPLACEMENT.encode())
    return raw[:limit].decode("utf-8", "ignore")
