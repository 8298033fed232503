"""State is signed and keyrings are followed: nothing forged comes back on restore, nothing newer is lost."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tests.system.bus_bench import STATE, Bench, Replica, check_sequences
from tests.system.bus_service import Note, service

from ai_infra.bus import process
from ai_infra.bus.state import MAX_RECORD_BYTES, encode_record
from ai_infra.bus.state_records import sign_state_record
from ai_infra.events.event import Record
from ai_infra.events.lanes import lane_of
from ai_infra.trust.open import open_client_signer, open_service_signer
from ai_infra.trust.session import Session


def test_forged_and_replayed_state_is_ignored(bench: Bench) -> None:
    first = bench.replica()
    model = bench.model()
    for number in range(1, 4):  # in three transactions, so that there is old state to replay
        bench.ask(model)
        bench.await_said(number, model)
    first.stop()
    bench.replicas.remove(first)

    lane, key = lane_of(model, bench.lanes), f"Total/{model}".encode()
    written = [r for r in bench.records(STATE) if r.partition == lane]
    totals, heads = ([r for r in written if r.key == k] for k in (key, b"_head/self"))
    assert len(totals) == 3
    registry = Session(open_service_signer(bench.settings, "registry"), "registry", ["artifact.registered"], lambda: 1)
    wish = b'{"v":1,"r":{"count":90}}'
    of_registry = sign_state_record(registry, topic=STATE, key=key.decode(), lane=lane, value=wish, counter=900)
    orchestrator = Session(open_client_signer(bench.settings), "canary", ["canary.status"], lambda: 1)
    of_nobody = sign_state_record(orchestrator, topic=STATE, key=key.decode(), lane=lane, value=wish, counter=901)
    bench.send(
        Record(STATE, lane, 0, 0, key, wish, ()),
        Record(STATE, lane, 0, 0, key, None, ()),
        Record(STATE, lane, 0, 0, key, wish, tuple(of_registry)),
        Record(STATE, lane, 0, 0, key, wish, tuple(of_nobody)),
        replace(totals[-1], value=wish),
        replace(totals[-1], key=b"Total/another"),
        replace(totals[-1], partition=(lane + 1) % bench.lanes),
        totals[0],
        heads[0],
        Record(STATE, lane, 0, 0, b"junk", b"\xff", (("signer", b"x"), ("signer", b"y"))),
    )
    bench.replica()
    bench.ask(model)
    assert [e.body.phase for e in bench.await_said(4, model)] == [1, 2, 3, 4]
    check_sequences(bench.said())


def test_the_largest_state_record_is_written_and_restored_and_a_larger_one_stops_nobody(bench: Bench) -> None:
    first = bench.replica()
    model = bench.model()
    largest = MAX_RECORD_BYTES - len(model) - len(encode_record(Note("")))
    bench.ask(model, f"note:{largest}", f"note:{largest + 1}", "count")
    bench.await_said(2, model)
    assert [code for code, _ in bench.letters(model)] == ["state_too_large"]
    first.stop()
    bench.replicas.remove(first)
    second = bench.replica()
    bench.ask(model)
    assert [e.body.phase for e in bench.await_said(3, model)] == [1, 2, 3]
    note = second.runtime._lanes[lane_of(model, bench.lanes)].state.get(Note, model)
    assert note is not None
    assert len(note.text) == largest


def test_an_event_that_names_a_newer_keyring_waits_for_it_and_is_accepted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "BROADCAST_SECONDS", 3_600.0)  # by itself it looks once, at the start
    replica = bench.replica()
    bench.working(replica)
    version = publish(bench)
    assert replica.process.keyring_version() == version - 1
    model = bench.model()
    bench.send(bench.sign(model, keyring=version), bench.sign(model, keyring=version + 900), bench.sign(model))
    assert [e.body.phase for e in bench.await_said(2, model)] == [1, 2]
    assert replica.process.keyring_version() == version
    assert [code for code, _ in bench.letters(model)] == ["unknown_keyring"]  # a version that there is not


def test_state_that_was_written_under_a_newer_keyring_is_restored(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = Replica(bench.settings, service())
    late.process._broadcast_at = float("inf")  # it looks at no keyring by itself
    version = publish(bench)
    first = bench.replica()
    model = bench.model()
    bench.ask(model, "count", "count")
    bench.await_said(2, model)
    first.stop()
    bench.replicas.remove(first)
    assert late.process.keyring_version() == version - 1
    bench.replicas.append(late.start())
    bench.ask(model)
    assert [e.body.phase for e in bench.await_said(3, model)] == [1, 2, 3]
    check_sequences(bench.said())


def publish(bench: Bench) -> int:
    """Another version of the keyring, signed and published as operators do it; returns its number."""
    name = bench.model()
    made = bench.cli("keys", "new", name, "--principal", name, "--kind", "person", "--reason", "a test", "--json")
    assert made.returncode == 0, made.stderr
    return int(json.loads(made.stdout)["version"])
