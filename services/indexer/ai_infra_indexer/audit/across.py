"""The lanes of a log against each other: what everybody must know is in each of them, and is the same in all.

A keyring that one lane lacks is a revocation withheld from it: whoever has the revoked key goes on speaking there, and
that lane by itself verifies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ai_infra.tlog.exceptions import TlogError
from ai_infra.trust.keyring import Keyring
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.audit.report import LaneReport, Problem

# A broadcast is entered into a lane before what was appended behind it. Brokers' clocks differ, and the indexer hears
# of a broadcast when it next looks: by no more than this.
WITHHELD_MS: Final = 10 * 60_000
_WHAT: Final = {"signer.changed": "keyring", "policy.changed": "policy"}


def across_lanes(reports: Sequence[LaneReport]) -> list[Problem]:
    """What lanes that were read from one source tell differently, or one of them does not tell."""
    problems: list[Problem] = []
    for type_, version in sorted({broadcast for report in reports for broadcast in report.broadcasts}):
        having = [report for report in reports if (type_, version) in report.broadcasts]
        first, what = having[0], _WHAT[type_]
        said = first.broadcasts[type_, version]
        for report in having[1:]:
            found = report.broadcasts[type_, version]
            if found.sha256 != said.sha256:
                detail = (
                    f"version {version} of the {what} is {found.sha256} here, and {said.sha256} in lane {first.lane}"
                )
                problems.append(Problem(report.lane, report.source, found.position, f"{what}_conflict", detail))
        since = min(report.broadcasts[type_, version].append_ms for report in having)
        for report in reports:
            newest = max((v for t, v in report.broadcasts if t == type_), default=0)
            if newest < version and report.newest_ms > since + WITHHELD_MS:
                detail = (
                    f"version {version} of the {what} is not in this lane, which went on for "
                    f"{(report.newest_ms - since) // 60_000} minutes after lane {first.lane} has it"
                )
                problems.append(Problem(report.lane, report.source, None, f"withheld_{what}", detail))
    return problems


def by_newest_keyring(archived: ArchivedLane, note: bytes, own: int, newest: Keyring) -> list[Problem]:
    """A checkpoint that verifies in its own lane, which has version `own` of the keyring, by a key that the newest one
    of all lanes has revoked. Where the lane has that itself its own audit says it."""
    if own >= newest.version:
        return []
    try:
        archived.checkpoint(note, newest, standing=True)
    except TlogError as error:
        detail = f"the checkpoint does not verify by keyring {newest.version}, which another lane has: {error}"
        return [Problem(archived.lane, "archive", None, "bad_checkpoint", detail)]
    return []
