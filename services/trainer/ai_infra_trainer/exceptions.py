"""What can go wrong with a job, by name.

Two kinds: `TrainingFailed` is the job's own fault and final (its code goes into `job.status`), `RunnerUnavailable` is
the world's and worth another try.
"""

from __future__ import annotations

from ai_infra.errors import AiInfraError, UnavailableError


class TrainingFailed(AiInfraError):
    """The job cannot be completed as it was asked for; trying again would end the same."""

    code = "training_failed"


class CodeMismatch(TrainingFailed):
    """The code at that commit and path cannot be had, or is not what was named."""

    code = "code_mismatch"


class DatasetMismatch(TrainingFailed):
    """A dataset is missing, too large, or has other bytes than the job pinned."""

    code = "dataset_mismatch"


class BadOutput(TrainingFailed):
    """The training left something that cannot become an artifact."""

    code = "bad_output"


class RunnerUnfit(AiInfraError):
    """This machine cannot run a training safely; says what to change."""

    code = "runner_unfit"


class RunnerUnavailable(UnavailableError):
    """Something that the runner needs (repository, dataset, object store) does not answer."""

    code = "runner_unavailable"


class Cancelled(AiInfraError):
    """The work is no longer wanted here; whoever still wants it may start it again."""

    code = "cancelled"
    retriable = True
