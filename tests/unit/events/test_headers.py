"""Headers: one exact form each; everything else is refused by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from ai_infra.events.compose import SignedRecord
from ai_infra.events.event import Cause
from ai_infra.events.exceptions import BadText, EventError, MalformedEvent, RepeatedHeader
from ai_infra.events.generated import JobCancelRequested
from ai_infra.events.headers import MAX_CAUSES, Headers, from_headers, to_headers

BODY = JobCancelRequested(job_id="j", model="digits", reason="r", requested_by="me")
ID = "018f0000-0000-7000-8000-00000000000b"
HASH = "ab" * 32
REQUIRED = [
    *("ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_dataschema", "content-type"),
    *("signer", "signature", "delegation", "keyring", "producer", "epoch", "seq", "prev"),
]


@pytest.fixture
def headers(say: Callable[..., SignedRecord]) -> dict[str, bytes]:
    signed = say(
        BODY,
        subject="digits",
        producer="trainer/7",
        epoch=0,
        seq=2,
        prev=HASH,
        causes=(Cause(ID, 7),),
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    return dict(signed.headers)


def items(headers: Mapping[str, bytes | None]) -> Headers:
    return tuple(headers.items())  # type: ignore[arg-type]  # Kafka has headers without a value


def test_headers_come_back_as_they_were(headers: dict[str, bytes]) -> None:
    attributes = from_headers(items(headers))
    assert dict(to_headers(attributes)) == headers
    assert attributes.causes == (Cause(ID, 7),)
    assert (attributes.producer, attributes.epoch, attributes.seq, attributes.prev) == ("trainer/7", 0, 2, HASH)


def test_order_of_headers_means_nothing(headers: dict[str, bytes]) -> None:
    assert from_headers(items(headers)[::-1]) == from_headers(items(headers))


@pytest.mark.parametrize("name", ["signer", "ce_id", "traceparent", "x-of-somebody-else"])
def test_a_header_that_comes_twice_is_refused_whatever_it_is(headers: dict[str, bytes], name: str) -> None:
    value = headers.get(name, b"1")
    with pytest.raises(RepeatedHeader, match=name):
        from_headers((*items(headers | {name: value}), (name, value)))


@pytest.mark.parametrize(
    "name",
    REQUIRED,
)
def test_a_header_that_is_missing_is_named(headers: dict[str, bytes], name: str) -> None:
    del headers[name]
    with pytest.raises(MalformedEvent, match=name):
        from_headers(items(headers))


def test_headers_that_may_be_absent_may_be_absent(headers: dict[str, bytes]) -> None:
    for name in ("ce_subject", "producer", "epoch", "seq", "prev", "causes", "traceparent"):
        del headers[name]
    attributes = from_headers(items(headers))
    assert (attributes.subject, attributes.producer, attributes.seq, attributes.causes) == (None, None, None, ())


def test_the_first_event_of_a_producer_needs_no_prev(headers: dict[str, bytes]) -> None:
    del headers["prev"]
    headers["seq"] = b"1"
    assert from_headers(items(headers)).prev is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ce_specversion", b"1.1"),
        ("content-type", b"application/json"),
        ("ce_id", b""),
        ("ce_id", b"018F0000-0000-7000-8000-00000000000A"),
        ("ce_id", b"{018f0000-0000-7000-8000-00000000000a}"),
        ("ce_id", b"018f0000-0000-7000-8000-00000000000a\n"),
        ("ce_source", b""),
        ("ce_source", b"s" * 257),
        ("ce_source", b"a\nb"),
        ("ce_type", b""),
        ("ce_type", b"t" * 129),
        ("ce_subject", b""),
        ("ce_subject", b"\x7f"),
        ("ce_time", b"2026-01-02T03:04:05Z"),
        ("ce_time", b"2026-01-02T03:04:05.678901Z"),
        ("ce_time", b"2026-01-02T03:04:05.678+00:00"),
        ("ce_time", b"2026-01-02t03:04:05.678z"),
        ("ce_time", b"2026-02-30T03:04:05.678Z"),
        ("ce_time", b"2026-01-02T03:04:60.000Z"),
        ("ce_time", b"0000-01-02T03:04:05.678Z"),
        ("ce_dataschema", b"urn:ai-infra:schema:" + b"AB" * 32),
        ("ce_dataschema", b"urn:ai-infra:schema:" + b"ab" * 31),
        ("ce_dataschema", b"ab" * 32),
        ("signer", b""),
        ("signer", b"x" * 129),
        ("signature", b"s" * 63),
        ("signature", b"s" * 65),
        ("delegation", b"d" * 64),
        ("delegation", b"d" * 401),
        ("keyring", b"01"),
        ("keyring", b"+1"),
        ("keyring", b"-1"),
        ("keyring", b""),
        ("keyring", b"1 "),
        ("keyring", "١".encode()),
        ("keyring", b"9007199254740992"),
        ("epoch", b"x"),
        ("seq", b"1e3"),
        ("prev", b"AB" * 32),
        ("prev", b""),
        ("prev", b"ab" * 31 + b"a"),
        ("prev", b"ab" * 31 + "é".encode()),
        ("causes", b"[]"),
        ("causes", b""),
        ("causes", b"{}"),
        ("causes", b"null"),
        ("causes", b"[1]"),
        ("causes", b'[{"id":7,"lane":7}]'),
        ("causes", b'[{"id":"018f0000-0000-7000-8000-00000000000b","lane":true}]'),
        ("causes", b'[{"id":"018f0000-0000-7000-8000-00000000000b","lane":7.0}]'),
        ("causes", b'[{"id":"018f0000-0000-7000-8000-00000000000b","lane":-1}]'),
        ("causes", b'[{"id":"018f0000-0000-7000-8000-00000000000b","lane":07}]'),
        ("causes", b'[{"id":"018f0000-0000-7000-8000-00000000000b","lane":9007199254740992}]'),
        ("causes", b'[{"id":"018F0000-0000-7000-8000-00000000000B","lane":7}]'),
        ("causes", b'[{"id":"018f0000-0000-7000-8000-00000000000b","lane":7,"x":1}]'),
        ("causes", b'[{"id":"018f0000-0000-7000-8000-00000000000b","lane":6,"lane":7}]'),
        ("causes", b'[{"lane":7,"id":"018f0000-0000-7000-8000-00000000000b"}]'),
        ("causes", b'[{"id": "018f0000-0000-7000-8000-00000000000b","lane":7}]'),
        ("causes", b"[" * 5000),
        ("ce_extension", b"1"),
        ("ce_", b"1"),
        ("note", b"x" * 17_000),
    ],
)
def test_another_form_is_refused(headers: dict[str, bytes], name: str, value: bytes) -> None:
    with pytest.raises(MalformedEvent):
        from_headers(items(headers | {name: value}))


@pytest.mark.parametrize("name", ["ce_source", "ce_subject", "signer", "producer"])
@pytest.mark.parametrize("value", [b"a\0b", b"\xff", b"\xed\xa0\x80"])
def test_text_that_is_no_text_is_refused(headers: dict[str, bytes], name: str, value: bytes) -> None:
    with pytest.raises(BadText):
        from_headers(items(headers | {name: value}))


def test_a_header_of_ours_without_a_value_is_refused(headers: dict[str, bytes]) -> None:
    for name in headers:
        with pytest.raises(MalformedEvent):
            from_headers(items(headers | {name: None}))


def test_headers_of_others_are_let_through_even_without_a_value(headers: dict[str, bytes]) -> None:
    more = headers | {"tracestate": b"a=b", "empty": None}
    assert from_headers(items(more)) == from_headers(items(headers))


def test_too_many_headers_are_refused(headers: dict[str, bytes]) -> None:
    with pytest.raises(MalformedEvent, match="64"):
        from_headers(items(headers | {f"h{i}": b"" for i in range(64)}))


def test_a_trace_in_another_form_is_no_trace(headers: dict[str, bytes]) -> None:
    assert from_headers(items(headers | {"traceparent": b"junk"})).traceparent is None


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "x"},
        {"source": ""},
        {"source": "a\0"},
        {"source": "\ud800"},
        {"subject": "s" * 300},
        {"signer": "a\tb"},
        {"keyring": -1},
        {"keyring": 2**53},
        {"keyring": True},
        {"delegation": b""},
        {"producer": "p"},
        {"producer": "p", "epoch": 0, "seq": 2},
        {"epoch": 0},
        {"prev": HASH},
        {"producer": "p", "epoch": 0, "seq": 1, "prev": "x"},
        {"causes": (Cause("x", 1),)},
        {"causes": (Cause(ID, -1),)},
        {"causes": (Cause(ID, 0),) * (MAX_CAUSES + 1)},
    ],
)
def test_a_sender_is_refused_what_readers_would_refuse(say: Callable[..., SignedRecord], changes: object) -> None:
    with pytest.raises(EventError):
        say(BODY, **changes)  # type: ignore[arg-type]  # a mapping of names to values
