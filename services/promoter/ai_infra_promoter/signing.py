"""The promotion key's signature over a step of a promotion. Work of kind `sign_decision`.

The same step gives the same envelope again, so repeating it is harmless.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from ai_infra.bus.decision import WorkItem
from ai_infra.events.canonical import sha256_hex
from ai_infra.events.generated import PromotionStatus
from ai_infra.manifest.decision import CountedApproval, PromotionDecision, sign_decision
from ai_infra.telemetry import metrics
from ai_infra.trust.signers import Signer
from ai_infra_promoter.questions import SigningAnswer, SigningQuestion

PASSED: Final = frozenset(
    {
        PromotionStatus.APPROVED,
        PromotionStatus.APPLIED,
        PromotionStatus.EMERGENCY_APPLIED,
        PromotionStatus.RATIFIED,
    }
)
_DECISIONS: Final = (PromotionStatus.APPROVED, PromotionStatus.REJECTED, PromotionStatus.EXPIRED)


class DecisionSigning:
    """Signs with the promotion key. A KMS that is away delays, and ends no process that runs."""

    def __init__(self, signer: Callable[[], Signer]) -> None:
        self._signer = signer

    def run(self, item: WorkItem) -> SigningAnswer:
        """The envelope. Raises what the signer raises, retriable while the KMS is away."""
        question: SigningQuestion = item.args
        signer = self._signer()
        envelope = sign_decision(statement_of(question), signer.sign, signer.key_id, public_key=signer.public_key)
        if question.step.status in _DECISIONS:
            waited = (datetime.now(UTC) - question.requested_at).total_seconds()
            metrics.PROMOTION_LATENCY.labels(question.step.status.value).observe(max(0.0, waited))
        return SigningAnswer(envelope=envelope.to_text())


def statement_of(question: SigningQuestion) -> PromotionDecision:
    """What is signed: every fact of the step, the long ones by digest."""
    step = question.step
    return PromotionDecision(
        promotion_id=step.promotion_id,
        kind=step.kind.value,
        model=step.model,
        artifact_id=step.artifact_id,
        artifact_sha256=question.artifact_sha256,
        manifest_sha256=question.manifest_sha256,
        manifest_signature_id=step.manifest_signature_id,
        target_env=step.target_env.value,
        status=step.status.value,
        passed=step.status in PASSED,
        verifier_id=step.verifier_id,
        policy_version=step.policy_version,
        policy_sha256=step.policy_sha256,
        policy_answer_sha256=sha256_hex(step.policy_answer_json.encode()),
        fallback=step.fallback,
        evaluation_id=step.evaluation_id,
        score_e6=step.score_e6,
        threshold_e6=step.threshold_e6,
        approvals=tuple(CountedApproval(a.approver, a.key_id, a.envelope_sha256) for a in step.approvals),
        expected_current_artifact_id=step.expected_current_artifact_id,
        plan_percent=tuple(step.plan_percent),
        requested_by=step.requested_by,
        request_event_id=question.request.id,
        keyring_version=question.keyring,
        rules=step.rules,
        decided_at=question.decided_at,
    )
