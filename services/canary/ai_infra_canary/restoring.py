"""What the canary knew, from what it has said: what serves, what is held, which promotions it has answered. Pure.

Revocations that it has said nothing about are heard again: they are only remembered, unless the artifact serves.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ai_infra.bus.decision import Put
from ai_infra.bus.restoring import Past, Recalled, Restorer
from ai_infra.events.event import Cause
from ai_infra.events.generated import ArtifactRevoked, CanaryStatus, DeploymentChanged, RolloutState
from ai_infra_canary.service import LISTENS
from ai_infra_canary.state import Deployment, RevokedArtifact, Rollout, artifact_key, deployment_id, rollout_id


def recall(past: Past) -> Recalled:
    """The canary's records, and what it has answered."""
    deployments: dict[str, Deployment] = {}
    revoked: dict[str, RevokedArtifact] = {}
    rollouts: dict[str, Rollout] = {}
    settled: set[str] = set()
    for said in past.said:
        cause = said.causes[0].id if said.causes else ""
        match said.body:
            case DeploymentChanged() as changed if changed.stable_artifact_id is not None:
                deployments[deployment_id(changed.model, changed.env)] = Deployment(
                    revision=changed.revision,
                    stable_artifact_id=changed.stable_artifact_id,
                    previous_stable_artifact_id=changed.previous_stable_artifact_id,
                    promotion_id=changed.promotion_id or "",
                    held="",
                )
                # A `completed` without its change is none: then the decision is applied when it is heard again.
                rollouts[rollout_id(changed.model, changed.promotion_id or "")] = _rollout(RolloutState.COMPLETED)
                settled.add(cause)
            case CanaryStatus(state=RolloutState.REFUSED) as status:
                rollouts[rollout_id(status.model, status.promotion_id)] = _rollout(RolloutState.REFUSED)
                settled.add(cause)
            case CanaryStatus(state=RolloutState.HOLDING) as status:
                current = deployments.get(where := deployment_id(status.model, status.env))
                if current is not None and current.stable_artifact_id == status.artifact_id:
                    deployments[where] = replace(current, held=status.reason)
                heard = past.heard.get(cause)
                if heard is not None and isinstance(heard.body, ArtifactRevoked):
                    because = RevokedArtifact(reason=heard.body.reason, revoked=Cause(heard.id, heard.lane))
                    revoked.setdefault(artifact_key(status.model, status.artifact_id), because)
                    settled.add(cause)
    records = [Put(i, record) for found in (deployments, revoked, rollouts) for i, record in found.items()]
    return Recalled(records, settled)


def _rollout(state: RolloutState) -> Rollout:
    return Rollout(state=state.value)


RESTORER: Final = Restorer("canary", frozenset((*LISTENS, DeploymentChanged, CanaryStatus)), recall)
