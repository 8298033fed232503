"""The datasets of a job: fetched, measured, and given to the training only when their SHA-256 is the pinned one.

A dataset with other bytes never reaches a training, whatever its name says. The runner reads with rights that a job's
sender may not have (its own files, its own credentials), so it reads only below the places that its operator allows.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import quote, unquote, urlsplit

import httpx

from ai_infra.errors import AiInfraError, UnavailableError
from ai_infra.events.generated import DatasetRef
from ai_infra.objects.exceptions import TooLarge
from ai_infra.objects.store import ObjectStore
from ai_infra_trainer.archive import tree_sha256
from ai_infra_trainer.exceptions import Cancelled, DatasetMismatch, RunnerUnavailable

SCHEMES: Final = ("file", "https", "python-package", "s3")
CHECKSUM: Final = re.compile(r"^sha256:[0-9a-f]{64}$")
INDEX_FILE: Final = "datasets.json"
_CHUNK: Final = 1 << 20
_HTTP_TIMEOUT: Final = httpx.Timeout(30.0)
_SLOW_SECONDS: Final = 30.0
_SLOW_BYTES_PER_SECOND: Final = 1000
_PACKAGE: Final = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")


def allowed(uri: str, places: Sequence[str]) -> bool:
    """Whether a dataset's URI is below one of the places: beginnings of URIs, which end where a path segment ends.

    `s3://` allows every object, `s3://bucket/a` the object `a` and all below it. A URI that climbs ('..') is nowhere.
    """
    scheme, segments = _segments(uri)
    if {".", ".."} & set(segments):
        return False
    roots = (_segments(place.removesuffix("*")) for place in places)
    return any(kind == scheme and segments[: len(root)] == root for kind, root in roots)


def _segments(uri: str) -> tuple[str, list[str]]:
    scheme, _, rest = uri.partition("://")
    path = rest if scheme == "s3" else unquote(rest)  # an object's key is taken as it is written
    return scheme, path.rstrip("/").split("/") if path.rstrip("/") else []


def fetch_all(
    refs: Sequence[DatasetRef],
    into: Path,
    *,
    objects: ObjectStore,
    places: Sequence[str],
    max_bytes: int,
    cancelled: threading.Event,
) -> None:
    """Put each dataset at `into/<id>/<file name>` and write `into/datasets.json`, which says where each one is.

    `max_bytes` bounds all of them together; `places` is what `allowed` is asked with. Raises DatasetMismatch (final),
    RunnerUnavailable (worth another try) or Cancelled.
    """
    left = max_bytes
    index: dict[str, dict[str, str]] = {}
    for ref in refs:
        directory = into / ref.id
        directory.mkdir()
        path = directory / _file_name(ref.uri)
        _check_place(ref, places)
        left -= fetch(ref, path, objects=objects, max_bytes=left, cancelled=cancelled)
        index[ref.id] = {
            "path": f"{ref.id}/{path.name}",
            "checksum": ref.checksum,
            "version": ref.version,
            "uri": ref.uri,
        }
    (into / INDEX_FILE).write_text(json.dumps(index, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def fetch(ref: DatasetRef, path: Path, *, objects: ObjectStore, max_bytes: int, cancelled: threading.Event) -> int:
    """Fetch one dataset to `path`; returns its size in bytes. A `file://…/` directory is copied as a tree."""
    parts = urlsplit(ref.uri)
    if parts.scheme == "file" and ref.uri.endswith("/"):
        return _copy_tree(ref, Path(unquote(parts.path)), path, max_bytes)
    if parts.scheme == "s3":
        return _download(ref, path, objects, max_bytes)
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as out:
        for chunk in _chunks(ref):
            if cancelled.is_set():
                raise Cancelled(f"the job was cancelled while dataset {ref.id} was fetched")
            size += len(chunk)
            if size > max_bytes:
                raise DatasetMismatch(
                    f"dataset {ref.id} is larger than the {max_bytes} bytes that this runner still takes",
                    code="dataset_too_large",
                )
            digest.update(chunk)
            out.write(chunk)
    _check(ref, digest.hexdigest())
    return size


def _check_place(ref: DatasetRef, places: Sequence[str]) -> None:
    """A local file counts by its real path: a link below an allowed directory may lead out of it."""
    uri, roots = ref.uri, list(places)
    if uri.startswith("file://"):
        uri = _real(uri)
        roots += [_real(place.removesuffix("*")) for place in places if place.startswith("file://")]
    if not (allowed(ref.uri, places) and allowed(uri, roots)):
        raise DatasetMismatch(
            f"dataset {ref.id}: {uri} is not below a place that datasets may come from; an operator adds it to"
            " AI_INFRA_ALLOWED_DATASETS",
            code="dataset_not_allowed",
        )


def _real(uri: str) -> str:
    return "file://" + quote(os.path.realpath(unquote(uri.removeprefix("file://"))))


def _check(ref: DatasetRef, sha256: str) -> None:
    if ref.checksum != f"sha256:{sha256}":
        raise DatasetMismatch(
            f"dataset {ref.id} at {ref.uri} has SHA-256 {sha256}, but the job pins {ref.checksum}; it has changed, or"
            " the reference is wrong"
        )


def _chunks(ref: DatasetRef) -> Iterator[bytes]:
    scheme = urlsplit(ref.uri).scheme
    if scheme == "file":
        return _file_chunks(ref, Path(unquote(urlsplit(ref.uri).path)))
    if scheme == "python-package":
        return _file_chunks(ref, package_file(ref.uri))
    if scheme == "https":
        return _https_chunks(ref)
    raise DatasetMismatch(f"dataset {ref.id}: {scheme}:// is not one of {', '.join(SCHEMES)}")


def _file_chunks(ref: DatasetRef, path: Path) -> Iterator[bytes]:
    if not path.is_file():
        raise DatasetMismatch(f"dataset {ref.id}: there is no file {path} on the runner's machine")
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise RunnerUnavailable(
            f"dataset {ref.id}: {path} cannot be read: {error.strerror}", code="dataset_unavailable"
        ) from error


def _https_chunks(ref: DatasetRef) -> Iterator[bytes]:
    try:
        # No redirects: the job names the place that the bytes come from. No environment: no proxy credentials leak.
        with (
            httpx.Client(timeout=_HTTP_TIMEOUT, follow_redirects=False, trust_env=False) as client,
            client.stream("GET", ref.uri) as answer,
        ):
            if answer.status_code >= 500 or answer.status_code == 429:
                raise RunnerUnavailable(f"dataset {ref.id}: {ref.uri} answered {answer.status_code}")
            if answer.status_code != 200:
                raise DatasetMismatch(f"dataset {ref.id}: {ref.uri} answered {answer.status_code}, expected 200")
            # As they come, and not gathered to a size: a cancellation is looked for between two of them.
            yield from steady(answer.iter_raw(), f"dataset {ref.id}: {ref.uri}")
    except httpx.HTTPError as error:
        raise RunnerUnavailable(
            f"dataset {ref.id}: {ref.uri} does not answer: {type(error).__name__}", code="dataset_unavailable"
        ) from error


def steady(chunks: Iterator[bytes], what: str, clock: Callable[[], float] = time.monotonic) -> Iterator[bytes]:
    """The same chunks. Raises RunnerUnavailable where they come so slowly that they would hold a place for ever."""
    begin, size = clock(), 0
    for chunk in chunks:
        size += len(chunk)
        took = clock() - begin
        if took >= _SLOW_SECONDS:
            if size < _SLOW_BYTES_PER_SECOND * took:
                raise RunnerUnavailable(f"{what} sends {size} bytes in {took:.0f} s", code="dataset_unavailable")
            begin, size = clock(), 0
        yield chunk


def _download(ref: DatasetRef, path: Path, objects: ObjectStore, max_bytes: int) -> int:
    try:
        return objects.download(ref.uri, path, ref.checksum.removeprefix("sha256:"), max_bytes=max_bytes).bytes
    except UnavailableError as error:
        raise RunnerUnavailable(f"dataset {ref.id}: {error}", code="dataset_unavailable") from error
    except TooLarge as error:
        raise DatasetMismatch(f"dataset {ref.id}: {error}", code="dataset_too_large") from error
    except AiInfraError as error:
        raise DatasetMismatch(f"dataset {ref.id}: {error}") from error


def package_file(uri: str) -> Path:
    """The file that `python-package://<package>/<path>` names: data that ships inside an installed Python package.

    Only the top package is looked up, by its location; nothing of it is imported.
    """
    parts = urlsplit(uri)
    inside = PurePosixPath(parts.path.lstrip("/"))
    if not _PACKAGE.match(parts.netloc) or ".." in inside.parts or not inside.parts:
        raise DatasetMismatch(f"{uri} is not python-package://<package>/<path>")
    try:
        spec = importlib.util.find_spec(parts.netloc)
    except (ImportError, ValueError):
        spec = None
    # Without an __init__.py it would be any directory that lies on the path, the working directory's among them.
    if spec is None or not spec.submodule_search_locations or spec.origin is None:
        raise DatasetMismatch(f"{uri}: no package {parts.netloc} in the runner's interpreter; install it there")
    return Path(next(iter(spec.submodule_search_locations))) / inside


def _copy_tree(ref: DatasetRef, source: Path, target: Path, max_bytes: int) -> int:
    if not source.is_dir():
        raise DatasetMismatch(f"dataset {ref.id}: there is no directory {source} on the runner's machine")
    size = sum(p.lstat().st_size for p in source.rglob("*") if p.is_file())
    if size > max_bytes:
        raise DatasetMismatch(f"dataset {ref.id} has {size} bytes, more than the {max_bytes} that this runner takes")
    shutil.copytree(source, target, symlinks=True)
    _check(ref, tree_sha256(target))
    return size


def dataset_sha256(uri: str) -> str:
    """SHA-256 (hex) of a local dataset (`file://`, a directory with a trailing slash, or `python-package://`)."""
    parts = urlsplit(uri)
    if parts.scheme == "file" and uri.endswith("/"):
        return tree_sha256(Path(unquote(parts.path)))
    path = package_file(uri) if parts.scheme == "python-package" else Path(unquote(parts.path))
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _file_name(uri: str) -> str:
    name = PurePosixPath(unquote(urlsplit(uri).path)).name
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".")
    return safe[-128:] or "data"
