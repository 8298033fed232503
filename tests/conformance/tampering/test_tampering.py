"""Whatever is done to a log's files, or with the log's own keys, is found and named: by `verify.py`, and by our audit.

Each line of the table says where, and under which code each of the two names it. A second code is given where the two
look at something from different sides; None where our audit does not read that at all.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.tampering.forging import (
    LANE_0,
    Forger,
    flip,
)
from tests.conformance.tampering.tampering import NOWHERE, Case, by_audit, by_verifier, check
from tests.unit.indexer.log_folder import LONG, LogFolder, put

from ai_infra.tlog.tree import root as tree_root
from ai_infra.trust.signers import LocalSigner


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory, make_world: Callable[[], Any]) -> LogFolder:
    return LogFolder.make(tmp_path_factory.mktemp("archive"), make_world)


def test_what_was_not_touched_verifies(log: LogFolder) -> None:
    assert by_verifier(log, log.root) == by_audit(log, log.root) == set()


def swap(entries: list[Any]) -> list[Any]:
    return [*entries[:10], entries[11], entries[10], *entries[12:]]


def drop(entries: list[Any]) -> list[Any]:
    return entries[:10] + entries[11:]


def other_lanes_entry(f: Forger) -> None:
    f.edit_bundle(lambda entries: [*entries[:5], f.log.raws[1][5], *entries[6:]])


def exchange_lanes(f: Forger) -> None:
    f.path("", 1).rename(f.root / "aside")
    f.path("", 2).rename(f.path("", 1))
    (f.root / "aside").rename(f.path("", 2))


def remove_lane(f: Forger) -> None:
    f.path("", 3).rename(f.root / "gone")


def full_root(f: Forger, size: int) -> bytes:
    from ai_infra.tlog.tree import leaf_hash

    return tree_root([leaf_hash(raw) for raw in f.log.raws[0][:size]])


def older(f: Forger) -> None:
    """The lane as it was at entry 256, with the checkpoint that was true then."""
    f.path("checkpoint").write_bytes(f.path("checkpoints/00000000000000000256").read_bytes())


def endless(f: Forger) -> None:
    """A verifier that looks for what is between never comes to an end."""
    for level in ("0", "entries"):
        put(f.path(f"tile/{level}/x999/x999/x999/x999/999"), b"")
    f.note(0, 9 * 10**17, bytes(32))


def extension(f: Forger) -> None:
    from ai_infra.tlog.note import NoteSigner, sign_note

    text = f.path("checkpoint").read_bytes().split(b"\n\n")[0] + b"\nmore\n"
    put(f.path("checkpoint"), sign_note(text, [NoteSigner(LANE_0, f.signer("audit-1"))]))


def schema_of(f: Forger, position: int) -> Path:
    from ai_infra_indexer.entry import decode

    return f.root / f"schemas/{decode(f.log.raws[0][position]).statement['schema_sha256']}.avsc"


def certificate(f: Forger, issuer: str, key: str) -> None:
    from ai_infra.trust.certificate import certify_chain_key

    text = certify_chain_key(
        f.signer(issuer), "chain-1", f.signer(key).public_key, issued_at=f.world().keyring.created_at
    )
    put(f.root / "trust/chain-1.certificate.json", text.encode())


def _linked(f: Forger) -> None:
    bundle = f.path("tile/entries/000")
    bundle.rename(f.root / "elsewhere")
    bundle.symlink_to(f.root / "elsewhere")


FILES = [
    Case(
        "one bit of an entry",
        lambda f: f.edit_bundle(lambda e: [*e[:5], flip(900)(e[5]), *e[6:]]),
        0,
        5,
        "changed_entry",
    ),
    Case("two entries swapped", lambda f: f.edit_bundle(swap), 0, 10, "changed_entry"),
    Case("an entry dropped from its bundle", lambda f: f.edit_bundle(drop), 0, None, "short_bundle"),
    Case("an entry of another lane", other_lanes_entry, 0, 5, "wrong_position"),
    Case("a bundle gone", lambda f: f.path("tile/entries/000").unlink(), 0, 0, "missing_bundle"),
    Case("the last bundle gone", lambda f: f.path("tile/entries/001.p/44").unlink(), 0, 256, "missing_bundle"),
    Case("a bundle cut short", lambda f: f.edit("tile/entries/000", lambda d: d[:-1]), 0, 0, "bad_bundle"),
    Case("bytes behind a bundle", lambda f: f.edit("tile/entries/000", lambda d: d + b"\0"), 0, 0, "bad_bundle"),
    Case(
        "a partial bundle shown as the full one",
        lambda f: f.edit("tile/entries/000", lambda _: f.path("tile/entries/001.p/44").read_bytes()),
        0,
        None,
        "short_bundle",
    ),
    Case("a leaf tile gone", lambda f: f.path("tile/0/000").unlink(), 0, 0, "missing_tile"),
    Case("a leaf hash changed", lambda f: f.edit("tile/0/000", flip(3200)), 0, 100, "changed_entry"),
    Case(
        "a leaf tile cut short", lambda f: f.edit("tile/0/000", lambda d: d[:-32]), 0, None, "bad_tile", "changed_entry"
    ),
    Case(
        "a partial tile shown as the full one",
        lambda f: f.edit("tile/0/000", lambda _: f.path("tile/0/001.p/44").read_bytes()),
        0,
        None,
        "bad_tile",
        "changed_entry",
    ),
    Case("a tile above the leaves changed", lambda f: f.edit("tile/1/000.p/1", flip(3)), 0, 0, "bad_tile"),
    Case("a link in place of a bundle", _linked, 0, 0, "bad_path", NOWHERE),
    Case("no checkpoint", lambda f: f.path("checkpoint").unlink(), 0, None, "no_checkpoint"),
    Case("an empty checkpoint", lambda f: f.edit("checkpoint", lambda _: b""), 0, None, "bad_checkpoint"),
    Case("a bit of the checkpoint's signature", lambda f: f.edit("checkpoint", flip(-10)), 0, None, "bad_checkpoint"),
    Case("a bit of the checkpoint's root", lambda f: f.edit("checkpoint", flip(40)), 0, None, "bad_checkpoint"),
    Case("a checkpoint with an extension line", extension, 0, None, "bad_checkpoint"),
    Case(
        "a checkpoint by a stranger",
        lambda f: f.note(0, LONG, full_root(f, LONG), audit=LocalSigner.fresh("audit-1")),
        0,
        None,
        "bad_checkpoint",
    ),
    Case(
        "a checkpoint by a key of another use",
        lambda f: f.note(0, LONG, full_root(f, LONG), audit=f.signer("manifest-1")),
        0,
        None,
        "bad_checkpoint",
    ),
    Case(
        "a checkpoint of another log",
        lambda f: f.note(0, LONG, full_root(f, LONG), origin="elsewhere.org/log/lanes/0"),
        0,
        None,
        "bad_checkpoint",
    ),
    Case("two lanes exchanged", exchange_lanes, 1, None, "bad_checkpoint"),
    Case("a lane gone", remove_lane, None, None, "missing_lane", "no_checkpoint"),
    Case(
        "a checkpoint of the future",
        lambda f: f.note(0, LONG + 300, bytes(32)),
        0,
        None,
        "missing_bundle",
    ),
    Case("a checkpoint of the far future", lambda f: f.note(0, 10**15, bytes(32)), 0, None, "missing_bundle"),
    Case("names and sizes that nobody could look for", endless, 0, None, "missing_bundle"),
    Case("a fork of the same size", lambda f: f.note(0, LONG, bytes(32)), 0, None, "wrong_root"),
    Case("an older checkpoint", older, None, None, "older_than_heads"),
    Case(
        "an older checkpoint, and heads as old",
        lambda f: (
            put(f.path(f"checkpoints/{LONG:020d}"), f.path("checkpoint").read_bytes()),
            older(f),
            put(f.root / "heads", f.log.heads({0: (256, full_root(f, 256))})),
        ),
        0,
        None,
        "rolled_back",
    ),
    Case(
        "a kept checkpoint of another history",
        lambda f: put(f.path(f"checkpoints/{256:020d}"), f.log.note(0, 256, bytes(32))),
        0,
        None,
        "forked",
    ),
    Case(
        "a bit of a kept checkpoint", lambda f: f.edit(f"checkpoints/{256:020d}", flip(40)), 0, None, "bad_checkpoint"
    ),
    Case(
        "heads by a stranger",
        lambda f: put(f.root / "heads", f.log.heads(audit=f.signer("chain-1"))),
        None,
        None,
        "bad_heads",
    ),
    Case(
        "a bit of the heads",
        lambda f: (f.root / "heads").write_bytes(flip(60)((f.root / "heads").read_bytes())),
        None,
        None,
        "bad_heads",
    ),
    Case(
        "heads of another history",
        lambda f: put(f.root / "heads", f.log.heads({1: (5, bytes(32))})),
        None,
        None,
        "fork_from_heads",
    ),
    Case("a schema changed", lambda f: schema_of(f, 5).write_bytes(b'{"type":"record"}'), 0, 5, "bad_schema"),
    Case("a schema gone", lambda f: schema_of(f, 5).unlink(), 0, 5, "unknown_schema", "missing_schema"),
    Case(
        "a certificate by a key that may not",
        lambda f: certificate(f, "manifest-1", "chain-1"),
        None,
        None,
        "bad_certificate",
        NOWHERE,
    ),
    Case(
        "a certificate for another key",
        lambda f: certificate(f, "audit-1", "manifest-1"),
        None,
        None,
        "bad_certificate",
        NOWHERE,
    ),
]


@pytest.mark.parametrize("case", FILES, ids=lambda case: case.name)
def test_a_change_of_files_is_found(log: LogFolder, tmp_path: Path, case: Case) -> None:
    check(log, tmp_path, case)
