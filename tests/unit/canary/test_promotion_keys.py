"""Which keys may sign a decision: promotion keys of the keyring that was in force, alive and not revoked."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from ai_infra.trust.keyring import MANIFEST, PROMOTION, Key, Revocation
from ai_infra_canary.verification import PromotionKeys

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
KEY = Key("promotion-1", b"p" * 32, "", PROMOTION)


def counting(*keys: Key, now: datetime = NOW, revoked: str = "", asked: int = 3) -> set[str]:
    """Ids of the keys that count by version 3 of the keyring, when version `asked` is asked for."""
    revocations = {revoked: Revocation(revoked, 0, "lost")} if revoked else {}
    keyring = SimpleNamespace(keys={k.id: k for k in keys}, revocations=revocations)
    promotion_keys = PromotionKeys()
    promotion_keys.learn(SimpleNamespace(get={3: keyring}.get))  # type: ignore[arg-type]  # what it reads
    return set(promotion_keys.of(asked, now))


def test_a_promotion_key_counts_and_a_key_of_another_use_does_not() -> None:
    assert counting(KEY, replace(KEY, id="manifest-1", use=MANIFEST)) == {"promotion-1"}


def test_a_key_counts_in_its_life() -> None:
    key = replace(KEY, not_before=NOW_MS, not_after=NOW_MS)
    assert counting(key) == {"promotion-1"}
    for moment in (timedelta(milliseconds=-1), timedelta(milliseconds=1)):
        assert counting(key, now=NOW + moment) == set()


def test_a_revoked_key_does_not_count() -> None:
    other: Any = replace(KEY, id="promotion-2")
    assert counting(KEY, other, revoked="promotion-1") == {"promotion-2"}


def test_no_key_counts_by_a_keyring_that_is_not_known() -> None:
    assert counting(KEY, asked=4) == set()
    assert PromotionKeys().of(3, NOW) == {}
