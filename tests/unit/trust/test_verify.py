"""The gate: what is an event, and each way of not being one, by its code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.properties import examples

from ai_infra.events.avro import Writer
from ai_infra.events.event import Record
from ai_infra.events.generated import (
    ArtifactRevoked,
    Environment,
    EventRefused,
    JobCancelRequested,
    JobStatus,
    JobStatusKind,
    OperatorAction,
    ProducerHeartbeat,
    Reason,
    RollbackRequested,
    SignerChanged,
)
from ai_infra.events.lanes import lane_of
from ai_infra.trust import changes
from ai_infra.trust.exceptions import AwaitKeyring, TrustError
from ai_infra.trust.keyring import Grant, Keyring
from ai_infra.trust.keyring_document import sign_keyring
from ai_infra.trust.keyrings import Keyrings
from ai_infra.trust.session import Session
from ai_infra.trust.signers import LocalSigner
from ai_infra.trust.verify import CLOCK_SKEW_MS, Verifier

from .conftest import LANES, NOW

Say = Callable[..., Record]
CANCEL = JobCancelRequested(job_id="j", model="digits", reason="r", requested_by="orchestrator")
STATUS = JobStatus(
    job_id="j",
    model="digits",
    status=JobStatusKind.RUNNING,
    attempt=1,
    runner="r",
    rules="v1",
    queued_time=NOW,
    reason_code="",
    reason="",
)
ROLLBACK = RollbackRequested(
    promotion_id="p",
    model="digits",
    target_env=Environment.PROD,
    reason="r",
    emergency=False,
    requested_by="operator",
)


def counted(record_lane: int, **changes: Any) -> dict[str, Any]:
    return {"producer": f"trainer/{record_lane}", "epoch": 0, "seq": 0} | changes


def lane_of_digits() -> int:
    return lane_of("digits", LANES)


def with_header(record: Record, name: str, value: bytes) -> tuple[tuple[str, bytes], ...]:
    return tuple((n, value if n == name else v) for n, v in record.headers)


def refused(verifier: Verifier, record: Record) -> TrustError:
    with pytest.raises(TrustError) as caught:
        verifier.verify(record)
    return caught.value


class Unreadable(JobCancelRequested):
    """A body that nobody can decode."""

    def write(self, out: Writer) -> None:
        out.append(0xFF)


def said_of(body: JobCancelRequested) -> dict[str, str]:
    return {f.name: getattr(body, f.name) for f in fields(body)}


def test_what_can_t_be_read_is_told_apart_by_whether_a_service_said_it(verifier: Verifier, say: Say) -> None:
    error = refused(verifier, say("orchestrator-1", Unreadable(**said_of(CANCEL))))
    assert (error.code, error.signer_known, error.by_service) == ("undecodable_body", True, False)
    error = refused(verifier, say("trainer-1", STATUS))
    assert (error.code, error.signer_known, error.by_service) == ("not_allowed", True, True)


def test_what_an_orchestrator_may_say_is_an_event(verifier: Verifier, say: Say) -> None:
    event = verifier.verify(say("orchestrator-1", CANCEL))
    assert (event.body, event.principal, event.model, event.signer) == (
        CANCEL,
        "orchestrator",
        "digits",
        "orchestrator-1",
    )
    assert event.producer is None


def test_what_a_service_says_is_counted(verifier: Verifier, say: Say) -> None:
    event = verifier.verify(say("trainer-1", STATUS, **counted(lane_of_digits())))
    assert (event.producer, event.seq) == (f"trainer/{lane_of_digits()}", 0)


@pytest.mark.parametrize(
    "numbers",
    [
        {},
        {"producer": "trainer/99", "epoch": 0, "seq": 0},
        {"producer": f"registry/{lane_of_digits()}", "epoch": 0, "seq": 0},
        {"producer": "trainer", "epoch": 0, "seq": 0},
    ],
)
def test_a_service_numbers_what_it_says_as_itself_and_in_this_lane(
    verifier: Verifier, say: Say, numbers: dict[str, Any]
) -> None:
    error = refused(verifier, say("trainer-1", STATUS, **numbers))
    assert (error.code, error.signer_known) == ("not_allowed", True)


def test_who_has_no_counter_must_not_pretend_to(verifier: Verifier, say: Say) -> None:
    numbers = {"producer": f"orchestrator/{lane_of_digits()}", "epoch": 0, "seq": 0}
    assert refused(verifier, say("orchestrator-1", CANCEL, **numbers)).code == "not_allowed"


def test_a_heartbeat_is_about_who_sends_it(verifier: Verifier, say: Say) -> None:
    def heartbeat(producer: str) -> Record:
        body = ProducerHeartbeat(producer=producer, epoch=0, seq=4, event_hash="0" * 64)
        return say("trainer-1", body, key="_lane/2", lane=2, producer="trainer/2", epoch=0, seq=5, prev="0" * 64)

    assert verifier.verify(heartbeat("trainer/2")).model == ""
    assert refused(verifier, heartbeat("registry/2")).code == "not_allowed"


def test_a_role_does_not_say_what_is_another_role_s(
    verifier: Verifier, say: Say, session: Callable[..., Session]
) -> None:
    wide = session("trainer-1", events=["job.status", "job.cancel_requested"])
    body = replace(CANCEL, requested_by="trainer")
    error = refused(verifier, say("trainer-1", body, session=wide, **counted(lane_of_digits())))
    assert (error.code, error.signer_known) == ("not_allowed", True)


def test_a_delegation_limits_what_a_role_would_allow(
    verifier: Verifier, say: Say, session: Callable[..., Session]
) -> None:
    narrow = session("orchestrator-1", events=["job.queued"])
    error = refused(verifier, say("orchestrator-1", CANCEL, session=narrow))
    assert (error.code, error.signer_known) == ("not_allowed", True)


@pytest.mark.parametrize(
    ("key_id", "body"),
    [
        ("orchestrator-1", replace(CANCEL, requested_by="operator")),
        ("operator-1", replace(ROLLBACK, requested_by="orchestrator")),
        ("operator-1", ArtifactRevoked(artifact_id="a", model="digits", reason="r", revoked_by="approver-1")),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_nobody_speaks_in_another_s_name(verifier: Verifier, say: Say, key_id: str, body: Any) -> None:
    error = refused(verifier, say(key_id, body))
    assert error.code == "not_allowed"
    assert "names" in str(error)


def test_a_service_refuses_events_in_its_own_name_only(verifier: Verifier, say: Say) -> None:
    body = EventRefused(
        model="digits",
        event_id="e",
        event_type="job.queued",
        event_hash="0" * 64,
        service="registry",
        signer="orchestrator-1",
        reasons=(Reason(code="c", detail="d"),),
        rules="v1",
    )
    assert refused(verifier, say("trainer-1", body, **counted(lane_of_digits()))).code == "not_allowed"


def test_an_unknown_signer_is_unknown(verifier: Verifier, say: Say, keyrings: Keyrings) -> None:
    stranger = LocalSigner.fresh("stranger-1")
    own = Session(stranger, "orchestrator", ["job.cancel_requested"], lambda: 1, clock=lambda: NOW)
    error = refused(verifier, say("orchestrator-1", CANCEL, session=own))
    assert (error.code, error.signer_known) == ("unknown_signer", False)
    assert error.attributes is not None


def test_who_borrows_a_signer_s_name_is_not_taken_for_them(verifier: Verifier, say: Say) -> None:
    thief = Session(LocalSigner.fresh("orchestrator-1"), "x", ["job.cancel_requested"], lambda: 1, clock=lambda: NOW)
    error = refused(verifier, say("orchestrator-1", CANCEL, session=thief))
    assert (error.code, error.signer_known) == ("bad_delegation", False)


def test_who_borrows_a_delegation_is_not_taken_for_its_owner(
    verifier: Verifier, say: Say, session: Callable[..., Session]
) -> None:
    verifier.verify(say("orchestrator-1", CANCEL))
    theirs = session("orchestrator-1").delegation
    thief = LocalSigner.fresh("orchestrator-1")
    error = refused(verifier, say("orchestrator-1", CANCEL, delegation=theirs, sign=thief.sign))
    assert (error.code, error.signer_known) == ("bad_signature", False)


def test_a_remembered_delegation_does_not_serve_another_signer(
    verifier: Verifier, say: Say, session: Callable[..., Session]
) -> None:
    own = session("orchestrator-1")
    verifier.verify(say("orchestrator-1", CANCEL, session=own))
    error = refused(verifier, say("operator-1", CANCEL, session=own, signer="operator-1"))
    assert (error.code, error.signer_known) == ("bad_delegation", False)


def test_a_service_s_key_delegates_to_that_service(
    verifier: Verifier, say: Say, session: Callable[..., Session]
) -> None:
    other = session("trainer-1", service="registry")
    assert refused(verifier, say("trainer-1", STATUS, session=other)).code == "bad_delegation"


def test_an_audit_key_does_not_sign_events(verifier: Verifier, say: Say, signer: Callable[[str], LocalSigner]) -> None:
    audit = Session(signer("audit-1"), "trainer", ["job.status"], lambda: 1, clock=lambda: NOW)
    assert refused(verifier, say("trainer-1", STATUS, session=audit)).code == "unknown_signer"


def test_validity_is_judged_by_the_append_time(verifier: Verifier, say: Say) -> None:
    record = say("orchestrator-1", CANCEL)
    appended = record.append_time_ms
    end = appended + 24 * 3600 * 1000
    for time in (appended, end, end + 999, appended - CLOCK_SKEW_MS):
        verifier.verify(replace(record, append_time_ms=time))
    for time in (end + 1000, appended - CLOCK_SKEW_MS - 1):
        error = refused(verifier, replace(record, append_time_ms=time))
        assert (error.code, error.signer_known) == ("expired_delegation", True)


def test_an_event_that_names_a_newer_keyring_waits_for_it(verifier: Verifier, say: Say) -> None:
    record = say("orchestrator-1", CANCEL, keyring=2)
    with pytest.raises(AwaitKeyring) as caught:
        verifier.verify(record)
    assert not isinstance(caught.value, TrustError)
    assert (caught.value.version, caught.value.latest) == (2, 1)
    with pytest.raises(TrustError) as failed:
        verifier.verify(record, caught_up=True)
    assert (failed.value.code, failed.value.signer_known) == ("unknown_keyring", False)


def test_records_verified_together_come_to_what_each_comes_to_alone(verifier: Verifier, say: Say) -> None:
    good, other = say("orchestrator-1", CANCEL), say("orchestrator-1", replace(CANCEL, reason="another"))
    records = [
        good,
        replace(good, key=None),
        say("orchestrator-1", CANCEL, keyring=2),
        replace(good, value=other.value),
        say("orchestrator-1", STATUS),
        other,
        replace(good, append_time_ms=0),
    ]

    def alone(record: Record, *, caught_up: bool) -> object:
        try:
            return verifier.verify(record, caught_up=caught_up)
        except (TrustError, AwaitKeyring) as error:
            return type(error), error.code, str(error)

    for caught_up in (False, True):
        found = [
            (type(outcome), outcome.code, str(outcome)) if isinstance(outcome, Exception) else outcome
            for outcome in verifier.verify_each(records, caught_up=caught_up)
        ]
        assert found == [alone(record, caught_up=caught_up) for record in records]
        assert len({str(each) for each in found}) == len(records)
    assert verifier.verify_each([]) == []


def test_a_delegation_from_a_newer_keyring_than_the_event_is_odd(
    verifier: Verifier, say: Say, session: Callable[..., Session]
) -> None:
    newer = session("orchestrator-1", keyring_version=lambda: 2)
    assert refused(verifier, say("orchestrator-1", CANCEL, session=newer, keyring=1)).code == "bad_delegation"


@pytest.fixture
def change(keyrings: Keyrings, signer: Callable[[str], LocalSigner]) -> Callable[[Keyring], Keyring]:
    """The next version of the keyring, accepted."""

    def accept(draft: Keyring) -> Keyring:
        return keyrings.accept(sign_keyring(draft, [signer("root-1"), signer("root-2")]))

    return accept


def test_a_revoked_key_is_refused_from_then_on(
    verifier: Verifier, say: Say, keyrings: Keyrings, change: Callable[[Keyring], Keyring]
) -> None:
    record = say("orchestrator-1", CANCEL)
    verifier.verify(record)
    change(changes.with_revocation(keyrings.latest, "orchestrator-1", "stolen", {}, now=1))
    error = refused(verifier, record)
    assert (error.code, error.signer_known) == ("revoked_key", True)
    assert "stolen" in str(error)


def test_a_retired_key_counts_until_its_end(
    verifier: Verifier, say: Say, keyrings: Keyrings, change: Callable[[Keyring], Keyring]
) -> None:
    now = int(NOW.timestamp() * 1000)
    new = LocalSigner.fresh("orchestrator-2").public_key
    record = say("orchestrator-1", CANCEL)
    change(changes.with_rotation(keyrings.latest, "orchestrator-1", "orchestrator-2", new, now=now, until=now + 1000))
    verifier.verify(replace(record, append_time_ms=now + 1000))
    assert refused(verifier, replace(record, append_time_ms=now + 1001)).code == "expired_delegation"


def test_a_role_can_be_narrowed_by_model_and_environment(
    verifier: Verifier,
    say: Say,
    session: Callable[..., Session],
    keyrings: Keyrings,
    change: Callable[[Keyring], Keyring],
) -> None:
    all_of_it = session("operator-1")
    draft = changes.without_grant(keyrings.latest, "operator", "operator", now=1)
    narrowed = Grant("operator", ("fraud-*",), ("dev", "staging"))
    principal = replace(draft.principals["operator"], grants=(narrowed,))
    change(replace(draft, principals={**draft.principals, "operator": principal}))

    def said(model: str, env: Environment) -> Record:
        body = replace(ROLLBACK, model=model, target_env=env)
        return say("operator-1", body, session=all_of_it)

    verifier.verify(said("fraud-eu", Environment.STAGING))
    assert refused(verifier, said("fraud-eu", Environment.PROD)).code == "not_allowed"
    assert refused(verifier, said("fraud-eu", Environment.UNKNOWN)).code == "not_allowed"
    assert refused(verifier, said("digits", Environment.DEV)).code == "not_allowed"
    whole = OperatorAction(action="dlq.redrive", target="t", arguments_json="{}", reason="r", operator="operator")
    unreadable = say("operator-1", Unreadable(**said_of(CANCEL)), session=all_of_it)
    assert refused(verifier, unreadable).code == "not_allowed", "whatever it says, it is not theirs to say"
    on_lane = say("operator-1", whole, session=all_of_it, key="_lane/1", lane=1)
    assert refused(verifier, on_lane).code == "not_allowed"
    verifier.verify(say("operator-1", whole, session=all_of_it, key="fraud-eu"))


def test_a_first_keyring_names_its_own_messenger(verifier: Verifier, say: Say, keyrings: Keyrings) -> None:
    body = SignerChanged(version=1, keyring=keyrings.latest.text, keyring_sha256=keyrings.latest.sha256, reason="r")
    assert verifier.verify(say("operator-1", body)).principal == "operator"
    error = refused(verifier, say("orchestrator-1", body, session=None))
    assert error.code == "not_allowed"


@pytest.mark.parametrize(
    ("change_record", "code"),
    [
        (lambda r: replace(r, value=r.value[:-1] + bytes([r.value[-1] ^ 1])), "bad_signature"),
        (lambda r: replace(r, value=b"\xc3\x01junk"), "unknown_schema"),
        (lambda r: replace(r, headers=(*r.headers, r.headers[0])), "repeated_header"),
        (lambda r: replace(r, headers=r.headers[1:]), "malformed_event"),
        (lambda r: replace(r, key=b"other"), "wrong_lane"),
        (lambda r: replace(r, key=b"\xff"), "bad_text"),
        (lambda r: replace(r, partition=(r.partition + 1) % LANES), "wrong_lane"),
        (lambda r: replace(r, headers=with_header(r, "keyring", b"0")), "bad_signature"),
        (lambda r: replace(r, headers=with_header(r, "ce_source", b"//elsewhere")), "bad_signature"),
    ],
)  # fmt: skip
def test_a_record_that_was_touched_is_no_event(
    verifier: Verifier, say: Say, change_record: Callable[[Record], Record], code: str
) -> None:
    error = refused(verifier, change_record(say("orchestrator-1", CANCEL)))
    assert (error.code, error.signer_known) == (code, False)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(150))
@given(data=st.data())
def test_no_byte_of_a_signed_record_can_be_changed(verifier: Verifier, say: Say, data: st.DataObject) -> None:
    record = say("orchestrator-1", CANCEL)
    headers = dict(record.headers)
    part = data.draw(st.sampled_from(["value", "key", *headers]))
    original = headers.get(part) or getattr(record, part)
    position = data.draw(st.integers(0, len(original) - 1))
    changed = bytearray(original)
    changed[position] ^= data.draw(st.integers(1, 255))
    if part in headers:
        touched = replace(record, headers=tuple((n, bytes(changed) if n == part else v) for n, v in record.headers))
    elif part == "value":
        touched = replace(record, value=bytes(changed))
    else:
        touched = replace(record, key=bytes(changed))
    with pytest.raises((TrustError, AwaitKeyring)) as caught:
        verifier.verify(touched)
    assert not getattr(caught.value, "signer_known", False)


def test_state_is_read_back_only_from_its_own_service(
    verifier: Verifier, session: Callable[..., Session], keyrings: Keyrings, change: Callable[[Keyring], Keyring]
) -> None:
    own = session("trainer-1")
    written = int(NOW.timestamp() * 1000)
    record: dict[str, Any] = {
        "message": b"state",
        "signature": own.sign(b"state"),
        "delegation": own.delegation,
        "signer": own.signer_id,
        "keyring": 1,
        "service": "trainer",
        "append_time_ms": written,
    }

    def code(**changes: Any) -> str:
        with pytest.raises(TrustError) as caught:
            verifier.verify_state(**(record | changes))
        return caught.value.code

    verifier.verify_state(**record)
    assert code(service="registry") == "bad_state"
    assert code(message=b"other") == "bad_state"
    assert code(signer="registry-1") == "bad_delegation"
    assert code(append_time_ms=written + int(timedelta(days=2).total_seconds() * 1000)) == "expired_delegation"
    with pytest.raises(AwaitKeyring):
        verifier.verify_state(**(record | {"keyring": 2}))
    change(changes.with_revocation(keyrings.latest, "trainer-1", "stolen", {}, now=written + 1))
    verifier.verify_state(**record)
    assert code(append_time_ms=written + 1) == "revoked_key"


def test_delegations_are_forgotten_with_their_keyring(
    verifier: Verifier, say: Say, keyrings: Keyrings, change: Callable[[Keyring], Keyring]
) -> None:
    record = say("orchestrator-1", CANCEL)
    verifier.verify(record)
    change(changes.without_grant(keyrings.latest, "orchestrator", "orchestrator", now=1))
    assert refused(verifier, record).code == "not_allowed"
