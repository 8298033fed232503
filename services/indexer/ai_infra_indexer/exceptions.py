"""What stops an indexer's lane, and what an audit finds."""

from __future__ import annotations

from ai_infra.errors import AiInfraError


class IndexerError(AiInfraError):
    """Base of this service's errors."""

    code = "indexer"


class LaneLost(IndexerError):
    """The lane's head is not where this process left it: another writer has it. Nothing of ours may be released."""

    code = "lane_lost"


class Forked(IndexerError):
    """Postgres and the archive tell two histories of one lane. Needs a person; nothing is written until then."""

    code = "forked"


class MalformedEntry(IndexerError):
    """Bytes that are not a log entry of ours."""

    code = "malformed_entry"


class EntryTooLarge(IndexerError):
    """An event whose log entry would not fit an entry bundle. It had verified, so its sender is told."""

    code = "entry_too_large"
    signer_known = True


class ProjectionRefused(IndexerError):
    """An entry that is in the log but whose meaning contradicts what the lane already knows."""

    code = "projection_refused"


class AuditFailed(IndexerError):
    """An audit found problems; the report names each."""

    code = "audit_failed"
