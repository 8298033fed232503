"""What can go wrong with a stack on this machine: each error names the part, what it saw, and what to do next."""

from __future__ import annotations

from ai_infra.errors import AiInfraError


class StackError(AiInfraError):
    """Base of all errors of the development stack."""

    code = "stack"


class ToolMissing(StackError):
    """A program that a part needs is not on this machine, and there is no other way to get the part."""

    code = "tool_missing"


class PartFailed(StackError):
    """A part or service did not start, ended early, or did not become ready in time."""

    code = "part_failed"


class StackNotRunning(StackError):
    """Something needs a running stack, and it is down."""

    code = "stack_not_running"
