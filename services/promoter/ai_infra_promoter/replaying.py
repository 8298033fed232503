"""The promoter's decisions, made again from the log: what its questions were answered, as far as the log has it. Pure.

The manifest's signature is verified again by the keyring that the decision names, the static threshold is judged again,
and the promotion key's signature must be over exactly what the rules would have signed. The answer of a policy service
and the threshold of the process's settings are in no other event: they are taken from the decision, which says them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Final

import msgspec

from ai_infra.bus.decision import WorkError
from ai_infra.bus.replay import Answered, Asked, Disagrees, Known, Moment, Replayer
from ai_infra.bus.service import Decide
from ai_infra.errors import AiInfraError
from ai_infra.events.event import Event
from ai_infra.events.generated import PromotionDecided, PromotionStatus
from ai_infra.manifest.decision import open_decision, unverified_decision
from ai_infra.trust.keyring import PROMOTION
from ai_infra_promoter.decide import VERSIONS
from ai_infra_promoter.questions import ManifestQuestion, PolicyAnswer, PolicyQuestion, SigningAnswer, SigningQuestion
from ai_infra_promoter.service import LISTENS
from ai_infra_promoter.signing import statement_of
from ai_infra_promoter.threshold import VERIFIER_ID, StaticThreshold
from ai_infra_promoter.verification import judge_manifest

THRESHOLD: Final = "the threshold, which is a setting of the promoter"
POLICY: Final = "the answer of the policy service"
KEYRING: Final = "which of two keyrings its verification had"
FAILURE: Final = "the failure of something outside"


def moment(event: Event[Any]) -> Moment:
    """A signed step was decided when its envelope says; any other when it was said."""
    body = event.body
    if not isinstance(body, PromotionDecided):
        return Moment(event.time, event.attributes.keyring)
    signed = unverified_decision(body.decision_envelope) if body.decision_envelope else None
    if signed is None or signed.status != body.status.value:
        return Moment(event.time, event.attributes.keyring, body.policy_version)
    return Moment(signed.decided_at, signed.keyring_version, body.policy_version)


def answers(asked: Asked, said: Event[Any], told: Event[Any], known: Known) -> Iterator[Answered]:
    """What the promoter was answered before it said this step."""
    step, question = said.body, asked.args
    about = question.step if isinstance(question, SigningQuestion) else question
    if not isinstance(step, PromotionDecided) or about.promotion_id != step.promotion_id:
        return
    failure = f"{asked.kind.replace('_', ' ')} failed: "
    for reason in step.reasons[:1]:
        if reason.detail.startswith(failure):
            error = WorkError(reason.code, reason.detail.removeprefix(failure), retriable=False)
            yield Answered(None, error, (FAILURE,))
    match question:
        case ManifestQuestion():
            yield from _manifest(question, told, known)
        case PolicyQuestion():
            yield _policy(question, told.body)
        case SigningQuestion():
            yield _signature(question, step, known)


def _manifest(question: ManifestQuestion, told: Event[Any], known: Known) -> Iterator[Answered]:
    version = moment(told).keyring
    keyring = known.keyrings.get(version)
    if keyring is None:
        raise Disagrees(f"it was decided by keyring version {version}, which is not in the lane's log")
    now = judge_manifest(question, keyring)
    yield Answered(now)
    before = known.keyrings.get(version - 1)
    if before is not None and (then := judge_manifest(question, before)) != now:
        yield Answered(then, carried=(KEYRING,))  # a keyring came between the verification and the decision


def _policy(question: PolicyQuestion, step: PromotionDecided) -> Answered:
    if step.verifier_id == VERIFIER_ID:
        answer = StaticThreshold(step.threshold_e6 or 0).judge(question)
        return Answered(answer, carried=() if question.threshold_e6 is not None else (THRESHOLD,))
    answer = PolicyAnswer(
        verifier_id=step.verifier_id,
        allowed=_allows(step),
        reasons=tuple(step.reasons),
        answer_json=step.policy_answer_json,
        threshold_e6=step.threshold_e6,
        fallback=step.fallback,
    )
    return Answered(answer, carried=(POLICY,))


def _allows(step: PromotionDecided) -> bool:
    """What the enclosed answer says, whatever was made of it. What a fallback decided has no answer to be judged by."""
    try:
        answer = msgspec.json.decode(step.policy_answer_json)
    except msgspec.DecodeError:
        answer = None
    found = answer if isinstance(answer, dict) else {}
    if step.fallback and "decision" not in found and "allowed" not in found:
        return step.status == PromotionStatus.APPROVED
    return found.get("decision") == "allow" and found.get("allowed", True) is True


def _signature(question: SigningQuestion, step: PromotionDecided, known: Known) -> Answered:
    if _unsigned(step):
        message = step.reasons[0].detail.removesuffix("; it is tried again")
        return Answered(None, WorkError("unavailable", message, retriable=True), (FAILURE,))
    wanted = question.step
    if wanted.status != step.status:
        reasons = ", ".join(f"{r.code}: {r.detail}" for r in wanted.reasons)
        raise Disagrees(f"{wanted.status.value}{f' ({reasons})' if reasons else ''}, not {step.status.value}")
    stated = statement_of(question)
    for version in dict.fromkeys((question.keyring, known.keyrings.latest_version)):
        keyring = known.keyrings.get(version)
        for key in keyring.keys.values() if keyring is not None else ():
            if key.use != PROMOTION:
                continue
            try:
                signed = open_decision(step.decision_envelope or "", key.public_key)
            except AiInfraError:
                continue
            different = [f.name for f in fields(signed) if getattr(signed, f.name) != getattr(stated, f.name)]
            if different:
                raise Disagrees(
                    "; ".join(f"{n} {getattr(stated, n)!s}, not {getattr(signed, n)!s}" for n in different)
                    + " in what the promotion key signed"
                )
            return Answered(SigningAnswer(envelope=step.decision_envelope or ""))
    raise Disagrees("an envelope signed by a promotion key of the keyring, which this event does not carry")


def ticks(key: str, at: datetime, said: Event[Any]) -> bool:
    """A wait for facts ends at its time; a pause before another try has no time that the log knows."""
    purpose, _, model, promotion_id = key.split("/", 3)
    step = said.body
    if not isinstance(step, PromotionDecided) or (model, promotion_id) != (step.model, step.promotion_id):
        return False
    return purpose != "facts" or at <= moment(said).now


def tells(said: Sequence[Event[Any]]) -> Mapping[str, Event[Any]]:
    """A step that could not be signed yet says only that; what was decided is in the one that was signed at last."""
    found: dict[str, Event[Any]] = {}
    signed: dict[str, Event[Any]] = {}
    for event in reversed(said):
        step = event.body
        if isinstance(step, PromotionDecided):
            if _unsigned(step) and step.promotion_id in signed:
                found[event.id] = signed[step.promotion_id]
            elif step.decision_envelope:
                signed[step.promotion_id] = event
    return found


def _unsigned(step: PromotionDecided) -> bool:
    return bool(step.reasons) and step.reasons[0].code == "signing_unavailable"


def _versions(_: Known) -> Mapping[str, Decide]:
    return VERSIONS


REPLAYER: Final = Replayer("promoter", LISTENS, _versions, moment, answers, ticks, tells)
