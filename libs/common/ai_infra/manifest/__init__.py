"""Manifests, provenance, registrations, approvals and decisions: what is signed about an artifact. Pure.

All signatures are DSSE envelopes over in-toto statements of at most 4,096 bytes, so that any KMS can make them; what a
verifier gets is read from the very bytes that were verified. This room must never hold a key: it is handed a callable.

    training.py      TrainingManifest.of(model=, template=, code_ref=, ..., created_at=) computes artifact_id and
                     input_checksum; .to_bytes() (RFC 8785), .sha256, TrainingManifest.from_bytes(data) (strict),
                     .problems() -> tuple[Reason, ...]; LogRef(name, uri, sha256)
    identity.py      artifact_id(model, sha256); input_checksum(code_ref=, container_digest=, hyperparams=,
                     dataset_refs=, seed=); manifest_signature_id(envelope_bytes)
    code_ref.py      CodeRef.parse(text): .url, .commit, .path, .image_digest
    dsse.py          sign_envelope(payload, sign, key_id, payload_type=, public_key=None) -> Envelope
                     Envelope.parse(text | bytes): .verify(public_key) -> payload, .to_text(), .sha256, .signature_id
    statement.py     Statement(subjects, predicate_type, predicate): .sign(sign, key_id); open_statement(envelope, ...)
    provenance.py    provenance_statement(manifest, Run(builder_id=, started_on=, finished_on=, manifest_uri=))
                         -> Statement, then .sign(session.sign, session.signer_id) -> Envelope -> .to_text()
                     open_provenance(envelope, public_key) -> Provenance(builder_id, artifact_sha256, ...)
                     disagreements(provenance, manifest, manifest_sha256) -> tuple[Reason, ...]
    registration.py  Registration(...); sign_registration(registration, sign, signer_id) -> ManifestSignature
                     open_registration(envelope_text, public_key, expected={...}) -> Registration
    decision.py      PromotionDecision(...); sign_decision(decision, sign, signer_id) -> Envelope; open_decision(...)
    approval.py      Approval(...); sign_approval(approval, sign, key_id) -> Envelope; open_approval(...)
    exceptions.py    BadManifest, BadEnvelope, BadEnvelopeSignature, BadStatement, StatementTooLarge
"""
