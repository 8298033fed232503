"""What the canary remembers of a lane: what serves, which artifacts are revoked, which promotions it has answered.

Ids begin with the model, because a lane holds many models.
"""

from __future__ import annotations

from dataclasses import dataclass

from ai_infra.events.event import Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What serves in (model, environment). Id: `<model>/<environment>`.

    `revision` counts the changes from 1. `held` says why nothing happens by itself any more (the artifact that serves
    was revoked); empty when all is well. The next applied decision ends a hold.
    """

    revision: int
    stable_artifact_id: str
    previous_stable_artifact_id: str | None
    promotion_id: str
    held: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokedArtifact:
    """An artifact that must not serve, why, and by which event. Id: `<model>/<artifact_id>`. Never forgotten."""

    reason: str
    revoked: Cause | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """The answer that a promotion got, `completed` or `refused`; never a second. Id: `<model>/<promotion_id>`."""

    state: str


def deployment_id(model: str, env: str) -> str:
    """Id of the record of what serves."""
    return f"{model}/{env}"


def artifact_key(model: str, artifact_id: str) -> str:
    """Id of a record about an artifact of a model."""
    return f"{model}/{artifact_id}"


def rollout_id(model: str, promotion_id: str) -> str:
    """Id of the record of a promotion's rollout."""
    return f"{model}/{promotion_id}"
