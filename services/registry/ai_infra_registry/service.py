"""The registry as a service: what it listens to and says, and how it starts."""

from __future__ import annotations

import threading
from functools import cache
from typing import Final

from ai_infra.bus.decision import WorkItem
from ai_infra.bus.following import Following
from ai_infra.bus.run import run_service
from ai_infra.bus.service import Service, WorkKind
from ai_infra.events.generated import (
    ArtifactProduced,
    ArtifactRefused,
    ArtifactRegistered,
    ArtifactRevoked,
    EventRefused,
)
from ai_infra.objects.store import ObjectStore
from ai_infra.settings import Settings
from ai_infra.trust.held_key import HeldKey
from ai_infra.trust.open import open_manifest_signer
from ai_infra_registry.decide import RULES, decide
from ai_infra_registry.signing import Pen
from ai_infra_registry.state import (
    Artifact,
    Attestation,
    Claim,
    Finding,
    Signature,
    Signing,
    ToSign,
    Verified,
    Versions,
    Waiting,
)
from ai_infra_registry.verification import Verification

NAME: Final = "registry"
LISTENS: Final = (ArtifactProduced, ArtifactRevoked)
SAYS: Final = (ArtifactRegistered, ArtifactRefused, EventRefused)
SLOTS: Final = 4  # verifications at once: they wait for the object store more than for a processor


def build(settings: Settings) -> Service:
    """The registry as these settings describe it. Opens nothing: the manifest key is opened at the start, by the
    published keyring, and the store by the first work."""
    following = Following(settings, NAME)

    @cache
    def objects() -> ObjectStore:
        return ObjectStore(settings)

    verification = Verification(objects, lambda version: following.await_version(version).latest)
    key = HeldKey(settings, open_manifest_signer)
    pen = Pen(key.signer, lambda: following.keyrings.latest)

    def verify(item: WorkItem) -> Finding:
        return verification.verify(item.args)

    def sign(item: WorkItem) -> Signature:
        return pen.sign(item.args)

    return Service(
        name=NAME,
        listens=LISTENS,
        says=SAYS,
        decide=decide,
        rules=RULES,
        records=(Versions, Artifact, Attestation, Waiting, Verified, Signing),
        work={
            "verify": WorkKind(run=verify, args=Claim, result=Finding, slots=SLOTS, quick=True),
            "sign": WorkKind(run=sign, args=ToSign, result=Signature, slots=SLOTS, quick=True),
        },
        learn_keyrings=key.learn,
    )


def main(settings: Settings, stop: threading.Event) -> int:
    """Run the registry until `stop` is set."""
    return run_service(build(settings), settings, stop)
