"""What the promoter knew, from what it has said: promotions that were decided, and how far each has come. Pure.

Facts (artifacts, evaluations, what serves, revocations) are heard again, which says nothing new; a step that had not
yet followed from one follows then. A promotion that was pending begins again from its request, by what is known now.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from ai_infra.bus.decision import Put, Refuse
from ai_infra.bus.restoring import Past, Recalled, Restorer
from ai_infra.events.event import Event
from ai_infra.events.generated import PromotionDecided, PromotionRequested, PromotionStatus, RollbackRequested
from ai_infra_promoter.requests import Request, idempotency, promotion_of
from ai_infra_promoter.service import LISTENS
from ai_infra_promoter.state import IdempotencyKey, Promotion, PromotionsAbout, key


def recall(past: Past) -> Recalled:
    """The promotions that were decided, and the requests that need no answer any more."""
    newest: dict[str, PromotionDecided] = {}
    for said in past.said:
        if isinstance(said.body, PromotionDecided) and not _is_notice(said.body):
            newest[key(said.body.model, said.body.promotion_id)] = said.body
    decided: dict[str, Promotion] = {}
    keyed: dict[str, tuple[str, IdempotencyKey]] = {}
    about: dict[str, PromotionsAbout] = {}
    settled: set[str] = set()
    first: set[str] = set()
    for event, promotion in _requests(past):
        where = key(promotion.model, promotion.promotion_id)
        if where in first:
            if past.caused.get(event.id):
                settled.add(event.id)  # asked again, and answered
            continue
        first.add(where)
        if (found := idempotency(event.body)) is not None:
            mine = IdempotencyKey(promotion_id=promotion.promotion_id, request_sha256=found[1])
            keyed.setdefault(found[0], (where, mine))
        step = newest.get(where)
        if step is None or step.status == PromotionStatus.PENDING:
            continue
        settled.add(event.id)
        decided[where] = replace(
            promotion,
            artifact_id=step.artifact_id,
            expected_current_artifact_id=step.expected_current_artifact_id,
            status=step.status,
            said=step,
        )
        if step.artifact_id:
            listed = key(promotion.model, "artifact", step.artifact_id)
            ids = about[listed].promotion_ids if listed in about else ()
            about[listed] = PromotionsAbout(promotion_ids=(*ids, promotion.promotion_id))
    # The key of a promotion that begins again is taken when it does.
    keys = {i: record for i, (owner, record) in keyed.items() if owner in decided}
    records = [Put(i, record) for found_ in (decided, about, keys) for i, record in found_.items()]
    return Recalled(records, settled)


def _requests(past: Past) -> Iterator[tuple[Event[Request], Promotion]]:
    for event in past.heard.values():
        if isinstance(event.body, PromotionRequested | RollbackRequested) and event.id not in past.refused:
            try:
                promotion = promotion_of(event)
            except Refuse:
                continue  # it is refused when it is heard again
            yield event, promotion


def _is_notice(step: PromotionDecided) -> bool:
    """Says only that the promotion key can't be asked at present; what stands was said before."""
    return bool(step.reasons) and step.reasons[0].code == "signing_unavailable"


RESTORER: Final = Restorer("promoter", frozenset((*LISTENS, PromotionDecided)), recall)
