"""What can come of a wish: refused, failed, rejected, not answered in time. Each says what came and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ai_infra.errors import AiInfraError

if TYPE_CHECKING:
    from ai_infra.client.handles import Published
    from ai_infra.events.event import Event
    from ai_infra.events.generated import Reason


class ClientError(AiInfraError):
    """Base of the SDK's errors."""

    code = "client"


class ClientClosed(ClientError):
    """The client was closed while something waited on it, or is used after that."""

    code = "client_closed"


class NotAcknowledged(ClientError):
    """No broker acknowledged the event in time. It may be in the log all the same: `client.resend(*error.waiting)`
    sends the very same signed bytes again, and who has heard them hears them once.

    `waiting`: all that were not acknowledged, in the order in which they were given. `published`: the first of them.
    """

    code = "not_acknowledged"

    def __init__(self, message: str, waiting: Sequence[Published]) -> None:
        super().__init__(message)
        self.waiting = tuple(waiting)
        self.published = self.waiting[0]


class AnswerTimeout(ClientError):
    """No answer within the time given. Waiting again goes on where this wait began: nothing is missed."""

    code = "timed_out"


class NegativeAnswer(ClientError):
    """The answer is no. `reasons` are all of them, `event` is the event that said so."""

    code = "refused"

    def __init__(self, message: str, *, reasons: Sequence[Reason], event: Event[Any], code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.reasons = tuple(reasons)
        self.event = event


class EventRefusedError(NegativeAnswer):
    """A service refused the event itself (`event.refused`)."""


class ArtifactRefusedError(NegativeAnswer):
    """The registry refused what a job produced (`artifact.refused`)."""


class JobFailedError(NegativeAnswer):
    """The job ended without an artifact: failed, cancelled or timed out (`job.status`)."""


class PromotionRejectedError(NegativeAnswer):
    """The promotion was rejected, expired, or revoked (`promotion.decided`)."""
