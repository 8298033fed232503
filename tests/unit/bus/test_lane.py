"""What follows from a trigger in one lane, and what must not."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.bus.lane_bench import LANE, MODEL, Answer, Bench, Counted, Note, make_event, make_service

from ai_infra.bus.batch import Batch
from ai_infra.bus.decision import Decision, Refuse, WorkError
from ai_infra.bus.halts import CONSECUTIVE_FAILURES, JunkBudget
from ai_infra.bus.hearing import FORGET_AT_ONCE, FORGET_IDS_AFTER
from ai_infra.bus.lane import RENUMBER_ACTION, RESUME_ACTION, Lane
from ai_infra.bus.records import SELF, Halt, Head, PendingTimer, SeenId
from ai_infra.bus.refusing import Sender
from ai_infra.errors import AiInfraError
from ai_infra.events.codec import decode_body, unframe
from ai_infra.events.event import Record
from ai_infra.events.generated import EventRefused, JobCancelRequested, OperatorAction, Reason
from ai_infra.trust.exceptions import TrustError


@pytest.fixture
def bench() -> Bench:
    return Bench(make_service())


def reasons(batch: Batch) -> list[str]:
    found = []
    for out in batch.outgoing:
        if out.topic == "artifact.revoked":
            _, data = unframe(out.topic, out.value or b"")
            found.append(decode_body(out.topic, data).reason)  # type: ignore[attr-defined]
    return found


def test_a_decision_changes_state_only_when_its_batch_is_committed(bench: Bench) -> None:
    bench.lane.event(make_event("count"), bench.batch)
    assert bench.lane.state.get(Counted, "total") == Counted(1)
    bench.lane.rollback()
    assert bench.lane.state.get(Counted, "total") is None
    assert bench.lane.state.get(Head, SELF) is None


def test_events_are_numbered_without_a_hole_across_batches_and_aborts(bench: Bench) -> None:
    bench.lane.event(make_event("count"), bench.batch)
    bench.commit()
    bench.lane.event(make_event("count"), bench.batch)
    bench.lane.rollback()
    bench.batch = Batch()
    bench.lane.event(make_event("count"), bench.batch)
    bench.commit()
    head = bench.lane.state.get(Head, SELF)
    assert head is not None
    assert head.seq == 2


def test_a_decision_that_raises_leaves_nothing_behind_but_a_dead_letter_and_an_answer(bench: Bench) -> None:
    bench.lane.event(make_event("fail"), bench.batch)
    assert bench.topics() == ["tester.dlq", "event.refused"]
    assert bench.lane.state.get(Counted, "total") is None


def test_half_a_decision_is_never_applied(bench: Bench) -> None:
    bench.lane.event(make_event("half"), bench.batch)
    assert reasons(bench.batch) == []
    assert bench.topics() == ["tester.dlq", "event.refused"]
    assert bench.lane.state.get(Counted, "total") is None


@pytest.mark.parametrize("wish", ["note 1000000", "long work 1000000"])
def test_state_that_its_topic_would_not_take_is_refused_and_not_tried_for_ever(bench: Bench, wish: str) -> None:
    assert bench.lane.event(make_event(wish), bench.batch)
    assert bench.topics() == ["tester.dlq", "event.refused"]
    assert "large things in the object store" in dict(bench.batch.outgoing[0].headers)["dlq_reason"].decode()
    assert bench.lane.state.get(Note, "note") is None
    assert bench.lane.pending_work == 0
    bench.lane.event(make_event("note 900000"), bench.batch)
    assert bench.lane.state.get(Note, "note") is not None


def test_old_ids_are_forgotten_in_portions_that_a_transaction_can_hold(bench: Bench) -> None:
    old = [f"{number:08}" for number in range(2 * FORGET_AT_ONCE + 1)]
    for event_id in old:
        bench.lane.state.put(event_id, SeenId("0" * 64, int(bench.now.timestamp() * 1000), failed=False))
    bench.commit()
    bench.now += FORGET_IDS_AFTER + timedelta(seconds=1)
    left = []
    for _ in range(4):
        bench.lane.keep_house(bench.batch)
        left.append(len(list(bench.lane.state.all(SeenId))))
        bench.commit()
    assert left == [FORGET_AT_ONCE + 1, 1, 0, 0]


def test_a_refusal_of_many_long_reasons_in_foreign_text_can_be_said(bench: Bench) -> None:
    reasons = tuple(Reason(code="no", detail="\U0001f600\udcff\0" * 2_000) for _ in range(40))

    def refuse(*_: object) -> Decision:
        raise Refuse(*reasons)

    bench = Bench(replace(make_service(), decide=refuse))
    bench.lane.event(make_event("count"), bench.batch)
    assert bench.topics() == ["tester.dlq", "event.refused"]
    _, data = unframe("event.refused", bench.batch.outgoing[1].value or b"")
    said = decode_body("event.refused", data)
    assert isinstance(said, EventRefused)
    assert len(said.reasons) == 32


def test_a_refused_event_of_a_whole_lane_is_a_dead_letter_without_an_answer(bench: Bench) -> None:
    """An answer goes under a model's key, and it has none."""
    bench.lane.event(replace(make_event("refuse"), model=""), bench.batch)
    assert bench.topics() == ["tester.dlq"]


