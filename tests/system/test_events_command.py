"""`ai-infra events` on a real broker: what is there, verified, with causes and effects."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from ai_infra.devstack import Stack
from ai_infra.events.lanes import lane_of
from ai_infra.settings import Settings


def acted(ai_infra: Callable[..., Any], model: str, *more: str, action: str = "hold") -> dict[str, Any]:
    Path("body.json").write_text(
        json.dumps({"action": action, "target": model, "arguments_json": "{}", "reason": "a test"})
    )
    found: dict[str, Any] = ai_infra(
        "events", "publish", "operator.action", "body.json", "--key", model, *more, "--json"
    )
    return found


def test_what_was_published_is_listed_and_shown_as_verified(ai_infra: Callable[..., Any]) -> None:
    model = f"m-{secrets.token_hex(4)}"
    said = acted(ai_infra, model)
    (listed,) = ai_infra("events", "list", "--model", model, "--json")
    assert (listed["id"], listed["hash"], listed["verified"]) == (said["id"], said["hash"], True)
    assert (listed["principal"], listed["body"]["operator"]) == ("operator", "operator")
    assert ai_infra("events", "show", said["id"], "--json") == listed
    text = ai_infra("events", "show", said["id"])
    assert "operator.action — verified" in text
    assert "good: operator, by operator-1" in text


def test_causes_and_effects_are_a_tree_whichever_of_them_is_asked_for(ai_infra: Callable[..., Any]) -> None:
    model = f"m-{secrets.token_hex(4)}"
    root = acted(ai_infra, model, action="first")
    cause = f"{root['id']}@{root['lane']}"
    left = acted(ai_infra, model, "--cause", cause, action="left")
    right = acted(ai_infra, model, "--cause", cause, action="right")
    leaf = acted(
        ai_infra, model, "--cause", f"{left['id']}@{left['lane']}", "--cause", f"{right['id']}@{right['lane']}"
    )
    tree = ai_infra("events", "trace", leaf["id"], "--json")
    assert tree == ai_infra("events", "trace", root["id"], "--model", model, "--json")
    assert tree["id"] == root["id"]
    assert [effect["id"] for effect in tree["effects"]] == [left["id"], right["id"]]
    assert [effect["id"] for effect in tree["effects"][0]["effects"]] == [leaf["id"]]
    assert tree["effects"][1]["effects"] == []
    text = ai_infra("events", "trace", leaf["id"])
    assert "← this one" in text
    assert "also from" in text


def test_junk_is_listed_with_the_reason_and_never_as_an_event(settings: Settings, ai_infra: Callable[..., Any]) -> None:
    model = f"m-{secrets.token_hex(4)}"
    producer = Producer(settings.kafka.client_config())
    producer.produce(
        "job.status",
        partition=lane_of(model, settings.log.lanes),
        key=model.encode(),
        value=b"\x00",
        headers=[("a", b"b")],
    )
    assert producer.flush(20) == 0
    (junk,) = ai_infra("events", "list", "--model", model, "--unverified", "--json")
    assert junk["verified"] is False
    assert junk["error"]["code"]
    assert "body" not in junk
    assert "DOES NOT VERIFY" in ai_infra("events", "list", "--model", model)


def test_an_event_that_is_not_there_is_not_found(ai_infra: Callable[..., Any]) -> None:
    missing = "01890a5d-ac96-774b-bcce-b302099a8057"
    for command in ("show", "trace"):
        assert ai_infra("events", command, missing, "--json", code=1)["error"]["code"] == "not_found"
    assert "a UUID" in ai_infra("events", "show", "x", "--json", code=1)["error"]["message"]


def test_the_newest_events_are_listed_however_much_other_traffic_there_is(ai_infra: Callable[..., Any]) -> None:
    model = f"m-{secrets.token_hex(4)}"
    ids = [acted(ai_infra, model)["id"] for _ in range(5)]
    for _ in range(5):
        acted(ai_infra, f"m-{secrets.token_hex(4)}")
    assert [e["id"] for e in ai_infra("events", "list", "--model", model, "-n", "3", "--json")] == ids[-3:]
    assert [e["id"] for e in ai_infra("events", "list", "--model", model, "--since", "1h", "--json")] == ids
    assert ai_infra("events", "list", "--model", model, "--since", "2100-01-01", "--json") == []


def test_who_may_not_say_it_cannot_publish_it(ai_infra: Callable[..., Any]) -> None:
    Path("body.json").write_text(json.dumps({"action": "x", "target": "x", "arguments_json": "{}", "reason": "x"}))
    refused = ai_infra(
        "events", "publish", "operator.action", "body.json", "--key", "m", "--as", "orchestrator-1", "--json", code=1
    )
    assert refused["error"]["code"] == "not_allowed"


def test_tail_follows_what_comes(stack: Stack, tmp_path: Path, ai_infra: Callable[..., Any]) -> None:
    model = f"m-{secrets.token_hex(4)}"
    tail = subprocess.Popen(
        [sys.executable, "-m", "ai_infra.cli.main", "events", "tail", "--model", model, "--since", "1m", "--json"],
        env={**os.environ, **stack.env()},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        said = [acted(ai_infra, model)["id"] for _ in range(2)]
        assert tail.stdout is not None
        assert [json.loads(tail.stdout.readline())["id"] for _ in said] == said
    finally:
        tail.terminate()
        tail.communicate(timeout=20)
