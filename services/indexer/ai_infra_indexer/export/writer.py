"""From the archive to a folder for an auditor. Nothing is written that was not verified while it was read.

The audit of the archive reads each lane; what verified is written on. Tiles are not copied but made anew from the
entries, and lead to the root that the audit key has signed. The folder gets its name last, so what was interrupted is
never taken for an export. This module must never read Postgres or Kafka, nor write into the archive.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from importlib.resources import files as packaged
from pathlib import Path
from typing import Final

from ai_infra.errors import ConfigurationError
from ai_infra.events.canonical import sha256_hex
from ai_infra.events.fingerprint import schema_sha256
from ai_infra.objects.lane_files import MAX_NOTE_BYTES, note_at
from ai_infra.objects.reader import ObjectReader
from ai_infra.tlog.growth import RightEdge, grow
from ai_infra.tlog.heads import heads_origin, open_heads
from ai_infra.tlog.tiles import TILE_HEIGHT, TILE_WIDTH, entries_path, tile_path
from ai_infra.trust.certificate import verify_chain_certificate
from ai_infra.trust.dsse import SignsMessages
from ai_infra.trust.keyring import AUDIT, Keyring, Roots
from ai_infra.trust.keyring_document import roots_text
from ai_infra.trust.log_keys import audit_keys
from ai_infra.trust.signers_file import signers_file
from ai_infra_indexer import kernel
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.audit.across import across_lanes, by_newest_keyring
from ai_infra_indexer.audit.archive import audit_archive
from ai_infra_indexer.audit.report import LaneReport
from ai_infra_indexer.entry import decode
from ai_infra_indexer.exceptions import IndexerError
from ai_infra_indexer.export.index import ExportedLane, File, Place, index_json, statement_json
from ai_infra_indexer.export.selection import Selection
from ai_infra_indexer.sequence import Line

PARTIAL: Final = ".partial"

Progress = Callable[[int, int], None]
"""(lane, entries verified)"""

_README = """This folder is {what} of the log
{origin}, made at {made_at}.

Check it with Python 3.9 or newer (`pip install pynacl`) and the log's root keys, which you got by another way:

    python verify.py . --roots ../YOUR-roots.json --origin {origin}

Put nothing into the folder, YOUR-roots.json neither: what lies in it should be what was exported, and nothing else.
It exits with 0 and says "Everything verifies." only if it does. If you don't trust whoever gave you this folder, take
verify.py from the project's release rather than from here, and keep it elsewhere: Python imports what lies beside it.
roots.json is here for information only.

index.json      what is here: lanes, first and last entries, heads, every file's SHA-256
statement.json  the log's signature over index.json
lanes/P/        lane P: its signed checkpoint, all hashes of its tree, {entries}
                audit-events.jsonl has the entries as the Kernel's audit events, a row each
