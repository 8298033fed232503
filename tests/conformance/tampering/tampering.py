"""A manipulation of a log, and who must name it how: `verify.py`, and our own audit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance.tampering.forging import Forger
from tests.unit.indexer.log_folder import LANES, ORIGIN, LogFolder

from ai_infra.objects.reader import FolderReader
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.audit import Problem, audit_archive
from ai_infra_indexer.audit.across import across_lanes, by_newest_keyring
from ai_infra_indexer.audit.vouched import against_heads, read_heads
from ai_infra_indexer.export import verify as verifier

SAME = object()
NOWHERE = None


def by_verifier(log: LogFolder, folder: Path) -> set[tuple[int | None, int | None, str]]:
    roots = verifier.Roots(dict(log.worlds[0].roots.keys), log.worlds[0].roots.threshold)
    found = verifier.verify(str(folder), roots, ORIGIN, LANES, 1)
    return {(p["lane"], p["position"], p["code"]) for p in found["problems"]}


def by_audit(log: LogFolder, folder: Path) -> set[tuple[int | None, int | None, str]]:
    """As `ai-infra audit verify --archive FOLDER` does it."""
    reader, problems = FolderReader(folder), list[Problem]()
    reports = [audit_archive(ArchivedLane(reader, ORIGIN, n), log.worlds[0].roots, LANES) for n in range(LANES)]
    keyring = max((r.keyring for r in reports if r.keyring is not None), key=lambda k: k.version)
    heads, more = read_heads(reader, ORIGIN, keyring)
    problems += [*more, *across_lanes(reports)]
    for report in reports:
        problems += report.problems
        archived = ArchivedLane(reader, ORIGIN, report.lane)
        note = archived.note()
        if note is not None and report.checkpoint_size is not None:
            problems += by_newest_keyring(archived, note, report.keyring_version, keyring)
            if heads is not None:
                problems += against_heads(archived, archived.checkpoint(note, keyring).checkpoint, heads)
    return {(p.lane, p.position, p.code) for p in problems}


@dataclass(frozen=True)
class Case:
    """A manipulation, and where it is found: lane, position, code; and our audit's code where that is another."""

    name: str
    do: Callable[[Forger], Any]
    lane: int | None
    position: int | None
    code: str
    audit: Any = SAME


def check(log: LogFolder, tmp_path: Path, case: Case) -> None:
    forger = Forger.of(log, tmp_path / "copy")
    case.do(forger)
    ours, theirs = by_audit(log, forger.root), by_verifier(log, forger.root)
    expected = {(p, c) for lane, p, c in theirs if case.lane in (None, lane)}
    assert case.code in {c for p, c in expected if case.position in (None, p)}, theirs
    if case.audit is NOWHERE:
        return
    code = case.code if case.audit is SAME else case.audit
    assert code in {c for lane, p, c in ours if case.lane in (None, lane) and case.position in (None, p)}, ours
