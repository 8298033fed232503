"""The typed body of every topic, and the types inside them.

Generated from schemas/ by `python -m ai_infra.events.generate`: change the schema, not this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ai_infra.events.body import Body
from ai_infra.events.generated.artifact_produced import ArtifactProduced
from ai_infra.events.generated.artifact_refused import ArtifactRefused
from ai_infra.events.generated.artifact_registered import ArtifactRegistered, ManifestSignature
from ai_infra.events.generated.artifact_revoked import ArtifactRevoked
from ai_infra.events.generated.audit_checkpoint import AuditCheckpoint
from ai_infra.events.generated.audit_finding import AuditFinding, FindingKind
from ai_infra.events.generated.canary_regression import CanaryRegression
from ai_infra.events.generated.canary_status import CanaryStatus, RolloutState
from ai_infra.events.generated.deployment_changed import DeploymentCause, DeploymentChanged
from ai_infra.events.generated.drift_suggestion import DriftSuggestion, FeatureDrift
from ai_infra.events.generated.evaluation_recorded import EvaluationRecorded
from ai_infra.events.generated.event_refused import EventRefused
from ai_infra.events.generated.job_cancel_requested import JobCancelRequested
from ai_infra.events.generated.job_queued import JobQueued, Resources
from ai_infra.events.generated.job_status import JobStatus, JobStatusKind
from ai_infra.events.generated.operator_action import OperatorAction
from ai_infra.events.generated.policy_changed import PolicyChanged
from ai_infra.events.generated.producer_heartbeat import ProducerHeartbeat
from ai_infra.events.generated.promotion_approval import ApprovalDecision, PromotionApproval
from ai_infra.events.generated.promotion_decided import ApprovalRecord, PromotionDecided, PromotionKind, PromotionStatus
from ai_infra.events.generated.promotion_requested import PromotionRequested
from ai_infra.events.generated.rollback_requested import RollbackRequested
from ai_infra.events.generated.serving_profile import FeatureCounts, ServingProfile
from ai_infra.events.generated.serving_status import LoadState, ServingStatus
from ai_infra.events.generated.serving_window import ServingWindow
from ai_infra.events.generated.shared import Arm, ArmCounts, DatasetRef, Environment, Reason, Verdict, VerdictKind
from ai_infra.events.generated.signer_changed import SignerChanged
from ai_infra.events.generated.schemas import CRC64S, SCHEMAS, TOPIC_OF

# Body class by topic.
BODIES: Final[Mapping[str, type[Body]]] = {
    "artifact.produced": ArtifactProduced,
    "artifact.refused": ArtifactRefused,
    "artifact.registered": ArtifactRegistered,
    "artifact.revoked": ArtifactRevoked,
    "audit.checkpoint": AuditCheckpoint,
    "audit.finding": AuditFinding,
    "canary.regression": CanaryRegression,
    "canary.status": CanaryStatus,
    "deployment.changed": DeploymentChanged,
    "drift.suggestion": DriftSuggestion,
    "evaluation.recorded": EvaluationRecorded,
    "event.refused": EventRefused,
    "job.cancel_requested": JobCancelRequested,
    "job.queued": JobQueued,
    "job.status": JobStatus,
    "operator.action": OperatorAction,
    "policy.changed": PolicyChanged,
    "producer.heartbeat": ProducerHeartbeat,
    "promotion.approval": PromotionApproval,
    "promotion.decided": PromotionDecided,
    "promotion.requested": PromotionRequested,
    "rollback.requested": RollbackRequested,
    "serving.profile": ServingProfile,
    "serving.status": ServingStatus,
    "serving.window": ServingWindow,
    "signer.changed": SignerChanged,
}

__all__ = [
    "ApprovalDecision",
    "ApprovalRecord",
    "Arm",
    "ArmCounts",
    "ArtifactProduced",
    "ArtifactRefused",
    "ArtifactRegistered",
    "ArtifactRevoked",
    "AuditCheckpoint",
    "AuditFinding",
    "BODIES",
    "Body",
    "CRC64S",
    "CanaryRegression",
    "CanaryStatus",
    "DatasetRef",
    "DeploymentCause",
    "DeploymentChanged",
    "DriftSuggestion",
    "Environment",
    "EvaluationRecorded",
    "EventRefused",
    "FeatureCounts",
    "FeatureDrift",
    "FindingKind",
    "JobCancelRequested",
    "JobQueued",
    "JobStatus",
    "JobStatusKind",
    "LoadState",
    "ManifestSignature",
    "OperatorAction",
    "PolicyChanged",
    "ProducerHeartbeat",
    "PromotionApproval",
    "PromotionDecided",
    "PromotionKind",
    "PromotionRequested",
    "PromotionStatus",
    "Reason",
    "Resources",
    "RollbackRequested",
    "RolloutState",
    "SCHEMAS",
    "ServingProfile",
    "ServingStatus",
    "ServingWindow",
    "SignerChanged",
    "TOPIC_OF",
    "Verdict",
    "VerdictKind",
]