def test_an_undeclared_event_is_not_said(bench: Bench) -> None:
    bench.lane.event(make_event("undeclared"), bench.batch)
    assert "job.cancel_requested" not in bench.topics()
    assert bench.topics() == ["tester.dlq", "event.refused"]


def test_a_refused_event_is_answered_and_may_be_redriven_once(bench: Bench) -> None:
    event = make_event("refuse", seq=1)
    bench.lane.event(event, bench.batch)
    assert bench.topics() == ["tester.dlq", "event.refused"]
    bench.commit()
    bench.lane.event(event, bench.batch)
    assert bench.topics() == ["tester.dlq"], "the plain copy is a duplicate and is not answered again"
    bench.commit()
    bench.lane.event(event, bench.batch, redriven=True)
    assert bench.topics() == ["tester.dlq", "event.refused"]


def test_an_accepted_event_cannot_be_redriven(bench: Bench) -> None:
    counted, uncounted = make_event("count", seq=1), make_event("count")
    for event in (counted, uncounted):
        bench.lane.event(event, bench.batch)
    bench.commit()
    for event in (counted, uncounted):
        bench.lane.event(event, bench.batch, redriven=True)
    assert bench.topics() == ["tester.dlq", "tester.dlq"]
    assert bench.lane.state.get(Counted, "total") == Counted(2)


def test_an_event_that_comes_twice_is_decided_once(bench: Bench) -> None:
    for event in (make_event("count"), make_event("count", seq=7)):
        bench.lane.event(event, bench.batch)
        bench.lane.event(event, bench.batch)
    assert reasons(bench.batch) == ["counted", "counted"]
    assert bench.topics().count("tester.dlq") == 2


def test_an_older_number_of_a_producer_is_a_duplicate_and_a_new_epoch_is_not(bench: Bench) -> None:
    bench.lane.event(make_event("count", seq=5), bench.batch)
    bench.lane.event(make_event("count", seq=4), bench.batch)
    bench.lane.event(make_event("count", seq=1, epoch=2), bench.batch)
    assert bench.lane.state.get(Counted, "total") == Counted(2)


def test_a_run_of_failures_halts_the_lane_and_an_operator_resumes_it(bench: Bench) -> None:
    going = [bench.lane.event(make_event("fail"), bench.batch) for _ in range(CONSECUTIVE_FAILURES)]
    assert going == [True] * (CONSECUTIVE_FAILURES - 1) + [False]
    assert bench.lane.state.get(Halt, SELF) is not None
    resume = OperatorAction(action=RESUME_ACTION, target="tester", operator="o", arguments_json="{}", reason="r")
    of_one_model = replace(make_event("resume"), body=resume)
    bench.lane.event(of_one_model, bench.batch)
    assert bench.lane.halted is not None  # the lane is other models' too
    bench.lane.event(replace(make_event("resume"), body=resume, model=""), bench.batch)
    assert bench.lane.halted is None


def test_an_operator_moves_the_numbering_of_a_lane_to_a_newer_epoch_and_never_to_an_older_one(bench: Bench) -> None:
    def told(epoch: object) -> Head:
        arguments = msgspec.json.encode({"epoch": epoch}).decode()
        body = OperatorAction(
            action=RENUMBER_ACTION, target=f"tester/{LANE}", operator="o", arguments_json=arguments, reason="r"
        )
        bench.lane.event(replace(make_event("renumber"), body=body, model=""), bench.batch)
        head = bench.lane.state.get(Head, SELF)
        assert head is not None
        return head

    bench.lane.event(make_event("count"), bench.batch)
    before = bench.lane.state.get(Head, SELF)
    assert before is not None
    assert before.seq == 1
    for useless in (before.epoch, before.epoch - 1, "soon", None, 2**60):
        assert told(useless).epoch == before.epoch
    after = told(before.epoch + 5)
    assert (after.epoch, after.seq, after.prev, after.beat_seq) == (before.epoch + 5, 0, None, 0)
    assert after.counter == before.counter, "state records go on as they were"
    bench.lane.event(make_event("count"), bench.batch)
    said = bench.lane.state.get(Head, SELF)
    assert said is not None
    assert (said.epoch, said.seq) == (before.epoch + 5, 1)


