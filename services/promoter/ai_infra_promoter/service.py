"""The promoter as a service: what it listens to and says, and who answers its questions."""

from __future__ import annotations

import threading
from typing import Final

from ai_infra.bus.run import run_service
from ai_infra.bus.service import Service, WorkKind
from ai_infra.errors import ConfigurationError
from ai_infra.events.generated import (
    ArtifactRegistered,
    ArtifactRevoked,
    CanaryStatus,
    DeploymentChanged,
    EvaluationRecorded,
    EventRefused,
    ProducerHeartbeat,
    PromotionApproval,
    PromotionDecided,
    PromotionRequested,
    RollbackRequested,
)
from ai_infra.settings import Settings
from ai_infra.trust.held_key import HeldKey
from ai_infra.trust.keyrings import Keyrings
from ai_infra.trust.open import open_promotion_signer
from ai_infra_promoter.decide import RULES, decide
from ai_infra_promoter.questions import (
    ASK_POLICY,
    SIGN_DECISION,
    VERIFY_MANIFEST,
    ManifestAnswer,
    ManifestQuestion,
    PolicyAnswer,
    PolicyQuestion,
    SigningAnswer,
    SigningQuestion,
)
from ai_infra_promoter.signing import DecisionSigning
from ai_infra_promoter.state import RECORDS
from ai_infra_promoter.threshold import StaticThreshold
from ai_infra_promoter.verification import ManifestVerification

LISTENS: Final = (
    PromotionRequested,
    PromotionApproval,
    RollbackRequested,
    ArtifactRegistered,
    ArtifactRevoked,
    EvaluationRecorded,
    DeploymentChanged,
    CanaryStatus,
)


def build(settings: Settings) -> Service:
    """The promoter, ready to be run. The policy step has one verifier here: whoever answers `ASK_POLICY` decides.

    Raises ConfigurationError where a policy service is configured: what it was to forbid must not pass a threshold.
    """
    if settings.policy.sentinel_url:
        raise ConfigurationError(
            "AI_INFRA_SENTINEL_URL (or SENTINELNET_URL) names a policy service, and this promoter cannot ask one: it "
            "knows the static threshold alone. Unset it to have promotions decided by AI_INFRA_MIN_PROMO_SCORE."
        )
    verification = ManifestVerification()
    policy = StaticThreshold(settings.policy.min_promo_score_e6)
    key = HeldKey(settings, open_promotion_signer)
    signing = DecisionSigning(key.signer)

    def learn_keyrings(keyrings: Keyrings) -> None:
        verification.learn(keyrings)
        key.learn(keyrings)

    return Service(
        name="promoter",
        listens=LISTENS,
        says=(PromotionDecided, EventRefused, ProducerHeartbeat),
        decide=decide,
        rules=RULES,
        records=RECORDS,
        work={
            # One at a time each, so that of two requests the one asked first is, as a rule, decided first. Who needs to
            # be sure of it says what they expect to serve.
            VERIFY_MANIFEST: WorkKind(
                run=verification.run, args=ManifestQuestion, result=ManifestAnswer, slots=1, quick=True
            ),
            ASK_POLICY: WorkKind(run=policy.run, args=PolicyQuestion, result=PolicyAnswer, slots=1, quick=True),
            SIGN_DECISION: WorkKind(run=signing.run, args=SigningQuestion, result=SigningAnswer, slots=1, quick=True),
        },
        learn_keyrings=learn_keyrings,
    )


def main(settings: Settings, stop: threading.Event) -> int:
    """Run until `stop` is set; returns the exit code."""
    return run_service(build(settings), settings, stop)
