"""The keyring: which keys, people and roles there are; versioned, and signed by a threshold of root keys.

As TUF does it, version N+1 is signed by thresholds of the roots of N and of its own; the roots of the first are pinned
in a file. A `Keyring` exists only once its signatures and its content have been checked (`verify_keyring`), and never
changes. It answers questions; what they mean for a record is `ai_infra.trust.verify`'s business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import translate
from typing import Final

from ai_infra.events.canonical import sha256_hex
from ai_infra.trust.exceptions import KeyringError

# What a key may be used for; a key of one use never counts for another.
EVENTS, AUDIT, MANIFEST, PROMOTION, CHAIN = "events", "audit", "manifest", "promotion", "chain"
USES: Final = (EVENTS, AUDIT, MANIFEST, PROMOTION, CHAIN)
SERVICE, PERSON, ORCHESTRATOR = "service", "person", "orchestrator"
KINDS: Final = (SERVICE, PERSON, ORCHESTRATOR)
ALL_MODELS: Final = "*"


@dataclass(frozen=True, slots=True)
class Roots:
    """Root keys by id, and how many of them must sign."""

    keys: Mapping[str, bytes]
    threshold: int

    def __post_init__(self) -> None:
        different = len(set(self.keys.values()))
        if not 1 <= self.threshold <= different:
            raise KeyringError(f"A threshold of {self.threshold} among {different} root keys makes no sense.")


@dataclass(frozen=True, slots=True)
class Key:
    """A public key, whose it is, and when it counts. Times are ms since the epoch, both ends included; None: open."""

    id: str
    public_key: bytes
    principal: str
    use: str = EVENTS
    not_before: int | None = None
    not_after: int | None = None
    deployed_at: int = 0
    description: str = ""

    def lives_at(self, time_ms: int) -> bool:
        return (self.not_before is None or time_ms >= self.not_before) and (
            self.not_after is None or time_ms <= self.not_after
        )


@dataclass(frozen=True, slots=True)
class Grant:
    """A role, for models that match one of the patterns, in these environments (none named: in all)."""

    role: str
    models: tuple[str, ...] = (ALL_MODELS,)
    environments: tuple[str, ...] = ()
    _model: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.models:
            raise KeyringError(f"The grant of {self.role} names no model pattern; '*' stands for all models.")
        object.__setattr__(self, "_model", re.compile("|".join(translate(pattern) for pattern in self.models)))

    @property
    def wide(self) -> bool:
        """Whether it is for all models."""
        return ALL_MODELS in self.models

    def covers(self, model: str | None, environment: str | None) -> bool:
        """Whether it reaches this model and this environment; None stands for what the event isn't about."""
        return (model is None or self._model.match(model) is not None) and (
            environment is None or not self.environments or environment in self.environments
        )


@dataclass(frozen=True, slots=True)
class Principal:
    """A service, a person or an orchestrator: who may hold several keys. Approvals count principals, not keys.

    `counted`: its events carry (producer, epoch, seq), so that one withheld shows.
    """

    id: str
    kind: str
    grants: tuple[Grant, ...] = ()
    counted: bool = False


