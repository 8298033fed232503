"""Whatever is written to a topic, reading it ends in an event or in an error of ours, never in its reader's end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_infra.bus.judge import Judge
from ai_infra.bus.redrive import compose_redrive, read_redrive
from ai_infra.bus.state_records import read_state_record, sign_state_record
from ai_infra.errors import AiInfraError
from ai_infra.events.compose import compose, uuid7
from ai_infra.events.event import EPOCH, Event, Record
from ai_infra.events.generated import JobCancelRequested
from ai_infra.events.lanes import lane_of
from ai_infra.trust.ed25519 import read_private_key
from ai_infra.trust.init import init_keys
from ai_infra.trust.keyring_document import read_roots
from ai_infra.trust.keyrings import Keyrings
from ai_infra.trust.session import Session, utc_now
from ai_infra.trust.signers import LocalSigner
from ai_infra.trust.verify import Verifier

LANES = 4
NAMES = [
    "causes",
    "producer",
    "epoch",
    "seq",
    "prev",
    "keyring",
    "ce_x",
    "redrive",
    "redrive_signature",
    "counter",
    "\ufffd",
]
BYTES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"null",
            b"[[[[" * 90,
            b"9" * 30,
            b"1_0",
            b" 1",
            b'[{"id":1,"lane":null}]',
            b'{"a":' * 300,
            b"\xed\xa0\x80",
            b"1e999",
        ]
    ),
)


@dataclass
class World:
    verifier: Verifier
    event: Record
    redriven: Record
    state: Record


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = init_keys(tmp_path_factory.mktemp("keys") / "k")
    keyrings = Keyrings(read_roots(made.directory / "roots.json"))
    keyrings.accept(made.keyring.text)

    def signer(key_id: str) -> LocalSigner:
        return LocalSigner(key_id, read_private_key((made.directory / "private" / f"{key_id}.key").read_text(), key_id))

    says, now = Session(signer("orchestrator-1"), "orchestrator", [JobCancelRequested.TOPIC], lambda: 1), utc_now()
    signed = compose(
        JobCancelRequested(job_id="j", model="m", reason="r", requested_by="orchestrator"),
        key="m",
        lane=lane_of("m", LANES),
        id=uuid7(),
        time=now,
        source="/x",
        subject="s",
        signer=says.signer_id,
        keyring=says.keyring,
        delegation=says.delegation,
        sign=says.sign,
    )
    ms = int((now - EPOCH).total_seconds() * 1000)
    event = Record(signed.topic, signed.partition, 0, ms, signed.key, signed.value, tuple(signed.headers))
    again = compose_redrive(event, "trainer", signer("operator-1"))
    redriven = Record(again.topic, again.partition, 0, ms, again.key, again.value, tuple(again.headers))
    keeps = Session(signer("trainer-1"), "trainer", ["job.status"], lambda: 1)
    headers = sign_state_record(keeps, topic="trainer.state", key="T/x", lane=1, value=b"{}", counter=1)
    state = Record("trainer.state", 1, 0, ms, b"T/x", b"{}", tuple(headers))
    return World(Verifier(keyrings, LANES), event, redriven, state)


@st.composite
def changes(draw: st.DrawFn) -> Callable[[Record], Record]:
    """One way to spoil a record."""
    what, junk, at = (
        draw(st.sampled_from(["header", "piece", "more", "value", "key"])),
        draw(BYTES),
        draw(st.integers(0, 99)),
    )
    name, cut = draw(st.sampled_from(NAMES)), draw(st.integers(0, 400))

    def change(record: Record) -> Record:
        headers, place = list(record.headers), at % len(record.headers)
        if what == "value":
            return replace(record, value=junk)
        if what == "key":
            return replace(record, key=junk)
        if what == "more":
            return replace(record, headers=(*headers[:place], (name, junk), *headers[place:]))
        old = headers[place][1]
        headers[place] = (headers[place][0], junk if what == "header" else old[:cut] + junk + old[cut + len(junk) :])
        return replace(record, headers=tuple(headers))

    return change


@given(change=changes())
def test_junk_is_an_error_of_ours_and_nothing_else(world: World, change: Callable[[Record], Record]) -> None:
    def read_again(record: Record) -> Event[Any]:
        return world.verifier.verify(read_redrive(record, world.verifier))

    def read_state(record: Record) -> object:
        return read_state_record(record, world.verifier, service="trainer")

    for sound, reads in ((world.event, world.verifier.verify), (world.redriven, read_again), (world.state, read_state)):
        assert reads(sound)
        try:
            reads(change(sound))
        except AiInfraError:
            continue


def test_what_a_fault_of_ours_makes_of_a_record_is_that_record_s_end_alone(world: World) -> None:
    class Faulty(Verifier):
        def verify(self, record: Record, **_: Any) -> Event[Any]:
            raise RecursionError

    judge = Judge("trainer", Faulty(world.verifier.keyrings, LANES), None, LANES)  # type: ignore[arg-type]  # not asked
    verdict = judge.judge(world.event)
    assert verdict.event is None
    assert verdict.sender is None
    assert verdict.error is not None
    assert verdict.error.code == "unreadable"
