"""How an event is shown: a line in a list, all of it, and as JSON for programs.

Shows a record that doesn't verify as well, with why, and never as if it were an event.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from ai_infra.cli.output import Renderable, plain, record, stack, styled
from ai_infra.cli.reading import Judged
from ai_infra.events.event import Record

# What tells most about an event of each type, after its model. A phrase whose field is empty is left out.
_TELLING: Final[Mapping[str, tuple[str, ...]]] = {
    "job.queued": ("job {job_id}", "{code_ref}"),
    "job.cancel_requested": ("job {job_id}", "{reason}"),
    "job.status": ("{status}", "job {job_id}", "{reason}"),
    "artifact.produced": ("artifact {artifact_id}", "job {job_id}"),
    "artifact.registered": ("version {version}", "artifact {artifact_id}"),
    "artifact.refused": ("artifact {artifact_id}", "{reasons}"),
    "artifact.revoked": ("artifact {artifact_id}", "{reason}"),
    "evaluation.recorded": ("score {score_e6}", "artifact {artifact_id}", "by {evaluator}"),
    "promotion.requested": ("to {target_env}", "artifact {artifact_id}", "promotion {promotion_id}"),
    "promotion.approval": ("{decision}", "by {approver}", "promotion {promotion_id}"),
    "promotion.decided": ("{status}", "to {target_env}", "promotion {promotion_id}", "{reasons}"),
    "rollback.requested": ("in {target_env}", "to artifact {to_artifact_id}", "{reason}"),
    "deployment.changed": (
        "in {env}",
        "{cause}",
        "artifact {stable_artifact_id}",
        "candidate {candidate_artifact_id}",
    ),
    "canary.status": ("{state}", "in {env}", "promotion {promotion_id}", "{reason}"),
    "canary.regression": ("in {env}", "promotion {promotion_id}"),
    "drift.suggestion": ("in {env}", "{reason}"),
    "serving.status": ("{state}", "in {env}", "replica {replica}"),
    "event.refused": ("by {service}", "{event_type} {event_id}", "{reasons}"),
    "operator.action": ("{action} {target}", "by {operator}", "{reason}"),
    "audit.finding": ("{kind}", "{detail}"),
    "audit.checkpoint": ("lane {log_lane}", "size {size}"),
    "producer.heartbeat": ("{producer}", "seq {seq}"),
    "signer.changed": ("version {version}", "{reason}"),
    "policy.changed": ("version {version}", "{reason}"),
}
_FIELD: Final = re.compile(r"\{(\w+)\}")
_JSON_FIELDS: Final = ("_json",)
_LONG: Final = 4000  # characters of one field that a person is shown


def header(judged_record: Record, name: str) -> str | None:
    """A header as text, None where it isn't there."""
    for key, value in judged_record.headers:
        if key == name:
            return value.decode("utf-8", "replace")
    return None


def append_time(found: Record) -> datetime:
    """When the broker appended it."""
    return datetime.fromtimestamp(found.append_time_ms / 1000, UTC)


def summary(judged: Judged) -> str:
    """What an event says, in a few words; for one that doesn't verify, why."""
    if judged.event is None:
        return f"DOES NOT VERIFY: {judged.error.code if judged.error else ''}: {judged.error}"
    body = judged.event.body
    phrases = (_phrase(body, phrase) for phrase in _TELLING.get(judged.record.topic, ()))
    return ", ".join(filter(None, phrases))


def line(judged: Judged) -> tuple[str, str, str, str, str, str]:
    """Cells of a list: time, topic, model or key, signer, id, what it says."""
    found = judged.record
    key = (found.key or b"").decode("utf-8", "replace")
    signer = header(found, "signer") or ""
    return (
        str(plain(append_time(found))),
        found.topic,
        key,
        signer if judged.event is not None else f"{signer}?",
        header(found, "ce_id") or "",
        summary(judged),
    )


LINE: Final = ("appended", "topic", "model", "signer", "id", "what")


def as_data(judged: Judged) -> dict[str, Any]:
    """Everything about a record for programs. `verified` says whether the rest may be believed."""
    found, event = judged.record, judged.event
    data: dict[str, Any] = {
        "verified": event is not None,
        "topic": found.topic,
        "lane": found.partition,
        "offset": found.offset,
        "append_time": append_time(found),
        "key": (found.key or b"").decode("utf-8", "replace"),
        "id": header(found, "ce_id"),
    }
    if event is None:
        error = judged.error
        data["error"] = {"code": error.code if error else "", "message": str(error)}
        data["claims"] = {
            name: value.decode("utf-8", "replace")
            for name, value in found.headers
            if name not in {"signature", "delegation"}
        }
        return data
    attributes = event.attributes
    return data | {
        "hash": event.hash,
        "principal": event.principal,
        "signer": event.signer,
        "keyring": attributes.keyring,
        "time": event.time,
        "source": attributes.source,
        "subject": event.subject,
        "producer": event.producer,
        "epoch": event.epoch,
        "seq": event.seq,
        "prev": attributes.prev,
        "causes": [{"id": cause.id, "lane": cause.lane} for cause in event.causes],
        "traceparent": attributes.traceparent,
        "body": plain(event.body),
    }


def in_full(judged: Judged) -> Renderable:
    """All of an event for people: who said it, how it's placed, what it says."""
    data = as_data(judged)
    body = data.pop("body", None)
    if body is None:
        claims = data.pop("claims", {})
        return stack(
            styled(f"This record does not verify ({data['error']['code']}): {data['error']['message']}", "red"),
            record(data | {"error": data["error"]["code"]}, title="Where it is"),
            record(claims, title="What it claims (nothing of this is proven)"),
        )
    data["causes"] = [f"{cause['id']} (lane {cause['lane']})" for cause in data["causes"]]
    data["signature"] = f"good: {data['principal']}, by {data['signer']}"
    del data["verified"]
    data = {name: value for name, value in data.items() if value not in (None, [])}
    return stack(
        record(data, title=f"{data['topic']} — verified"),
        record({name: _full(name, value) for name, value in body.items()}, title="What it says"),
    )


def _phrase(body: Any, phrase: str) -> str:
    values = {name: getattr(body, name, None) for name in _FIELD.findall(phrase)}
    if any(value in (None, "", ()) for value in values.values()):
        return ""
    return phrase.format(**{name: _brief(name, value) for name, value in values.items()})


def _brief(name: str, value: Any) -> str:
    if name == "reasons":
        return "; ".join(f"{reason.code}: {reason.detail}" for reason in value)[:160]
    if name.endswith("_e6"):
        return f"{value / 1_000_000:.6g}"
    text = str(plain(value))
    return text if len(text) <= 80 else text[:77] + "…"


def _full(name: str, value: Any) -> str:
    if isinstance(value, str) and name.endswith(_JSON_FIELDS):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return str(value)
    if isinstance(value, dict | list):
        text = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() if value else "none"
    else:
        text = "" if value is None else str(value)
    return text if len(text) <= _LONG else f"{text[:_LONG]}… ({len(text)} characters; --json shows all)"
