"""The roles that a new keyring has: which event types each may say.

This is where the first keyring comes from; what counts afterwards is the signed keyring itself. Kept apart from the
keyring's code because it is policy, not mechanism.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# Every service answers what it refuses, and says how far its own numbering has come.
_SERVICE: Final = ("event.refused", "producer.heartbeat")

ROLES: Final[Mapping[str, tuple[str, ...]]] = {
    "orchestrator": (
        "job.queued",
        "job.cancel_requested",
        "evaluation.recorded",
        "promotion.requested",
        "rollback.requested",
    ),
    "operator": (
        "operator.action",
        "artifact.revoked",
        "signer.changed",
        "policy.changed",
        "rollback.requested",
        "promotion.requested",
        "job.queued",
        "job.cancel_requested",
        "evaluation.recorded",
    ),
    "approver": ("promotion.approval",),
    "trainer": ("job.status", "artifact.produced", "evaluation.recorded", *_SERVICE),
    "registry": ("artifact.registered", "artifact.refused", *_SERVICE),
    "promoter": ("promotion.decided", *_SERVICE),
    "canary": ("deployment.changed", "canary.status", "canary.regression", *_SERVICE),
    "drift": ("drift.suggestion", "job.queued", *_SERVICE),
    "serving": ("serving.status", "serving.window", "serving.profile", *_SERVICE),
    "indexer": ("audit.finding", "audit.checkpoint", *_SERVICE),
}

# Events about a whole lane or the whole system: only a grant for all models covers them. A heartbeat is a service's
# own business in any lane.
WIDE: Final = frozenset({"operator.action", "audit.finding", "audit.checkpoint", "signer.changed", "policy.changed"})

# Never part of the log's producer sequences: counting them would leave holes there.
UNSEQUENCED: Final = frozenset({"serving.window", "serving.profile", "audit.checkpoint"})

# The field of a body that names who speaks, and must be the signer's principal.
SPEAKER: Final[Mapping[str, str]] = {
    "job.queued": "requested_by",
    "job.cancel_requested": "requested_by",
    "promotion.requested": "requested_by",
    "rollback.requested": "requested_by",
    "promotion.approval": "approver",
    "operator.action": "operator",
    "artifact.revoked": "revoked_by",
    "event.refused": "service",
}
