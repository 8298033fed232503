"""The schemas: rules of the house, generated code that is not stale, versions that read each other."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import fastavro
import pytest

from ai_infra.events import generate, schemas
from ai_infra.events.codec import decode_body, unframe
from ai_infra.events.exceptions import UndecodableBody, UnknownSchema
from ai_infra.events.fingerprint import Schema, schema_crc64, schema_sha256, schema_text
from ai_infra.events.generated import BODIES, CRC64S, SCHEMAS, JobCancelRequested, JobStatus, JobStatusKind
from ai_infra.events.generation import sources
from ai_infra.events.generation.compatibility import collisions, incompatibilities, pair, wordless
from ai_infra.events.rules import SchemaError, check_schema

# CRC-64-AVRO by org.apache.avro.SchemaNormalization (avro 1.12.0), little-endian hex.
JAVA_CRC64 = {
    "job.status": "2678e6a5af1d07b3",
    "job.cancel_requested": "ddddab9ad5b1f816",
    "operator.action": "4f3b44ac2d632b66",
    "audit.checkpoint": "fb5c41eba7331861",
}


@pytest.fixture(scope="module")
def present() -> sources.Sources:
    return sources.load()


def version(topic: str, schema: Schema) -> sources.Version:
    return sources.Version(topic, schema, schema_text(schema), schema_sha256(schema), schema_crc64(schema))


def changed(topic: str, change: Any) -> tuple[sources.Version, sources.Version]:
    """The present version of a topic, and one that `change` has altered."""
    schema = json.loads(SCHEMAS[BODIES[topic].SCHEMA_SHA256])
    altered = copy.deepcopy(schema)
    change(altered["fields"])
    return version(topic, schema), version(topic, altered)


def test_the_generated_classes_say_what_the_schemas_say(present: sources.Sources) -> None:
    assert generate.stale(present) == {}, "run python -m ai_infra.events.generate"


def test_every_schema_keeps_the_rules_of_the_house(present: sources.Sources) -> None:
    for topic, one in present.topics.items():
        check_schema(topic, one.schema)
        assert '"decimal"' not in one.text
        assert '"float"' not in one.text
        assert '"double"' not in one.text


def test_a_released_file_is_named_for_what_it_holds(present: sources.Sources) -> None:
    for path in (sources.SCHEMAS / "released").glob("*/*.avsc"):
        assert path.stem == schema_sha256(json.loads(path.read_text(encoding="utf-8"))), f"{path.name} was altered"
        assert path.parent.name in present.topics, f"{path.parent.name}: a topic that shipped can't be taken away"


def test_every_version_reads_every_other(present: sources.Sources) -> None:
    assert incompatibilities(present) == []


def test_no_two_schemas_share_a_crc_64(present: sources.Sources) -> None:
    assert collisions(present) == []
    assert len({body.CRC64 for body in BODIES.values()}) == len(BODIES)


@pytest.mark.parametrize(("topic", "crc64"), JAVA_CRC64.items())
def test_the_crc_64_is_the_one_that_java_computes(topic: str, crc64: str, present: sources.Sources) -> None:
    assert present.topics[topic].crc64.hex() == schema_crc64(present.topics[topic].schema).hex()
    if topic in JAVA_CRC64 and len(present.released[topic]) == 1:
        assert present.topics[topic].crc64.hex() == crc64


def test_the_embedded_text_of_a_schema_hashes_to_its_name() -> None:
    for sha256, text in SCHEMAS.items():
        assert schema_sha256(json.loads(text)) == sha256
        assert schema_crc64(json.loads(text)) == CRC64S[sha256]


def _append(name: str, type_: Any, **more: Any) -> Any:
    return lambda fields: fields.append({"name": name, "type": type_, "doc": "New."} | more)


def _retype(name: str, type_: Any) -> Any:
    return lambda fields: next(one for one in fields if one["name"] == name).update(type=type_)


def _drop(name: str) -> Any:
    return lambda fields: fields.remove(next(one for one in fields if one["name"] == name))


def _symbols(*symbols: str, default: str | None = "unknown") -> Any:
    enum = {"type": "enum", "name": "JobStatusKind", "symbols": list(symbols), "doc": "State."}
    return _retype("status", enum | ({"default": default} if default else {}))


@pytest.mark.parametrize(
    "change",
    [
        _append("note", ["null", "string"], default=None),
        _append("note", "string", default=""),
        _drop("log_uri"),
        _symbols("unknown", "queued", "running", "completed", "failed", "cancelled", "timed_out", "paused"),
        _symbols("unknown", "queued"),
    ],
)
def test_a_change_that_all_readers_survive_is_compatible(change: Any) -> None:
    assert pair(*changed("job.status", change)) == []


@pytest.mark.parametrize(
    "change",
    [
        _append("note", "string"),
        _append("note", ["null", "string"]),
        _drop("runner"),
        _retype("attempt", "string"),
        _retype("attempt", "long"),
        _retype("attempt", ["null", "int"]),
        _retype("reason", ["null", "string"]),
        _retype("exit_code", ["null", "long"]),
        _symbols("unknown", "queued", default=None),
        _retype("queued_time", "long"),
        _retype("log_uri", ["null", {"type": "array", "items": "string"}]),
    ],
)
def test_a_change_that_some_reader_does_not_survive_is_found(change: Any) -> None:
    assert pair(*changed("job.status", change)) != []


def test_a_time_that_loses_its_type_shares_the_crc_and_is_found_as_a_collision() -> None:
    was, now = changed("job.status", _retype("queued_time", "long"))
    assert was.crc64 == now.crc64
    both = sources.Sources(topics={"job.status": now}, released={"job.status": (was,)}, shared={}, own={})
    assert len(collisions(both)) == 1


def test_other_words_are_no_collision() -> None:
    was, now = changed("job.status", lambda fields: fields[0].update(doc="Other words."))
    assert (was.crc64, wordless(was.schema)) == (now.crc64, wordless(now.schema))
    assert pair(was, now) == []


@pytest.mark.parametrize(
    "type_",
    [
        "float",
        "double",
        "bytes",
        {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
        {"type": "fixed", "name": "F", "size": 4},
        {"type": "int", "logicalType": "date"},
        {"type": "long", "logicalType": "timestamp-micros"},
        ["string", "null"],
        ["null", "string", "long"],
        ["null", ["null", "string"]],
        {"type": "enum", "name": "E", "symbols": ["a"], "doc": "D."},
        {"type": "record", "name": "R", "fields": [], "doc": "D."},
        {"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}], "doc": "D."},
        {"type": "array", "items": "float"},
        {"type": "map", "values": "double"},
        "Undefined",
        5,
    ],
)
def test_a_type_that_could_be_read_in_two_ways_is_refused(type_: Any) -> None:
    schema = {"type": "record", "name": "X", "doc": "D.", "fields": [{"name": "a", "type": type_, "doc": "D."}]}
    with pytest.raises(SchemaError):
        check_schema("x", schema)


def _learned(change: Any, value: dict[str, Any]) -> tuple[str, bytes, bytes]:
    """Fingerprint, framed value and body of a job.status that another version of the schema wrote."""
    _, one = changed("job.status", change)
    sha256 = schemas.learn("job.status", one.text)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(copy.deepcopy(one.schema)), value)
    return sha256, b"\xc3\x01" + one.crc64 + out.getvalue(), out.getvalue()


VALUE: dict[str, Any] = {
    "job_id": "j",
    "model": "m",
    "status": "running",
    "attempt": 1,
    "runner": "r",
    "queued_time": 1_700_000_000_123,
    "reason_code": "",
    "reason": "",
    "rules": "trainer/v1",
}


def test_a_body_with_a_field_that_this_reader_does_not_know_is_read_without_it() -> None:
    sha256, framed, raw = _learned(_append("note", "string", default=""), VALUE | {"note": "hello"})
    assert unframe("job.status", framed) == (sha256, raw)
    body = decode_body("job.status", raw, sha256)
    assert isinstance(body, JobStatus)
    assert (body.job_id, body.rules) == ("j", "trainer/v1")


def test_a_body_without_a_field_that_came_later_gets_its_default() -> None:
    sha256, _, raw = _learned(_drop("log_uri"), VALUE)
    body = decode_body("job.status", raw, sha256)
    assert isinstance(body, JobStatus)
    assert body.log_uri is None


def test_a_symbol_that_this_reader_does_not_know_is_unknown() -> None:
    symbols = ("unknown", "queued", "running", "completed", "failed", "cancelled", "timed_out", "paused")
    sha256, _, raw = _learned(_symbols(*symbols), VALUE | {"status": "paused"})
    body = decode_body("job.status", raw, sha256)
    assert isinstance(body, JobStatus)
    assert body.status is JobStatusKind.UNKNOWN


def test_a_body_of_another_version_is_read_as_strictly_as_one_of_this() -> None:
    sha256, _, raw = _learned(_drop("log_uri"), VALUE)
    with pytest.raises(UndecodableBody):
        decode_body("job.status", raw + b"\0", sha256)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        '"string"',
        "{}",
        '{"type":"record","name":"JobStatus","namespace":"ai_infra.events","doc":"D","fields":[]}',
        '{"type":"record","name":"JobStatus","namespace":"ai_infra.events","doc":"D","fields":[{"name":"a","doc":"D","type":"float"}]}',
        '{"type":"record","name":"Other","namespace":"ai_infra.events","doc":"D","fields":[{"name":"a","doc":"D","type":"int"}]}',
        '{"type":"record","name":"JobStatus","namespace":"ai_infra.events","doc":"D","fields":[{"name":"a","doc":"D"}]}',
        "[" * 100_000,
        "x" * 300_000,
    ],
)
def test_what_is_no_schema_of_the_topic_is_not_learned(text: str) -> None:
    with pytest.raises(UnknownSchema):
        schemas.learn("job.status", text)


def test_a_schema_that_nobody_taught_is_unknown() -> None:
    with pytest.raises(UnknownSchema):
        decode_body("job.status", b"", "00" * 32)
    with pytest.raises(UnknownSchema):
        decode_body("job.status", b"", JobCancelRequested.SCHEMA_SHA256)


def test_releasing_adds_and_never_alters(tmp_path: Path) -> None:
    directory = tmp_path / "schemas"
    directory.mkdir()
    text = (sources.SCHEMAS / "job.status.avsc").read_text(encoding="utf-8")
    (directory / "job.status.avsc").write_text(text, encoding="utf-8")
    first = sources.release(directory)
    assert [path.stem for path in first] == [JobStatus.SCHEMA_SHA256]
    assert sources.release(directory) == []
    (directory / "job.status.avsc").write_text(text.replace("What became of a job.", "Its fate."), encoding="utf-8")
    assert len(sources.release(directory)) == 1
    assert len(sources.load(directory).released["job.status"]) == 2


def test_one_name_with_two_definitions_is_refused(tmp_path: Path) -> None:
    for topic, doc in (("a.one", "This."), ("b.two", "That.")):
        kind = {"type": "enum", "name": "Kind", "doc": doc, "symbols": ["unknown"], "default": "unknown"}
        fields = [{"name": "kind", "type": kind, "doc": "Kind."}]
        schema = {"type": "record", "name": topic.title().replace(".", ""), "doc": "D.", "fields": fields}
        (tmp_path / f"{topic}.avsc").write_text(json.dumps(schema), encoding="utf-8")
    with pytest.raises(SchemaError, match="Kind"):
        sources.load(tmp_path)
