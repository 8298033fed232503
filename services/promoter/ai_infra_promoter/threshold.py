"""The static threshold as a verifier: who judges where no policy service is configured. Work of kind `ask_policy`.

Its answer has the form of any verifier's answer, so that a policy service takes its place by answering the same
question. It must never allow what it has no score for, but for a rollback to what has served there before: that was
judged when it was promoted, and going back must not wait for a new evaluation.
"""

from __future__ import annotations

from typing import Final

from ai_infra.bus.decision import WorkItem
from ai_infra.events.canonical import canonical_json
from ai_infra.events.generated import PromotionKind, Reason
from ai_infra_promoter.questions import PolicyAnswer, PolicyQuestion

VERIFIER_ID: Final = "urn:ai-infra:verifier:static-threshold"


class StaticThreshold:
    """`min_score_e6`: threshold in millionths where the policy document sets none for the environment."""

    def __init__(self, min_score_e6: int) -> None:
        self._min_score_e6 = min_score_e6

    def run(self, item: WorkItem) -> PolicyAnswer:
        """The verdict."""
        return self.judge(item.args)

    def judge(self, question: PolicyQuestion) -> PolicyAnswer:
        """The verdict."""
        from_policy = question.threshold_e6 is not None
        threshold = question.threshold_e6 if question.threshold_e6 is not None else self._min_score_e6
        reason = _why_not(question, threshold)
        answer = {
            "verifier": VERIFIER_ID,
            "decision": "deny" if reason else "allow",
            "action": f"model.{question.kind.value}",
            "score_e6": question.score_e6,
            "threshold_e6": threshold,
            "threshold_from": "policy" if from_policy else "AI_INFRA_MIN_PROMO_SCORE",
            "evaluation_id": question.evaluation_id,
            "rationale": [reason.code if reason else _why(question)],
        }
        return PolicyAnswer(
            verifier_id=VERIFIER_ID,
            allowed=reason is None,
            reasons=() if reason is None else (reason,),
            answer_json=canonical_json(answer).decode(),
            threshold_e6=threshold,
            fallback=False,
        )


def _why_not(question: PolicyQuestion, threshold: int) -> Reason | None:
    if question.kind == PromotionKind.ROLLBACK and question.served_before:
        return None
    if question.score_e6 is None:
        return Reason(code="evaluation_missing", detail=f"artifact {question.artifact_id} has no evaluation")
    if question.score_e6 < threshold:
        return Reason(
            code="score_below_threshold",
            detail=f"score {question.score_e6 / 1_000_000:.6f} of evaluation {question.evaluation_id} is below "
            f"{threshold / 1_000_000:.6f}, the threshold of {question.env}",
        )
    return None


def _why(question: PolicyQuestion) -> str:
    return "served_before" if question.kind == PromotionKind.ROLLBACK else "score_reaches_threshold"
