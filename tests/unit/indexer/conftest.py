"""What the tests of the indexer share: voices with keys of their own, and bodies of all kinds."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import strategies as st
from tests.unit.indexer.voices import World, worlds

from ai_infra.events import generated as g
from ai_infra.trust.init import init_keys


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("indexer") / "keys"
    init_keys(directory)
    return directory


@pytest.fixture(scope="session")
def make_world(keys: Path) -> Callable[[], World]:
    return worlds(keys)


@pytest.fixture
def world(make_world: Callable[[], World]) -> World:
    return make_world()


# --- any body at all --------------------------------------------------------------------------------------------------

_TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=24)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@functools.cache
def _values(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a generated field's type."""
    simple: dict[Any, st.SearchStrategy[Any]] = {
        str: _TEXTS,
        int: st.integers(-(2**31), 2**31 - 1),
        bool: st.booleans(),
        datetime: st.integers(0, 4_000_000_000_000).map(lambda n: _EPOCH + timedelta(milliseconds=n)),
    }
    if hint in simple:
        return simple[hint]
    arguments = get_args(hint)
    if type(None) in arguments:
        return st.none() | _values(arguments[0])
    if get_origin(hint) is tuple:
        return st.lists(_values(arguments[0]), max_size=3).map(tuple)
    if get_origin(hint) is Mapping:
        return st.dictionaries(_TEXTS, st.integers(-(2**63), 2**63 - 1), max_size=4)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return st.sampled_from(list(hint))
    hints = get_type_hints(hint)
    return st.builds(hint, **{f.name: _values(hints[f.name]) for f in fields(hint)})


@pytest.fixture(scope="session")
def any_body() -> Callable[[str], st.SearchStrategy[Any]]:
    """A strategy for bodies of a topic."""
    return lambda topic: _values(g.BODIES[topic])
