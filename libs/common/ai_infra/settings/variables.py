"""How a field of the settings is bound to names in the environment.

A field says its own names, the preferred one first: `Annotated[int, Variables("AI_INFRA_LANES")]`. That is the one
place where a name, its meaning (the field's description) and its default are written down; the reader of the
environment, the check for unknown names and `docs/configuration.md` all read it from there. Nothing here reads the
environment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo


@dataclass(frozen=True, slots=True, init=False)
class Variables:
    """Names under which a field is found in the environment, in order of precedence."""

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        object.__setattr__(self, "names", names)


@dataclass(frozen=True, slots=True)
class Bound:
    """A field of a section together with its names."""

    section: str
    field: str
    names: tuple[str, ...]
    info: FieldInfo


def bound_fields(settings: type[BaseModel]) -> Iterator[Bound]:
    """Every field of every section that has a name in the environment, in the order in which they are written."""
    for section, section_info in settings.model_fields.items():
        model = section_info.annotation
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            continue
        for field, info in model.model_fields.items():
            for marker in info.metadata:
                if isinstance(marker, Variables):
                    yield Bound(section, field, marker.names, info)


def _split(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


# A list in one variable: comma-separated, white space around a part does not count.
CommaSeparated = Annotated[tuple[str, ...], BeforeValidator(_split)]
