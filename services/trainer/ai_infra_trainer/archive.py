"""The artifact: one tar file whose bytes follow from the names and contents of the output files, and from nothing else.

Same files, same bytes: names sorted, times zero, one owner, one mode, no compression (its bytes would depend on the
library's version). It never follows a symbolic link and never packs what the training's own user does not own.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Final

from ai_infra_trainer.exceptions import BadOutput

METRICS_FILE: Final = "metrics.json"
"""Numbers about the artifact go into the manifest, not into the archive: a timing among them would change its bytes."""

MAX_FILES: Final = 10_000
MAX_NAME_BYTES: Final = 1024
CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Packed:
    """A finished archive: SHA-256 (hex) and size in bytes of the tar file, and the number of files in it."""

    path: Path
    sha256: str
    size: int
    files: int


class _Hashed:
    """A write-only stream that hashes and counts what passes; `tarfile` needs `write` and `tell`."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self._stream.write(data)

    def tell(self) -> int:
        return self.size


def output_files(root: Path, *, owner: int | None = None) -> list[tuple[str, Path]]:
    """All regular files below `root` as (posix name, path), sorted by the bytes of their names, without the metrics.

    Raises BadOutput for links, devices and sockets, for a file that `owner` (a uid) does not own, and for names that
    are not UTF-8 or hold control characters.
    """
    found: list[tuple[str, Path]] = []
    for path in _walk(root):
        name = PurePosixPath(path.relative_to(root)).as_posix()
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            raise BadOutput(f"output file name {name!r} is not UTF-8; rename it") from None
        if any(ord(c) < 32 or ord(c) == 127 for c in name):
            raise BadOutput(f"output file name {name!r} holds control characters; rename it")
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise BadOutput(f"output {name!r} is no regular file; write files, not links, devices or sockets")
        if owner is not None and status.st_uid != owner:
            raise BadOutput(f"output {name!r} belongs to user {status.st_uid}, not to the training; copy files")
        if name == METRICS_FILE:
            continue
        found.append((name, path))
        if len(found) > MAX_FILES:
            raise BadOutput(f"the training wrote more than {MAX_FILES} files; pack them into fewer")
    return sorted(found, key=lambda item: item[0].encode("utf-8"))


def _walk(root: Path) -> Iterator[Path]:
    longest = len(os.fsencode(root)) + 1 + MAX_NAME_BYTES
    left = [root]
    while left:
        with os.scandir(left.pop()) as entries:
            for entry in entries:
                if len(os.fsencode(entry.path)) > longest:
                    raise BadOutput(f"an output's path has more than {MAX_NAME_BYTES} bytes; nest less deeply")
                if entry.is_dir(follow_symlinks=False):
                    left.append(Path(entry.path))
                else:
                    yield Path(entry.path)


def pack(root: Path, into: Path, *, max_bytes: int, owner: int | None = None) -> Packed:
    """Write the deterministic tar of everything below `root` (without metrics.json) to `into`.

    Raises BadOutput when there is nothing to pack, when it is larger than `max_bytes`, or when `output_files` does.
    """
    files = output_files(root, owner=owner)
    if not files:
        raise BadOutput(
            "the training ended well but wrote no file into AI_INFRA_OUTPUT_DIR (metrics.json alone is no model)",
            code="no_output",
        )
    total = sum(path.lstat().st_size for _, path in files)
    if total > max_bytes:
        raise BadOutput(f"the training wrote {total} bytes, more than the {max_bytes} that this runner takes")
    with into.open("wb") as stream:
        hashed = _Hashed(stream)
        with tarfile.open(fileobj=hashed, mode="w|", format=tarfile.PAX_FORMAT, bufsize=CHUNK) as tar:  # type: ignore[call-overload]  # a write-only stream is enough for mode "w|"
            for name, path in files:
                _add(tar, name, path)
        stream.flush()
        os.fsync(stream.fileno())
    return Packed(path=into, sha256=hashed.digest.hexdigest(), size=hashed.size, files=len(files))


def _add(tar: tarfile.TarFile, name: str, path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as content:
        info = tarfile.TarInfo(name)
        info.size = os.fstat(descriptor).st_size
        info.mode = 0o644
        info.mtime = 0
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        tar.addfile(info, content)


def tree_sha256(root: Path) -> str:
    """SHA-256 (hex) of the deterministic tar of a directory: how a dataset that is a directory is pinned."""
    with Path(os.devnull).open("wb") as nowhere:
        hashed = _Hashed(nowhere)
        with tarfile.open(fileobj=hashed, mode="w|", format=tarfile.PAX_FORMAT, bufsize=CHUNK) as tar:  # type: ignore[call-overload]  # as above
            for name, path in output_files(root):
                _add(tar, name, path)
    return hashed.digest.hexdigest()
