"""Which lane a key belongs to: murmur2 as in Apache Kafka's Java default partitioner, and the keys that are no model.

All lane topics have the same number of partitions, and partition p of each is lane p. This module must never depend
on a Kafka client's own partitioner: librdkafka's default differs from Java's.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from ai_infra.events.exceptions import WrongKey

BROADCAST_KEY: Final = "_broadcast"
LANE_KEY_PREFIX: Final = "_lane/"
# A model's name is a Kafka key, a path segment in the archive and a label; the first character keeps `_lane/` apart.
MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_LANE_KEY: Final = re.compile(r"_lane/(0|[1-9][0-9]{0,5})")

_SEED: Final = 0x9747B28C
_M: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """Kafka's `Utils.murmur2`, as an unsigned 32-bit number."""
    length = len(data)
    h = _SEED ^ length
    tail = length & ~3
    for i in range(0, tail, 4):
        k = int.from_bytes(data[i : i + 4], "little")
        k = (k * _M) & _MASK
        k ^= k >> 24
        k = (k * _M) & _MASK
        h = ((h * _M) & _MASK) ^ k
    rest = data[tail:]
    if rest:
        h ^= int.from_bytes(rest, "little")
        h = (h * _M) & _MASK
    h ^= h >> 13
    h = (h * _M) & _MASK
    return h ^ (h >> 15)


@lru_cache(maxsize=65_536)
def lane_of(key: str, lanes: int) -> int:
    """Lane (= partition) of a key among `lanes`: what Java's default partitioner computes for the key's UTF-8."""
    return (murmur2(key.encode()) & 0x7FFFFFFF) % lanes


def lane_key(lane: int) -> str:
    """Key of an event that is about a whole lane rather than a model: `_lane/<p>`, sent to partition p as is."""
    return f"{LANE_KEY_PREFIX}{lane}"


def lane_of_lane_key(key: str) -> int | None:
    """The lane in `_lane/<p>`, or None where the key has another form."""
    match = _LANE_KEY.fullmatch(key)
    return None if match is None else int(match[1])


def is_model(name: str) -> bool:
    """Whether `name` may be a model's name."""
    return MODEL_NAME.fullmatch(name) is not None


def check_model(name: str) -> str:
    """`name` itself; raises WrongKey where it can't be a model's name."""
    if MODEL_NAME.fullmatch(name) is None:
        raise WrongKey(
            "expected a model name: a letter or digit, then at most 127 of letters, digits, '.', '_', '-'; "
            f"got {name[:200]!r}"
        )
    return name
