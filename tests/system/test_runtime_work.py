"""Long work beside the lane: done once, taken over by whoever has the lane, and never more than the lane can take."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from tests.system.bus_bench import NAME, STATE, Bench, Interrupted, check_sequences, until
from tests.system.bus_service import Fetched, service

from ai_infra.bus import runtime, workers
from ai_infra.bus.decision import WorkItem
from ai_infra.bus.halts import CONSECUTIVE_FAILURES
from ai_infra.errors import AiInfraError
from ai_infra.trust.exceptions import SigningUnavailable


@dataclass
class Desk:
    """Work that waits until the test opens the desk; what was begun and what was cancelled is written down."""

    open: threading.Event = field(default_factory=threading.Event)
    let_go: threading.Event = field(default_factory=threading.Event)
    begun: list[tuple[str, str, int]] = field(default_factory=list)
    cancelled: list[tuple[str, str]] = field(default_factory=list)

    def of(self, replica: str) -> Callable[[WorkItem], Fetched]:
        """The work of one replica. One that is cancelled ends once the test lets it go."""

        def run(item: WorkItem) -> Fetched:
            self.begun.append((replica, item.model, item.attempt))
            while not self.open.wait(0.01):
                if item.cancelled.is_set():
                    self.cancelled.append((replica, item.model))
                    self.let_go.wait(30)
                    raise AiInfraError("made to end", code="made_to_end")
            return Fetched(replica)

        return run


@pytest.fixture
def desk() -> Desk:
    return Desk()


def at_work(bench: Bench, desk: Desk) -> list[str]:
    """A model in each lane, with work under way for each in a first replica."""
    one = bench.replica(service(run=desk.of("one"), slots=8))
    models = [bench.model(lane) for lane in range(bench.lanes)]
    for model in models:
        bench.ask(model, "work:bread")
    bench.working(one)
    until(lambda: {m for _, m, _ in desk.begun} == set(models), "all work is under way")
    return models


def how(bench: Bench, models: list[str]) -> dict[str, str]:
    """What was said of each model: once, and by which attempt of which replica."""
    said = bench.await_said(len(models))
    assert sorted(e.model for e in said) == sorted(models)
    assert all(e.body.phase == 1 for e in said)
    check_sequences(said)
    return {e.model: e.body.reason.partition(" attempt ")[2] for e in said}


def test_a_lane_that_goes_and_comes_back_keeps_its_running_work(bench: Bench, desk: Desk) -> None:
    models = at_work(bench, desk)
    desk.let_go.set()
    two = bench.replica(service(run=desk.of("two"), slots=8))
    bench.working(*bench.replicas)
    moved = {model for model in models if _lane(bench, model) in two.lanes}
    until(lambda: {m for r, m, _ in desk.begun if r == "two"} == moved, "the other has begun with what came to it")
    two.stop()
    bench.replicas.remove(two)
    bench.working(*bench.replicas)
    desk.open.set()
    assert how(bench, models) == dict.fromkeys(models, "1 one")
    assert len([m for r, m, _ in desk.begun if r == "one"]) == len(models)


def test_work_of_a_lane_that_stays_elsewhere_is_cancelled_here_and_is_a_new_attempt_there(
    bench: Bench, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "ORPHAN_SECONDS", 0.3)
    monkeypatch.setattr(runtime, "HOUSEKEEPING_SECONDS", 0.2)
    models = at_work(bench, desk)
    desk.let_go.set()
    two = bench.replica(service(run=desk.of("two"), slots=8))
    bench.working(*bench.replicas)
    moved = {model for model in models if _lane(bench, model) in two.lanes}
    until(lambda: {m for r, m in desk.cancelled if r == "one"} == moved, "what has gone is cancelled")
    until(lambda: {m for r, m, _ in desk.begun if r == "two"} == moved, "and begun where it went")
    desk.open.set()
    assert how(bench, models) == {m: "2 two" if m in moved else "1 one" for m in models}


def test_work_that_was_cancelled_when_its_lane_went_is_begun_anew_when_it_comes_back(
    bench: Bench, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "ORPHAN_SECONDS", 0.3)
    monkeypatch.setattr(runtime, "HOUSEKEEPING_SECONDS", 0.2)
    models = at_work(bench, desk)
    two = bench.replica(service(run=desk.of("two"), slots=8))
    bench.working(*bench.replicas)
    moved = {model for model in models if _lane(bench, model) in two.lanes}
    until(lambda: {m for r, m in desk.cancelled if r == "one"} == moved, "what has gone is cancelled, and lingers")
    until(lambda: {m for r, m, _ in desk.begun if r == "two"} == moved, "and begun where it went")
    [one] = [r for r in bench.replicas if r is not two]
    leaving = threading.Thread(target=two.stop)
    leaving.start()
    until(lambda: {m for r, m in desk.cancelled if r == "two"} == moved, "the other leaves")
    desk.let_go.set()
    leaving.join()
    bench.replicas.remove(two)
    bench.working(one)
    again = len(models) + len(moved)
    until(lambda: len([m for r, m, _ in desk.begun if r == "one"]) == again, "all that was cancelled is begun again")
    desk.open.set()
    assert {text.partition(" ")[2] for text in how(bench, models).values()} == {"one"}  # no "error made_to_end"


def test_a_lane_with_too_much_work_is_paused_until_it_has_room(
    bench: Bench, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "PENDING_LIMIT", 6)
    monkeypatch.setattr(runtime, "BATCH_RECORDS", 3)
    model, other = bench.model(0), bench.model(1)
    bench.ask(model, *["work:bread"] * 60)
    replica = bench.replica(service(run=desk.of("one"), slots=1))
    until(lambda: desk.begun, "work begins")
    until(lambda: replica.runtime._lanes[0].pending_work > 6, "the lane is full")
    bench.ask(other, "count")
    bench.await_said(1, other)  # the other lanes go on, and so does polling
    assert replica.runtime._lanes[0].pending_work <= 6 + 2 * 3
    assert len(desk.begun) == 1
    desk.open.set()
    assert [e.body.phase for e in bench.await_said(60, model)] == list(range(1, 61))


def test_a_result_for_a_halted_lane_waits_without_turning_the_loop_and_is_not_worked_for_again(
    bench: Bench, desk: Desk
) -> None:
    replica = bench.replica(service(run=desk.of("one")))
    model = bench.model(0)
    bench.ask(model, "work:bread", *["fail"] * CONSECUTIVE_FAILURES)
    until(lambda: "lane 0 halted" in (replica.runtime.check_halts() or "") and desk.begun, "it halts, work under way")
    desk.open.set()
    until(lambda: not replica.runtime._workers.busy, "the work is done")
    turns: list[float] = []
    each_turn = replica.runtime._each_turn
    replica.runtime._each_turn = lambda: (turns.append(time.monotonic()), each_turn())[1]
    until(lambda: turns and turns[-1] - turns[0] > 1.0, "a second has gone by")
    assert len(turns) < 60, "the loop must wait for input, not for the lane"
    resumed = bench.cli("groups", "resume", NAME, "--lane", "0", "--reason", "mended")
    assert resumed.returncode == 0, resumed.stderr
    [done] = bench.await_said(1, model)
    assert done.body.reason.endswith(" attempt 1 one")
    assert len(desk.begun) == 1


def test_a_kms_that_does_not_answer_when_the_delegation_is_to_be_renewed_holds_no_lane_up(bench: Bench) -> None:
    replica = bench.replica()
    bench.working(replica)
    session, asked, answer = replica.process.session, threading.Event(), threading.Event()

    class Silent:
        key_id = session.signer_id
        public_key = b""

        def sign(self, message: bytes) -> bytes:
            asked.set()
            answer.wait(60)
            raise SigningUnavailable("it never answered")

    session._signer = Silent()
    session._clock = lambda: datetime.now(UTC) + timedelta(hours=13)
    assert asked.wait(30)
    try:
        bench.ask(bench.model(), "count")
        bench.await_said(1)
        assert replica.ready()[0] == 200
    finally:
        answer.set()
    until(lambda: "it never answered" in replica.ready()[1], "readiness says how long the delegation lasts")


def test_quick_work_and_what_it_leads_to_are_one_transaction(bench: Bench) -> None:
    producer = Interrupted(bench.settings, lambda: None)
    bench.replica(service(quick=True), producer)
    model = bench.model()
    bench.ask(model, "work:bread")
    bench.await_said(1, model)
    assert not [r for r in bench.records(STATE) if (r.key or b"").startswith(b"_work/")]  # it was never pending


def test_a_timer_outlives_the_replica_that_set_it(bench: Bench) -> None:
    first = bench.replica()
    model = bench.model()
    bench.ask(model, "timer:3", "count")
    bench.await_said(1, model)
    first.stop()
    bench.replicas.remove(first)
    bench.replica()
    said = bench.await_said(2, model)
    assert [e.body.phase for e in said] == [1, 2]
    assert said[1].body.reason.startswith("tick ")


def _lane(bench: Bench, model: str) -> int:
    from ai_infra.events.lanes import lane_of

    return lane_of(model, bench.lanes)
