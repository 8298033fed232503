"""What a service cannot accept: put aside with the reason, answered where the sender is known, and never its end."""

from __future__ import annotations

import json
from dataclasses import replace

from tests.system.bus_bench import DEAD, NAME, RETRY, Bench, until
from tests.system.bus_service import service

from ai_infra.bus.decision import Refuse
from ai_infra.bus.halts import CONSECUTIVE_FAILURES
from ai_infra.events.event import Record
from ai_infra.events.generated import EvaluationRecorded, EventRefused, Reason


def test_a_refused_event_is_a_dead_letter_as_it_was_and_its_sender_is_told(bench: Bench) -> None:
    bench.replica()
    model = bench.model()
    refused, accepted = bench.ask(model, "refuse", "count")
    bench.await_said(1, model)
    [(code, letter)] = bench.letters(model)
    [sent, _] = [r for r in bench.records(EvaluationRecorded.TOPIC) if r.key == model.encode()]
    assert code == "not_today"
    assert (letter.key, letter.value) == (sent.key, sent.value)
    assert letter.headers[: len(sent.headers)] == sent.headers
    notes = {name: value.decode() for name, value in letter.headers if name.startswith("dlq_")}
    assert notes["dlq_topic"] == EvaluationRecorded.TOPIC
    assert (int(notes["dlq_partition"]), int(notes["dlq_offset"])) == (sent.partition, sent.offset)
    assert int(notes["dlq_append_time_ms"]) == sent.append_time_ms
    assert notes["dlq_reason"] == "not_today: asked to refuse"
    [answer] = bench.said(EventRefused, model)
    assert (answer.body.event_id, answer.body.service, answer.body.signer) == (refused, NAME, "orchestrator-1")
    assert answer.body.reasons == (Reason(code="not_today", detail="asked to refuse"),)
    assert answer.causes[0].id == refused
    [status] = bench.said(model=model)
    assert (status.causes[0].id, status.body.phase) == (accepted, 1)


def test_a_redriven_event_is_heard_by_its_service_alone_and_accepted_once(bench: Bench) -> None:
    mended = False

    def gate(wish: str) -> None:
        if wish == "mend" and not mended:
            raise Refuse(Reason(code="not_yet", detail="not mended yet"))

    bench.replica(service(gate=gate))
    model = bench.model()
    bench.ask(model, "mend", "count")
    bench.await_said(1, model)
    listed = json.loads(bench.cli("dlq", "list", "--service", NAME, "--json").stdout)
    [place] = [letter["place"] for letter in listed if letter["key"] == model]
    for code in ("not_yet", "duplicate"):
        redriven = bench.cli("dlq", "redrive", place, "--reason", "mended")
        assert redriven.returncode == 0, redriven.stderr
        if code == "not_yet":  # not mended, so refused again: it may be redriven once more
            until(lambda: [c for c, _ in bench.letters(model)] == ["not_yet"] * 2, "refused again")
            mended = True
            assert bench.cli("dlq", "redrive", place, "--reason", "mended now").returncode == 0
            bench.await_said(2, model)
    until(lambda: [c for c, _ in bench.letters(model)] == ["not_yet"] * 2 + ["duplicate"], "accepted only once")
    assert [e.body.phase for e in bench.said(model=model)] == [1, 2]
    assert len([r for r in bench.records(EvaluationRecorded.TOPIC) if r.key == model.encode()]) == 2


def test_a_redrive_that_no_operator_signed_is_not_heard(bench: Bench) -> None:
    bench.replica()
    model = bench.model()
    bench.ask(model, "refuse")
    until(lambda: bench.letters(model), "it is refused")
    sent = next(r for r in bench.records(EvaluationRecorded.TOPIC) if r.key == model.encode())
    bench.send(replace(sent, topic=RETRY))
    until(lambda: [code for code, _ in bench.letters(model)] == ["not_today", "bad_redrive"], "it is refused too")


def test_a_run_of_failures_halts_the_lane_alone_until_an_operator_resumes_it(bench: Bench) -> None:
    broken = True

    def gate(wish: str) -> None:
        if wish == "break" and broken:
            raise RuntimeError("a bad deploy")

    first = bench.replica(service(gate=gate))
    model, other = bench.model(0), bench.model(1)
    bench.ask(model, "count", *["break"] * (CONSECUTIVE_FAILURES + 10))
    status, text = until(
        lambda: "lane 0 halted" in (a := first.ready())[1] and a, "the lane halts, and readiness says so"
    )
    assert status == 503
    assert "a bad deploy" in text
    bench.ask(other)
    bench.await_said(1, other)
    letters = bench.letters(model)
    assert [code for code, _ in letters] == ["decide_failed"] * CONSECUTIVE_FAILURES  # the other ten wait
    first.stop()
    bench.replicas.remove(first)

    second = bench.replica(service(gate=gate))
    until(lambda: "lane 0 halted" in second.ready()[1], "whoever takes the lane finds it halted")
    shown = json.loads(bench.cli("groups", "show", NAME, "--json").stdout)
    assert [(h["lane"], h["failures"]) for h in shown[0]["halted"]] == [(0, CONSECUTIVE_FAILURES)]
    broken = False
    resumed = bench.cli("groups", "resume", NAME, "--lane", "0", "--reason", "mended")
    assert resumed.returncode == 0, resumed.stderr
    assert [e.body.phase for e in bench.await_said(11, model)] == list(range(1, 12))
    assert second.ready()[0] == 200


def test_a_record_whose_time_its_writer_chose_is_refused_and_says_what_to_mend(bench: Bench) -> None:
    """Else who has found an expired key would choose a time at which it counted."""
    bench.replica()
    model = bench.model()
    bench.admin.set_topic_config(EvaluationRecorded.TOPIC, {"message.timestamp.type": "CreateTime"})
    try:
        until(lambda: bench.ask(model, "ignore") and bench.letters(model), "such a record is refused")
    finally:
        bench.admin.set_topic_config(EvaluationRecorded.TOPIC, {"message.timestamp.type": "LogAppendTime"})
    code, letter = bench.letters(model)[0]
    assert code == "expired_delegation"
    assert "topics check --fix" in dict(letter.headers)["dlq_reason"].decode()
    until(lambda: bench.ask(model) and bench.said(model=model), "the topic is as it was")


def test_junk_of_unknown_writers_halts_nothing_and_does_not_fill_the_dead_letters(bench: Bench) -> None:
    replica = bench.replica()
    model = bench.model()
    good = bench.sign(model)
    foreign = Record(good.topic, good.partition, 0, 0, good.key, good.value, tuple(good.headers))
    forged = replace(
        foreign, headers=tuple((n, bytes(64) if n == "signature" else v) for n, v in foreign.headers)
    )  # the name of a known signer is no signature
    newer = replace(forged, headers=tuple((n, b"999" if n == "keyring" else v) for n, v in forged.headers))
    empty = replace(foreign, value=None, headers=())
    junk = [*[forged] * 300, *[newer] * 300, *[empty] * 2_000]
    bench.send(*junk, good)
    bench.ask(model)
    assert [e.body.phase for e in bench.await_said(2, model)] == [1, 2]
    assert replica.ready()[0] == 200
    codes = [code for code, _ in bench.letters(model)]
    assert "bad_signature" in codes
    assert len(codes) < len(junk) / 2  # the rest was counted and dropped
    assert not bench.said(EventRefused, model)
    assert len(bench.records(DEAD)) >= len(codes)
