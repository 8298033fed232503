"""The keyring: thresholds of root keys, versions in order, and nothing that must last is taken back."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_infra.trust import changes
from ai_infra.trust.exceptions import KeyringConflict, KeyringError
from ai_infra.trust.init import first_principals
from ai_infra.trust.keyring import Grant, Key, Keyring, Principal, Roots
from ai_infra.trust.keyring_document import KEYRING_PAYLOAD_TYPE, draft, sign_keyring, verify_keyring
from ai_infra.trust.keyrings import Keyrings
from ai_infra.trust.roles import ROLES
from ai_infra.trust.signers import LocalSigner

ROOT_SIGNERS = [LocalSigner(f"root-{n}", bytes([n]) * 32) for n in range(1, 6)]
OTHERS = [LocalSigner(f"other-{n}", bytes([100 + n]) * 32) for n in range(1, 6)]


def roots_of(signers: list[LocalSigner], threshold: int) -> Roots:
    return Roots({s.key_id: s.public_key for s in signers}, threshold)


def content(roots: Roots, version: int = 1) -> Keyring:
    keys = {
        "trainer-1": Key("trainer-1", LocalSigner("trainer-1", b"t" * 32).public_key, "trainer"),
        "operator-1": Key("operator-1", LocalSigner("operator-1", b"o" * 32).public_key, "operator"),
    }
    return Keyring(
        version=version,
        created_at=1_770_000_000_000,
        roots=roots,
        keys=keys,
        principals=first_principals(people=True),
        roles={role: frozenset(events) for role, events in ROLES.items()},
        revocations={},
    )


FIRST = verify_keyring(
    sign_keyring(content(roots_of(ROOT_SIGNERS[:3], 2)), ROOT_SIGNERS[:2]), roots_of(ROOT_SIGNERS[:3], 2)
)


def test_a_keyring_reads_back_as_it_was_written() -> None:
    assert replace(FIRST, text="") == content(roots_of(ROOT_SIGNERS[:3], 2))


@given(
    old=st.sets(st.integers(0, 4), min_size=1),
    new=st.sets(st.integers(0, 4), min_size=1),
    signing=st.sets(st.integers(0, 4)),
    strangers=st.integers(0, 3),
    data=st.data(),
)
def test_a_new_version_needs_the_thresholds_of_both_root_sets(
    old: set[int], new: set[int], signing: set[int], strangers: int, data: st.DataObject
) -> None:
    old_threshold = data.draw(st.integers(1, len(old)))
    new_threshold = data.draw(st.integers(1, len(new)))
    old_roots = roots_of([ROOT_SIGNERS[n] for n in old], old_threshold)
    before = replace(content(old_roots), text="trusted")
    after = content(roots_of([ROOT_SIGNERS[n] for n in new], new_threshold), version=2)
    signers = [ROOT_SIGNERS[n] for n in signing] + OTHERS[:strangers]
    text = sign_keyring(after, signers)
    enough = len(signing & old) >= old_threshold and len(signing & new) >= new_threshold
    if enough:
        assert verify_keyring(text, before).version == 2
    else:
        with pytest.raises(KeyringError, match="are needed"):
            verify_keyring(text, before)


def test_one_key_that_signs_twice_counts_once() -> None:
    text = sign_keyring(content(roots_of(ROOT_SIGNERS[:3], 2)), [ROOT_SIGNERS[0], ROOT_SIGNERS[0]])
    with pytest.raises(KeyringError, match="signed by 1 of"):
        verify_keyring(text, FIRST.roots)


def test_one_key_under_two_ids_counts_once() -> None:
    alias = LocalSigner("root-9", bytes([1]) * 32)
    roots = Roots({**FIRST.roots.keys, "root-9": alias.public_key}, 2)
    text = sign_keyring(content(roots), [ROOT_SIGNERS[0], alias])
    with pytest.raises(KeyringError, match="signed by 1 of"):
        verify_keyring(text, roots)


@given(st.data())
def test_no_character_of_a_keyring_can_be_changed(data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(FIRST.text) - 1))
    other = data.draw(st.characters(codec="ascii", exclude_characters=FIRST.text[position]))
    tampered = FIRST.text[:position] + other + FIRST.text[position + 1 :]
    try:
        read = verify_keyring(tampered, FIRST.roots)
    except KeyringError:
        return
    # A signature that is not needed, or its key's name, may be damaged: two others of three suffice, no content moves.
    assert replace(read, text="") == replace(FIRST, text="")


@pytest.mark.parametrize("depth", [900, 1100, 20_000])
def test_deeply_nested_junk_is_a_bad_keyring_and_nothing_else(depth: int) -> None:
    envelope = json.loads(FIRST.text)
    nested = "[" * depth + "]" * depth
    for text in (
        nested,
        FIRST.text.replace('"keyring":{', '"keyring":' + nested + ',"x":{'),
        json.dumps(envelope)[:-1],
    ):
        with pytest.raises(KeyringError):
            verify_keyring(text, FIRST.roots)


def enveloped(payload: bytes) -> str:
    encoded = base64.b64encode(payload).decode()
    return json.dumps({"payload": encoded, "payloadType": KEYRING_PAYLOAD_TYPE, "signatures": [], "keyring": {}})


@given(st.text(max_size=200) | st.binary(max_size=200).map(enveloped))
def test_junk_is_a_bad_keyring_and_nothing_else(text: str) -> None:
    with pytest.raises(KeyringError):
        verify_keyring(text, FIRST.roots)


def test_the_payload_can_not_be_exchanged_under_the_signatures() -> None:
    envelope = json.loads(FIRST.text)
    envelope["keyring"]["roles"]["trainer"].append("promotion.decided")
    with pytest.raises(KeyringError, match="SHA-256 differs"):
        verify_keyring(json.dumps(envelope), FIRST.roots)


def test_a_signature_over_another_kind_of_document_does_not_count() -> None:
    envelope = json.loads(FIRST.text)
    envelope["payloadType"] = "application/json"
    with pytest.raises(KeyringError, match=KEYRING_PAYLOAD_TYPE.split("/")[1][:10]):
        verify_keyring(json.dumps(envelope), FIRST.roots)


def signed_after(before: Keyring, after: Keyring) -> str:
    return sign_keyring(replace(after, version=before.version + 1), ROOT_SIGNERS[:2])


def test_a_key_is_never_removed_nor_replaced() -> None:
    without = {key_id: key for key_id, key in FIRST.keys.items() if key_id != "trainer-1"}
    with pytest.raises(KeyringError, match="removes or replaces"):
        verify_keyring(signed_after(FIRST, replace(FIRST, keys=without)), FIRST)
    other = replace(FIRST.keys["trainer-1"], public_key=OTHERS[0].public_key)
    with pytest.raises(KeyringError, match="removes or replaces"):
        verify_keyring(signed_after(FIRST, replace(FIRST, keys={**FIRST.keys, "trainer-1": other})), FIRST)


def test_a_revocation_is_never_taken_back_nor_weakened() -> None:
    draft = changes.with_revocation(FIRST, "trainer-1", "stolen", {2: 40}, now=5)
    revoked = verify_keyring(sign_keyring(draft, ROOT_SIGNERS[:2]), FIRST)
    with pytest.raises(KeyringError, match="takes back"):
        verify_keyring(signed_after(revoked, replace(revoked, revocations={})), revoked)
    weaker = {"trainer-1": replace(revoked.revocations["trainer-1"], positions={2: 41})}
    with pytest.raises(KeyringError, match="weakens"):
        verify_keyring(signed_after(revoked, replace(revoked, revocations=weaker)), revoked)


def test_a_retroactive_revocation_voids_from_an_index_on_and_only_in_its_lanes() -> None:
    draft = changes.with_revocation(FIRST, "trainer-1", "stolen", {2: 40}, now=5)
    revoked = verify_keyring(sign_keyring(draft, ROOT_SIGNERS[:2]), FIRST)
    assert revoked.voids("trainer-1", 2, 39) is None
    assert revoked.voids("trainer-1", 2, 40) is not None
    assert revoked.voids("trainer-1", 1, 400) is None
    assert revoked.voids("operator-1", 2, 400) is None


def test_versions_are_accepted_in_their_order_and_each_once() -> None:
    keyrings = Keyrings(FIRST.roots)
    assert keyrings.latest_version == 0
    second = sign_keyring(changes.with_grant(FIRST, "operator", Grant("approver"), now=1), ROOT_SIGNERS[:2])
    rival = sign_keyring(changes.with_grant(FIRST, "operator", Grant("trainer"), now=1), ROOT_SIGNERS[:2])
    keyrings.accept(FIRST.text)
    third = sign_keyring(
        changes.without_grant(verify_keyring(second, FIRST), "operator", "approver", now=2), ROOT_SIGNERS[:2]
    )
    with pytest.raises(KeyringConflict, match="expected 2"):
        keyrings.accept(third)
    keyrings.accept(second)
    keyrings.accept(second)
    keyrings.accept(FIRST.text)
    assert keyrings.latest_version == 2
    keyrings.accept(sign_keyring(draft(second), ROOT_SIGNERS[1:3]))
    with pytest.raises(KeyringConflict, match="Two different"):
        keyrings.accept(rival)
    assert keyrings.accept(third).version == 3
    assert keyrings.get(2) is not None


def test_root_keys_can_be_replaced_one_by_one() -> None:
    keyrings = Keyrings(FIRST.roots)
    keyrings.accept(FIRST.text)
    draft = changes.with_root_rotation(FIRST, "root-1", "root-4", ROOT_SIGNERS[3].public_key, now=1)
    with pytest.raises(KeyringError, match="of its own"):
        keyrings.accept(sign_keyring(draft, [ROOT_SIGNERS[0], ROOT_SIGNERS[1]]))
    keyrings.accept(sign_keyring(draft, [ROOT_SIGNERS[1], ROOT_SIGNERS[2]]))
    assert set(keyrings.latest.roots.keys) == {"root-2", "root-3", "root-4"}


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        (lambda k: replace(k, keys={"x": Key("x", OTHERS[0].public_key, "nobody")}), "not in the keyring"),
        (lambda k: replace(k, keys={"x": Key("x", OTHERS[0].public_key, "trainer", "magic")}), "expected one of"),
        (lambda k: replace(k, keys={"x": Key("x", ROOT_SIGNERS[0].public_key, "trainer")}), "same public key"),
        (lambda k: replace(k, principals={**k.principals, "p": Principal("p", "robot")}), "robot"),
        (lambda k: replace(k, principals={**k.principals, "p": Principal("p", "person", (Grant("king"),))}), "king"),
        (lambda k: replace(k, version=0), "begins at 1"),
    ],
)  # fmt: skip
def test_a_keyring_that_contradicts_itself_is_not_signed(broken: object, what: str) -> None:
    with pytest.raises(KeyringError, match=what):
        sign_keyring(broken(content(FIRST.roots)), ROOT_SIGNERS[:2])  # type: ignore[operator]


names = st.text("abAB-._12", min_size=1, max_size=6)
patterns = st.text("abAB-._12*?", min_size=1, max_size=6)
environments = st.sampled_from(["dev", "staging", "prod"])


@given(
    patterns=st.lists(patterns, min_size=1, max_size=3),
    narrowed=st.lists(environments, max_size=2),
    model=names,
    environment=st.none() | environments,
)
def test_a_narrowed_role_reaches_what_one_of_its_patterns_matches_and_no_more(
    patterns: list[str], narrowed: list[str], model: str, environment: str | None
) -> None:
    grant = Grant("trainer", tuple(patterns), tuple(narrowed))
    somewhere = not narrowed or environment is None or environment in narrowed
    assert grant.covers(model, environment) == (any(fnmatchcase(model, p) for p in patterns) and somewhere)


def test_every_event_type_of_a_role_exists() -> None:
    from ai_infra.events.generated import BODIES

    assert {event for events in ROLES.values() for event in events} == set(BODIES)
