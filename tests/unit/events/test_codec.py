"""The codec: every body survives the trip, and the bytes are the ones that any Avro library writes."""

from __future__ import annotations

import functools
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import fastavro
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.properties import examples

from ai_infra.events import generated
from ai_infra.events.codec import (
    MAX_BODY_BYTES,
    decode_body,
    encode_body,
    frame,
    registry_framing,
    registry_id,
    unframe,
)
from ai_infra.events.exceptions import BadText, BodyTooLarge, UndecodableBody, UnknownSchema
from ai_infra.events.generated import (
    BODIES,
    SCHEMAS,
    JobCancelRequested,
    JobQueued,
    JobStatus,
    JobStatusKind,
    Resources,
)

# A few examples of each of the many topics: a fault of the codec shows in all of them.
few = settings(max_examples=examples(5), suppress_health_check=[HealthCheck.too_slow])
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
_times = st.integers(-62_135_596_800_000, 253_402_300_799_999).map(lambda n: _EPOCH + timedelta(milliseconds=n))
_SIMPLE: dict[str, st.SearchStrategy[Any]] = {
    "string": _texts,
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
}


def values(schema: Any, names: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Python values of a type; named types are those of the generated package."""
    if isinstance(schema, list):
        return st.none() | values(schema[1], names)
    if isinstance(schema, str):
        return _SIMPLE[schema] if schema in _SIMPLE else values(names[schema], names)
    if schema["type"] == "array":
        return st.lists(values(schema["items"], names), max_size=2).map(tuple)
    if schema["type"] == "map":
        return st.dictionaries(_texts, values(schema["values"], names), max_size=2)
    if schema["type"] == "record":
        names[schema["name"]] = schema
        fields = {field["name"]: values(field["type"], names) for field in schema["fields"]}
        return st.builds(getattr(generated, schema["name"]), **fields)
    if schema["type"] == "enum":
        names[schema["name"]] = schema
        return st.sampled_from(list(getattr(generated, schema["name"])))
    return _times if schema.get("logicalType") else _SIMPLE[schema["type"]]


@functools.cache
def bodies(topic: str) -> st.SearchStrategy[Any]:
    return values(json.loads(SCHEMAS[BODIES[topic].SCHEMA_SHA256]), {})


def plain(value: Any) -> Any:
    """A body as the dict that a general Avro library takes."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__slots__}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, str) else value


@pytest.mark.parametrize("topic", BODIES)
@few
@given(st.data())
def test_every_body_comes_back_as_it_was_and_reads_alike_elsewhere(topic: str, data: st.DataObject) -> None:
    body = data.draw(bodies(topic))
    raw = encode_body(body)
    assert decode_body(topic, raw) == body
    assert unframe(topic, frame(body)) == (body.SCHEMA_SHA256, raw)

    # A general Avro library reads the same from our bytes, and we from its.
    schema = fastavro.parse_schema(json.loads(SCHEMAS[body.SCHEMA_SHA256]))
    assert fastavro.schemaless_reader(io.BytesIO(raw), schema, None) == plain(body)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, plain(body))
    assert decode_body(topic, out.getvalue()) == body

    shown = body.to_dict()
    assert json.loads(json.dumps(shown)) == shown
    assert list(shown) == list(type(body).__slots__)

    with pytest.raises(UndecodableBody):
        decode_body(topic, raw[: data.draw(st.integers(0, len(raw) - 1))])
    with pytest.raises(UndecodableBody):
        decode_body(topic, raw + b"\0")


@pytest.mark.parametrize("topic", BODIES)
@few
@given(st.binary(max_size=300))
def test_random_bytes_are_read_or_refused_but_never_crash(topic: str, raw: bytes) -> None:
    try:
        body = decode_body(topic, raw)
    except (UndecodableBody, BadText):
        return
    assert decode_body(topic, encode_body(body)) == body


def _cancel(**changes: Any) -> JobCancelRequested:
    return JobCancelRequested(**{"job_id": "j", "model": "m", "reason": "r", "requested_by": "me"} | changes)


def test_text_with_u_0000_is_refused_by_writer_and_reader() -> None:
    with pytest.raises(BadText):
        encode_body(_cancel(reason="a\0b"))
    with pytest.raises(BadText):
        decode_body("job.cancel_requested", encode_body(_cancel(reason="axb")).replace(b"axb", b"a\0b"))


def test_lone_surrogates_are_refused_by_writer_and_reader() -> None:
    with pytest.raises(BadText):
        encode_body(_cancel(reason="\ud800"))
    with pytest.raises(BadText):
        decode_body("job.cancel_requested", encode_body(_cancel(reason="xyz")).replace(b"xyz", b"\xed\xa0\x80"))


@pytest.mark.parametrize("junk", [b"\xff\xfe\xfd", b"\xc0\xaf!", b"ab\xc3"])
def test_invalid_utf8_is_refused(junk: bytes) -> None:
    with pytest.raises(BadText):
        decode_body("job.cancel_requested", encode_body(_cancel(reason="xyz")).replace(b"xyz", junk))


