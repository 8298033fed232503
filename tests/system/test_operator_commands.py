"""What an operator sees and does when a service fails, on a real stack with a real runtime."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Producer

from ai_infra.bus.decision import Context, Decision, Refuse, StateView
from ai_infra.bus.halts import CONSECUTIVE_FAILURES
from ai_infra.bus.redrive import DEAD_LETTER_HEADERS
from ai_infra.bus.run import run_service
from ai_infra.bus.service import Service
from ai_infra.client.client import Client
from ai_infra.devstack import Stack
from ai_infra.events.generated import (
    ArtifactRevoked,
    CanaryStatus,
    EventRefused,
    ProducerHeartbeat,
    PromotionDecided,
    Reason,
)
from ai_infra.events.lanes import lane_of
from ai_infra.settings import Settings
from ai_infra_canary.state import Deployment, RevokedArtifact, Rollout


class Moody:
    """The canary's place, with a `decide` that fails as it's told and notes what it accepts."""

    def __init__(self, settings: Settings) -> None:
        self.mood = "well"
        self.accepted: list[tuple[str, int]] = []
        self._settings = settings
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        service = Service(
            name="canary",
            listens=(PromotionDecided, ArtifactRevoked),
            says=(CanaryStatus, EventRefused, ProducerHeartbeat),
            decide=self._decide,
            rules="canary/v0",
            records=(Deployment, RevokedArtifact, Rollout),
        )
        self._stop.clear()
        self._thread = threading.Thread(target=run_service, args=(service, self._settings, self._stop))
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(30)
            self._thread = None

    def _decide(self, _state: StateView, trigger: Any, _context: Context) -> Decision:
        if self.mood == "refusing":
            raise Refuse(Reason(code="no_mood", detail="not today"))
        if self.mood == "broken":
            raise RuntimeError("a bad deploy")
        self.accepted.append((trigger.id, trigger.record.append_time_ms))
        return Decision()


@pytest.fixture
def moody(settings: Settings) -> Iterator[Moody]:
    service = Moody(settings)
    service.start()
    try:
        yield service
    finally:
        service.mood = "well"
        service.stop()


@pytest.fixture
def ai_infra(ai_infra: Callable[..., Any]) -> Callable[..., Any]:
    """The same, always with --json."""
    return lambda *arguments, code=0: ai_infra(*arguments, "--json", code=code)


@pytest.fixture
def operator(settings: Settings) -> Iterator[Client]:
    with Client(settings, speaking="artifact.revoked") as client:
        yield client


def revoke(operator: Client, model: str) -> str:
    body = ArtifactRevoked(
        artifact_id=secrets.token_hex(8), model=model, reason="a test", revoked_by=operator.principal
    )
    return operator.publish(body).record.id


def eventually(look: Callable[[], Any], seconds: float = 40) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.1)
    return found


def model_in(lane: int, lanes: int) -> str:
    while lane_of(name := f"m-{secrets.token_hex(4)}", lanes) != lane:
        pass
    return name


def test_a_dead_letter_is_listed_redriven_once_with_its_first_time_and_then_dealt_with(
    moody: Moody, operator: Client, ai_infra: Callable[..., Any]
) -> None:
    model = f"m-{secrets.token_hex(4)}"
    moody.mood = "refusing"
    event = revoke(operator, model)

    def letters(*more: str) -> list[Any]:
        return [d for d in ai_infra("dlq", "list", "--service", "canary", *more) if d["event_id"] == event]

    (letter,) = eventually(letters)
    assert (letter["code"], letter["topic"], letter["key"]) == ("no_mood", "artifact.revoked", model)
    shown = ai_infra("dlq", "show", letter["place"])
    assert shown["original_found"] == "yes"
    assert shown["record"]["verified"] is True

    moody.mood = "well"
    ai_infra("dlq", "redrive", letter["place"], "--reason", "mended")
    eventually(lambda: [e for e, _ in moody.accepted if e == event])
    first = next(e for e in ai_infra("events", "list", "--model", model, "-t", "artifact.revoked") if e["id"] == event)
    accepted = next(ms for e, ms in moody.accepted if e == event)
    assert first["append_time"].endswith(f"{accepted % 1000:03d}Z")
    assert letters() == []
    assert [d["outcome"] for d in letters("--all")] == ["redriven"]

    (act,) = ai_infra("events", "list", "--model", model, "-t", "operator.action")
    assert (act["body"]["action"], act["body"]["target"], act["body"]["reason"]) == ("dlq.redrive", "canary", "mended")
    assert json.loads(act["body"]["arguments_json"])["event_id"] == event


def test_what_was_accepted_is_not_decided_again_by_a_second_redrive(
    moody: Moody, operator: Client, ai_infra: Callable[..., Any]
) -> None:
    moody.mood = "refusing"
    event = revoke(operator, f"m-{secrets.token_hex(4)}")
    (letter,) = eventually(lambda: [d for d in ai_infra("dlq", "list", "-s", "canary") if d["event_id"] == event])
    moody.mood = "well"
    ai_infra("dlq", "redrive", letter["place"], "--reason", "once")
    eventually(lambda: [e for e, _ in moody.accepted if e == event])
    ai_infra("dlq", "redrive", letter["place"], "--reason", "twice")
    after = revoke(operator, f"m-{secrets.token_hex(4)}")
    eventually(lambda: [e for e, _ in moody.accepted if e == after])
    assert [e for e, _ in moody.accepted].count(event) == 1


def test_a_discarded_dead_letter_is_no_longer_listed(
    moody: Moody, operator: Client, ai_infra: Callable[..., Any]
) -> None:
    moody.mood = "refusing"
    event = revoke(operator, f"m-{secrets.token_hex(4)}")

    def letters(*more: str) -> list[Any]:
        return [d for d in ai_infra("dlq", "list", "-s", "canary", *more) if d["event_id"] == event]

    (letter,) = eventually(letters)
    ai_infra("dlq", "discard", letter["place"], "--reason", "never mind")
    assert letters() == []
    assert [d["outcome"] for d in letters("--all")] == ["discarded"]


@pytest.mark.parametrize("offset", [0, 9_000_000])  # where there may be another record, and where nothing is yet
def test_a_forged_dead_letter_is_not_vouched_for(offset: int, settings: Settings, ai_infra: Callable[..., Any]) -> None:
    notes = dict.fromkeys(DEAD_LETTER_HEADERS, b"0") | {
        "dlq_topic": b"artifact.revoked",
        "dlq_append_time_ms": b"1",
        "dlq_offset": str(offset).encode(),
        "dlq_reason": secrets.token_hex(4).encode(),
    }
    producer = Producer(settings.kafka.client_config())
    producer.produce("canary.dlq", partition=0, key=b"m", value=b"forged", headers=list(notes.items()))
    assert producer.flush(20) == 0
    (letter,) = [d for d in ai_infra("dlq", "list", "-s", "canary") if d["reason"].encode() == notes["dlq_reason"]]
    refused = ai_infra("dlq", "redrive", letter["place"], "--reason", "let me in", code=1)
    assert refused["error"]["code"] == "bad_dead_letter"


def test_a_run_of_failures_halts_one_lane_status_says_so_and_resume_ends_it(
    moody: Moody, operator: Client, settings: Settings, ai_infra: Callable[..., Any]
) -> None:
    model = model_in(1, settings.log.lanes)
    moody.mood = "broken"
    for _ in range(CONSECUTIVE_FAILURES + 5):
        last = revoke(operator, model)

    def halted() -> list[Any]:
        (group,) = ai_infra("groups", "show", "canary")
        return [h["lane"] for h in group["halted"]]

    assert eventually(halted) == [1]
    elsewhere = model_in(2, settings.log.lanes)
    moody.mood = "well"
    other = revoke(operator, elsewhere)
    eventually(lambda: [e for e, _ in moody.accepted if e == other])
    assert last not in [e for e, _ in moody.accepted]

    status = ai_infra("status", code=1)
    finding = next(f for f in status["findings"] if f["subject"] == "canary/1")
    assert "a bad deploy" in finding["what"]
    assert "ai-infra groups resume canary --lane 1" in finding["next"]

    resumed = ai_infra("groups", "resume", "canary", "--reason", "deployed the fix")
    assert resumed == {"service": "canary", "lanes": [1], "still_halted": []}
    eventually(lambda: [e for e, _ in moody.accepted if e == last])
    assert ai_infra("groups", "resume", "canary", "--reason", "again", code=1)["error"]["code"] == "not_halted"


def test_a_group_is_moved_only_when_it_stands_still_and_what_was_heard_is_not_decided_twice(
    moody: Moody, operator: Client, ai_infra: Callable[..., Any]
) -> None:
    event = revoke(operator, f"m-{secrets.token_hex(4)}")
    eventually(lambda: [e for e, _ in moody.accepted if e == event])
    arguments = ("groups", "seek", "canary", "--to", "start", "--reason", "look again")
    assert ai_infra(*arguments, code=1)["error"]["code"] == "group_active"
    moody.stop()
    moves = ai_infra(*arguments)
    assert all(move["to"] <= move["from"] for move in moves)
    assert moves
    assert sum(p["behind"] for p in ai_infra("lag", "canary")) > 0
    moody.start()
    after = revoke(operator, f"m-{secrets.token_hex(4)}")
    eventually(lambda: [e for e, _ in moody.accepted if e == after])
    eventually(lambda: sum(p["behind"] for p in ai_infra("lag", "canary")) == 0)
    assert [e for e, _ in moody.accepted].count(event) == 1


def test_status_names_what_a_database_lacks_and_lag_shows_the_others_while_it_is_away(
    stack: Stack, ai_infra: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.drop_database("not_migrated")
    monkeypatch.setenv("AI_INFRA_DATABASE_URL", stack.create_database("not_migrated"))
    findings = [f for f in ai_infra("status", code=1)["findings"] if f["subject"] == "Postgres"]
    assert [f["next"] for f in findings] == ["ai-infra db migrate"]
    assert "0001_log" in findings[0]["what"]
    assert "ai-infra db migrate" in ai_infra("job", "list", code=1)["error"]["message"]

    monkeypatch.setenv("AI_INFRA_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    monkeypatch.chdir(stack.root)
    first = ai_infra("status", code=1)["findings"][0]
    assert first["subject"] == "Postgres"
    assert first["next"].startswith("ai-infra dev up")
    assert {p["service"] for p in ai_infra("lag", code=1)} == {"trainer", "registry", "promoter", "canary"}


def test_a_lane_number_a_service_or_a_reason_that_makes_no_sense_is_refused(ai_infra: Callable[..., Any]) -> None:
    assert (
        "there are lanes 0 to"
        in ai_infra("groups", "resume", "canary", "-l", "99", "--reason", "x", code=1)["error"]["message"]
    )
    assert "no service" in ai_infra("lag", "cannary", code=1)["error"]["message"]
    assert "--service" in ai_infra("dlq", "discard", "--reason", "x", code=1)["error"]["message"]
    assert "SERVICE/LANE/OFFSET" in ai_infra("dlq", "show", "x", code=1)["error"]["message"]
