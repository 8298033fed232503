"""What the promoter asks of the world, and what it is answered: arguments and results of its three kinds of work.

Each question carries all facts that its answer rests on, so that the decision can say them, whatever has become known
in the meantime.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from ai_infra.events.event import Cause
from ai_infra.events.generated import Environment, PromotionDecided, PromotionKind, Reason

VERIFY_MANIFEST: Final = "verify_manifest"
ASK_POLICY: Final = "ask_policy"
SIGN_DECISION: Final = "sign_decision"


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestQuestion:
    """Has the manifest key signed that this is the artifact that was registered?"""

    promotion_id: str
    model: str
    artifact_id: str
    version: int
    artifact_sha256: str
    manifest_sha256: str
    manifest_signature_id: str
    signer_id: str
    envelope: str
    tries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestAnswer:
    """`reasons` is empty where the signature is good."""

    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyQuestion:
    """May this artifact serve there? `threshold_e6`: from the policy document; None: the setting of this process.

    `facts` are the events that the facts come from.
    """

    promotion_id: str
    model: str
    artifact_id: str
    env: Environment
    kind: PromotionKind
    requested_by: str
    manifest_signature_id: str
    evaluation_id: str | None
    score_e6: int | None
    threshold_e6: int | None
    served_before: bool
    facts: tuple[Cause, ...]
    tries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyAnswer:
    """A verifier's verdict; anything but `allowed` is not an allow. `answer_json`: the whole answer, canonical JSON."""

    verifier_id: str
    allowed: bool
    reasons: tuple[Reason, ...]
    answer_json: str
    threshold_e6: int | None
    fallback: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningQuestion:
    """Sign this step with the promotion key. `decided_at` is the decision's own time, inside what is signed."""

    step: PromotionDecided
    artifact_sha256: str
    manifest_sha256: str
    request: Cause
    facts: tuple[Cause, ...]
    requested_at: datetime
    decided_at: datetime
    keyring: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningAnswer:
    """The DSSE envelope (JSON) over the decision's statement."""

    envelope: str
