"""Vectors that every reader must take: each topic once, then each freedom that the format leaves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

from tests.conformance.event_samples import (
    LANES,
    MODEL,
    START,
    Json,
    composed,
    sample,
    signed_again,
    uuid,
    vector,
    with_headers,
)

from ai_infra.events.avro import EPOCH
from ai_infra.events.event import Cause, Record
from ai_infra.events.generated import BODIES, JobCancelRequested, OperatorAction
from ai_infra.events.lanes import lane_of

CANCEL = JobCancelRequested(job_id=uuid(5), model=MODEL, reason="no longer needed", requested_by="orchestrator")
ACTION = OperatorAction(
    action="groups.resume", target="trainer", arguments_json='{"lane":3}', reason="fixed", operator="operator"
)


def ms(seconds: float) -> int:
    return (START - EPOCH) // timedelta(milliseconds=1) + int(seconds * 1000)


def must_pass() -> Iterator[Json]:
    """Sound records, with what a reader must make of them."""
    for topic in BODIES:
        about = f"{topic} with a value in every field."
        yield vector(f"pass-topic-{topic.replace('.', '-').replace('_', '-')}", about, composed(sample(topic)))
    cancel = composed(CANCEL)
    yield vector("pass-worked-example", "The worked example of docs/event-format.md.", cancel)
    yield vector(
        "pass-text-of-all-kinds",
        "Quotes, backslashes, control characters, other scripts and four-byte characters, in body and subject.",
        composed(
            replace(CANCEL, reason='"\\/\b\f\n\r\t\x01\x7f é 模型 😀 \u2028\ufeff\uffff'),
            subject='größe "모델" \\ 😀 \u2028',
        ),
    )
    yield vector(
        "pass-empty-text", "Empty strings in a body are values.", composed(replace(CANCEL, reason="", job_id=""))
    )
    job = sample("job.status")
    yield vector(
        "pass-first-of-a-producer", "The first event of a producer has no prev.", composed(job, seq=1, prev=None)
    )
    causes = [Cause(uuid(100 + i), i % LANES) for i in range(32)]
    yield vector(
        "pass-thirty-two-causes", "As many causes as there may be, in other lanes too.", composed(job, causes=causes)
    )
    yield vector(
        "pass-largest-integers",
        "Integers up to 2^53-1 in headers.",
        composed(job, epoch=2**53 - 1, seq=2**53 - 1),
    )
    yield vector(
        "pass-operator-action-of-a-model",
        "An operator's action about a model travels under the model's name.",
        composed(ACTION, key=MODEL, lane=lane_of(MODEL, LANES)),
    )
    yield vector(
        "pass-longest-model",
        "A model's name of 128 characters.",
        composed(replace(CANCEL, model="M" + "a.b_c-9" * 18 + "x")),
    )
    yield vector(
        "pass-other-headers",
        "Headers of other names are neither signed nor read; order means nothing; traceparent is not signed.",
        with_headers(
            replace(cancel, headers=tuple(reversed(cancel.headers))),
            lambda h: h.update(
                {
                    "tracestate": b"a=b",
                    "X-Of-Somebody": b"\xff\x00",
                    "traceparent": b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                }
            ),
        ),
    )
    assert cancel.value is not None
    yield vector(
        "pass-registry-framing",
        "The same signature over the same body in a schema registry's framing: ce_dataschema says which schema it is.",
        replace(cancel, value=b"\0" + (77).to_bytes(4, "big") + cancel.value[10:]),
    )
    yield vector(
        "pass-blocks-with-sizes",
        "An Avro writer may write arrays in several blocks, with their size in bytes after a negative count.",
        _in_blocks(),
    )
    yield vector(
        "pass-at-the-first-moment",
        "Appended 120 s before the delegation begins: clocks may differ that much.",
        replace(cancel, append_time_ms=ms(-120)),
    )
    yield vector(
        "pass-at-the-last-moment",
        "Appended in the last second of the delegation.",
        replace(cancel, append_time_ms=ms(86_400) + 999),
    )


def _in_blocks() -> Record:
    """artifact.refused with its two reasons in blocks of one, as writers do that let readers skip."""
    record = composed(replace(sample("artifact.refused"), reasons=()))  # type: ignore[type-var]  # a dataclass
    assert record.value is not None
    reason = b"\x02c\x02d"
    block = b"\x01" + bytes([len(reason) * 2]) + reason
    rules = b"\x14some rules"
    head = record.value[10:].removesuffix(b"\0" + rules)
    return signed_again(record, role="registry", body=head + block + block + b"\0" + rules)
