"""The first keys of an installation: roots, keyring version 1, and (outside production) everybody's private keys.

For a stack on one machine `init_keys(directory)` makes everything, private keys included. For production only the root
keys are made here, to be taken offline afterwards; all other keys stay where they are (a KMS) and are named by their
public keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ai_infra.errors import ConfigurationError
from ai_infra.trust.certificate import certify_chain_key, verify_chain_certificate
from ai_infra.trust.ed25519 import new_seed, public_of
from ai_infra.trust.keyring import (
    AUDIT,
    CHAIN,
    EVENTS,
    MANIFEST,
    ORCHESTRATOR,
    PERSON,
    PROMOTION,
    SERVICE,
    Grant,
    Key,
    Keyring,
    Principal,
    Roots,
    now_ms,
)
from ai_infra.trust.keyring_document import sign_keyring, verify_keyring
from ai_infra.trust.keyring_files import make_wrapped_key, private_key_path, write_keyring, write_roots
from ai_infra.trust.roles import ROLES
from ai_infra.trust.signers import LocalSigner, Signer, write_private_key_file
from ai_infra.trust.signers_file import signers_file

ROOT_KEYS: Final = ("root-1", "root-2", "root-3")
ROOT_THRESHOLD: Final = 2
SERVICES: Final = ("trainer", "registry", "promoter", "canary", "drift", "indexer", "serving")
APPROVERS: Final = tuple(f"approver-{number}" for number in range(1, 6))
# Many serving replicas speak for one model, so none of them could number the lane's events.
_UNCOUNTED: Final = frozenset({"serving"})
_OF_NO_ONE: Final = {"audit-1": AUDIT, "manifest-1": MANIFEST, "promotion-1": PROMOTION, "chain-1": CHAIN}
DESCRIPTIONS: Final = {
    AUDIT: "signs checkpoints and the chain key's certificate",
    MANIFEST: "the registry's signature over manifests",
    PROMOTION: "signs promotion decisions",
    CHAIN: "signs the rows of audit_events",
}


@dataclass(frozen=True, slots=True)
class Made:
    """What was made, and where."""

    keyring: Keyring
    directory: Path
    private_keys: tuple[str, ...]


def first_principals(*, people: bool) -> dict[str, Principal]:
    """The principals of a first keyring: the services, and (`people`) an orchestrator, an operator, five approvers."""
    found = [Principal(service, SERVICE, (Grant(service),), counted=service not in _UNCOUNTED) for service in SERVICES]
    if people:
        found.append(Principal("orchestrator", ORCHESTRATOR, (Grant("orchestrator"),)))
        found.append(Principal("operator", PERSON, (Grant("operator"),)))
        found += [Principal(approver, PERSON, (Grant("approver"),)) for approver in APPROVERS]
    return {principal.id: principal for principal in found}


def key_plan(*, people: bool) -> dict[str, tuple[str, str]]:
    """Key ids of a first keyring, each with its principal and its use."""
    plan = {key_id: ("", use) for key_id, use in _OF_NO_ONE.items()}
    plan |= {f"{service}-1": (service, EVENTS) for service in SERVICES}
    if people:
        plan |= {"orchestrator-1": ("orchestrator", EVENTS), "operator-1": ("operator", EVENTS)}
        plan |= {approver: (approver, EVENTS) for approver in APPROVERS}
    return plan


def init_keys(directory: Path) -> Made:
    """Makes all keys of a stack on one machine, private ones in `directory/private`. Refuses a directory in use.

    Never for production: whoever can read the directory can say anything.
    """
    _refuse_used(directory)
    seeds = {key_id: new_seed() for key_id in key_plan(people=True)}
    for key_id, seed in seeds.items():
        write_private_key_file(private_key_path(directory, key_id), seed)
    public_keys = {key_id: public_of(seed) for key_id, seed in seeds.items()}
    made = _write(directory, public_keys, people=True, audit=LocalSigner("audit-1", seeds["audit-1"]))
    return replace(made, private_keys=(*made.private_keys, *seeds))


def init_production_keys(directory: Path, public_keys: Mapping[str, bytes], audit: Signer) -> Made:
    """Makes root keys and keyring version 1 for production. `public_keys`: of the keys in the KMS, by key id.

    The root keys' private halves are written to `directory/private`, to be moved offline. A chain key that is not given
    is made, and wrapped by the audit key. Raises ConfigurationError where another key is missing.
    """
    _refuse_used(directory)
    missing = sorted(set(key_plan(people=False)) - set(public_keys) - {"chain-1"})
    if missing:
        raise ConfigurationError(
            f"These keys are not given: {', '.join(missing)}. Name each by --key ID=URI (a key in a KMS), "
            "or by --public ID=BASE64."
        )
    unknown = sorted(set(public_keys) - set(key_plan(people=False)))
    if unknown:
        raise ConfigurationError(
            f"The first keyring has no key {', '.join(unknown)}. Add others afterwards with `ai-infra keys new`."
        )
    if "chain-1" not in public_keys:
        public_keys = {**public_keys, "chain-1": make_wrapped_key(directory, "chain-1", audit)}
    return _write(directory, public_keys, people=False, audit=audit)


def _write(directory: Path, public_keys: Mapping[str, bytes], *, people: bool, audit: Signer) -> Made:
    roots = {key_id: new_seed() for key_id in ROOT_KEYS}
    signers = [LocalSigner(key_id, seed) for key_id, seed in roots.items()]
    now = now_ms()
    content = Keyring(
        version=1,
        created_at=now,
        roots=Roots({signer.key_id: signer.public_key for signer in signers}, ROOT_THRESHOLD),
        keys={
            key_id: Key(
                id=key_id,
                public_key=public_keys[key_id],
                principal=principal,
                use=use,
                deployed_at=now,
                description=DESCRIPTIONS.get(use, ""),
            )
            for key_id, (principal, use) in key_plan(people=people).items()
        },
        principals=first_principals(people=people),
        roles={role: frozenset(events) for role, events in ROLES.items()},
        revocations={},
    )
    keyring = verify_keyring(sign_keyring(content, signers), content.roots)
    certificate = certify_chain_key(audit, "chain-1", public_keys["chain-1"], issued_at=now)
    verify_chain_certificate(certificate, keyring)
    for key_id, seed in roots.items():
        write_private_key_file(private_key_path(directory, key_id), seed)
    write_keyring(directory, keyring)
    (directory / "chain-1.certificate.json").write_text(certificate + "\n")
    (directory / "signers.json").write_text(signers_file(keyring))
    write_roots(directory, keyring.roots)  # last: its presence says that the directory is complete
    return Made(keyring, directory, tuple(roots))


def _refuse_used(directory: Path) -> None:
    if directory.exists() and any(directory.iterdir()):
        raise ConfigurationError(
            f"{directory} is not empty. Keys are made once; change them with the other `ai-infra keys` commands, "
            "or name another directory."
        )
