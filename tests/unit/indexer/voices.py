"""Voices of a small world: services, an orchestrator, an operator, who sign what they say with real keys."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from ai_infra.events import generated as g
from ai_infra.events.canonical import sha256_hex
from ai_infra.events.compose import SignedRecord, compose, uuid7
from ai_infra.events.event import Cause, Event, Record
from ai_infra.events.lanes import BROADCAST_KEY, lane_key, lane_of
from ai_infra.trust.ed25519 import read_private_key
from ai_infra.trust.keyring import Keyring, Roots
from ai_infra.trust.keyring_files import latest_keyring
from ai_infra.trust.keyrings import Keyrings
from ai_infra.trust.session import Session
from ai_infra.trust.signers import LocalSigner
from ai_infra_indexer.replay import LaneVerifier
from ai_infra_indexer.sequence import Head

LANES = 4
SERVICES = ("trainer", "registry", "promoter", "canary", "drift", "indexer")
_START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@dataclass
class World:
    """Says events of one model, each with everything that a verifier asks for."""

    keyring: Keyring
    roots: Roots
    signers: dict[str, LocalSigner]
    model: str = "digits"
    sessions: dict[str, Session] = field(default_factory=dict)
    counters: dict[tuple[str, int], tuple[int, str | None]] = field(default_factory=dict)
    offsets: Any = field(default_factory=itertools.count)
    epoch: int = 1
    clock: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))

    @property
    def lane(self) -> int:
        return lane_of(self.model, LANES)

    def chain(self) -> LocalSigner:
        return self.signers["chain-1"]

    def head(self) -> Head:
        return Head(self.lane, f"example.org/log/lanes/{self.lane}")

    def verifier(self) -> LaneVerifier:
        keyrings = Keyrings(self.roots)
        keyrings.accept(self.keyring.text)
        return LaneVerifier(keyrings, LANES)

    def say(
        self,
        who: str,
        body: Any,
        *,
        causes: Sequence[Event[Any] | Cause] = (),
        event_id: str | None = None,
        subject: str | None = None,
    ) -> Record:
        """The record of an event, appended a millisecond after the one before."""
        key, lane = self._place(body)
        session = self._session(who)
        counted = who in SERVICES and body.TOPIC != "audit.checkpoint"
        seq, prev = self.counters.get((who, lane), (0, None))
        self.clock += timedelta(milliseconds=1)
        signed = compose(
            body,
            key=key,
            lane=lane,
            id=event_id or uuid7(),
            time=self.clock,
            source=f"/test/{who}",
            subject=subject,
            signer=session.signer_id,
            keyring=1,
            delegation=session.delegation,
            sign=session.sign,
            producer=f"{who}/{lane}" if counted else None,
            epoch=self.epoch if counted else None,
            seq=seq + 1 if counted else None,
            prev=prev if counted else None,
            causes=[c if isinstance(c, Cause) else Cause(c.id, c.lane) for c in causes],
        )
        if counted:
            self.counters[(who, lane)] = (seq + 1, signed.hash)
        return self.record(signed)

    def record(self, signed: SignedRecord) -> Record:
        append_ms = int(self.clock.timestamp() * 1000)
        return Record(
            signed.topic,
            signed.partition,
            next(self.offsets),
            append_ms,
            signed.key,
            signed.value,
            tuple(signed.headers),
        )

    def keyring_record(self) -> Record:
        text = self.keyring.text
        body = g.SignerChanged(version=1, keyring=text, keyring_sha256=sha256_hex(text.encode()), reason="first")
        return self.say("operator", body)

    def _place(self, body: Any) -> tuple[str, int]:
        if body.TOPIC in ("signer.changed", "policy.changed"):
            return BROADCAST_KEY, 0
        if getattr(body, "model", None) is not None:
            return body.model, lane_of(body.model, LANES)
        return lane_key(self.lane), self.lane

    def _session(self, who: str) -> Session:
        if who not in self.sessions:
            events = self.keyring.events_of(who)
            signer = self.signers[who if who in self.signers else f"{who}-1"]
            self.sessions[who] = Session(signer, who, events[:12], lambda: 1)
        return self.sessions[who]

    # --- what is said ---------------------------------------------------------------------------------------------

    def queued(self, job_id: str = "job-1", **changes: Any) -> g.JobQueued:
        said: dict[str, Any] = {
            "job_id": job_id,
            "model": self.model,
            "template": "https://example.org/templates/sklearn/v1",
            "code_ref": "git+file:///repo@0123456789abcdef#train.py",
            "dataset_refs": (
                g.DatasetRef(id="digits", checksum=f"sha256:{'a' * 64}", version="1", uri="s3://d/digits"),
            ),
            "hyperparams_json": '{"depth":3}',
            "seed": 7,
            "training_cmd": ("python", "train.py"),
            "resources": g.Resources(cpu_millis=1000, memory_mib=512),
            "time_limit_s": 60,
            "requested_by": "orchestrator",
            "parent_artifacts": (),
        }
        return g.JobQueued(**{**said, **changes})

    def status(self, status: g.JobStatusKind, job_id: str = "job-1", **changes: Any) -> g.JobStatus:
        said: dict[str, Any] = {
            "job_id": job_id,
            "model": self.model,
            "status": status,
            "attempt": 1,
            "runner": "runner-0",
            "queued_time": _START,
            "reason_code": "",
            "reason": "",
            "rules": "trainer/v1",
        }
        return g.JobStatus(**{**said, **changes})

    def registered(self, artifact_id: str = "art-1", version: int = 1, **changes: Any) -> g.ArtifactRegistered:
        said: dict[str, Any] = {
            "artifact_id": artifact_id,
            "model": self.model,
            "version": version,
            "new_version": True,
            "attestation": 1,
            "job_id": "job-1",
            "artifact_uri": f"s3://models/{artifact_id}",
            "artifact_sha256": "b" * 64,
            "artifact_bytes": 1234,
            "manifest_uri": f"s3://models/{artifact_id}.json",
            "manifest_sha256": "c" * 64,
            "manifest_signature_id": f"sig-{artifact_id}",
            "manifest_signature": g.ManifestSignature(
                signer_id="manifest-1", signature="c2ln", ts=_START, envelope="{}"
            ),
            "code_ref": "git+file:///repo@0123456789abcdef#train.py",
            "dataset_refs": (
                g.DatasetRef(id="digits", checksum=f"sha256:{'a' * 64}", version="1", uri="s3://d/digits"),
            ),
            "parent_artifacts": (),
            "input_checksum": "d" * 64,
            "builder_id": "https://example.org/builders/trainer",
            "metadata_json": '{"task":"classification"}',
            "created_by": "orchestrator",
            "keyring_version": 1,
            "rules": "registry/v1",
        }
        return g.ArtifactRegistered(**{**said, **changes})

    def evaluated(self, artifact_id: str = "art-1", **changes: Any) -> g.EvaluationRecorded:
        said: dict[str, Any] = {
            "evaluation_id": "eval-1",
            "artifact_id": artifact_id,
            "model": self.model,
            "dataset_ref": g.DatasetRef(id="holdout", checksum=f"sha256:{'e' * 64}", version="1", uri="s3://d/holdout"),
            "score_e6": 971_000,
            "metrics_e6": {"accuracy": 971_000},
            "evaluator": "ci",
        }
        return g.EvaluationRecorded(**{**said, **changes})

    def promotion(self, artifact_id: str = "art-1", **changes: Any) -> g.PromotionRequested:
        said: dict[str, Any] = {
            "promotion_id": "promo-1",
            "artifact_id": artifact_id,
            "model": self.model,
            "target_env": g.Environment.PROD,
            "reason": "better",
            "evidence": (),
            "emergency": False,
            "requested_by": "orchestrator",
        }
        return g.PromotionRequested(**{**said, **changes})

    def decided(self, status: g.PromotionStatus, **changes: Any) -> g.PromotionDecided:
        said: dict[str, Any] = {
            "promotion_id": "promo-1",
            "model": self.model,
            "artifact_id": "art-1",
            "target_env": g.Environment.PROD,
            "status": status,
            "kind": g.PromotionKind.PROMOTION,
            "reasons": (),
            "verifier_id": "urn:ai-infra:static-threshold",
            "policy_answer_json": '{"decision":"allow"}',
            "policy_version": 0,
            "policy_sha256": "f" * 64,
            "fallback": False,
            "approvals": (),
            "plan_percent": (100,),
            "requested_by": "orchestrator",
            "rules": "promoter/v1",
        }
        return g.PromotionDecided(**{**said, **changes})

    def deployed(self, revision: int = 1, **changes: Any) -> g.DeploymentChanged:
        said: dict[str, Any] = {
            "model": self.model,
            "env": g.Environment.PROD,
            "promotion_id": "promo-1",
            "revision": revision,
            "stable_artifact_id": "art-1",
            "candidate_percent": 0,
            "cause": g.DeploymentCause.PROMOTION_APPLIED,
            "reason": "",
            "rules": "canary/v1",
        }
        return g.DeploymentChanged(**{**said, **changes})

    def story(self) -> list[Record]:
        """From a wish for a training to what serves in prod, each event caused by the one before."""
        records = [self.say("orchestrator", self.queued(), subject="job-1")]
        for who, body in (
            ("trainer", self.status(g.JobStatusKind.QUEUED)),
            ("trainer", self.status(g.JobStatusKind.COMPLETED, artifact_id="art-1", exit_code=0)),
            ("registry", self.registered()),
            ("orchestrator", self.evaluated()),
            ("orchestrator", self.promotion()),
            ("promoter", self.decided(g.PromotionStatus.APPROVED, score_e6=971_000, threshold_e6=850_000)),
            ("canary", self.deployed()),
        ):
            cause = dict(records[-1].headers)["ce_id"].decode()
            records.append(self.say(who, body, causes=[Cause(cause, self.lane)]))
        return records


def worlds(keys: Path | None) -> Callable[..., World]:
    """What makes worlds whose voices have the private keys in this directory; it takes a world's other fields."""
    assert keys is not None
    keyring = latest_keyring(keys)
    assert keyring is not None
    signers = {
        path.stem: LocalSigner(path.stem, read_private_key(path.read_text(), path.stem))
        for path in (keys / "private").glob("*.key")
    }
    return partial(World, keyring, keyring.roots, signers)
