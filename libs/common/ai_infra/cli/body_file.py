"""A body from a JSON file: typed, checked field by field, with who speaks filled in. It never signs or sends."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import orjson

from ai_infra.errors import AiInfraError, ConfigurationError
from ai_infra.events.body import Body
from ai_infra.events.generated import BODIES
from ai_infra.trust.roles import SPEAKER


class BodyFileError(AiInfraError):
    """The file isn't a body of that topic."""

    code = "bad_body"


def read_body(topic: str, path: Path, *, principal: str) -> Body:
    """The body in a file; `-` is stdin. A field that names who speaks is `principal` where it's left out."""
    if topic not in BODIES:
        raise ConfigurationError(f"there is no topic {topic!r} of events; there are {', '.join(sorted(BODIES))}")
    try:
        text = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        data = orjson.loads(text)
    except OSError as error:
        raise BodyFileError(f"{path} can't be read: {error.strerror}") from None
    except orjson.JSONDecodeError as error:
        raise BodyFileError(f"{path} isn't JSON: {error}") from None
    if not isinstance(data, dict):
        raise BodyFileError(f"{path} must hold a JSON object with the fields of {topic}")
    speaker = SPEAKER.get(topic)
    if speaker is not None:
        data.setdefault(speaker, principal)
    try:
        body = msgspec.convert(data, BODIES[topic])
    except msgspec.ValidationError as error:
        raise BodyFileError(f"{path} is no body of {topic}: {error}; docs/topics.md lists its fields") from None
    if unknown := sorted(_unknown(data, msgspec.to_builtins(body))):
        raise BodyFileError(f"{path}: {topic} has no field {', '.join(unknown)}; docs/topics.md lists its fields")
    return body


def _unknown(given: Any, taken: Any, path: str = "") -> set[str]:
    """Fields that were given and have got lost: a typo in an optional field must not pass as its absence."""
    if isinstance(given, Mapping) and isinstance(taken, Mapping):
        lost = {f"{path}{key}" for key in given if key not in taken}
        return lost.union(*(_unknown(given[k], taken[k], f"{path}{k}.") for k in given if k in taken))
    if isinstance(given, list) and isinstance(taken, list | tuple):
        return set().union(*(_unknown(g, t, f"{path}{i}.") for i, (g, t) in enumerate(zip(given, taken, strict=False))))
    return set()
