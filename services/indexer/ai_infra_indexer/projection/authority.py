"""Who may say what, what was refused, what operators and auditors noted."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

from ai_infra.events.generated import (
    AuditFinding,
    EventRefused,
    OperatorAction,
    PolicyChanged,
    ProducerHeartbeat,
    SignerChanged,
)
from ai_infra.trust.keyring_document import draft
from ai_infra_indexer.projection.rows import Mode, RowChange, Sequenced, Value, as_json, foreign_json


def signers(said: Sequenced[SignerChanged]) -> tuple[RowChange, ...]:
    body = said.body
    row: dict[str, Value] = {
        "keyring": body.keyring,
        "keyring_sha256": body.keyring_sha256,
        "reason": body.reason,
        "at": said.at,
        **said.said,
    }
    return (RowChange("keyrings", {"version": body.version}, row, Mode.FIRST), *_keys(said))


def _keys(said: Sequenced[SignerChanged]) -> list[RowChange]:
    """The keys of this version. The roots' signatures have been verified before the event came here."""
    keyring = draft(said.body.keyring)
    changes: list[RowChange] = []
    for key in keyring.keys.values():
        values: dict[str, Value] = {
            "public_key": base64.b64encode(key.public_key).decode(),
            "principal": key.principal,
            "use": key.use,
            "last_version": keyring.version,
        }
        born: dict[str, Value] = {"since_version": keyring.version, "since_position": said.position}
        changes.append(RowChange("keys", {"key_id": key.id}, values, on_insert=born))
    for key_id in keyring.revocations:
        gone: dict[str, Value] = {"revoked_version": keyring.version, "revoked_position": said.position}
        # Every later version repeats a revocation; it counts from the first one on.
        changes.append(RowChange("keys", {"key_id": key_id}, gone, Mode.SET, only_where_null="revoked_version"))
    return changes


def policy(said: Sequenced[PolicyChanged]) -> tuple[RowChange, ...]:
    body = said.body
    row: dict[str, Value] = {
        "policy": foreign_json(body.policy_json),
        "policy_sha256": body.policy_sha256,
        "reason": body.reason,
        "at": said.at,
        **said.said,
    }
    return (RowChange("policies", {"version": body.version}, row, Mode.FIRST),)


def refused(said: Sequenced[EventRefused]) -> tuple[RowChange, ...]:
    body = said.body
    row: dict[str, Value] = {
        "model": body.model,
        "event_type": body.event_type,
        "event_hash": body.event_hash,
        "signer": body.signer,
        "reasons": as_json(body.reasons),
        "refusal_event_id": said.event.id,
        "at": said.at,
        "position": said.position,
    }
    return (RowChange("refused_events", {"event_id": body.event_id, "service": body.service}, row, Mode.FIRST),)


def operator(said: Sequenced[OperatorAction]) -> tuple[RowChange, ...]:
    body = said.body
    row: dict[str, Value] = {
        "action": body.action,
        "target": body.target,
        "arguments": foreign_json(body.arguments_json or "{}"),
        "reason": body.reason,
        "operator": body.operator,
        "event_id": said.event.id,
        "at": said.at,
    }
    return (RowChange("operator_actions", {"position": said.position}, row, Mode.FIRST),)


def heartbeat(said: Sequenced[ProducerHeartbeat]) -> tuple[RowChange, ...]:
    body = said.body
    row: dict[str, Value] = {"seq": body.seq, "event_hash": body.event_hash, "at": said.at, "position": said.position}
    return (RowChange("heartbeats", {"producer": body.producer, "epoch": body.epoch}, row),)


def finding(said: Sequenced[AuditFinding]) -> tuple[RowChange, ...]:
    body = said.body
    row: dict[str, Value] = {
        "kind": body.kind.value,
        "lane_of": body.lane_of,
        "producer": body.producer,
        "epoch": body.epoch,
        "first_seq": body.first_seq,
        "last_seq": body.last_seq,
        "about_position": body.position,
        "about_event_id": body.event_id,
        "detail": body.detail,
        "event_id": said.event.id,
        "at": said.at,
    }
    return (RowChange("said_findings", {"position": said.position}, row, Mode.FIRST),)


RULES: Final[Mapping[type[Any], Any]] = {
    SignerChanged: signers,
    PolicyChanged: policy,
    EventRefused: refused,
    OperatorAction: operator,
    ProducerHeartbeat: heartbeat,
    AuditFinding: finding,
}
