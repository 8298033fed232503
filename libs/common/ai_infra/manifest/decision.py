"""The promoter's decision, signed with the promotion key: a SLSA verification summary that carries the promotion.

Stock tools read who verified what against which policy and with what result; our own facts are in the extension
`aiInfra_promotion` (SLSA asks extensions to be named `<vendor>_<field>`). Scores are millionths, never fractions.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from ai_infra.errors import AiInfraError
from ai_infra.events.avro import rfc3339
from ai_infra.events.lanes import MODEL_NAME
from ai_infra.manifest.dsse import Envelope, Sign
from ai_infra.manifest.exceptions import BadStatement
from ai_infra.manifest.reading import SHA256_HEX, Fields
from ai_infra.manifest.statement import Statement, Subject, open_statement

PREDICATE_TYPE: Final = "https://slsa.dev/verification_summary/v1"
EXTENSION: Final = "aiInfra_promotion"
PASSED: Final = "PASSED"
FAILED: Final = "FAILED"
_ARTIFACT: Final = "artifact"
_MANIFEST: Final = "manifest"
_MAX_APPROVALS: Final = 8
_BIG: Final = 2**53 - 1
_REMEMBERED: Final = 256  # a replay that looks for an order of hearing reads the same few thousands of times


@dataclass(frozen=True, slots=True)
class CountedApproval:
    """An approval that counted: who, with which key, and the SHA-256 of the approval's envelope."""

    approver: str
    key_id: str
    envelope_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionDecision:
    """One step of a promotion. `passed` is whether the artifact may serve there; `status` is the promotion's word.

    `policy_answer_sha256` is over the policy's whole answer, which is in the event. `decided_at` is the decision's own
    time. `expected_current_artifact_id`: None for "do not care", empty for "nothing serves".
    """

    promotion_id: str
    kind: str
    model: str
    artifact_id: str
    artifact_sha256: str
    manifest_sha256: str
    manifest_signature_id: str | None
    target_env: str
    status: str
    passed: bool
    verifier_id: str
    policy_version: int
    policy_sha256: str
    policy_answer_sha256: str
    fallback: bool
    evaluation_id: str | None
    score_e6: int | None
    threshold_e6: int | None
    approvals: tuple[CountedApproval, ...]
    expected_current_artifact_id: str | None
    plan_percent: tuple[int, ...]
    requested_by: str
    request_event_id: str
    keyring_version: int
    rules: str
    decided_at: datetime

    def statement(self) -> Statement:
        """The in-toto statement with the verification summary."""
        if len(self.approvals) > _MAX_APPROVALS:
            raise BadStatement(f"at most {_MAX_APPROVALS} approvals count for a decision, not {len(self.approvals)}")
        return Statement(
            (Subject(_ARTIFACT, self.artifact_sha256), Subject(_MANIFEST, self.manifest_sha256)),
            PREDICATE_TYPE,
            {
                "verifier": {"id": self.verifier_id},
                "timeVerified": rfc3339(self.decided_at),
                "resourceUri": f"urn:ai-infra:model:{self.model}:{self.target_env}",
                "policy": {
                    "uri": f"urn:ai-infra:policy:{self.policy_version}",
                    "digest": {"sha256": self.policy_sha256},
                },
                "inputAttestations": [{"digest": {"sha256": item.envelope_sha256}} for item in self.approvals],
                "verificationResult": PASSED if self.passed else FAILED,
                "verifiedLevels": [f"AI_INFRA_PROMOTED_{self.target_env.upper()}"] if self.passed else [FAILED],
                EXTENSION: self._extension(),
            },
        )

    def _extension(self) -> dict[str, Any]:
        return {
            "approvals": [[item.approver, item.key_id, item.envelope_sha256] for item in self.approvals],
            "promotion_id": self.promotion_id,
            "kind": self.kind,
            "model": self.model,
            "artifact_id": self.artifact_id,
            "manifest_signature_id": self.manifest_signature_id,
            "target_env": self.target_env,
            "status": self.status,
            "policy_version": self.policy_version,
            "policy_answer_sha256": self.policy_answer_sha256,
            "fallback": self.fallback,
            "evaluation_id": self.evaluation_id,
            "score_e6": self.score_e6,
            "threshold_e6": self.threshold_e6,
            "expected_current_artifact_id": self.expected_current_artifact_id,
            "plan_percent": list(self.plan_percent),
            "requested_by": self.requested_by,
            "request_event_id": self.request_event_id,
            "keyring_version": self.keyring_version,
            "rules": self.rules,
        }


