"""Is a decision really the promotion key's? Pure.

A `promotion.decided` event is signed by the promoter's session key; what lets an artifact serve is the envelope inside,
signed by the promotion key. Everything that is acted upon is compared with what that envelope says.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from ai_infra.errors import AiInfraError
from ai_infra.events.canonical import sha256_hex
from ai_infra.events.generated import PromotionDecided
from ai_infra.manifest.decision import PromotionDecision, open_decision
from ai_infra.manifest.exceptions import BadEnvelopeSignature
from ai_infra.trust.keyring import PROMOTION
from ai_infra.trust.keyrings import Keyrings

_SAME: Final = (
    "promotion_id",
    "kind",
    "model",
    "artifact_id",
    "manifest_signature_id",
    "target_env",
    "status",
    "verifier_id",
    "policy_version",
    "policy_sha256",
    "fallback",
    "evaluation_id",
    "score_e6",
    "threshold_e6",
    "expected_current_artifact_id",
    "requested_by",
    "rules",
)


class PromotionKeys:
    """Public keys that may sign decisions, by the published keyring. What it answers for a version never changes."""

    def __init__(self) -> None:
        self._keyrings: Keyrings | None = None

    def learn(self, keyrings: Keyrings) -> None:
        """Given once, before anything is decided."""
        self._keyrings = keyrings

    def of(self, version: int, now: datetime) -> Mapping[str, bytes]:
        """Keys by id that count at that time, by that version of the keyring."""
        keyring = None if self._keyrings is None else self._keyrings.get(version)
        if keyring is None:
            return {}
        now_ms = int(now.timestamp() * 1000)
        return {
            key.id: key.public_key
            for key in keyring.keys.values()
            if key.use == PROMOTION and key.lives_at(now_ms) and key.id not in keyring.revocations
        }


def why_not_genuine(decided: PromotionDecided, keys: Mapping[str, bytes]) -> str:
    """Why the decision's envelope does not stand for it, as a sentence; empty when it does."""
    if not decided.decision_envelope:
        return "unsigned_decision: the decision carries no envelope signed by the promotion key"
    decision: PromotionDecision | None = None
    for public_key in keys.values():
        try:
            decision = open_decision(decided.decision_envelope, public_key)
            break
        except BadEnvelopeSignature:
            continue
        except AiInfraError as error:
            return f"bad_decision_envelope: {error}"
    if decision is None:
        return (
            f"bad_decision_signature: no promotion key that counts now ({', '.join(sorted(keys)) or 'none'}) signed it"
        )
    different = [name for name in _SAME if getattr(decision, name) != getattr(decided, name)]
    if tuple(decided.plan_percent) != decision.plan_percent:
        different.append("plan_percent")
    if sha256_hex(decided.policy_answer_json.encode()) != decision.policy_answer_sha256:
        different.append("policy_answer_json")
    if not decision.passed:
        different.append("passed")
    if different:
        return f"bad_decision_envelope: the envelope says something else than the event about {', '.join(different)}"
    return ""