def test_a_body_of_exactly_48_kib_passes_and_one_byte_more_does_not() -> None:
    spare = MAX_BODY_BYTES - len(encode_body(_cancel(reason="r" * 10_000))) + 10_000
    raw = encode_body(_cancel(reason="r" * spare))
    assert len(raw) == MAX_BODY_BYTES
    assert decode_body("job.cancel_requested", raw) == _cancel(reason="r" * spare)
    with pytest.raises(BodyTooLarge):
        encode_body(_cancel(reason="r" * (spare + 1)))
    with pytest.raises(BodyTooLarge):
        decode_body("job.cancel_requested", raw + b"\0")
    with pytest.raises(BodyTooLarge):
        unframe("job.cancel_requested", frame(_cancel())[:10] + raw + b"\0")
    assert unframe("job.cancel_requested", registry_framing(1) + raw)[1] == raw
    with pytest.raises(BodyTooLarge):
        unframe("job.cancel_requested", registry_framing(1) + raw + b"\0")


@pytest.mark.parametrize(
    "changes",
    [{"reason": 5}, {"reason": None}, {"reason": b"x"}],
)
def test_a_value_of_another_type_is_refused_by_the_writer(changes: dict[str, Any]) -> None:
    with pytest.raises(UndecodableBody):
        encode_body(_cancel(**changes))


def _status(**changes: Any) -> JobStatus:
    fields: dict[str, Any] = {
        "job_id": "j",
        "model": "m",
        "status": JobStatusKind.RUNNING,
        "attempt": 1,
        "runner": "",
        "queued_time": _EPOCH,
        "reason_code": "",
        "reason": "",
        "rules": "trainer/v1",
    }
    return JobStatus(**fields | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"attempt": 2**31},
        {"attempt": True},
        {"attempt": 1.0},
        {"status": "jumping"},
        {"status": 2},
        {"queued_time": datetime(2026, 1, 1)},  # noqa: DTZ001  # what is to be refused
        {"queued_time": 5},
        {"started_time": "now"},
        {"exit_code": "0"},
    ],
)
def test_numbers_symbols_and_times_that_do_not_fit_are_refused_by_the_writer(changes: dict[str, Any]) -> None:
    with pytest.raises(UndecodableBody):
        encode_body(_status(**changes))


def test_a_list_in_place_of_text_items_is_not_taken_for_its_letters() -> None:
    job = JobQueued(
        job_id="j",
        model="m",
        template="t",
        code_ref="c",
        dataset_refs=(),
        hyperparams_json="{}",
        seed=1,
        training_cmd="python train.py",  # type: ignore[arg-type]  # what is to be refused
        resources=Resources(cpu_millis=1, memory_mib=1),
        time_limit_s=1,
        requested_by="me",
        parent_artifacts=(),
    )
    with pytest.raises(UndecodableBody):
        encode_body(job)


def test_a_symbol_may_be_given_as_text_and_comes_back_as_a_member() -> None:
    back = decode_body("job.status", encode_body(_status(status="completed")))
    assert isinstance(back, JobStatus)
    assert back.status is JobStatusKind.COMPLETED


def test_what_is_finer_than_a_millisecond_is_cut_off() -> None:
    back = decode_body("job.status", encode_body(_status(queued_time=_EPOCH + timedelta(microseconds=1999))))
    assert isinstance(back, JobStatus)
    assert back.queued_time == _EPOCH + timedelta(milliseconds=1)


def test_equal_maps_have_equal_bytes_whatever_their_order() -> None:
    fields: dict[str, Any] = {
        "evaluation_id": "e",
        "artifact_id": "a",
        "model": "m",
        "dataset_ref": generated.DatasetRef(id="d", checksum="c", version="1", uri="u"),
        "score_e6": 1,
        "evaluator": "x",
    }
    one = generated.EvaluationRecorded(**fields, metrics_e6={"b": 1, "a": 2})
    other = generated.EvaluationRecorded(**fields, metrics_e6={"a": 2, "b": 1})
    assert encode_body(one) == encode_body(other)


@pytest.mark.parametrize(
    "value", [b"", b"\xc3\x01", b"\xc3\x01" + bytes(8), b"{}", b"\x00\x00\x00\x00", b"\xc3\x02" + bytes(20)]
)
def test_a_value_in_no_known_framing_is_an_unknown_schema(value: bytes) -> None:
    with pytest.raises(UnknownSchema):
        unframe("job.status", value)


def test_a_body_framed_for_another_topic_is_an_unknown_schema() -> None:
    with pytest.raises(UnknownSchema):
        unframe("job.status", frame(_cancel()))
    with pytest.raises(UnknownSchema):
        decode_body("no.such_topic", b"")


def test_the_registry_framing_is_taken_off_and_names_no_schema() -> None:
    value = registry_framing(77) + encode_body(_cancel())
    assert value[:5] == b"\x00\x00\x00\x00\x4d"
    assert unframe("job.cancel_requested", value) == (None, encode_body(_cancel()))
    assert registry_id(value) == 77
    assert registry_id(frame(_cancel())) is None
