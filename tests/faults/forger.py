"""Records that no honest client makes: each has one fault, and is signed where the fault is not the signature."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ai_infra.events.avro import Writer
from ai_infra.events.body import Body
from ai_infra.events.canonical import sha256_hex
from ai_infra.events.codec import SINGLE_OBJECT
from ai_infra.events.compose import uuid7
from ai_infra.events.event import Record
from ai_infra.events.lanes import lane_of
from ai_infra.events.statement import DATASCHEMA_PREFIX, EVENT_PAYLOAD_TYPE, pae
from ai_infra.settings import Settings
from ai_infra.trust.open import open_client_signer, open_service_signer
from ai_infra.trust.session import Session


@dataclass
class Forger:
    """Writes what it is told to, with a real key of the stack."""

    settings: Settings
    session: Session

    @classmethod
    def with_key(
        cls, settings: Settings, key_id: str, principal: str, event: str, *, clock: Callable[[], datetime] | None = None
    ) -> Forger:
        """`clock`: when its delegation was made, which lasts for an hour."""
        service = principal in {"drift", "promoter", "trainer"}
        signer = open_service_signer(settings, principal) if service else open_client_signer(settings, key_id)
        clocks: dict[str, Any] = {} if clock is None else {"clock": clock}
        return cls(settings, Session(signer, principal, [event], lambda: 1, timedelta(hours=1), **clocks))

    def record(
        self, body: Body, *, raw: bytes | None = None, key: str | None = None, **headers: bytes | None
    ) -> Record:
        """A signed record of a body. `raw`: other bytes in its place; `headers`: others, None for one left out."""
        model = key or body.model  # type: ignore[attr-defined]  # bodies of lane topics that are about a model
        lane = lane_of(model, self.settings.log.lanes)
        data = raw if raw is not None else encoded(body)
        now = datetime.now(UTC)
        given = {
            "ce_specversion": b"1.0",
            "ce_id": uuid7().encode(),
            "ce_source": b"/ai-infra/forger",
            "ce_type": body.TOPIC.encode(),
            "ce_time": f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03d}Z".encode(),
            "ce_dataschema": (DATASCHEMA_PREFIX + body.SCHEMA_SHA256).encode(),
            "content-type": b"application/avro",
            "signer": self.session.signer_id.encode(),
            "keyring": str(self.session.keyring).encode(),
            "delegation": self.session.delegation,
        } | headers
        given["signature"] = self.session.sign(_message(given, body.TOPIC, model, lane, data))
        value = SINGLE_OBJECT + body.CRC64 + data
        return Record(body.TOPIC, lane, 0, 0, model.encode(), value, tuple(given.items()))


def encoded(body: Body) -> bytes:
    """Avro without the checks that a client makes."""
    out = Writer()
    body.write(out)
    return bytes(out)


def event_id(record: Record) -> str:
    return dict(record.headers)["ce_id"].decode()


def with_header(record: Record, name: str, value: bytes) -> Record:
    """The record with another value of a header, under the signature that it had."""
    return replace(record, headers=tuple((n, value if n == name else v) for n, v in record.headers))


def _message(headers: Mapping[str, bytes], topic: str, key: str, lane: int, data: bytes) -> bytes:
    def text(name: str) -> str | None:
        return headers[name].decode() if name in headers else None

    def number(name: str) -> int | None:
        return int(headers[name]) if name in headers else None

    claims: dict[str, Any] = {
        "body_sha256": sha256_hex(data),
        "causes": json.loads(headers.get("causes", b"[]")),
        "content_type": text("content-type"),
        "delegation_sha256": sha256_hex(headers["delegation"]),
        "key": key,
        "lane": lane,
        "schema_sha256": (text("ce_dataschema") or "").removeprefix(DATASCHEMA_PREFIX),
        "topic": topic,
    }
    claims |= {n: text(n) for n in ("ce_dataschema", "ce_id", "ce_source", "ce_specversion", "ce_subject", "ce_time")}
    claims |= {n: text(n) for n in ("ce_type", "prev", "producer", "signer")}
    claims |= {n: number(n) for n in ("epoch", "keyring", "seq")}
    return pae(EVENT_PAYLOAD_TYPE, json.dumps(claims, sort_keys=True, separators=(",", ":")).encode())
