"""Delegations: one form, bounded size, and no byte of it may change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_infra.trust.delegation import MAX_DELEGATION_BYTES, delegate, parse_delegation
from ai_infra.trust.ed25519 import public_of
from ai_infra.trust.exceptions import BadDelegation, KeyFormatError
from ai_infra.trust.roles import ROLES
from ai_infra.trust.signers import LocalSigner

KEY = LocalSigner("trainer-1", bytes(range(32)))
SESSION_KEY = public_of(b"s" * 32)
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
GOOD = delegate(
    KEY,
    service="trainer",
    events=ROLES["trainer"],
    keyring=7,
    key=SESSION_KEY,
    not_before=NOW,
    lifetime=timedelta(hours=24),
)


def test_a_delegation_says_what_was_delegated_and_is_signed() -> None:
    read = parse_delegation(GOOD.raw)
    assert read == GOOD
    assert read.signed_by(KEY.public_key)
    assert (read.signer, read.service, read.keyring, read.key) == ("trainer-1", "trainer", 7, SESSION_KEY)
    assert read.events == frozenset(ROLES["trainer"])
    assert read.not_after - read.not_before == 24 * 3600


@given(position=st.integers(0, len(GOOD.raw) - 1), change=st.integers(1, 255))
def test_no_byte_of_a_delegation_can_be_changed(position: int, change: int) -> None:
    tampered = bytearray(GOOD.raw)
    tampered[position] ^= change
    try:
        read = parse_delegation(bytes(tampered))
    except BadDelegation:
        return
    assert not read.signed_by(KEY.public_key)


@given(length=st.integers(0, len(GOOD.raw) - 1))
def test_no_delegation_can_be_cut(length: int) -> None:
    with pytest.raises(BadDelegation):
        parse_delegation(GOOD.raw[:length])


@given(st.binary(max_size=500))
def test_junk_is_a_bad_delegation_and_nothing_else(junk: bytes) -> None:
    with pytest.raises(BadDelegation):
        parse_delegation(junk)


@pytest.mark.parametrize(
    "body",
    [
        b'{"events":[],"key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","keyring":1,"naf":1,"nbf":2,"service":"s","signer":"k"}',
        b'{"events":[],"key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","keyring":1,"naf":1e1,"nbf":2,"service":"s","signer":"k"}',
        b'{"events":[1],"key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","keyring":1,"naf":3,"nbf":2,"service":"s","signer":"k"}',
        b'{"events":[],"key":"short","keyring":1,"naf":3,"nbf":2,"service":"s","signer":"k"}',
        b'{"events":[],"key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB","keyring":1,"naf":3,"nbf":2,"service":"s","signer":"k"}',
        b'{"events":[],"key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","keyring":1,"naf":700000,"nbf":2,"service":"s","signer":"k"}',
        b'{"key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","events":[],"keyring":1,"naf":3,"nbf":2,"service":"s","signer":"k"}',
        b'{"events":[],"key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","keyring":1,"naf":3,"nbf":2,"service":"s","signer":"k","x":1}',
        b"[]",
        b"\xff\xfe",
    ],
    ids=["ends before it begins", "fraction", "event is no text", "short key", "padding bits", "too long a life",
         "order", "extra field", "no object", "no text"],
)  # fmt: skip
def test_only_the_canonical_form_of_a_sound_delegation_is_read(body: bytes) -> None:
    with pytest.raises(BadDelegation):
        parse_delegation(bytes(64) + body)


def test_a_delegation_for_every_role_fits_into_a_header() -> None:
    for role, events in ROLES.items():
        made = delegate(
            LocalSigner.fresh(f"{role}-12"),
            service=role,
            events=events,
            keyring=999,
            key=SESSION_KEY,
            not_before=NOW,
            lifetime=timedelta(days=1),
        )
        assert len(made.raw) <= MAX_DELEGATION_BYTES, role


def test_a_delegation_that_would_not_fit_is_refused_where_it_is_made() -> None:
    with pytest.raises(KeyFormatError, match="400 at most"):
        delegate(
            KEY,
            service="s" * 200,
            events=ROLES["operator"],
            keyring=1,
            key=SESSION_KEY,
            not_before=NOW,
            lifetime=timedelta(days=1),
        )


def test_nobody_delegates_for_longer_than_a_week() -> None:
    with pytest.raises(KeyFormatError, match="7 days"):
        delegate(KEY, service="s", events=(), keyring=1, key=SESSION_KEY, not_before=NOW, lifetime=timedelta(days=8))
