"""Our own reader, and an independent one that knows only docs/event-format.md, agree with every vector."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.event_samples import Key as VectorKey
from tests.conformance.event_samples import plain
from tests.conformance.make_event_vectors import VECTORS, stale

from ai_infra.events.event import Record
from ai_infra.trust.exceptions import TrustError
from ai_infra.trust.init import first_principals
from ai_infra.trust.keyring import Key, Keyring, Roots
from ai_infra.trust.keyring_document import sign_keyring
from ai_infra.trust.keyrings import Keyrings
from ai_infra.trust.roles import ROLES
from ai_infra.trust.verify import Verifier

REPOSITORY = Path(__file__).parents[2]
VECTOR_FILES = sorted(VECTORS.glob("*.json"))


@pytest.fixture(scope="module")
def keyrings() -> Keyrings:
    root = VectorKey("root-1")
    roots = Roots({"root-1": root.pair[0]}, 1)
    principals = first_principals(people=True)
    keys: dict[str, Key] = {}
    for key_id in json.loads(VECTOR_FILES[0].read_text(encoding="utf-8"))["keys"]:
        principal = key_id if key_id in principals else key_id.removesuffix("-1")
        keys[key_id] = Key(key_id, VectorKey(key_id).pair[0], principal)
    keyring = Keyring(
        version=1,
        created_at=0,
        roots=roots,
        keys=keys,
        principals=principals,
        roles={role: frozenset(events) for role, events in ROLES.items()},
        revocations={},
    )
    known = Keyrings(roots)
    known.accept(sign_keyring(keyring, [root]))
    return known


def record_of(vector: dict[str, Any]) -> Record:
    fields = vector["record"]
    return Record(
        topic=fields["topic"],
        partition=fields["partition"],
        offset=fields["offset"],
        append_time_ms=fields["append_time_ms"],
        key=None if fields["key"] is None else bytes.fromhex(fields["key"]),
        value=None if fields["value"] is None else bytes.fromhex(fields["value"]),
        headers=tuple((name, bytes.fromhex(value)) for name, value in fields["headers"]),
    )


@pytest.mark.parametrize("path", VECTOR_FILES, ids=lambda path: path.stem)
def test_our_reader_takes_and_refuses_what_the_vector_says(path: Path, keyrings: Keyrings) -> None:
    vector = json.loads(path.read_text(encoding="utf-8"))
    verifier = Verifier(keyrings, vector["lanes"])
    expect = vector["expect"]
    if "error" in expect:
        with pytest.raises(TrustError) as caught:
            verifier.verify(record_of(vector))
        assert caught.value.code == expect["error"], caught.value.message
    else:
        event = verifier.verify(record_of(vector))
        assert event.hash == expect["event_hash"]
        assert plain(event.body) == expect["body"]


def test_an_independent_reader_of_the_document_comes_to_the_same() -> None:
    reader = Path(__file__).parent / "independent_event_reader.py"
    # -I: no path of ours, no environment; what it imports is the standard library and PyNaCl.
    command = [sys.executable, "-I", str(reader), str(VECTORS), str(REPOSITORY / "schemas")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(VECTOR_FILES)} of {len(VECTOR_FILES)} vectors agree" in done.stdout


def test_the_independent_reader_imports_nothing_of_ours() -> None:
    text = (Path(__file__).parent / "independent_event_reader.py").read_text(encoding="utf-8")
    assert "import ai_infra" not in text
    assert "from ai_infra" not in text


def test_the_worked_example_of_the_document_is_the_vector_of_that_name() -> None:
    vector = json.loads((VECTORS / "pass-worked-example.json").read_text(encoding="utf-8"))
    page = (REPOSITORY / "docs" / "event-format.md").read_text(encoding="utf-8")
    joined = page.split("## A worked example")[1].split("## Test vectors")[0].replace("\n", "")
    headers = dict(vector["record"]["headers"])
    delegation = bytes.fromhex(headers["delegation"])
    expected = [vector["record"]["value"], headers["signature"], delegation[:64].hex(), delegation[64:].decode()]
    expected += [vector["expect"]["statement"], vector["expect"]["event_hash"], vector["keys"]["orchestrator-1"]]
    for part in expected:
        assert part in joined


def test_the_vectors_are_what_the_code_that_makes_them_says() -> None:
    assert stale() == {}, "the format has changed; if that is meant: python -m tests.conformance.make_event_vectors"


def test_every_code_has_a_vector() -> None:
    codes = {json.loads(path.read_text(encoding="utf-8"))["expect"].get("error") for path in VECTOR_FILES}
    assert codes == {
        None,
        *("malformed_event", "repeated_header", "bad_text", "wrong_key", "wrong_lane", "unknown_schema"),
        *("body_too_large", "undecodable_body", "bad_signature"),
        *("unknown_signer", "bad_delegation", "expired_delegation", "not_allowed"),
    }