schemas/        the schemas of the entries' bodies, each by its SHA-256
signers.json    public keys for the Kernel's own verifiers
trust/          the audit key's certificates for the keys that sign rows
"""


class ExportFailed(IndexerError):
    """The archive does not verify, so nothing of it is handed out as evidence."""

    code = "export_failed"


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    folder: Path
    origin: str
    lanes: tuple[ExportedLane, ...]
    files: int
    bytes: int


def write_export(
    reader: ObjectReader,
    folder: Path,
    *,
    origin: str,
    lanes_of_log: int,
    roots: Roots,
    signer_of: Callable[[Keyring], SignsMessages],
    selection: Selection,
    made_at: datetime,
    progress: Progress = lambda *_: None,
) -> Exported:
    """Write `folder`, which must not exist. `signer_of` opens the audit key by the keyring that the log has.

    Raises ExportFailed, which names lane and position; ConfigurationError; ObjectsUnavailable; what the signer raises.
    """
    numbers = selection.lanes(lanes_of_log)
    out = _Folder(folder)
    try:
        # Before the lanes: what heads has of a lane, the lane's own checkpoint has too.
        heads = note_at(reader, "heads")
        # All of one moment, before any is read: a keyring that comes meanwhile is in none of them.
        pinned = [_Pinned(reader, origin, number) for number in numbers]
        lanes, reports, schemas, chain_keys = [], list[LaneReport](), set[str](), set[str]()
        for archived in pinned:
            lane = _LaneWriter(archived, out, selection)
            reports.append(lane.write(roots, lanes_of_log, progress))
            lanes.append(lane.exported())
            schemas |= lane.schemas
            chain_keys |= lane.chain_keys
        keyring = _check_together(pinned, reports)
        signer = signer_of(keyring)
        if keyring.key_of(signer.key_id, AUDIT) is None:
            raise ConfigurationError(
                f"{signer.key_id} is no audit key of the log's keyring (version {keyring.version})"
            )
        _write_beside(reader, out, origin, heads, keyring, sorted(schemas), sorted(chain_keys))
        out.put("roots.json", roots_text(roots).encode())
        out.put("verify.py", packaged("ai_infra_indexer.export").joinpath("verify.py").read_bytes())
        out.put("README.txt", _readme(origin, made_at, selection).encode())
        index = index_json(
            origin=origin,
            made_at=made_at,
            selection=selection,
            lanes_of_log=lanes_of_log,
            lanes=lanes,
            files=out.files,
        )
        statement = statement_json(index, signer, origin=origin, made_at=made_at, selection=selection)
        out.put("index.json", index)
        out.put("statement.json", statement)
        out.finish()
    except BaseException:
        out.remove()
        raise
    return Exported(folder, origin, tuple(lanes), len(out.files), sum(file.bytes for file in out.files.values()))


class _Folder:
    """A folder that has another name until all is in it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._partial = folder, folder.with_name(folder.name + PARTIAL)
        if folder.exists():
            raise ConfigurationError(f"{folder} is there already; an export never writes over anything: name another")
        try:
            self._partial.mkdir(parents=True)
        except FileExistsError:
            raise ConfigurationError(
                f"{self._partial} is there: another export is under way, or one was interrupted; then remove it"
            ) from None
        self.files: dict[str, File] = {}

    def put(self, path: str, data: bytes) -> None:
        """A whole file."""
        place = self.place(path)
        place.write_bytes(data)
        self.files[path] = File(len(data), sha256_hex(data))

    def place(self, path: str) -> Path:
        """Where a file of that path is written now."""
        place = self._partial / path
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def finish(self) -> None:
        """Give the folder its name."""
        if self._folder.exists():
            raise ConfigurationError(f"{self._folder} has come meanwhile; an export never writes over anything")
        self._partial.replace(self._folder)

    def remove(self) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)


class _Pinned(ArchivedLane):
    """A lane at the checkpoint that it had when it was looked at first, though the log goes on."""

    def __init__(self, reader: ObjectReader, log_origin: str, lane: int) -> None:
        super().__init__(reader, log_origin, lane)
        self._pinned = super().note()

    def note(self) -> bytes | None:
        return self._pinned

    def kept_sizes(self) -> list[int]:
        size = self.claimed_size(self._pinned) if self._pinned is not None else 0
        return [kept for kept in super().kept_sizes() if kept <= size]


