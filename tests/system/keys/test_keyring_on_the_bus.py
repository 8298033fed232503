"""A keyring that is changed by command reaches everybody who listens, on a real broker, once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from ai_infra.bus.announce import publish_keyring, publish_policy, published_keyrings
from ai_infra.bus.broadcast import Broadcast
from ai_infra.cli.main import main
from ai_infra.devstack import Stack
from ai_infra.errors import ConfigurationError
from ai_infra.settings import Settings
from ai_infra.trust import changes
from ai_infra.trust.exceptions import KeyringError
from ai_infra.trust.keyring import Grant
from ai_infra.trust.keyring_document import sign_keyring
from ai_infra.trust.keyring_files import load_keyrings, private_key_path
from ai_infra.trust.signers import LocalSigner, read_private_key_file


@pytest.fixture
def follower(settings: Settings) -> Iterator[Broadcast]:
    """Somebody who follows the broadcast topics."""
    broadcast = Broadcast(settings, service="test")
    broadcast.catch_up(30)
    yield broadcast
    broadcast.close()


@pytest.fixture
def keys(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., dict[str, Any]]:
    """Runs `ai-infra keys ... --json` for the stack and returns what it says."""
    for name, value in stack.env().items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> dict[str, Any]:
        with pytest.raises(SystemExit) as ended:
            main(["keys", *arguments, "--json"])
        out, err = capsys.readouterr()
        assert not ended.value.code, err
        answer: dict[str, Any] = json.loads(out)
        return answer

    return run


def test_a_change_by_command_reaches_who_listens(keys: Callable[..., dict[str, Any]], follower: Broadcast) -> None:
    before = follower.keyrings.latest_version
    made = keys("new", "maria-1", "--principal", "maria", "--kind", "person", "--role", "orchestrator")
    assert (made["published"], made["version"]) == (True, before + 1)
    follower.catch_up(30)
    assert "maria-1" in follower.keyrings.latest.keys
    keys("revoke", "maria-1", "--reason", "a test")
    follower.catch_up(30)
    assert follower.keyrings.latest.revocations["maria-1"].reason == "a test"
    announced = [record.offset for record in follower.records_of("signer.changed")]
    assert len(announced) == follower.keyrings.latest_version


def test_what_is_published_already_is_not_published_again(
    settings: Settings, keys: Callable[..., dict[str, Any]], follower: Broadcast
) -> None:
    follower.catch_up(30)
    records = len(follower.records_of("signer.changed"))
    assert publish_keyring(settings) == keys("publish")["published"] == follower.keyrings.latest_version
    follower.catch_up(30)
    assert len(follower.records_of("signer.changed")) == records


def test_what_was_only_written_is_published_later(
    keys: Callable[..., dict[str, Any]], follower: Broadcast, settings: Settings
) -> None:
    assert keys("new", "late-1", "--principal", "late", "--kind", "person", "--no-publish")["published"] is False
    follower.catch_up(30)
    assert "late-1" not in follower.keyrings.latest.keys
    assert keys("publish")["published"] == follower.keyrings.latest_version + 1
    follower.catch_up(30)
    assert "late-1" in follower.keyrings.latest.keys
    known, announced = published_keyrings(settings)
    assert announced == set(range(1, known.latest_version + 1))


def test_a_keyring_that_skips_a_version_or_lacks_signatures_is_not_published(
    settings: Settings, follower: Broadcast
) -> None:
    directory = settings.keys.dir
    assert directory is not None
    latest = load_keyrings(directory).latest
    follower.catch_up(30)
    records = len(follower.records_of("signer.changed"))
    roots = [LocalSigner(k, read_private_key_file(private_key_path(directory, k))) for k in ("root-1", "root-2")]
    draft = changes.with_grant(latest, "operator", Grant("approver"), now=1)
    for text in (
        sign_keyring(draft, roots[:1]),
        sign_keyring(replace(draft, version=draft.version + 1), roots),
        sign_keyring(draft, [LocalSigner.fresh("root-1"), LocalSigner.fresh("root-2")]),
    ):
        with pytest.raises(KeyringError):
            publish_keyring(settings, text, "wrong")
    follower.catch_up(30)
    assert len(follower.records_of("signer.changed")) == records


def test_a_policy_has_versions_and_is_published_once(settings: Settings, follower: Broadcast) -> None:
    before = follower.policy
    document = {**before.document, "note": "a test"}
    first = publish_policy(settings, json.dumps(document), "a test")
    assert first == before.version + 1
    assert publish_policy(settings, json.dumps(document, indent=4), "again") == first
    follower.catch_up(30)
    assert (follower.policy.version, dict(follower.policy.document)) == (first, document)
    # What it was before, so that other tests decide as they expect.
    assert publish_policy(settings, json.dumps(dict(before.document)), "as it was") == first + 1
    for wrong in ("not json", "[1]"):
        with pytest.raises(ConfigurationError):
            publish_policy(settings, wrong, "wrong")
