"""From a record that arrived to an event that may be acted upon: the one gate that every consumer has.

Checks, in this order: form; that a key of the keyring vouched for the session key (the delegation); the signature; then
life, revocation, what the delegation and the role allow of this model and environment, that the body names who really
speaks, and that services number what they say. Time is the record's append time, which is the same for all readers;
nothing here reads a clock. This is a hot path: what a delegation proves is remembered by its bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from ai_infra.events.body import Body
from ai_infra.events.codec import registry_id
from ai_infra.events.event import NO_APPEND_TIME, Attributes, Event, Record, Unverified
from ai_infra.events.exceptions import EventError
from ai_infra.events.parse import read, verify_signature
from ai_infra.events.schemas import topic_of
from ai_infra.trust.delegation import Delegation, parse_delegation
from ai_infra.trust.ed25519 import verifies
from ai_infra.trust.exceptions import (
    AwaitKeyring,
    BadDelegation,
    BadState,
    ExpiredDelegation,
    NotAllowed,
    RevokedKey,
    TrustError,
    UnknownKeyring,
    UnknownSigner,
    Unverifiable,
)
from ai_infra.trust.keyring import SERVICE, Key, Keyring, Principal
from ai_infra.trust.keyrings import Keyrings
from ai_infra.trust.roles import SPEAKER, UNSEQUENCED, WIDE

# The signer's clock and the broker's differ: a delegation may begin this much after the append time of an event that
# uses it. Only the beginning: a session renews long before its end.
CLOCK_SKEW_MS: Final = 120_000
_REMEMBERED: Final = 4096

E = TypeVar("E", bound=BaseException)
Learn = Callable[[str, int, str], None]
"""Makes the schema with this SHA-256 known (`events.schemas.learn`), of this topic, with this id in a schema registry.
Raises UnknownSchema where the registry has another or none, UnavailableError where it does not answer."""


@dataclass(frozen=True, slots=True)
class Voucher:
    """A delegation whose signature has been verified, and whose it is by one version of the keyring."""

    delegation: Delegation
    key: Key
    principal: Principal


_Vouched = tuple[Unverified, Voucher]
Verdict = Event[Body] | TrustError | AwaitKeyring


class Verifier:
    """Verifies records by the newest keyring of `keyrings`. One for each thread that verifies."""

    def __init__(self, keyrings: Keyrings, lanes: int, *, learn: Learn | None = None) -> None:
        """`learn` asks a schema registry, and is called for events of recognised signers only."""
        self.keyrings = keyrings
        self._lanes = lanes
        self._learn = learn
        self._vouchers: OrderedDict[bytes, Voucher] = OrderedDict()
        self._vouchers_version = 0

    def verify(self, record: Record, *, caught_up: bool = False, by: Keyring | None = None) -> Event[Body]:
        """The event in a record, judged by the newest keyring (`by`: by this one).

        Raises TrustError, whose `code` says what is wrong; AwaitKeyring where the event names a newer keyring than
        we know: read the broadcast topic to its end as of now and ask again with `caught_up=True`, after which a
        version that is still unknown is a failure like any other (so junk can't make anybody wait for ever).
        UnavailableError where the event's schema is newer than we are and the schema registry does not answer.
        """
        keyring = by if by is not None else self.keyrings.latest
        vouched = self._vouched(record, keyring, caught_up=caught_up)
        _check_signature(vouched)
        return self._judged(vouched, keyring)

    def verify_each(self, records: Sequence[Record], *, caught_up: bool = False) -> list[Verdict]:
        """What `verify` returns or raises for each record. Raises UnavailableError, as it does.

        Signature after signature: one between the reading of two records takes a fifth longer, since interpreter and
        libsodium push each other out of the processor's caches.
        """
        if not records:
            return []
        keyring = self.keyrings.latest
        outcomes: dict[int, Verdict] = {}
        vouched: dict[int, _Vouched] = {}
        for number, record in enumerate(records):
            try:
                vouched[number] = self._vouched(record, keyring, caught_up=caught_up)
            except (TrustError, AwaitKeyring) as error:
                outcomes[number] = _bare(error)
        for number, each in list(vouched.items()):
            try:
                _check_signature(each)
            except TrustError as error:
                outcomes[number] = _bare(error)
                del vouched[number]
        for number, each in vouched.items():
            try:
                outcomes[number] = self._judged(each, keyring)
            except TrustError as error:
                outcomes[number] = _bare(error)
        return [outcomes[number] for number in range(len(records))]

    def _vouched(self, record: Record, keyring: Keyring, *, caught_up: bool) -> _Vouched:
        """A record that is well formed, and who vouches for the key that it claims to be signed with."""
        try:
            unverified = read(record, self._lanes, any_schema=self._learn is not None)
        except EventError as error:
            raise Unverifiable(error.message, code=error.code) from error
        attributes = unverified.attributes
        if attributes.keyring > keyring.version:
            if not caught_up:
                raise AwaitKeyring(attributes.keyring, keyring.version)
            raise UnknownKeyring(
                f"The event names keyring version {attributes.keyring}; the newest is {keyring.version}.",
                attributes=attributes,
            )
        try:
            return unverified, self.voucher(attributes.delegation, attributes.signer, keyring)
        except EventError as error:
            raise Unverifiable(error.message, code=error.code, attributes=attributes) from error
        except TrustError as error:
            error.attributes = attributes
            raise

    def _judged(self, vouched: _Vouched, keyring: Keyring) -> Event[Body]:
        """All that is left once the signature is known to be by the session that was vouched for."""
        unverified, voucher = vouched
        try:
            _check_may_speak(unverified, voucher, keyring)
            self._know_schema(unverified)
            return _accept(unverified, voucher, keyring)
        except EventError as error:
            refused = Unverifiable(error.message, code=error.code, signer_known=True, attributes=unverified.attributes)
            refused.by_service = voucher.principal.kind == SERVICE
            raise refused from error
        except TrustError as error:
            error.signer_known, error.attributes = True, unverified.attributes
            error.by_service = voucher.principal.kind == SERVICE
            raise

    def _know_schema(self, unverified: Unverified) -> None:
        topic, named = unverified.record.topic, unverified.schema_sha256
        if self._learn is None or topic_of(named) == topic:
            return
        schema_id = registry_id(unverified.record.value)
        if schema_id is not None:
            self._learn(topic, schema_id, named)

    def verify_state(
        self,
        *,
        message: bytes,
        signature: bytes,
        delegation: bytes,
        signer: str,
        keyring: int,
        service: str,
        append_time_ms: int,
    ) -> None:
        """Raise TrustError unless `message`, which stands for a state record, was signed by `service` itself, with a
        key that counted when the record was appended. Raises AwaitKeyring for a newer keyring than we know.

        State is in no lane of the log, so a revocation counts from its time on: a key that was revoked keeps what it
        wrote before.
        """
        latest = self.keyrings.latest
        if keyring > latest.version:
            raise AwaitKeyring(keyring, latest.version)
        voucher = self.voucher(delegation, signer, latest)
        if voucher.principal.id != service:
            raise BadState(f"State of {service} is signed by {voucher.principal.id}.")
        if not verifies(message, signature, voucher.delegation.key):
            raise BadState(f"The signature of a state record of {service} does not verify.")
        check_life(voucher, append_time_ms)
        revocation = latest.revocations.get(voucher.key.id)
        if revocation is not None and append_time_ms >= revocation.revoked_at:
            raise RevokedKey(f"State of {service} was written with {voucher.key.id} after that key was revoked.")

    def voucher(self, delegation: bytes, signer: str, keyring: Keyring) -> Voucher:
        """What a delegation's bytes prove by this keyring. Raises UnknownSigner, BadDelegation."""
        if keyring.version != self._vouchers_version:
            self._vouchers.clear()
            self._vouchers_version = keyring.version
        known = self._vouchers.get(delegation)
        if known is None:
            known = vouch(delegation, signer, keyring)
            self._vouchers[delegation] = known
            if len(self._vouchers) > _REMEMBERED:
                self._vouchers.popitem(last=False)
        elif known.key.id != signer:
            # Raises what it raises for those who have not seen this delegation: the verdict is the same for all.
            return vouch(delegation, signer, keyring)
        return known


def vouch(raw: bytes, signer: str, keyring: Keyring) -> Voucher:
    """Check a delegation against a keyring: whose key it is, and that it is really by that key."""
    key = keyring.key_of(signer)
    if key is None:
        raise UnknownSigner(f"The keyring (version {keyring.version}) has no key {signer!r} that signs events.")
    principal = keyring.principals[key.principal]
    delegation = parse_delegation(raw)
    if delegation.signer != signer:
        raise BadDelegation(f"The delegation is by {delegation.signer!r}, the event says {signer!r}.")
    if not delegation.signed_by(key.public_key):
        raise BadDelegation(f"The delegation is not signed by {signer}.")
    if principal.kind == SERVICE and delegation.service != principal.id:
        raise BadDelegation(f"{signer} is a key of {principal.id} and delegates for {delegation.service!r}.")
    return Voucher(delegation, key, principal)


def _check_signature(vouched: _Vouched) -> None:
    unverified, voucher = vouched
    try:
        verify_signature(unverified, voucher.delegation.key)
    except EventError as error:
        raise Unverifiable(error.message, code=error.code, attributes=unverified.attributes) from error


def _bare(error: E) -> E:
    """An error that is kept, without the frames that it came through: one of them keeps the error."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


def check_life(voucher: Voucher, time_ms: int) -> None:
    """Raise ExpiredDelegation where key or delegation did not count at this time."""
    delegation, key = voucher.delegation, voucher.key
    if time_ms == NO_APPEND_TIME:
        raise ExpiredDelegation(
            "The record has no append time of the broker's, so nothing says that its key counted then: its topic must "
            "have message.timestamp.type=LogAppendTime (`ai-infra topics check --fix`)."
        )
    if not key.lives_at(time_ms):
        raise ExpiredDelegation(
            f"The key {key.id} does not count at {time_ms} (from {key.not_before} to {key.not_after})."
        )
    if time_ms < delegation.not_before * 1000 - CLOCK_SKEW_MS or time_ms > delegation.not_after * 1000 + 999:
        raise ExpiredDelegation(
            f"Appended at {time_ms} ms, outside of the delegation by {key.id} "
            f"({delegation.not_before} to {delegation.not_after} s)."
        )


def _check_may_speak(unverified: Unverified, voucher: Voucher, keyring: Keyring) -> None:
    """What can be judged without the body. First, so that who may speak of one model can't have bodies of all others
    decoded, or schemas looked up, and be taken for somebody whose failures count there."""
    attributes, key, delegation = unverified.attributes, voucher.key, voucher.delegation
    check_life(voucher, unverified.record.append_time_ms)
    if key.id in keyring.revocations:
        raise RevokedKey(f"The key {key.id} is revoked: {keyring.revocations[key.id].reason}")
    if delegation.keyring > attributes.keyring:
        raise BadDelegation(
            f"The event names keyring {attributes.keyring}, its delegation the newer {delegation.keyring}."
        )
    event = attributes.type
    if event not in delegation.events:
        raise NotAllowed(f"The delegation by {key.id} is not for {event}.")
    _check_role(unverified, None, voucher.principal, keyring)


def _accept(unverified: Unverified, voucher: Voucher, keyring: Keyring) -> Event[Body]:
    """All that is left once the signature is known to be by a session of a key of the keyring."""
    attributes, principal = unverified.attributes, voucher.principal
    event = attributes.type
    body = unverified.decode()
    environment = getattr(body, "target_env", None) or getattr(body, "env", None)
    if environment is not None:
        _check_role(unverified, str(environment), principal, keyring)
    speaker = SPEAKER.get(event)
    if speaker is not None and getattr(body, speaker) != principal.id:
        raise NotAllowed(f"{event} is signed by {principal.id} and names {getattr(body, speaker)!r} as {speaker}.")
    _check_counted(attributes, body, principal, unverified.lane)
    return Event(
        body=body,
        attributes=attributes,
        record=unverified.record,
        lane=unverified.lane,
        model=unverified.model,
        hash=unverified.hash,
        principal=principal.id,
        message=unverified.message,
    )


def _check_role(unverified: Unverified, where: str | None, principal: Principal, keyring: Keyring) -> None:
    """`where`: the environment that it is about; None for none, or one that is not known yet."""
    event, model = unverified.attributes.type, unverified.model
    if not model and event in WIDE:
        if not keyring.may_say_wide(principal, event):
            raise NotAllowed(f"{principal.id} may not say {event} of everything: that takes a role without narrowing.")
        return
    if not keyring.may_say(principal, event, model=model or None, environment=where):
        raise NotAllowed(
            f"{principal.id} may not say {event}"
            + (f" of {model}" if model else "")
            + (f" in {where}." if where else ".")
        )


def _check_counted(attributes: Attributes, body: Body, principal: Principal, lane: int) -> None:
    """A service numbers what it says, per lane; whoever has nowhere to keep a counter must not pretend to."""
    event = attributes.type
    if not principal.counted or event in UNSEQUENCED:
        if (attributes.producer, attributes.epoch, attributes.seq, attributes.prev) != (None, None, None, None):
            raise NotAllowed(f"{principal.id} does not number its {event}; the event carries a number.")
        return
    expected = f"{principal.id}/{lane}"
    if attributes.producer != expected or attributes.epoch is None or attributes.seq is None:
        raise NotAllowed(
            f"{principal.id} numbers its events as {expected}; this one says producer {attributes.producer!r}, "
            f"epoch {attributes.epoch}, seq {attributes.seq}."
        )
    if event == "producer.heartbeat" and getattr(body, "producer", None) != expected:
        raise NotAllowed(f"The heartbeat of {expected} is about {getattr(body, 'producer', None)!r}.")
