"""What lies beside a lane's entries: the checkpoints that were kept for good, and the schemas that entries name.

A kept checkpoint is the log's own older word. Where it is not of a prefix of the tree, the log has had two histories.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from ai_infra.events.exceptions import CanonicalError
from ai_infra.events.fingerprint import schema_sha256
from ai_infra.objects.exceptions import NotFound, ObjectsError, ObjectsUnavailable
from ai_infra.tlog.exceptions import TlogError
from ai_infra.tlog.growth import RightEdge
from ai_infra.tlog.tree import leaf_hash
from ai_infra.trust.keyring import Keyring
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.audit.report import LaneReport


class KeptCheckpoints:
    """The checkpoints that a lane has kept, against the roots that its tree had at their sizes."""

    def __init__(self, archived: ArchivedLane) -> None:
        self._archived = archived
        self._sizes = archived.kept_sizes()
        self._roots: dict[int, bytes] = {}

    def note_roots(self, edge: RightEdge, raws: Sequence[bytes]) -> None:
        """Remember the roots at kept sizes while the tree grows from `edge` by these entries."""
        for size in self._sizes:
            if edge.size < size <= edge.size + len(raws):
                grown = edge.frontier().extend([leaf_hash(raw) for raw in raws[: size - edge.size]])
                self._roots[size] = grown.root()

    def check(self, keyring: Keyring, report: LaneReport) -> None:
        """Name each that does not verify, or is of another history. Raises ObjectsUnavailable."""
        covered = report.checkpoint_size
        for size in self._sizes:
            try:
                head = self._archived.checkpoint(self._archived.kept(size), keyring).checkpoint
            except ObjectsUnavailable:
                raise
            except (TlogError, ObjectsError, UnicodeDecodeError) as error:
                report.add(None, "bad_checkpoint", f"the checkpoint kept at {size} does not verify: {error}")
                continue
            if head.size != size:
                report.add(None, "bad_checkpoint", f"the checkpoint kept at {size} is one of size {head.size}")
            elif covered is not None and size > covered and size > self._newest():
                detail = f"a checkpoint of size {size} was kept, and the lane's has size {covered}: it was put back"
                report.add(None, "rolled_back", detail)
            elif size in self._roots and self._roots[size] != head.root:
                detail = f"kept at {size} was root {head.root.hex()}, the entries lead to {self._roots[size].hex()}"
                report.add(None, "forked", detail)

    def _newest(self) -> int:
        """The log may have gone on since its checkpoint was read."""
        note = self._archived.note()
        return self._archived.claimed_size(note) if note is not None else 0


def check_schemas(archived: ArchivedLane, schemas: Mapping[str, int], report: LaneReport) -> None:
    """Each schema that entries name (with the position of the first) is archived, as what its name says."""
    for sha256, position in schemas.items():
        try:
            found = schema_sha256(json.loads(archived.schema(sha256)))
        except ObjectsUnavailable:
            raise
        except NotFound:
            report.add(position, "missing_schema", f"schemas/{sha256}.avsc is not in the archive")
            continue
        except (ObjectsError, CanonicalError, ValueError, RecursionError) as error:
            report.add(position, "bad_schema", f"schemas/{sha256}.avsc can't be read: {error}")
            continue
        if found != sha256:
            report.add(position, "bad_schema", f"schemas/{sha256}.avsc is another schema ({found})")
