"""The session key: renewed at half of its delegation's life, usable while a KMS is away, and no longer."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from ai_infra.trust.delegation import parse_delegation
from ai_infra.trust.ed25519 import verifies
from ai_infra.trust.exceptions import SessionExpired, SigningUnavailable
from ai_infra.trust.session import Session
from ai_infra.trust.signers import LocalSigner

START = datetime(2026, 3, 4, tzinfo=UTC)
LIFE = timedelta(hours=24)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def at(self, hours: float) -> None:
        self.now = START + timedelta(hours=hours)


class SometimesAway(LocalSigner):
    """A long-lived key whose KMS can be away; counts how often it was asked."""

    __slots__ = ("asked", "away")

    def __init__(self) -> None:
        super().__init__("trainer-1", b"k" * 32)
        self.away, self.asked = False, 0

    def sign(self, message: bytes) -> bytes:
        self.asked += 1
        if self.away:
            raise SigningUnavailable("away")
        return super().sign(message)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kms() -> SometimesAway:
    return SometimesAway()


@pytest.fixture
def session(kms: SometimesAway, clock: Clock) -> Session:
    return Session(kms, "trainer", ["job.status"], lambda: 3, LIFE, clock=clock)


def test_many_messages_cost_the_long_lived_key_one_signature(session: Session, kms: SometimesAway) -> None:
    for number in range(100):
        message = b"message %d" % number
        assert verifies(message, session.sign(message), session.public_key)
    assert kms.asked == 1
    assert parse_delegation(session.delegation).key == session.public_key


def test_the_delegation_is_renewed_at_half_of_its_life(session: Session, clock: Clock) -> None:
    first = session.delegation
    clock.at(11.9)
    assert not session.renew_if_due()
    assert session.delegation == first
    clock.at(12)
    assert session.renew_if_due()
    assert session.remaining() == LIFE.total_seconds()
    assert parse_delegation(session.delegation).not_before == int(clock.now.timestamp())


def test_what_was_signed_before_a_renewal_goes_with_the_delegation_after_it(session: Session, clock: Clock) -> None:
    signature = session.sign(b"m")
    clock.at(13)
    session.renew_if_due()
    assert verifies(b"m", signature, parse_delegation(session.delegation).key)


def test_a_kms_that_is_away_is_no_error_while_the_delegation_lasts(
    session: Session, kms: SometimesAway, clock: Clock
) -> None:
    kms.away = True
    clock.at(12)
    assert not session.renew_if_due()
    assert str(session.last_error) == "away"
    assert session.remaining() == 12 * 3600
    session.sign(b"m")
    kms.away = False
    clock.at(12.1)
    assert session.renew_if_due()
    assert session.last_error is None


def test_a_kms_that_is_away_is_not_asked_at_every_turn(session: Session, kms: SometimesAway, clock: Clock) -> None:
    kms.away = True
    clock.at(12)
    for _ in range(50):
        session.renew_if_due()
    assert kms.asked == 2
    clock.now += timedelta(seconds=15)
    session.renew_if_due()
    assert kms.asked == 3


def test_a_delegation_from_a_clock_that_was_ahead_is_renewed_when_the_clock_is_set_right(
    session: Session, clock: Clock
) -> None:
    clock.at(-3)
    assert session.renew_if_due()
    assert parse_delegation(session.delegation).not_before == int(clock.now.timestamp())
    assert not session.renew_if_due()


def test_a_clock_that_is_set_back_does_not_put_off_the_next_attempt(
    session: Session, kms: SometimesAway, clock: Clock
) -> None:
    clock.at(13)
    kms.away = True
    assert not session.renew_if_due()
    kms.away = False
    clock.at(12.5)
    assert session.renew_if_due()


def test_a_kms_that_does_not_answer_holds_nobody_up_while_the_delegation_lasts(
    kms: SometimesAway, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = threading.Event()
    session = Session(kms, "trainer", ["job.status"], lambda: 3, LIFE, clock=clock)
    first, sign = session.delegation, SometimesAway.sign

    def slow(self: SometimesAway, message: bytes) -> bytes:
        assert answer.wait(30)
        return sign(self, message)

    monkeypatch.setattr(SometimesAway, "sign", slow)
    clock.at(13)
    for _ in range(3):
        session.renew_beside()
    assert session.delegation == first
    assert verifies(b"m", session.sign(b"m"), session.public_key)
    answer.set()
    deadline = time.monotonic() + 30
    while session.delegation == first:
        assert time.monotonic() < deadline
        session.renew_beside()
    assert parse_delegation(session.delegation).not_before == int(clock.now.timestamp())
    assert kms.asked == 2  # the first delegation, and one more however often it was due


def test_beside_too_a_kms_that_is_away_is_told_and_once_the_delegation_has_ended_it_is_an_error(
    session: Session, kms: SometimesAway, clock: Clock
) -> None:
    kms.away = True
    clock.at(13)
    deadline = time.monotonic() + 30
    while session.last_error is None:
        assert time.monotonic() < deadline
        session.renew_beside()
    clock.at(25)
    with pytest.raises(SessionExpired, match="away"):
        session.renew_beside()


def test_once_the_delegation_has_ended_nothing_is_signed(session: Session, kms: SometimesAway, clock: Clock) -> None:
    kms.away = True
    clock.at(24)
    with pytest.raises(SessionExpired, match="away"):
        session.renew_if_due()
    with pytest.raises(SessionExpired):
        session.sign(b"m")
    kms.away = False
    assert session.renew_if_due()
    session.sign(b"m")


def test_an_event_names_the_newest_keyring_that_the_process_knows(kms: SometimesAway, clock: Clock) -> None:
    known = [3]
    session = Session(kms, "trainer", [], lambda: known[0], clock=clock)
    known[0] = 5
    assert session.keyring == 5
    assert parse_delegation(session.delegation).keyring == 3


def test_a_message_that_a_kms_could_not_sign_is_not_signed_here_either(session: Session) -> None:
    with pytest.raises(ValueError, match="4096"):
        session.sign(bytes(4097))
