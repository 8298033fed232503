"""Values: compared by what they hold, and held to their fields."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ai_infra.events.event import Cause

ID = "018f0000-0000-7000-8000-00000000000b"


def test_values_are_equal_and_hashed_by_their_fields() -> None:
    assert Cause(ID, 7) == replace(Cause(ID, 6), lane=7)
    assert len({Cause(ID, 7), Cause(ID, 7), Cause(ID, 6)}) == 2


def test_a_value_takes_no_field_that_its_class_does_not_name() -> None:
    with pytest.raises(AttributeError):
        Cause(ID, 7).model = "digits"  # type: ignore[attr-defined]  # what is tried
