"""Has the manifest key signed that this is the artifact that was registered? Work of kind `verify_manifest`.

It reads the published keyring and nothing else; it holds no key.
"""

from __future__ import annotations

from ai_infra.bus.decision import WorkItem
from ai_infra.errors import AiInfraError, UnavailableError
from ai_infra.events.generated import Reason
from ai_infra.manifest.dsse import Envelope
from ai_infra.manifest.registration import open_registration
from ai_infra.trust.keyring import MANIFEST, Keyring
from ai_infra.trust.keyrings import Keyrings
from ai_infra_promoter.questions import ManifestAnswer, ManifestQuestion


class ManifestVerification:
    """Verifies manifest signatures by the newest published keyring."""

    def __init__(self) -> None:
        self._keyrings: Keyrings | None = None

    def learn(self, keyrings: Keyrings) -> None:
        """Given once, before anything is decided."""
        self._keyrings = keyrings

    def run(self, item: WorkItem) -> ManifestAnswer:
        """Every reason for which the signature does not count; none where it does."""
        if self._keyrings is None or not self._keyrings.latest_version:
            raise UnavailableError("no keyring is known yet")
        return judge_manifest(item.args, self._keyrings.latest)


def judge_manifest(question: ManifestQuestion, keyring: Keyring) -> ManifestAnswer:
    """The answer by a keyring: every reason for which the signature does not count. Pure."""
    key = keyring.key_of(question.signer_id, MANIFEST)
    if key is None:
        return _no(
            "unknown_manifest_key",
            f"the keyring (version {keyring.version}) has no manifest key {question.signer_id!r}",
        )
    if key.id in keyring.revocations:
        return _no("revoked_key", f"the manifest key {key.id} is revoked: {keyring.revocations[key.id].reason}")
    expected = {
        "artifact_id": question.artifact_id,
        "model": question.model,
        "version": question.version,
        "artifact_sha256": question.artifact_sha256,
        "manifest_sha256": question.manifest_sha256,
    }
    try:
        registration = open_registration(question.envelope, key.public_key, expected=expected)
        found = Envelope.parse(question.envelope).signature_id
    except AiInfraError as error:
        return _no("manifest_signature_invalid", f"{error.code}: {error}")
    if found != question.manifest_signature_id:
        return _no("manifest_signature_invalid", f"the envelope's id is {found}, not {question.manifest_signature_id}")
    if not key.lives_at(int(registration.registered_at.timestamp() * 1000)):
        return _no(
            "manifest_signature_invalid",
            f"the key {key.id} did not count when it signed, at {registration.registered_at.isoformat()}",
        )
    return ManifestAnswer(reasons=())


def _no(code: str, detail: str) -> ManifestAnswer:
    return ManifestAnswer(reasons=(Reason(code=code, detail=detail),))
