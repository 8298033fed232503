"""Which projection this is. Raised by one with every change of what an entry does to the rows: then the rows that are
there are those of an older one, and are made anew beside the live ones (`reprojection.py`). A test holds that."""

from __future__ import annotations

from typing import Final

PROJECTION: Final[int] = 2
"""1: until each production was kept for itself. 2: with `productions`."""

TABLES: Final = (
    "approvals",
    "artifacts",
    "attestations",
    "deployments",
    "drift_suggestions",
    "evaluations",
    "heartbeats",
    "jobs",
    "keyrings",
    "keys",
    "lineage_edges",
    "operator_actions",
    "policies",
    "productions",
    "promotion_steps",
    "promotions",
    "refused_events",
    "rollout_steps",
    "said_findings",
    "serving_replicas",
    "versions",
)
"""The tables that row changes are about. All others that belong to lanes are the log itself, or what runs it."""
