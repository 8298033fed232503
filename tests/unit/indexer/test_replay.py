"""A replay accepts what was entered and nothing else: each change of an entry is named."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest

from ai_infra.trust.keyrings import Keyrings
from ai_infra.trust.signers import LocalSigner
from ai_infra_indexer.replay import BadEntry, Replay
from ai_infra_indexer.sequence import Line, sequence

from .voices import LANES


@pytest.fixture
def lines(world: Any) -> list[Line]:
    verifier = world.verifier()
    events = [verifier.verify(record) for record in (world.keyring_record(), *world.story())]
    return sequence(world.head(), events, world.chain())[0]


def replay(world: Any, *, chain_signatures: bool = True) -> Replay:
    return Replay(world.head(), Keyrings(world.roots), 4, chain_signatures=chain_signatures)


def changed(raw: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """The entry with its header changed and written canonically again."""
    head, _, body = raw.partition(b"\n")
    header = orjson.loads(head)
    change(header)
    return orjson.dumps(header, option=orjson.OPT_SORT_KEYS) + b"\n" + body


def test_what_was_sequenced_replays_to_the_same_lines(world: Any, lines: list[Line]) -> None:
    again = replay(world)
    for line in lines:
        taken = again.take(line.raw)
        assert (taken.payload, taken.link, taken.event.hash) == (line.payload, line.link, line.event.hash)
    assert again.head.size == len(lines)


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("wrong_position", lambda h: h.update(position=7)),
        ("wrong_position", lambda h: h.update(lane=h["lane"] + 1)),
        ("broken_chain", lambda h: h["chain"].update(prev_hash="0" * 64)),
        ("bad_time", lambda h: h["chain"].update(ts=h["chain"]["ts"] + 1)),
        ("bad_time", lambda h: h.update(append_time_ms=h["append_time_ms"] + 1)),
        ("bad_chain_hash", lambda h: h["chain"].update(hash="0" * 64)),
        ("bad_chain_signature", lambda h: h["chain"].update(signature=base64.b64encode(bytes(64)).decode())),
        ("unknown_chain_key", lambda h: h["chain"].update(signer_id="chain-2")),
        ("broken_chain", lambda h: h["chain"].update(id="0190b5a0-0000-7000-8000-000000000000")),
        ("bad_signature", lambda h: h["statement"].update(ce_subject="else")),
        ("bad_signature", lambda h: h.update(signature=base64.b64encode(bytes(64)).decode())),
        ("bad_signature", lambda h: h["statement"].update(signer="operator-1")),
        ("wrong_lane", lambda h: h["kafka"].update(partition=0)),
    ],
)
def test_a_changed_field_is_found(
    world: Any, lines: list[Line], code: str, change: Callable[[dict[str, Any]], None]
) -> None:
    again = replay(world)
    for line in lines[:3]:
        again.take(line.raw)
    with pytest.raises(BadEntry) as found:
        again.take(changed(lines[3].raw, change))
    assert found.value.code in (code, "bad_delegation", "malformed_event", "wrong_lane")
    again.take(lines[3].raw)  # it has not moved
    together = replay(world)
    assert len(together.take_all([*(line.raw for line in lines[:3]), changed(lines[3].raw, change)])) == 3
    assert together.head.size == 3


def test_many_at_once_are_the_lines_that_they_are_one_by_one_up_to_the_first_bad_one(
    world: Any, lines: list[Line]
) -> None:
    raws = [line.raw for line in lines]
    for bad in range(len(lines) + 1):
        given = [*raws[:bad], b"no entry", *raws[bad:]]
        again = replay(world)
        taken = again.take_all(given)
        assert [(t.payload, t.link, t.event.hash) for t in taken] == [
            (line.payload, line.link, line.event.hash) for line in lines[:bad]
        ]
        with pytest.raises(BadEntry):
            again.take(given[bad])
        assert len(again.take_all(raws[bad:])) == len(lines) - bad


def test_every_byte_counts_but_those_that_only_the_tree_covers(world: Any, lines: list[Line]) -> None:
    raw = lines[1].raw
    offset = raw.index(b'"offset":') + len(b'"offset":')
    for at in range(0, len(raw), 37):
        if at == offset:
            continue  # where it stood in Kafka is no part of event or chain row
        again = replay(world)
        again.take(lines[0].raw)
        flipped = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        try:
            again.take(flipped)
        except BadEntry:
            continue
        pytest.fail(f"nobody saw {raw[at - 20 : at + 20]!r} become {flipped[at - 20 : at + 20]!r}")


def test_rows_signed_by_another_key_are_found_even_where_the_hashes_fit(world: Any) -> None:
    verifier = world.verifier()
    events = [verifier.verify(record) for record in (world.keyring_record(), *world.story())]
    forged, _ = sequence(world.head(), events, LocalSigner.fresh("chain-1"))
    with pytest.raises(BadEntry) as found:
        replay(world).take(forged[0].raw)
    assert found.value.code == "bad_chain_signature"
    replay(world, chain_signatures=False).take(forged[0].raw)  # a rebuild leans on hash chain and checkpoint instead


def test_an_entry_left_out_is_found(world: Any, lines: list[Line]) -> None:
    again = replay(world)
    again.take(lines[0].raw)
    with pytest.raises(BadEntry) as found:
        again.take(lines[2].raw)
    assert found.value.code == "wrong_position"


def test_a_lane_without_its_keyring_verifies_nothing(world: Any, lines: list[Line]) -> None:
    with pytest.raises(BadEntry):
        replay(world).take(lines[1].raw)


def test_an_event_of_another_lane_is_no_entry_of_this_one(world: Any, lines: list[Line]) -> None:
    """Signed as it is, by who may say it, and sequenced by a writer who has all the keys of the log."""
    other = replace(world.head(), lane=(world.lane + 1) % LANES)
    foreign, _ = sequence(other, [line.event for line in lines], world.chain())
    again = Replay(other, Keyrings(world.roots), LANES, chain_signatures=True)
    again.take(foreign[0].raw)  # a keyring is entered into every lane
    with pytest.raises(BadEntry) as found:
        again.take(foreign[1].raw)
    assert found.value.code == "wrong_lane"
