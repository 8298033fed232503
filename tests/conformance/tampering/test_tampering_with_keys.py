"""Whoever holds the log's own keys can make tree, chain and heads fit again. What was never signed by its sender, never
allowed by the roots, or never said, is found and named all the same.

As in test_tampering.py; `NOWHERE` where it is `ai-infra audit complete` that counts, not `audit verify`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.conformance.tampering.forging import Forger, Header, long_delegation, sign_header, with_delegation
from tests.conformance.tampering.tampering import NOWHERE, Case, by_audit, by_verifier, check
from tests.unit.indexer.log_folder import LANES, ORIGIN, LogFolder, model_in, unverified

from ai_infra.bus.refusing import Sender, refusal
from ai_infra.events import generated as g
from ai_infra.events.canonical import sha256_hex
from ai_infra.events.codec import encode_body
from ai_infra.events.event import Record
from ai_infra.trust.keyring import Grant, Keyring, Revocation
from ai_infra.trust.keyring_document import sign_keyring
from ai_infra.trust.signers import LocalSigner
from ai_infra_indexer.export import verify as verifier

DAY_MS = 86_400_000
NEXT = 9  # position of what is entered after the story of lane 1


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory, make_world: Callable[[], Any]) -> LogFolder:
    return LogFolder.make(tmp_path_factory.mktemp("archive"), make_world)


def stated(**changes: Any) -> Callable[[Header], None]:
    return lambda header: header["statement"].update(changes)


def chained(**changes: Any) -> Callable[[Header], None]:
    return lambda header: header["chain"].update(changes)


def body_of(header_body: bytes, old: bytes, new: bytes) -> bytes:
    assert old in header_body
    return header_body.replace(old, new, 1)


def body_at(f: Forger, position: int) -> bytes:
    return f.log.raws[1][position].partition(b"\n")[2]


def say(f: Forger, who: str, body: Any) -> None:
    f.append(1, f.world(1).say(who, body))


def queued_by(f: Forger, who: str, **changes: Any) -> None:
    say(f, who, f.world(1).queued("job-2", **changes))


def delegated(f: Forger, by: str = "orchestrator-1", **changes: Any) -> None:
    """The orchestrator speaks with a delegation of another content, signed by its long-lived key."""
    session = f.world(1).sessions["orchestrator"]
    raw = long_delegation(f.signer(by), session.delegation, **changes)

    def apply(header: Header) -> None:
        with_delegation(header, raw)
        sign_header(header, session.sign)

    f.change(1, 5, apply)


def times(f: Forger, shift_s: int, life_s: int) -> dict[str, int]:
    now = int(f.world(1).clock.timestamp())
    return {"nbf": now + shift_s, "naf": now + shift_s + life_s}


def other_schema(f: Forger) -> None:
    schema = g.JobCancelRequested.SCHEMA_SHA256
    f.re_sign(1, 5, "orchestrator", stated(schema_sha256=schema, ce_dataschema=f"urn:ai-infra:schema:{schema}"))


def no_schema(f: Forger) -> None:
    f.re_sign(1, 5, "orchestrator", stated(schema_sha256="0" * 64, ce_dataschema=f"urn:ai-infra:schema:{'0' * 64}"))


def other_model(f: Forger) -> None:
    body = encode_body(f.world(1).evaluated(model="another"))
    f.re_sign(1, 5, "orchestrator", lambda _: None, body)


def session_then_say(f: Forger, **changes: Any) -> None:
    f.session(1, "orchestrator", **changes)
    queued_by(f, "orchestrator")


def keyring_by(f: Forger, who: str, change: Callable[[Keyring], Keyring], *roots: LocalSigner) -> None:
    keyring = change(replace(f.world(1).keyring, version=2))
    text = sign_keyring(keyring, roots or [f.signer("root-1"), f.signer("root-2")])
    body = g.SignerChanged(
        version=keyring.version, keyring=text, keyring_sha256=sha256_hex(text.encode()), reason="next"
    )
    say(f, who, body)


def same(keyring: Keyring) -> Keyring:
    return keyring


def without_key(keyring: Keyring) -> Keyring:
    return replace(keyring, keys={name: key for name, key in keyring.keys.items() if name != "serving-1"})


def revoking(key: str) -> Callable[[Keyring], Keyring]:
    return lambda keyring: replace(keyring, revocations={key: Revocation(key, keyring.created_at, "stolen")})


def granting(who: str, grant: Grant) -> Callable[[Keyring], Keyring]:
    def change(keyring: Keyring) -> Keyring:
        principals = {**keyring.principals, who: replace(keyring.principals[who], grants=(grant,))}
        return replace(keyring, principals=principals)

    return change


def retiring(key: str) -> Callable[[Keyring], Keyring]:
    return lambda keyring: replace(
        keyring, keys={**keyring.keys, key: replace(keyring.keys[key], not_after=keyring.created_at - DAY_MS)}
    )


def keyring_then(f: Forger, change: Callable[[Keyring], Keyring], who: str, body: Any) -> None:
    keyring = change(replace(f.world(1).keyring, version=2))
    text = sign_keyring(keyring, [f.signer("root-1"), f.signer("root-3")])
    f.append(1, f.keyring_record(1, text, 2), f.world(1).say(who, body))


def takes_back_a_revocation(f: Forger) -> None:
    roots = [f.signer("root-1"), f.signer("root-2")]
    second = replace(revoking("serving-1")(f.world(1).keyring), version=2)
    third = replace(f.world(1).keyring, version=3)
    records = [f.keyring_record(1, sign_keyring(ring, roots), ring.version) for ring in (second, third)]
    f.append(1, *records)


def hour_later(f: Forger) -> Record:
    f.world(1).clock += timedelta(hours=1)
    record: Record = f.world(1).say("orchestrator", f.world(1).queued("job-late"))
    return record


def withheld(f: Forger) -> None:
    f.log.records[1].append(hour_later(f))
    del f.log.records[1][2]
    f.append(1)


def doubled(f: Forger, position: int) -> None:
    f.append(1, f.log.records[1][position])


def moved(f: Forger) -> None:
    """Said and signed as it is, and entered into a lane that is not its own."""
    f.append(1, f.world(2).say("orchestrator", f.world(2).queued("job-2")))


def keyrings_of(f: Forger, changes: Mapping[int, Callable[[Keyring], Keyring]]) -> None:
    """A second keyring in some lanes only, which may be another in each."""
    roots = [f.signer("root-1"), f.signer("root-2")]
    for lane, change in changes.items():
        text = sign_keyring(change(replace(f.world(lane).keyring, version=2)), roots)
        f.append(lane, f.keyring_record(lane, text, 2))


def policies_of(f: Forger, texts: Mapping[int, str]) -> None:
    for lane, text in texts.items():
        body = g.PolicyChanged(version=1, policy_json=text, policy_sha256=sha256_hex(text.encode()), reason="first")
        f.append(lane, f.world(lane).say("operator", body))


def equivocal(f: Forger, *, numbered: int) -> None:
    """The trainer says something else under a number that it has used, or names an event that it has not said."""
    world = f.world(1)
    world.counters[("trainer", 1)] = (numbered - 1, "0" * 64 if numbered > 1 else None)
    say(f, "trainer", world.status(g.JobStatusKind.FAILED))


def at(position: int | None, cases: Mapping[str, tuple[Any, ...]]) -> list[Case]:
    """Cases of lane 1 at a position: by name the code (and our audit's, where that is another), and what is done."""
    return [Case(name, do, 1, position, *codes) for name, (*codes, do) in cases.items()]


INSIDE = [
    *at(
        5,
        {
            "a body changed": ("bad_signature", lambda f: f.change(1, 5, lambda _: None, body_at(f, 5)[:-1] + b"!")),
            "a statement changed": ("bad_signature", lambda f: f.change(1, 5, stated(ce_subject="other"))),
            "an entry's time moved": (
                "expired_delegation",
                lambda f: f.change(1, 5, lambda h: h.update(append_time_ms=h["append_time_ms"] + 30 * DAY_MS)),
            ),
            "the delegation of another key": (
                "bad_delegation",
                lambda f: f.change(1, 5, lambda h: with_delegation(h, f.world(1).sessions["trainer"].delegation)),
            ),
            "another signer's name": ("bad_delegation", lambda f: f.change(1, 5, stated(signer="operator-1"))),
            "a signer that nobody knows": ("unknown_signer", lambda f: f.change(1, 5, stated(signer="nobody-1"))),
            "a keyring that does not exist": ("unknown_keyring", lambda f: f.change(1, 5, stated(keyring=9))),
            "one more field in the statement": ("malformed_entry", lambda f: f.change(1, 5, stated(more=1))),
            "a field of another kind": (
                "malformed_entry",
                lambda f: f.edit_entry(1, 5, lambda h: h.update(traceparent=5)),
            ),
            "a statement that is none": (
                "malformed_entry",
                lambda f: f.edit_entry(1, 5, lambda h: h.update(statement=[1])),
            ),
            "a topic that is a number": ("malformed_event", lambda f: f.edit_entry(1, 5, stated(topic=7))),
            "a version that is true": ("malformed_entry", lambda f: f.edit_entry(1, 5, lambda h: h.update(v=True))),
            "an entry of version 2": ("malformed_entry", lambda f: f.edit_entry(1, 5, lambda h: h.update(v=2))),
            "a second spelling of an entry": (
                "malformed_entry",
                lambda f: f.replant(
                    1, [raw.replace(b'","', b'", "', 1) if n == 5 else raw for n, raw in enumerate(f.log.raws[1])]
                ),
            ),
            "an entry of another lane": (
                "wrong_position",
                lambda f: f.replant(1, [*f.log.raws[1][:5], f.log.raws[2][5], *f.log.raws[1][6:]]),
            ),
            "entries in another order": (
                "wrong_position",
                lambda f: f.replant(1, [*f.log.raws[1][:5], f.log.raws[1][6], f.log.raws[1][5], *f.log.raws[1][7:]]),
            ),
            "an entry left out": ("wrong_position", lambda f: f.replant(1, [*f.log.raws[1][:5], *f.log.raws[1][6:]])),
            "a row's hash changed": ("bad_chain_hash", lambda f: f.edit_entry(1, 5, chained(hash="0" * 64))),
            "a row's previous hash changed": (
                "broken_chain",
                lambda f: f.edit_entry(1, 5, chained(prev_hash="0" * 64)),
            ),
            "a row about another event": (
                "broken_chain",
                lambda f: f.edit_entry(1, 5, chained(id="0190b5a0-0000-7000-8000-000000000000")),
            ),
            "a row's time moved": ("bad_time", lambda f: f.edit_entry(1, 5, chained(ts=1))),
            "a hash that is none": ("malformed_entry", lambda f: f.edit_entry(1, 5, chained(prev_hash="x"))),
            "a number of somebody who does not count": (
                "not_allowed",
                lambda f: f.re_sign(1, 5, "orchestrator", stated(producer="orchestrator/1", epoch=1, seq=1)),
            ),
            "a body about another model": ("wrong_key", other_model),
            "a model of another lane": (
                "wrong_lane",
                lambda f: f.re_sign(1, 5, "orchestrator", stated(key=model_in(2))),
            ),
            "a schema of another topic": ("unknown_schema", other_schema),
            "a schema that nobody has": ("unknown_schema", "malformed_entry", no_schema),
            "bytes behind a body": (
                "undecodable_body",
                lambda f: f.re_sign(1, 5, "orchestrator", lambda _: None, body_at(f, 5) + b"\0"),
            ),
            "a body with U+0000": (
                "bad_text",
                lambda f: f.re_sign(
                    1, 5, "orchestrator", lambda _: None, body_of(body_at(f, 5), b"eval-1", b"eval\x001")
                ),
            ),
            "signed by another session": (
                "bad_signature",
                lambda f: f.re_sign(1, 5, "trainer", stated(ce_subject="x")),
            ),
            "an expired delegation": ("expired_delegation", lambda f: delegated(f, **times(f, -2 * 86_400, 86_400))),
            "a delegation of the future": ("expired_delegation", lambda f: delegated(f, **times(f, 3600, 86_400))),
            "a delegation of eight days": ("bad_delegation", lambda f: delegated(f, **times(f, -60, 8 * 86_400))),
            "a delegation of a newer keyring": ("bad_delegation", lambda f: delegated(f, keyring=5)),
            "a delegation for other events": ("not_allowed", lambda f: delegated(f, events=["job.queued"])),
            "a service that delegates for another": (
                "bad_delegation",
                lambda f: delegated(f, "trainer-1", signer="trainer-1"),
            ),
        },
    ),
    *at(
        0,
        {
            "a chain signed by a stranger": (
                "bad_chain_signature",
                lambda f: f.relink(1, list, chain=LocalSigner.fresh("chain-1")),
            ),
            "a chain signed by a key of another use": (
                "unknown_chain_key",
                lambda f: f.relink(1, list, chain=f.signer("audit-1")),
            ),
        },
    ),
    *at(
        NEXT,
        {
            "what the signer's role may not say": ("not_allowed", lambda f: queued_by(f, "trainer")),
            "in another's name": ("not_allowed", lambda f: queued_by(f, "orchestrator", requested_by="operator")),
            "a delegation by a stranger": (
                "bad_delegation",
                lambda f: session_then_say(f, signer=LocalSigner.fresh("orchestrator-1")),
            ),
            "a keyring with too few signatures": (
                "bad_keyring",
                lambda f: keyring_by(f, "operator", same, f.signer("root-1")),
            ),
            "a keyring signed twice by one root": (
                "bad_keyring",
                lambda f: keyring_by(f, "operator", same, f.signer("root-1"), f.signer("root-1")),
            ),
            "a keyring by strangers with the roots' names": (
                "bad_keyring",
                lambda f: keyring_by(f, "operator", same, LocalSigner.fresh("root-1"), LocalSigner.fresh("root-2")),
            ),
            "a keyring that forgets a key": ("bad_keyring", lambda f: keyring_by(f, "operator", without_key)),
            "a keyring that skips a version": (
                "keyring_conflict",
                lambda f: keyring_by(f, "operator", lambda k: replace(k, version=3)),
            ),
            "two keyrings of one version": (
                "keyring_conflict",
                lambda f: keyring_by(f, "operator", lambda k: replace(without_key(k), version=1)),
            ),
            "a keyring brought by who may not": ("not_allowed", lambda f: keyring_by(f, "orchestrator", same)),
            "another keyring than in another lane": (
                "keyring_conflict",
                lambda f: keyrings_of(f, {0: revoking("trainer-1"), 1: revoking("serving-1")}),
            ),
            "another policy than in another lane": ("policy_conflict", lambda f: policies_of(f, {0: "{}", 1: "[]"})),
            "an event of another lane": ("wrong_lane", moved),
            "a service's event entered twice": ("sequenced_twice", lambda f: doubled(f, 4)),
            "a person's event entered twice": ("sequenced_twice", lambda f: doubled(f, 6)),
            "two events under one number": ("equivocation", NOWHERE, lambda f: equivocal(f, numbered=2)),
            "an event after one that nobody has seen": ("equivocation", NOWHERE, lambda f: equivocal(f, numbered=3)),
        },
    ),
    *at(
        4,
        {
            "a service without its number": (
                "not_allowed",
                lambda f: f.re_sign(1, 4, "registry", stated(producer=None, epoch=None, seq=None, prev=None)),
            ),
            "a number of another producer": (
                "not_allowed",
                lambda f: f.re_sign(1, 4, "registry", stated(producer="trainer/1")),
            ),
        },
    ),
    *at(
        NEXT + 1,
        {
            "a keyring that takes back a revocation": ("bad_keyring", takes_back_a_revocation),
            "a revoked key": (
                "revoked_key",
                lambda f: keyring_then(f, revoking("trainer-1"), "trainer", f.world(1).status(g.JobStatusKind.FAILED)),
            ),
            "a row by a chain key that is revoked": (
                "revoked_key",
                lambda f: keyring_then(f, revoking("chain-1"), "orchestrator", f.world(1).queued("job-2")),
            ),
            "a retired key": (
                "expired_delegation",
                lambda f: keyring_then(f, retiring("trainer-1"), "trainer", f.world(1).status(g.JobStatusKind.FAILED)),
            ),
            "a role for other models": (
                "not_allowed",
                lambda f: keyring_then(
                    f,
                    granting("orchestrator", Grant("orchestrator", ("other-*",))),
                    "orchestrator",
                    f.world(1).queued("job-2"),
                ),
            ),
            "a role for other environments": (
                "not_allowed",
                lambda f: keyring_then(
                    f,
                    granting("orchestrator", Grant("orchestrator", ("*",), ("dev",))),
                    "orchestrator",
                    f.world(1).promotion(),
                ),
            ),
        },
    ),
    *at(
        None,
        {
            "an event withheld": ("withheld_event", NOWHERE, withheld),
            "a revocation withheld from one lane": (
                "withheld_keyring",
                lambda f: (keyrings_of(f, {0: revoking("trainer-1")}), f.append(1, hour_later(f))),
            ),
            "a policy withheld from one lane": (
                "withheld_policy",
                lambda f: (policies_of(f, {0: "{}"}), f.append(1, hour_later(f))),
            ),
            "a checkpoint by an audit key that another lane has revoked": (
                "bad_checkpoint",
                lambda f: keyrings_of(f, {0: revoking("audit-1")}),
            ),
            "a checkpoint by an audit key that is revoked below it": (
                "bad_checkpoint",
                lambda f: keyring_then(f, revoking("audit-1"), "orchestrator", f.world(1).queued("job-2")),
            ),
        },
    ),
]


@pytest.mark.parametrize("case", INSIDE, ids=lambda case: case.name)
def test_what_was_never_signed_or_allowed_is_found(log: LogFolder, tmp_path: Any, case: Case) -> None:
    check(log, tmp_path, case)


def test_an_event_that_the_log_says_it_refused_is_listed_as_not_checked(log: LogFolder, tmp_path: Any) -> None:
    """Whoever has the log's key can withhold an event and say so: that is no hole, and no proof either."""
    forger, world = Forger.of(log, tmp_path / "copy"), log.worlds[1]
    event, reason = unverified(forger.log.records[1][2]), g.Reason(code="bad_signature", detail="so says the log")
    said = refusal(Sender.of(event), event.type, (reason,), service="indexer", rules="indexer/v1")
    del forger.log.records[1][2]
    forger.append(1, forger.world(1).say("indexer", said), hour_later(forger))
    roots = verifier.Roots(dict(world.roots.keys), world.roots.threshold)
    found = verifier.verify(str(forger.root), roots, ORIGIN, LANES, 1)
    assert found["problems"] == []
    assert found["refused"] == [
        "lane 1: number 1 of trainer/1 epoch 1 is not in the log: at position 8 the log says that it refused it "
        "(bad_signature)"
    ]
    assert found["refused"][0] in verifier.summary(found, roots, inside=False).partition("NOT checked:")[2]


def test_a_text_that_looks_like_a_keyring_is_none(log: LogFolder, tmp_path: Any) -> None:
    forger = Forger.of(log, tmp_path / "copy")
    say(forger, "orchestrator", forger.world(1).promotion(reason='see "topic":"signer.changed"'))
    assert by_verifier(log, forger.root) == by_audit(log, forger.root) == set()


def test_an_older_keyring_that_is_entered_again_changes_nothing(log: LogFolder, tmp_path: Any) -> None:
    forger = Forger.of(log, tmp_path / "copy")
    text = forger.world(1).keyring.text
    again = g.SignerChanged(version=1, keyring=text, keyring_sha256=sha256_hex(text.encode()), reason="again")
    keyring_then(forger, revoking("serving-1"), "operator", again)
    assert by_verifier(log, forger.root) == by_audit(log, forger.root) == set()


def test_a_lane_that_has_not_gone_on_yet_may_lack_a_keyring(log: LogFolder, tmp_path: Any) -> None:
    forger = Forger.of(log, tmp_path / "copy")
    keyrings_of(forger, {0: revoking("serving-1"), 2: revoking("serving-1")})
    forger.world(1).clock += timedelta(minutes=9)
    queued_by(forger, "orchestrator")
    assert by_verifier(log, forger.root) == by_audit(log, forger.root) == set()


def test_a_log_that_goes_on_by_the_rules_verifies(log: LogFolder, tmp_path: Any) -> None:
    """The forger's tools by themselves break nothing: a new keyring, and events by it."""
    forger = Forger.of(log, tmp_path / "copy")
    keyring_then(forger, revoking("serving-1"), "orchestrator", forger.world(1).queued("job-2"))
    assert by_verifier(log, forger.root) == by_audit(log, forger.root) == set()
    again = Forger.of(log, tmp_path / "again")
    again.relink(1, list)
    assert by_verifier(log, again.root) == by_audit(log, again.root) == set()
