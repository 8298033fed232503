"""A Kernel payload has one form, whichever of the Kernel's two JSON writers recomputes it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nacl.signing import VerifyKey
from tests.properties import examples

from ai_infra.events.generated import BODIES
from ai_infra_indexer import kernel

UNSEQUENCED = {"serving.window", "serving.profile", "audit.checkpoint"}
SEQUENCED = sorted(set(BODIES) - UNSEQUENCED)
longs = st.integers(-(2**63), 2**63 - 1)
awkward = st.text(st.sampled_from('<>&%\u2028\u2029\b\f\t\n"\\aé😀\x7f0'), max_size=20)


def as_javascript(value: Any) -> str:
    """JSON.stringify with sorted keys, integer-like keys first, as an object in JavaScript has them."""
    if isinstance(value, dict):
        index = [k for k in value if re.fullmatch(r"0|[1-9][0-9]*", k)]
        ordered = sorted(index, key=int) + sorted(set(value) - set(index))
        return "{" + ",".join(f"{as_javascript(k)}:{as_javascript(value[k])}" for k in ordered) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(as_javascript, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def as_go(value: Any) -> str:
    """encoding/json of Go before 1.22: keys sorted by bytes, five characters and two controls escaped its way."""
    if isinstance(value, dict):
        ordered = sorted(value, key=str.encode)
        return "{" + ",".join(f"{as_go(k)}:{as_go(value[k])}" for k in ordered) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(as_go, value)) + "]"
    long = {"\\b": "\\u0008", "\\f": "\\u000c"}
    text = re.sub(r"\\.", lambda m: long.get(m[0], m[0]), json.dumps(value, ensure_ascii=False))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def statement(**changes: Any) -> dict[str, Any]:
    said = {
        "ce_type": "job.status",
        "ce_id": "0190b5a0-0000-7000-8000-000000000000",
        "ce_subject": None,
        "ce_source": "/test",
        "ce_time": "2026-03-01T12:00:00.000Z",
        "key": "digits",
        "signer": "trainer-1",
        "causes": [],
    }
    return {**said, **changes}


def unescape(text: str) -> str:
    return re.sub(r"(?:%[0-9A-F]{2})+", lambda m: bytes.fromhex(m[0].replace("%", "")).decode(), text)


@pytest.mark.parametrize("topic", SEQUENCED)
@settings(max_examples=examples(15), suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_both_canonical_forms_agree_on_the_payload_of_any_event(
    topic: str, any_body: Callable[[str], st.SearchStrategy[Any]], data: st.DataObject
) -> None:
    body = data.draw(any_body(topic))
    said = statement(ce_type=topic, ce_subject=data.draw(st.none() | awkward), ce_source=data.draw(awkward))
    raw = kernel.payload(said, body.to_dict(), lane=3, position=17, event_hash="0" * 64)
    parsed = json.loads(raw)
    assert raw.decode() == as_javascript(parsed) == as_go(parsed)


@settings(max_examples=examples(50))
@given(
    st.recursive(
        awkward | longs | st.none() | st.booleans(),
        lambda inner: st.lists(inner) | st.dictionaries(awkward, inner),
    )
)
def test_any_value_becomes_portable_and_texts_can_be_read_back(value: Any) -> None:
    portable = kernel.portable(value)
    raw = json.dumps(portable, ensure_ascii=False)
    assert not re.search("[<>&\u2028\u2029]", raw)
    assert as_javascript(portable) == as_go(portable)
    if isinstance(value, str):
        assert unescape(portable) == value


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), awkward | longs, max_size=6))
def test_the_quick_form_is_the_walked_form(said: dict[str, Any]) -> None:
    quick = kernel._quick(said)
    walked = json.dumps(kernel.portable(said), ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    assert quick is None or quick == walked


def test_integers_beyond_the_safe_range_travel_as_text() -> None:
    assert kernel.portable([2**53 - 1, 2**53, -(2**53)]) == [2**53 - 1, "9007199254740992", "-9007199254740992"]


def test_a_fraction_is_an_error() -> None:
    with pytest.raises(TypeError):
        kernel.portable({"score": 0.5})


@pytest.mark.parametrize("key", ["12", "0", "__proto__", "é", "a<b"])
def test_keys_are_ascii_and_mean_nothing_to_a_json_library(key: str) -> None:
    escaped = kernel.escape_key(key)
    assert escaped.isascii()
    assert not re.fullmatch(r"[0-9]+|__proto__", escaped)
    assert unescape(escaped) == key


def test_the_person_who_speaks_is_the_actor_and_a_service_is_its_key(world: Any) -> None:
    asked = kernel.payload(
        statement(ce_type="job.queued", signer="orchestrator-1"),
        world.queued().to_dict(),
        lane=0,
        position=0,
        event_hash="0" * 64,
    )
    registered = kernel.payload(
        statement(ce_type="artifact.registered", signer="registry-1"),
        world.registered().to_dict(),
        lane=0,
        position=0,
        event_hash="0" * 64,
    )
    assert (json.loads(asked)["actor"], json.loads(registered)["actor"]) == ("orchestrator", "registry-1")


def test_a_chain_row_is_hashed_and_signed_as_the_contract_says(world: Any) -> None:
    payload = b'{"a":1}'
    first = kernel.link(payload, prev_hash=None, event_id="e1", ts_us=1, signer=world.chain())
    second = kernel.link(payload, prev_hash=first.hash, event_id="e2", ts_us=2, signer=world.chain())
    assert first.hash == hashlib.sha256(payload).hexdigest()
    assert second.hash == hashlib.sha256(payload + bytes.fromhex(first.hash)).hexdigest()
    VerifyKey(world.chain().public_key).verify(bytes.fromhex(second.hash), base64.b64decode(second.signature))


def test_times_have_microseconds_and_come_back_exactly() -> None:
    assert kernel.timestamp(1_795_222_127_104_001) == "2026-11-21T00:48:47.104001Z"
    assert kernel.when(1_795_222_127_104_001).microsecond == 104_001
