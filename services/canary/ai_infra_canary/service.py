"""The canary as a service: what it listens to and says. It needs no secret but its own service key."""

from __future__ import annotations

import threading
from functools import partial
from typing import Final

from ai_infra.bus.run import run_service
from ai_infra.bus.service import Service
from ai_infra.events.generated import (
    ArtifactRevoked,
    CanaryStatus,
    DeploymentChanged,
    EventRefused,
    ProducerHeartbeat,
    PromotionDecided,
)
from ai_infra.settings import Settings
from ai_infra_canary.decide import RULES, decide
from ai_infra_canary.state import Deployment, RevokedArtifact, Rollout
from ai_infra_canary.verification import PromotionKeys

LISTENS: Final = (PromotionDecided, ArtifactRevoked)


def build(_settings: Settings) -> Service:
    """The canary, ready to be run."""
    keys = PromotionKeys()
    return Service(
        name="canary",
        listens=LISTENS,
        says=(DeploymentChanged, CanaryStatus, EventRefused, ProducerHeartbeat),
        decide=partial(decide, promotion_keys=keys.of),
        rules=RULES,
        records=(Deployment, RevokedArtifact, Rollout),
        learn_keyrings=keys.learn,
    )


def main(settings: Settings, stop: threading.Event) -> int:
    """Run until `stop` is set; returns the exit code."""
    return run_service(build(settings), settings, stop)
