"""Vectors that every reader must refuse, one fault each, with the code of the refusal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.conformance.event_must_pass import ACTION, CANCEL, ms
from tests.conformance.event_samples import (
    Headers,
    Json,
    Key,
    composed,
    delegation_of,
    sample,
    signed_again,
    uuid,
    vector,
    with_headers,
)

from ai_infra.events.event import Cause, Record
from ai_infra.events.generated import JobStatus
from ai_infra.events.headers import causes_json

L = 2**252 + 27742317777372353535851937790883648493
Case = tuple[str, str, str, Record]


def must_fail() -> Iterator[Json]:
    """Faulty records, each with its code."""
    for code, name, about, record in (*_headers(), *_places(), *_bodies(), *_signatures(), *_delegations()):
        yield vector(f"fail-{code.replace('_', '-')}-{name}", about, record, error=code)


def _headers() -> Iterator[Case]:
    """What a reader sees before it knows a key."""
    cancel, status = composed(CANCEL), composed(sample("job.status"))

    def signed(**headers: bytes) -> Record:
        return signed_again(cancel, role="orchestrator", **headers)

    def without(name: str) -> Callable[[Headers], object]:
        return lambda headers: headers.pop(name)

    for name in ("ce_id", "ce_time", "ce_dataschema", "content-type", "signer", "keyring", "delegation", "signature"):
        yield (
            "malformed_event",
            f"no-{name.replace('_', '-')}",
            f"The header {name} is missing.",
            with_headers(cancel, without(name)),
        )
    for name in ("producer", "epoch", "seq", "prev"):
        about = f"{name} is missing, its companions are there."
        yield "malformed_event", f"no-{name}", about, with_headers(status, without(name))
    forms: list[tuple[str, str, dict[str, bytes]]] = [
        ("specversion", "Another version of CloudEvents.", {"ce_specversion": b"0.3"}),
        ("content-type", "Another content type.", {"content_type": b"application/json"}),
        (
            "id-upper-case",
            "An id in upper case would be a second form of the same id.",
            {"ce_id": uuid(0xABC).upper().encode()},
        ),
        ("type-of-another-topic", "ce_type must be the topic's name.", {"ce_type": b"job.status"}),
        (
            "time-without-milliseconds",
            "ce_time has exactly three fraction digits.",
            {"ce_time": b"2026-01-02T03:04:05Z"},
        ),
        ("time-with-offset", "ce_time ends in Z.", {"ce_time": b"2026-01-02T03:04:05.678+00:00"}),
        ("time-that-is-none", "A day that does not exist.", {"ce_time": b"2026-02-30T03:04:05.678Z"}),
        ("dataschema", "Another kind of schema name.", {"ce_dataschema": b"https://example.com/schema"}),
        ("empty-subject", "An absent subject is an absent header.", {"ce_subject": b""}),
        ("control-character", "Text of headers has no control characters.", {"ce_source": b"a\x1bb"}),
        ("long-source", "ce_source has at most 256 bytes.", {"ce_source": b"s" * 257}),
        ("keyring-with-zero", "Integers have no leading zero.", {"keyring": b"01"}),
        ("keyring-too-large", "Integers are below 2^53.", {"keyring": b"9007199254740992"}),
        ("no-causes-at-all", "No causes: no header.", {"causes": b"[]"}),
        ("causes-with-space", "causes is canonical JSON.", {"causes": b'[{"id": "%b","lane":1}]' % uuid(1).encode()}),
        ("causes-out-of-order", "causes is canonical JSON.", {"causes": b'[{"lane":1,"id":"%b"}]' % uuid(1).encode()}),
        ("causes-too-many", "At most 32 causes.", {"causes": causes_json(tuple(Cause(uuid(i), 1) for i in range(33)))}),
        ("extension", "A CloudEvents extension is not in the statement, so it is refused.", {"ce_priority": b"high"}),
        ("long-delegation", "A delegation has at most 400 bytes.", {"delegation": b"d" * 401}),
    ]
    for name, about, headers in forms:
        yield "malformed_event", name, about, signed(**headers)
    yield (
        "malformed_event",
        "short-signature",
        "A signature has 64 bytes.",
        with_headers(cancel, lambda h: h.update(signature=h["signature"][:63])),
    )
    yield "malformed_event", "no-value", "A record without a value (a tombstone).", replace(cancel, value=None)
    long = '"' * 256
    long_status = sample("job.status")
    assert isinstance(long_status, JobStatus)
    large = composed(replace(long_status, model="m" * 128), causes=[Cause(uuid(i), 7) for i in range(32)])
    yield (
        "malformed_event",
        "message-too-long",
        "The message must stay below 4,096 bytes.",
        signed_again(
            large,
            role="trainer",
            ce_source=long.encode(),
            ce_subject=long.encode(),
            signer=b'"' * 128,
            producer=b'"' * 128,
        ),
    )
    yield (
        "repeated_header",
        "signer",
        "signer comes twice.",
        replace(cancel, headers=(*cancel.headers, ("signer", b"registry-1"))),
    )
    yield (
        "repeated_header",
        "same-value",
        "Twice the same is twice.",
        replace(cancel, headers=(*cancel.headers, cancel.headers[0])),
    )
    yield (
        "repeated_header",
        "of-others",
        "Also of headers that are not ours.",
        replace(cancel, headers=(*cancel.headers, ("x", b"1"), ("x", b"2"))),
    )
    yield "bad_text", "header-not-utf8", "A header that is no UTF-8.", signed(ce_source=b"a\xff")
    yield "bad_text", "header-u0000", "A header with U+0000.", signed(ce_subject=b"a\0b")


def _places() -> Iterator[Case]:
    """Key and partition."""
    cancel, heartbeat = composed(CANCEL), composed(sample("producer.heartbeat"))
    policy = composed(sample("policy.changed"))
    wrong = {
        "none": (cancel, None, "No key."),
        "empty": (cancel, b"", "An empty key."),
        "lane-for-a-model": (
            replace(cancel, partition=3),
            b"_lane/3",
            "A body about a model travels under the model's name.",
        ),
        "no-model-name": (cancel, b"a/b", "A model's name has no slash."),
        "model-for-a-heartbeat": (replace(heartbeat, partition=7), b"digits", "A heartbeat travels under its lane."),
        "lane-with-zero": (heartbeat, b"_lane/03", "A lane's number has no leading zero."),
        "lane-beyond": (replace(heartbeat, partition=8), b"_lane/8", "There are lanes 0 to 7."),
        "broadcast-under-lane": (policy, b"_lane/0", "What is broadcast travels under _broadcast."),
    }
    for name, (record, key, about) in wrong.items():
        yield "wrong_key", name, about, replace(record, key=key)
    action = composed(ACTION)
    yield (
        "wrong_key",
        "broadcast-for-an-action",
        "An action is about a lane or a model.",
        replace(action, key=b"_broadcast"),
    )
    yield (
        "wrong_key",
        "other-model-in-body",
        "Signed, but key and body.model differ.",
        signed_again(replace(cancel, partition=0), role="orchestrator", key=b"model-1"),
    )
    yield "bad_text", "key-not-utf8", "A key that is no UTF-8.", replace(cancel, key=b"\xc3")
    yield "wrong_lane", "model", "murmur2 puts this model elsewhere.", replace(cancel, partition=0)
    yield "wrong_lane", "lane-key", "_lane/3 belongs into partition 3.", replace(heartbeat, partition=4)
    yield "wrong_lane", "broadcast", "What is broadcast is in partition 0.", replace(policy, partition=1)


def _bodies() -> Iterator[Case]:
    """Framing, schema and Avro body, signed as they are."""
    cancel, status = composed(CANCEL), composed(sample("job.status"))
    evaluation, profile = composed(sample("evaluation.recorded")), composed(sample("artifact.registered"))
    assert cancel.value is not None
    assert status.value is not None
    assert evaluation.value is not None
    assert profile.value is not None
    raw, framing = cancel.value[10:], cancel.value[:10]
    framings = {
        "crc": (framing[:9] + b"\0" + raw, "A CRC-64 of no schema."),
        "other-topic": (b"\xc3\x01" + JobStatus.CRC64 + raw, "The schema of another topic."),
        "empty": (b"", "An empty value."),
        "cut": (framing[:7], "Framing that is cut short."),
        "json": (b'{"job_id":"x"}', "JSON instead of Avro."),
        "registry-cut": (b"\0\0\0\0", "A schema registry's framing that is cut short."),
    }
    for name, (value, about) in framings.items():
        yield "unknown_schema", name, about, replace(cancel, value=value)
    unknown = b"urn:ai-infra:schema:" + b"00" * 32
    yield (
        "unknown_schema",
        "dataschema",
        "ce_dataschema names a schema that nobody knows.",
        signed_again(cancel, role="orchestrator", ce_dataschema=unknown),
    )
    other = f"urn:ai-infra:schema:{JobStatus.SCHEMA_SHA256}".encode()
    for name, named, about in (
        ("registry", unknown, "A schema registry's framing, and ce_dataschema names a schema that nobody knows."),
        ("registry-other-topic", other, "A schema registry's framing, and ce_dataschema names another topic's schema."),
    ):
        signed = signed_again(cancel, role="orchestrator", ce_dataschema=named)
        yield "unknown_schema", name, about, replace(signed, value=b"\0\0\0\0\x4d" + raw)

    def body(data: bytes) -> Record:
        return signed_again(cancel, role="orchestrator", body=data)

    s = status.value[10:]
    enum = s.index(b"digits") + 6
    after = s[enum + 1 :]
    boolean = profile.value[10:].index(b"digits") + 6 + 2
    p = profile.value[10:]
    maps = evaluation.value[10:]
    bodies: list[tuple[str, str, Record]] = [
        ("cut", "The body ends too early.", body(raw[:-1])),
        ("trailing", "A byte is left over.", body(raw + b"\0")),
        ("empty", "No body at all.", body(b"")),
        ("negative-length", "A string of length -1.", body(b"\x01" + raw[1:])),
        ("length-beyond", "A string that is longer than the body.", body(b"\xfe\xff\xff\x7f" + raw[1:])),
        ("length-overflow", "A length of more than 64 bits.", body(b"\xff" * 10 + b"\x01" + raw[1:])),
        ("enum-negative", "Enum index -1.", signed_again(status, role="trainer", body=s[:enum] + b"\x01" + after)),
        (
            "enum-beyond",
            "An enum index beyond the symbols.",
            signed_again(status, role="trainer", body=s[:enum] + b"\x0e" + after),
        ),
        ("union-negative", "Union branch -1.", signed_again(status, role="trainer", body=_union(s, b"\x01"))),
        ("union-beyond", "Union branch 2.", signed_again(status, role="trainer", body=_union(s, b"\x04"))),
        (
            "int-beyond",
            "An int of 33 bits.",
            signed_again(status, role="trainer", body=s[: enum + 1] + b"\x80\x80\x80\x80\x10" + after[2:]),
        ),
        (
            "boolean-2",
            "A boolean of 2.",
            signed_again(profile, role="registry", body=p[:boolean] + b"\x02" + p[boolean + 1 :]),
        ),
        (
            "map-key-twice",
            "A key of a map that comes twice.",
            signed_again(
                evaluation, role="trainer", body=maps.replace(b"\x0210", b"\x029").replace(b"\x0410", b"\x029")
            ),
        ),
    ]
    for name, about, record in bodies:
        yield "undecodable_body", name, about, record
    text = raw.index(b"no longer")
    for name, junk, about in (
        ("body-u0000", b"n\0", "U+0000 in a string."),
        ("body-surrogate", b"\xed\xa0\x80", "A lone surrogate in a string."),
        ("body-overlong", b"\xc0\xaf", "An overlong form of a character."),
        ("body-not-utf8", b"\xff", "A byte that UTF-8 has not."),
    ):
        yield "bad_text", name, about, body(raw[:text] + junk + raw[text + len(junk) :])
    long = b"x" * (48 * 1024)
    yield "body_too_large", "by-far", "A body of more than 48 KiB.", body(long + raw)


def _union(body: bytes, branch: bytes) -> bytes:
    """job.status with another branch at `log_uri`."""
    at = body.index(b"some log_uri") - 2
    return body[:at] + branch + body[at + 1 :]


def _signatures() -> Iterator[Case]:
    """What is signed can't be changed."""
    cancel = composed(CANCEL, subject="digits")
    status = composed(sample("job.status"))
    assert cancel.value is not None
    older = delegation_of("orchestrator", keyring=0)
    changes: list[tuple[str, str, Record, dict[str, bytes]]] = [
        ("id", "Another id.", cancel, {"ce_id": uuid(2).encode()}),
        ("source", "Another source.", cancel, {"ce_source": b"//elsewhere"}),
        ("time", "A millisecond later.", cancel, {"ce_time": b"2026-01-02T03:04:05.679Z"}),
        ("subject", "Another subject.", cancel, {"ce_subject": b"letters"}),
        ("keyring", "An older keyring.", composed(CANCEL, delegation=older), {"keyring": b"0"}),
        ("seq", "Another number.", status, {"seq": b"3"}),
        ("epoch", "Another epoch.", status, {"epoch": b"1"}),
        ("prev", "Another event before.", status, {"prev": b"5b" * 32}),
        ("producer", "Another producer.", status, {"producer": b"trainer/6"}),
        ("causes", "Another cause.", status, {"causes": b'[{"id":"%b","lane":7}]' % uuid(8).encode()}),
        ("zero", "A signature of zeros.", cancel, {"signature": bytes(64)}),
    ]
    for name, about, record, headers in changes:
        faulty = with_headers(record, lambda h, headers=headers: h.update(headers))  # type: ignore[misc]  # bound now
        yield "bad_signature", name, about, faulty
    yield (
        "bad_signature",
        "no-subject",
        "The subject was taken away.",
        with_headers(cancel, lambda h: h.pop("ce_subject")),
    )
    yield "bad_signature", "body", "Another body.", replace(cancel, value=cancel.value.replace(b"needed", b"wanted"))
    other = composed(ACTION)
    yield "bad_signature", "lane", "An action moved to another lane.", replace(other, key=b"_lane/4", partition=4)
    yield (
        "bad_signature",
        "long-lived-key",
        "Signed by the key that delegated, not by the session key.",
        composed(CANCEL, sign=Key("orchestrator-1").sign),
    )
    signature = dict(cancel.headers)["signature"]
    malleable = signature[:32] + (int.from_bytes(signature[32:], "little") + L).to_bytes(32, "little")
    yield (
        "bad_signature",
        "malleable",
        "S is not below the group's order: a second form of the same signature.",
        with_headers(cancel, lambda h: h.update(signature=malleable)),
    )


