"""What was decided can be decided again, by the rules of then."""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import entry_points

import pytest

SERVICES = ["trainer", "registry", "promoter", "canary"]


def test_each_service_that_decides_is_looked_at() -> None:
    assert {e.name for e in entry_points(group="ai_infra.services")} == {*SERVICES, "indexer"}


@pytest.mark.parametrize("service", SERVICES)
def test_every_version_of_the_rules_is_found_by_the_name_that_events_carry(service: str) -> None:
    decide = importlib.import_module(f"ai_infra_{service}.decide")
    package = importlib.import_module(f"ai_infra_{service}.rules")
    modules = {m.name for m in pkgutil.iter_modules(package.__path__)}
    assert set(decide.VERSIONS) == {f"{service}/{name}" for name in modules}
    assert decide.RULES in decide.VERSIONS
