"""Appends a record as no client library would: header names are any bytes. By Kafka's own protocol, produce request 3.

https://kafka.apache.org/protocol#The_Messages_Produce, record batch format 2.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence

_CRC32C = []
for _byte in range(256):
    for _ in range(8):
        _byte = (_byte >> 1) ^ (0x82F63B78 if _byte & 1 else 0)
    _CRC32C.append(_byte)


def append(
    bootstrap: str, topic: str, partition: int, key: bytes, value: bytes, headers: Sequence[tuple[bytes, bytes]]
) -> None:
    """Appends one record to a partition that the (only) broker leads; returns once it has it."""
    host, _, port = bootstrap.partition(":")
    batch = _batch(key, value, headers)
    body = struct.pack(">hhi", -1, 1, 10_000)  # no transaction, acknowledged by the leader, milliseconds
    body += struct.pack(">i", 1) + _text(topic.encode()) + struct.pack(">iii", 1, partition, len(batch)) + batch
    request = struct.pack(">hhi", 0, 3, 1) + _text(b"raw") + body
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        with connection.makefile("rb") as answer:
            (size,) = struct.unpack(">i", answer.read(4))
            found = answer.read(size)
    at = 4 + 4 + 2 + len(topic.encode()) + 4 + 4  # correlation, topics, name, partitions, partition
    (error,) = struct.unpack_from(">h", found, at)
    assert error == 0, f"the broker answers error {error}"


def _batch(key: bytes, value: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    record = b"\0" + _varint(0) + _varint(0) + _sized(key) + _sized(value) + _varint(len(headers))
    record += b"".join(_sized(name) + _sized(content) for name, content in headers)
    now = int(time.time() * 1000)
    # attributes, last offset delta, first and last time, producer id, epoch, first sequence, records
    checked = struct.pack(">hiqqqhii", 0, 0, now, now, -1, -1, -1, 1) + _sized(record)
    return struct.pack(">qiibI", 0, 4 + 1 + 4 + len(checked), -1, 2, _crc32c(checked)) + checked


def _text(text: bytes) -> bytes:
    return struct.pack(">h", len(text)) + text


def _sized(data: bytes) -> bytes:
    return _varint(len(data)) + data


def _varint(number: int) -> bytes:
    left, out = (number << 1) ^ (number >> 63), bytearray()
    while left > 0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes(out) + bytes([left])


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC32C[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
