"""Ids: new ones sort by time, ids of consequences are the same at each try."""

from __future__ import annotations

import time
import uuid

from ai_infra.events.identifiers import UUID_TEXT, consequence_id, uuid7


def test_a_uuid7_has_version_variant_and_the_time_of_its_making() -> None:
    before = time.time_ns() // 1_000_000
    value = uuid.UUID(uuid7())
    after = time.time_ns() // 1_000_000
    assert (value.version, value.variant) == (7, uuid.RFC_4122)
    assert before <= value.int >> 80 <= after


def test_ids_are_lowercase_text_and_differ() -> None:
    ids = {uuid7() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(UUID_TEXT.fullmatch(one) for one in ids)


def test_a_consequence_has_one_id_for_cause_and_kind() -> None:
    cause = "018f0000-0000-7000-8000-000000000001"
    assert consequence_id(cause, "artifact.registered") == consequence_id(cause, "artifact.registered")
    assert consequence_id(cause, "artifact.registered") != consequence_id(cause, "artifact.refused")
    assert uuid.UUID(consequence_id(cause, "job.status")).version == 5
    assert consequence_id(cause, "job.status") == str(uuid.uuid5(uuid.UUID(cause), "job.status"))