def test_an_event_that_the_service_does_not_listen_to_is_not_decided(bench: Bench) -> None:
    """As a redrive could bring one."""
    body = JobCancelRequested(job_id="j", model=MODEL, reason="count", requested_by="sender")
    bench.lane.event(replace(make_event("count"), body=body), bench.batch, redriven=True)
    assert bench.topics() == ["tester.dlq"]
    assert dict(bench.batch.outgoing[0].headers)["dlq_error"] == b"not_listened_to"


def test_refusals_of_a_service_never_halt_it(bench: Bench) -> None:
    assert all(bench.lane.event(make_event("refuse"), bench.batch) for _ in range(3 * CONSECUTIVE_FAILURES))
    assert bench.lane.halted is None


def test_junk_of_unknown_writers_never_halts_and_fills_no_disk(bench: Bench) -> None:
    junk = Record("artifact.revoked", LANE, 0, 0, b"x", b"y", ())
    for _ in range(1_000):
        assert bench.lane.reject(junk, AiInfraError("junk", code="malformed_event"), None, bench.batch)
    assert bench.lane.halted is None
    assert bench.topics().count("tester.dlq") == 200, "the burst of the budget, while the clock stands still"


def test_a_known_sender_of_an_unverifiable_record_is_told(bench: Bench) -> None:
    event = make_event("count")
    sender = Sender(event.id, event.hash, event.signer, event.model, None)
    bench.lane.reject(event.record, AiInfraError("not yours to say", code="not_allowed"), sender, bench.batch)
    assert bench.topics() == ["tester.dlq", "event.refused"]


def test_bodies_that_nobody_can_read_halt_a_lane_where_a_service_sends_them_and_no_outsider_s_do(bench: Bench) -> None:
    event = make_event("count")
    sender = Sender(event.id, event.hash, event.signer, event.model, None)
    unreadable = TrustError("cut short", code="undecodable_body", signer_known=True)
    for _ in range(3 * CONSECUTIVE_FAILURES):
        assert bench.lane.reject(event.record, unreadable, sender, bench.batch)
    assert bench.lane.halted is None
    unreadable.by_service = True
    going = [bench.lane.reject(event.record, unreadable, sender, bench.batch) for _ in range(CONSECUTIVE_FAILURES)]
    assert going == [True] * (CONSECUTIVE_FAILURES - 1) + [False]


def test_a_timer_comes_due_once_and_survives_a_restart(bench: Bench) -> None:
    bench.lane.event(make_event("timer"), bench.batch)
    bench.commit()
    assert list(bench.lane.due(bench.now)) == []
    assert bench.lane.next_due() == bench.now + timedelta(seconds=10)
    restarted = Lane(LANE, bench.surroundings)
    for key, value in _encoded(bench.lane):
        restarted.state.load(key, value)
    restarted.loaded()
    bench.now += timedelta(seconds=11)
    for lane in (bench.lane, restarted):
        batch = Batch()
        for key in list(lane.due(bench.now)):
            lane.tick(key, batch)
        assert reasons(batch) == ["ticked"]
        lane.commit()
        assert list(lane.due(bench.now)) == []


def test_a_cancelled_timer_does_not_tick(bench: Bench) -> None:
    bench.lane.event(make_event("timer"), bench.batch)
    bench.lane.event(make_event("no timer"), bench.batch)
    bench.commit()
    bench.now += timedelta(minutes=1)
    assert list(bench.lane.due(bench.now)) == []
    assert list(bench.lane.state.all(PendingTimer)) == []


def test_a_timer_of_an_aborted_batch_comes_due_again(bench: Bench) -> None:
    bench.lane.event(make_event("timer"), bench.batch)
    bench.commit()
    bench.now += timedelta(seconds=11)
    for key in list(bench.lane.due(bench.now)):
        bench.lane.tick(key, bench.batch)
    bench.lane.rollback()
    assert list(bench.lane.due(bench.now)) == ["later"]


