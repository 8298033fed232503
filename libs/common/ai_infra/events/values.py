"""Values: classes whose fields nobody changes, made a few thousand times a second.

That they stay as they are is held by the type checker alone. A dataclass that is frozen at run time too sets each field
by a call: for what one event is made of, a hundred fields, that took as long as its canonical statement.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field, dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field, Field))
def value(*, kw_only: bool = False) -> Callable[[type[T]], type[T]]:
    """A dataclass with slots, compared and hashed by its fields, which mypy lets nobody set."""

    def make(cls: type[T]) -> type[T]:
        return dataclass(slots=True, unsafe_hash=True, kw_only=kw_only)(cls)

    return make
