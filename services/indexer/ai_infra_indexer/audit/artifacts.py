"""What was registered against what lies in the bucket: every byte is read and hashed."""

from __future__ import annotations

from collections.abc import Iterable

from ai_infra.objects.exceptions import NotFound, ObjectsError, ObjectsUnavailable
from ai_infra.objects.store import ObjectStore
from ai_infra_indexer.audit.report import Problem, Progress, RegisteredBytes


def audit_artifacts(
    store: ObjectStore, registered: Iterable[RegisteredBytes], *, progress: Progress = lambda _: None
) -> list[Problem]:
    """Every object that a registration vouches for, hashed once. Raises ObjectsUnavailable."""
    problems: list[Problem] = []
    found: dict[str, str | None] = {}
    for item in registered:
        if item.uri not in found:
            try:
                found[item.uri] = store.stream_sha256(item.uri).sha256
            except ObjectsUnavailable:
                raise
            except NotFound:
                found[item.uri] = None
            except ObjectsError as error:
                problems.append(
                    Problem(item.lane, "bucket", item.position, "unreadable_object", f"{item.what}: {error}")
                )
                found[item.uri] = item.sha256
            progress(1)
        sha256 = found[item.uri]
        if sha256 is None:
            detail = f"{item.what} is not at {item.uri}"
            problems.append(Problem(item.lane, "bucket", item.position, "missing_object", detail))
        elif sha256 != item.sha256:
            detail = f"{item.what} at {item.uri} has SHA-256 {sha256}; {item.sha256} was registered"
            problems.append(Problem(item.lane, "bucket", item.position, "changed_object", detail))
    return problems
