"""Real Kafka, Postgres and S3 on one machine, for development, demos and tests. Never for production."""

from ai_infra.devstack.backend import PartStatus
from ai_infra.devstack.claims import claimed_name
from ai_infra.devstack.exceptions import PartFailed, StackError, StackNotRunning, ToolMissing
from ai_infra.devstack.stack import Stack, StackInfo

__all__ = [
    "PartFailed",
    "PartStatus",
    "Stack",
    "StackError",
    "StackInfo",
    "StackNotRunning",
    "ToolMissing",
    "claimed_name",
]
