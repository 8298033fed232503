"""What can be wrong with a manifest, an envelope or a statement. The codes travel into refusals."""

from __future__ import annotations

from ai_infra.errors import AiInfraError


class ManifestError(AiInfraError):
    """Base of this room's errors."""

    code = "manifest"


class BadManifest(ManifestError):
    """The bytes are not a training manifest: not canonical, a field missing, unknown or of the wrong form."""

    code = "bad_manifest"


class BadEnvelope(ManifestError):
    """Not a DSSE envelope, or one with another payload type than expected."""

    code = "bad_envelope"


class BadEnvelopeSignature(ManifestError):
    """No signature of the envelope was made by the expected key."""

    code = "bad_envelope_signature"


class BadStatement(ManifestError):
    """What was signed is not the in-toto statement that was expected."""

    code = "bad_statement"


class StatementTooLarge(ManifestError):
    """A statement is longer than a KMS signs."""

    code = "statement_too_large"