def _delegations() -> Iterator[Case]:
    """Who speaks for whom, until when, about what."""
    cancel = composed(CANCEL)
    good = delegation_of("orchestrator")
    yield "unknown_signer", "signer", "The keyring has no such key.", composed(CANCEL, signer="nobody-1")
    wrong = {
        "signature": (good[:63] + bytes([good[63] ^ 1]) + good[64:], "The delegation's signature does not verify."),
        "changed": (good.replace(b'"keyring":1', b'"keyring":0'), "The delegation was changed."),
        "of-another": (
            delegation_of("trainer", key=Key("session of orchestrator").pair[0]),
            "Another key's delegation.",
        ),
        "not-json": (good[:64] + b"{", "The delegation is no JSON."),
        "not-canonical": (good[:64] + good[64:].replace(b",", b", ", 1), "The delegation is not canonical JSON."),
        "newer-keyring": (
            delegation_of("orchestrator", keyring=2),
            "The delegation names a newer keyring than the event.",
        ),
    }
    for name, (delegation, about) in wrong.items():
        yield "bad_delegation", name, about, composed(CANCEL, delegation=delegation)
    yield (
        "expired_delegation",
        "after",
        "Appended after the delegation ended.",
        replace(cancel, append_time_ms=ms(86_401)),
    )
    yield (
        "expired_delegation",
        "before",
        "Appended more than 120 s before it began.",
        replace(cancel, append_time_ms=ms(-120) - 1),
    )
    yield (
        "not_allowed",
        "type",
        "The delegation is not for this type.",
        composed(CANCEL, delegation=delegation_of("orchestrator", events=["job.queued"])),
    )
