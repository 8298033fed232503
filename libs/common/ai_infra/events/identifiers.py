"""Ids of events: UUIDv7 for what somebody says anew, UUIDv5 for what follows from another event."""

from __future__ import annotations

import os
import re
import time
import uuid
from typing import Final

UUID_TEXT: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def uuid7() -> str:
    """A new time-ordered id (RFC 9562, 5.7): 48 bits of Unix milliseconds, 74 random bits."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 7 << 76  # version
    value = value & ~(0x3 << 62) | 2 << 62  # variant
    return str(uuid.UUID(int=value))


def consequence_id(cause_id: str, kind: str) -> str:
    """Id of the event of `kind` that follows deterministically from event `cause_id`.

    UUIDv5 whose namespace is the cause's id, so a retry of the same step is recognisably the same event. `kind` must
    differ between two events that one cause brings about.
    """
    return str(uuid.uuid5(uuid.UUID(cause_id), kind))