def sign_decision(
    decision: PromotionDecision, sign: Sign, signer_id: str, *, public_key: bytes | None = None
) -> Envelope:
    """Sign with the promotion key."""
    return decision.statement().sign(sign, signer_id, public_key=public_key)


def open_decision(envelope: str | bytes, public_key: bytes) -> PromotionDecision:
    """Verify a decision's envelope against the promotion key, and read it.

    Whoever acts on a promotion.decided event compares each fact with this one first: the event has another signer.
    """
    return _read(open_statement(Envelope.parse(envelope), public_key, PREDICATE_TYPE))


@lru_cache(maxsize=_REMEMBERED)
def unverified_decision(envelope: str) -> PromotionDecision | None:
    """What a decision's envelope states, unverified: to know where to look. None for what cannot be read."""
    try:
        return _read(Statement.parse(Envelope.parse(envelope).payload, PREDICATE_TYPE))
    except AiInfraError:
        return None


def _read(statement: Statement) -> PromotionDecision:
    summary = Fields(statement.predicate, BadStatement, "decision")
    result = summary.text("verificationResult")
    if result not in (PASSED, FAILED):
        raise summary.fail("verificationResult", f"{PASSED} or {FAILED}", result)
    fields = summary.fields(EXTENSION)
    approvals = tuple(_approval(item) for item in fields.list("approvals", _MAX_APPROVALS))
    decision = PromotionDecision(
        promotion_id=fields.text("promotion_id"),
        kind=fields.text("kind"),
        model=fields.text("model", MODEL_NAME),
        artifact_id=fields.text("artifact_id"),
        artifact_sha256=statement.subject(_ARTIFACT),
        manifest_sha256=statement.subject(_MANIFEST),
        manifest_signature_id=fields.optional_text("manifest_signature_id"),
        target_env=fields.text("target_env"),
        status=fields.text("status"),
        passed=result == PASSED,
        verifier_id=summary.fields("verifier").text("id"),
        policy_version=fields.integer("policy_version"),
        policy_sha256=summary.fields("policy").fields("digest").text("sha256", SHA256_HEX),
        policy_answer_sha256=fields.text("policy_answer_sha256", SHA256_HEX),
        fallback=fields.boolean("fallback"),
        evaluation_id=fields.optional_text("evaluation_id"),
        score_e6=fields.optional_integer("score_e6", -_BIG),
        threshold_e6=fields.optional_integer("threshold_e6", -_BIG),
        approvals=approvals,
        expected_current_artifact_id=fields.optional_text("expected_current_artifact_id"),
        plan_percent=_percent(fields.list("plan_percent", 100)),
        requested_by=fields.text("requested_by"),
        request_event_id=fields.text("request_event_id"),
        keyring_version=fields.integer("keyring_version"),
        rules=fields.text("rules"),
        decided_at=summary.time("timeVerified"),
    )
    fields.end()
    if decision.statement().to_bytes() != statement.to_bytes():
        raise BadStatement("the summary and its extension speak of different decisions")
    return decision


def _approval(item: Any) -> CountedApproval:
    if not isinstance(item, list) or len(item) != 3 or not all(isinstance(part, str) for part in item):
        raise BadStatement("an approval in a decision is [approver, key id, SHA-256 of the envelope]")
    if not SHA256_HEX.fullmatch(item[2]):
        raise BadStatement(f"the SHA-256 of an approval's envelope is 64 hex digits, not {item[2][:80]!r}")
    return CountedApproval(*item)


def _percent(values: list[Any]) -> tuple[int, ...]:
    if not all(type(value) is int and 0 <= value <= 100 for value in values):
        raise BadStatement(f"a plan is a list of percentages, not {repr(values)[:120]}")
    return tuple(values)