def test_work_done_inside_its_batch_leaves_no_pending_record(bench: Bench) -> None:
    bench.lane.event(make_event("work"), bench.batch)
    [pending] = bench.lane.to_start
    assert bench.lane.pending_work == 1
    assert bench.lane.done(pending, Answer("bread"), None, bench.batch)
    assert bench.lane.pending_work == 0
    records = bench.commit()
    assert reasons_of(records) == ["done bread"]
    assert list(bench.lane.state.all(Counted)) == [("done", Counted(1))]


def test_work_is_resumed_with_a_higher_attempt_by_whoever_takes_the_lane(bench: Bench) -> None:
    bench.lane.event(make_event("work"), bench.batch)
    bench.commit()
    successor = Lane(LANE, bench.surroundings)
    for key, value in _encoded(bench.lane):
        successor.state.load(key, value)
    successor.loaded()
    [work] = list(successor.resume_work(lambda _: False))
    assert work.attempt == 2
    successor.done(work, None, WorkError("lost", "gone", retriable=False), bench.batch)
    assert reasons(bench.batch) == ["done lost"]


def test_a_result_that_nobody_waits_for_is_dropped(bench: Bench) -> None:
    bench.lane.event(make_event("work"), bench.batch)
    [pending] = bench.lane.to_start
    bench.lane.event(make_event("cancel"), bench.batch)
    assert bench.lane.to_cancel == ["errand/e1"]
    assert not bench.lane.done(pending, Answer("bread"), None, bench.batch)
    assert reasons(bench.batch) == []


def test_the_clock_of_a_lane_never_goes_back(bench: Bench) -> None:
    bench.lane.event(make_event("count"), bench.batch)
    bench.commit()
    bench.now -= timedelta(hours=1)
    bench.lane.event(make_event("timer"), bench.batch)
    assert bench.lane.next_due() is not None
    assert bench.lane.next_due() > bench.now + timedelta(minutes=59)  # type: ignore[operator]  # not None, see above


def test_a_heartbeat_names_the_last_number_and_is_not_repeated_without_news(bench: Bench) -> None:
    bench.lane.event(make_event("count"), bench.batch)
    bench.commit()
    bench.now += timedelta(minutes=11)
    bench.lane.keep_house(bench.batch)
    assert bench.topics() == ["producer.heartbeat"]
    bench.commit()
    bench.now += timedelta(minutes=11)
    bench.lane.keep_house(bench.batch)
    assert bench.topics() == []


@given(st.lists(st.sampled_from(["count", "refuse", "fail", "half", "timer", "work", "forget", "abort"]), max_size=40))
def test_whatever_happens_the_numbers_are_dense_and_only_committed_decisions_count(wishes: list[str]) -> None:
    bench = Bench(make_service())
    committed = expected = 0
    forgotten = 0
    for wish in wishes:
        if bench.lane.halted:
            break
        event = make_event("count" if wish == "abort" else wish)
        bench.lane.event(event, bench.batch)
        if wish == "abort":
            bench.lane.rollback()
            bench.batch = Batch()
            continue
        committed += sum(1 for t in bench.topics() if t in {"artifact.revoked", "event.refused"})
        bench.commit()
        expected = expected + 1 if wish == "count" else 0 if wish == "forget" else expected
        forgotten += wish == "forget"
    head = bench.lane.state.get(Head, SELF)
    assert (head.seq if head else 0) == committed
    total = bench.lane.state.get(Counted, "total")
    assert (total.times if total else 0) == expected


@given(st.integers(1, 400), st.floats(0.001, 100, allow_nan=False))
def test_the_junk_budget_gives_no_more_than_burst_and_rate_allow(tries: int, seconds: float) -> None:
    budget = JunkBudget(per_second=2.0, burst=10)
    given_out = sum(budget.take(i * seconds / tries) for i in range(tries))
    assert given_out <= 10 + 2.0 * seconds + 1


def _encoded(lane: Lane) -> list[tuple[str, bytes]]:
    from ai_infra.bus.records import RUNTIME_RECORDS
    from ai_infra.bus.state import encode_record, record_name

    types = (*RUNTIME_RECORDS, Counted)
    return [(f"{record_name(t)}/{i}", encode_record(r)) for t in types for i, r in lane.state.all(t)]


def reasons_of(records: list[tuple[str, bytes | None]]) -> list[str]:
    found = []
    for topic, value in records:
        if topic == "artifact.revoked":
            _, data = unframe(topic, value or b"")
            found.append(decode_body(topic, data).reason)  # type: ignore[attr-defined]
    return found
