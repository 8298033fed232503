"""What a registration rests on, found without an index."""

from __future__ import annotations

from tests.unit.registry.test_registrations_replayed import Registry

from ai_infra_registry.evidence import in_log


def test_an_artifact_that_waited_for_another_is_shown_with_its_own_provenance() -> None:
    registry = Registry()
    for run in range(3):
        registry.produce("digits", run, run, provenance=f"of run {run}")
    registry.settle()
    found = [in_log(registry.log, "digits", f"digits@{version}") for version in (1, 2, 3)]
    assert [e and (e.job_id, e.provenance) for e in found] == [(f"job-{run}", f"of run {run}") for run in range(3)]


def test_what_the_log_does_not_register_is_not_found() -> None:
    assert in_log(Registry().log, "digits", "digits@1") is None
