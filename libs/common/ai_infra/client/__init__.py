"""The SDK: say something, wait for what comes of it, listen. It needs Kafka and a key; no database, no object store.

    from ai_infra.client import Client

    with Client.from_env() as client:
        job = client.submit_job(model="digits", code_ref="git+https://…@<commit>", training_cmd=["python", "train.py"])
        result = client.wait(job, timeout=600)
        print(result.artifact_id, result.version)

Everything that it returns has been verified: signature, delegation, role. It must never guess an answer: a wait ends
with the answer, with the refusal and its reasons, or with a time-out.
"""

from ai_infra.client.client import Client
from ai_infra.client.exceptions import (
    AnswerTimeout,
    ArtifactRefusedError,
    ClientClosed,
    ClientError,
    EventRefusedError,
    JobFailedError,
    NegativeAnswer,
    NotAcknowledged,
    PromotionRejectedError,
)
from ai_infra.client.handles import Job, JobResult, Promotion, PromotionResult, Published
from ai_infra.client.subscription import Subscription
from ai_infra.events.generated import DatasetRef, Environment, Resources

__all__ = [
    "AnswerTimeout",
    "ArtifactRefusedError",
    "Client",
    "ClientClosed",
    "ClientError",
    "DatasetRef",
    "Environment",
    "EventRefusedError",
    "Job",
    "JobFailedError",
    "JobResult",
    "NegativeAnswer",
    "NotAcknowledged",
    "Promotion",
    "PromotionRejectedError",
    "PromotionResult",
    "Published",
    "Resources",
    "Subscription",
]
