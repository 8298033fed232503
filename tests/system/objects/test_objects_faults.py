"""The object store while connections break: a proxy that cuts them, in front of the real server."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from ai_infra.objects.exceptions import (
    AccessDenied,
    ObjectsUnavailable,
)
from ai_infra.objects.model import Digest
from ai_infra.objects.store import ObjectStore
from ai_infra.objects.upload import PART_BYTES
from ai_infra.settings import Settings


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


Cut = Callable[[int, int, bytes], bool]


def never(sent: int, answered: int, data: bytes) -> bool:
    return False


class Wire:
    """A TCP proxy that breaks connections: `cut(sent, answered, data)` says when, by the bytes that went each way."""

    def __init__(self, endpoint: str) -> None:
        target = urlsplit(endpoint)
        self._target = (target.hostname or "", target.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.cut: Cut = never
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            server = socket.create_connection(self._target)
            counts = [0, 0]
            for way, (source, sink) in enumerate(((client, server), (server, client))):
                threading.Thread(target=self._pump, args=(source, sink, way, counts), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, way: int, counts: list[int]) -> None:
        try:
            while data := source.recv(65_536):
                counts[way] += len(data)
                if self.cut(*counts, data):
                    break
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def wire(own: Settings) -> Iterator[Wire]:
    opened = Wire(str(own.objects.endpoint_url))
    yield opened
    opened.close()


@pytest.fixture
def wired(own: Settings, wire: Wire, changed: Callable[..., Settings]) -> Iterator[ObjectStore]:
    with ObjectStore(changed(own, endpoint_url=wire.endpoint)) as opened:
        yield opened


def once(condition: Cut) -> Cut:
    """Cut the first connection for which the condition holds, and no other."""
    done = threading.Event()

    def cut(sent: int, answered: int, data: bytes) -> bool:
        if not done.is_set() and condition(sent, answered, data):
            done.set()
            return True
        return False

    return cut


def test_a_put_whose_answer_got_lost_is_recognised_as_done(
    wired: ObjectStore, wire: Wire, store: ObjectStore, at: Callable[[str], str]
) -> None:
    wire.cut = once(lambda sent, answered, _: answered > 0)
    assert wired.put_once(at("a"), b"hello").sha256 == sha256(b"hello")
    assert len(list(store.versions(at("a")))) == 1
    etag = store.put_if_match(at("checkpoint"), b"1", None).etag
    wire.cut = once(lambda sent, answered, _: answered > 0)
    moved = wired.put_if_match(at("checkpoint"), b"2", etag)
    assert store.read(at("checkpoint")).etag == moved.etag
    assert len(list(store.versions(at("checkpoint")))) == 2


def test_a_connection_that_breaks_while_an_object_is_read_is_resumed_where_it_broke(
    wired: ObjectStore, wire: Wire, store: ObjectStore, at: Callable[[str], str]
) -> None:
    data = os.urandom(8 << 20)
    store.put_once(at("a"), data)
    wire.cut = once(lambda sent, answered, _: answered > 3 << 20)
    assert wired.stream_sha256(at("a")) == Digest(sha256(data), len(data))
    assert wire.connections >= 2


def test_a_resumed_read_never_mixes_two_versions(
    wired: ObjectStore, wire: Wire, store: ObjectStore, at: Callable[[str], str]
) -> None:
    old, new = os.urandom(8 << 20), os.urandom(8 << 20)
    etag = store.put_if_match(at("a"), old, None).etag

    def overwrite(sent: int, answered: int, _: bytes) -> bool:
        if answered <= 3 << 20:
            return False
        store.put_if_match(at("a"), new, etag)
        return True

    wire.cut = once(overwrite)
    assert wired.stream_sha256(at("a")).sha256 == sha256(old)
    assert store.stream_sha256(at("a")).sha256 == sha256(new)


def test_a_server_that_breaks_off_every_time_is_unavailable_and_said_so(
    wired: ObjectStore, wire: Wire, store: ObjectStore, at: Callable[[str], str], tmp_path: Path
) -> None:
    store.put_once(at("a"), os.urandom(1 << 20))
    wire.cut = lambda sent, answered, _: answered > 600
    with pytest.raises(ObjectsUnavailable):
        wired.download(at("a"), tmp_path / "a", None)
    assert list(tmp_path.iterdir()) == []


def test_a_large_upload_that_breaks_leaves_nothing_visible(
    wired: ObjectStore, wire: Wire, store: ObjectStore, at: Callable[[str], str], tmp_path: Path
) -> None:
    file = tmp_path / "large"
    file.write_bytes(os.urandom(PART_BYTES + 1))
    wire.cut = lambda sent, answered, _: sent > 1 << 20
    with pytest.raises(ObjectsUnavailable):
        wired.put_once(at("large"), file)
    assert not store.exists(at("large"))
    wire.cut = never
    assert wired.put_once(at("large"), file).created


def test_a_large_upload_whose_last_answer_got_lost_is_recognised_as_done(
    wired: ObjectStore, wire: Wire, store: ObjectStore, at: Callable[[str], str], tmp_path: Path
) -> None:
    file = tmp_path / "large"
    file.write_bytes(os.urandom(PART_BYTES + 1))
    wire.cut = once(lambda sent, answered, data: b"CompleteMultipartUploadResult" in data)
    assert wired.put_once(at("large"), file).sha256 == sha256(file.read_bytes())
    assert len(list(store.versions(at("large")))) == 1


def test_a_server_that_is_not_there_is_unavailable_within_seconds(
    own: Settings, changed: Callable[..., Settings]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with ObjectStore(changed(own, endpoint_url=f"http://127.0.0.1:{port}")) as nowhere:
        started = monotonic()
        with pytest.raises(ObjectsUnavailable, match="does not answer"):
            nowhere.get("s3://bucket/a")
        assert monotonic() - started < 30


def test_wrong_credentials_are_a_refusal_and_no_outage(
    own: Settings, changed: Callable[..., Settings], at: Callable[[str], str]
) -> None:
    with (
        ObjectStore(changed(own, secret_access_key=SecretStr("wrong"))) as stranger,
        pytest.raises(AccessDenied) as refused,
    ):
        stranger.put_once(at("a"), b"x")
    assert "wrong" not in str(refused.value)
