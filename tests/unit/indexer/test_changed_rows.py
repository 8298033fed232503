"""How an audit names what was changed in a row."""

from __future__ import annotations

from ai_infra_indexer.audit.postgres import _difference


def test_a_change_inside_of_json_is_named_by_its_path() -> None:
    found = '{"actor": "somebody else", "body": {"env": "prod"}}'
    wanted = '{"actor":"trainer-1","body":{"env":"prod"}}'
    assert _difference("payload", found, wanted) == ("payload.actor", "somebody else", "trainer-1")


def test_a_field_that_was_taken_out_is_missing() -> None:
    assert _difference("payload", '{"body": {}}', '{"body": {"env": 1}}') == ("payload.body.env", "missing", 1)


def test_what_is_no_json_is_shown_whole() -> None:
    assert _difference("hash", "ab", "cd") == ("hash", "ab", "cd")
