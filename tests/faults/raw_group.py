"""A dead member's farewell. A group keeps the lanes of a killed member until its session is over, some seconds; where
a test kills dozens, somebody else says at once what the broker would conclude by itself. By Kafka's own protocol,
ConsumerGroupHeartbeat with the member epoch -1.

https://kafka.apache.org/protocol#The_Messages_ConsumerGroupHeartbeat
"""

from __future__ import annotations

import socket
import struct

_HEARTBEAT = 68
_LEAVES = -1
_UNKNOWN_MEMBER = 25


def leave(bootstrap: str, group: str, member: str) -> None:
    """Takes a member out of a group of the protocol `consumer`; returns once its lanes are free."""
    host, _, port = bootstrap.partition(":")
    # Instance, rack; rebalance time-out; topics, assignor, what it owns: not told. Then no tagged fields.
    body = (
        _text(group) + _text(member) + struct.pack(">i", _LEAVES) + b"\0\0" + struct.pack(">i", -1) + b"\0\0\0" + b"\0"
    )
    request = struct.pack(">hhi", _HEARTBEAT, 0, 1) + struct.pack(">h", 3) + b"raw" + b"\0" + body
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        with connection.makefile("rb") as answer:
            (size,) = struct.unpack(">i", answer.read(4))
            found = answer.read(size)
    (error,) = struct.unpack_from(">h", found, 4 + 1 + 4)  # correlation, no tagged fields, throttle time
    assert error in (0, _UNKNOWN_MEMBER), f"the broker answers error {error}"


def _text(text: str) -> bytes:
    """A compact string: one more than its length first, which is below 127 here."""
    return bytes([len(text.encode()) + 1]) + text.encode()