@dataclass(frozen=True, slots=True)
class Revocation:
    """A key's end. It takes effect in a lane where the keyring that holds it was entered there.

    `positions`: a retroactive revocation names, per lane, the first log index from which entries by that key are void.
    `revoked_at`: ms since the epoch; for what is in no lane (state records).
    """

    key: str
    revoked_at: int
    reason: str
    positions: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Keyring:
    """A verified version of the keyring. `text` is what was signed, as it is published and kept."""

    version: int
    created_at: int
    roots: Roots
    keys: Mapping[str, Key]
    principals: Mapping[str, Principal]
    roles: Mapping[str, frozenset[str]]
    revocations: Mapping[str, Revocation]
    text: str = field(repr=False, default="")

    @property
    def sha256(self) -> str:
        """SHA-256 of the signed text, 64 hex digits."""
        return sha256_hex(self.text.encode())

    def key_of(self, key_id: str, use: str = EVENTS) -> Key | None:
        """The key, where it has that use."""
        key = self.keys.get(key_id)
        return key if key is not None and key.use == use else None

    def principal_of(self, key_id: str) -> Principal | None:
        """Whose key it is; keys that are no one's (audit, manifest, promotion, chain) have none."""
        key = self.keys.get(key_id)
        return self.principals.get(key.principal) if key is not None else None

    def events_of(self, principal: str) -> tuple[str, ...]:
        """Every event type that a principal may say of some model: what its delegation should list."""
        found = self.principals.get(principal)
        if found is None:
            return ()
        return tuple(sorted({event for grant in found.grants for event in self.roles[grant.role]}))

    def holders(self, role: str) -> tuple[str, ...]:
        """Principals that hold a role."""
        return tuple(sorted(p.id for p in self.principals.values() if any(grant.role == role for grant in p.grants)))

    def may_say(self, principal: Principal, event: str, *, model: str | None, environment: str | None) -> bool:
        """Whether one of the principal's grants lets it say this of that model in that environment."""
        return any(event in self.roles[grant.role] and grant.covers(model, environment) for grant in principal.grants)

    def may_say_wide(self, principal: Principal, event: str) -> bool:
        """Whether it may say this of everything: what an event without a model asks for."""
        return any(
            event in self.roles[grant.role] and grant.wide and not grant.environments for grant in principal.grants
        )

    def voids(self, key_id: str, lane: int, index: int) -> Revocation | None:
        """The retroactive revocation that makes the entry at this log index void, if there is one."""
        revocation = self.revocations.get(key_id)
        if revocation is None:
            return None
        first = revocation.positions.get(lane)
        return revocation if first is not None and index >= first else None


def now_ms() -> int:
    """Time as the keyring has it. For those who write keyrings; nothing that verifies reads a clock."""
    return int(datetime.now(UTC).timestamp() * 1000)


def check_keyring(keyring: Keyring) -> None:
    """Raise KeyringError for content that contradicts itself."""
    if keyring.version < 1:
        raise KeyringError(f"A keyring's version begins at 1, this one has {keyring.version}.")
    owners: dict[bytes, str] = dict.fromkeys(keyring.roots.keys.values(), "a root")
    for key in keyring.keys.values():
        if key.use not in USES:
            raise KeyringError(f"Key {key.id} is for {key.use!r}; expected one of {', '.join(USES)}.")
        if key.use == EVENTS and key.principal not in keyring.principals:
            raise KeyringError(f"Key {key.id} belongs to {key.principal!r}, who is not in the keyring.")
        other = owners.setdefault(key.public_key, key.id)
        if other != key.id:
            raise KeyringError(f"Key {key.id} has the same public key as {other}: a key has one id and one use.")
    for principal in keyring.principals.values():
        if principal.kind not in KINDS:
            raise KeyringError(f"{principal.id} is a {principal.kind!r}; expected one of {', '.join(KINDS)}.")
        for grant in principal.grants:
            if grant.role not in keyring.roles:
                raise KeyringError(f"{principal.id} has the role {grant.role!r}, which the keyring does not define.")
    for revocation in keyring.revocations.values():
        if revocation.key not in keyring.keys:
            raise KeyringError(f"The keyring revokes {revocation.key!r}, which it does not name.")


def check_successor(before: Keyring, after: Keyring) -> None:
    """Raise KeyringError where a version takes back what must last: keys stay known, revocations stay.

    Old events must stay verifiable, so a key is retired (`not_after`) or revoked, never removed or replaced.
    """
    for key in before.keys.values():
        kept = after.keys.get(key.id)
        if kept is None or kept.public_key != key.public_key or kept.use != key.use or kept.principal != key.principal:
            raise KeyringError(f"Version {after.version} removes or replaces the key {key.id}; retire or revoke it.")
    for revocation in before.revocations.values():
        if after.revocations.get(revocation.key) is None:
            raise KeyringError(f"Version {after.version} takes back the revocation of {revocation.key}.")
        for lane, index in revocation.positions.items():
            if after.revocations[revocation.key].positions.get(lane, index + 1) > index:
                raise KeyringError(f"Version {after.version} weakens the revocation of {revocation.key}.")