@dataclass(slots=True)
class _LaneWriter:
    """Writes what the audit of one lane has verified."""

    archived: _Pinned
    out: _Folder
    selection: Selection
    edge: RightEdge = field(default_factory=RightEdge)
    head_hash: str = ""
    count: int = 0
    first: Place | None = None
    last: Place | None = None
    schemas: set[str] = field(default_factory=set)
    chain_keys: set[str] = field(default_factory=set)

    @property
    def prefix(self) -> str:
        return f"lanes/{self.archived.lane}"

    def write(self, roots: Roots, lanes_of_log: int, progress: Progress) -> LaneReport:
        """Write the lane; what its audit found, which has a keyring and no problem. Raises ExportFailed."""
        done = 0

        def tell(count: int) -> None:
            nonlocal done
            done += count
            progress(self.archived.lane, done)

        rows = self.out.place(f"{self.prefix}/audit-events.jsonl")
        with rows.open("wb") as file:

            def keep(lines: Iterable[Line]) -> None:
                file.writelines(self._keep(list(lines)))

            report = audit_archive(self.archived, roots, lanes_of_log, progress=tell, keep=keep)
        if report.problems or report.keyring is None:
            listed = "; ".join(f"position {p.position}: {p.code}: {p.detail}" for p in report.problems[:3])
            raise ExportFailed(
                f"lane {report.lane} of {self.archived.uri} does not verify: {listed}. Nothing was exported; "
                f"`ai-infra audit verify --lane {report.lane} --from archive` names everything"
            )
        self.out.files[f"{self.prefix}/audit-events.jsonl"] = _file(rows)
        self._put_partial_tiles()
        self.out.put(f"{self.prefix}/checkpoint", self.archived.note() or b"")
        for size in self.archived.kept_sizes():
            self.out.put(f"{self.prefix}/checkpoints/{size:020d}", self.archived.kept(size))
        return report.told()

    def exported(self) -> ExportedLane:
        return ExportedLane(
            lane=self.archived.lane,
            size=self.edge.size,
            root=self.edge.root(),
            count=self.count,
            first=self.first,
            last=self.last,
            head_hash=self.head_hash,
            everything=self.selection.everything,
        )

    def _keep(self, lines: list[Line]) -> list[bytes]:
        """Write a bundle's worth of verified entries; their rows."""
        growth = grow(self.edge, [line.raw for line in lines])
        self.edge = growth.edge
        for write in growth.writes:
            bundle = write.path.startswith("tile/entries/")
            if write.full and (self.selection.everything or not bundle):
                self.out.put(f"{self.prefix}/{write.path}", write.data)
        rows = []
        for line in lines:
            self.head_hash = line.link.hash
            entry = decode(line.raw)
            if not self.selection.takes(entry):
                continue
            if not self.selection.everything:
                self.out.put(f"{self.prefix}/entries/{line.position}", line.raw)
            self.last = Place(line.position, line.event.id)
            self.first = self.first or self.last
            self.count += 1
            self.schemas.add(str(entry.statement["schema_sha256"]))
            self.chain_keys.add(line.link.signer_id)
            metadata = kernel.metadata(entry.lane, line.position, self.archived.origin, entry.type)
            row = kernel.audit_event(line.payload, line.link, event_type=entry.type, metadata=metadata)
            rows.append(row + b"\n")
        return rows

    def _put_partial_tiles(self) -> None:
        for level, data in enumerate(self.edge.hashes):
            width = (self.edge.size >> (TILE_HEIGHT * level)) % TILE_WIDTH
            index = self.edge.size >> (TILE_HEIGHT * (level + 1))
            if width:
                self.out.put(f"{self.prefix}/{tile_path(level, index, width)}", data)
            if width and level == 0 and self.selection.everything:
                self.out.put(f"{self.prefix}/{entries_path(index, width)}", self.edge.bundle)


def _check_together(pinned: list[_Pinned], reports: list[LaneReport]) -> Keyring:
    """The newest keyring of all lanes. Raises ExportFailed where the lanes do not agree on what all of them have."""
    keyring = max((report.keyring for report in reports if report.keyring is not None), key=lambda k: k.version)
    problems, own = across_lanes(reports), {report.lane: report.keyring_version for report in reports}
    for archived in pinned:
        problems += by_newest_keyring(archived, archived.note() or b"", own[archived.lane], keyring)
    if problems:
        listed = "; ".join(f"lane {p.lane}: {p.code}: {p.detail}" for p in problems[:3])
        raise ExportFailed(
            f"the lanes do not verify together: {listed}. Nothing was exported; if a keyring has just changed, try "
            "again; `ai-infra audit verify --from archive` names everything"
        )
    return keyring


def _write_beside(
    reader: ObjectReader,
    out: _Folder,
    origin: str,
    heads: bytes | None,
    keyring: Keyring,
    schemas: list[str],
    chain_keys: list[str],
) -> None:
    """What lies beside the lanes, each verified by itself."""
    for sha256 in schemas:
        path = f"schemas/{sha256}.avsc"
        text = reader.get(path, max_bytes=MAX_NOTE_BYTES)
        if schema_sha256(json.loads(text)) != sha256:
            raise ExportFailed(f"{path} in the archive is not the schema that its name says")
        out.put(path, text)
    for key in chain_keys:
        path = f"trust/{key}.certificate.json"
        certificate = note_at(reader, path)
        if certificate is not None:
            verify_chain_certificate(certificate.decode(), keyring)
            out.put(path, certificate)
    if heads is not None:
        name = heads_origin(origin)
        open_heads(heads, origin=name, log_keys=audit_keys(keyring, name, standing=True))
        out.put("heads", heads)
    out.put("signers.json", signers_file(keyring).encode())


def _file(path: Path) -> File:
    from ai_infra.objects.upload import file_digest

    digest = file_digest(path)
    return File(digest.bytes, digest.sha256)


def _readme(origin: str, made_at: datetime, selection: Selection) -> str:
    said = selection.document()
    what = "a complete copy" if not said and selection.lane is None else "a selection"
    if said:
        what += f" ({', '.join(f'{name} {value}' for name, value in said.items())})"
    entries = "and all its entries" if selection.everything else "and in entries/ those that were selected"
    return _README.format(what=what, origin=origin, made_at=made_at.isoformat(timespec="seconds"), entries=entries)
