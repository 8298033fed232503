"""An event is sequenced once; what is strange about it is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ai_infra.events.event import Cause
from ai_infra.events.generated import EventRefused, JobStatusKind, Reason
from ai_infra_indexer.history import NAMED, Heard, Known, Verdict


def test_the_same_signed_event_is_heard_once(world: Any) -> None:
    verifier, known = world.verifier(), Known(world.lane)
    for record in (world.say("orchestrator", world.queued()), world.say("trainer", world.status(JobStatusKind.QUEUED))):
        event = verifier.verify(record)
        assert known.heard(event) is Heard.NEW
        assert known.judge(event, 0).verdict is Verdict.PROJECTED
        assert known.heard(verifier.verify(replace(record, offset=999))) is Heard.DUPLICATE


def test_another_content_under_the_id_of_an_uncounted_event_is_refused(world: Any) -> None:
    verifier, known = world.verifier(), Known(world.lane)
    first = verifier.verify(world.say("orchestrator", world.queued()))
    known.judge(first, 0)
    twin = verifier.verify(world.say("orchestrator", world.queued(seed=8), event_id=first.id))
    assert known.heard(twin) is Heard.REUSED_ID


def test_another_content_under_a_number_is_kept_as_evidence(world: Any) -> None:
    verifier, known = world.verifier(), Known(world.lane)
    known.judge(verifier.verify(world.say("trainer", world.status(JobStatusKind.QUEUED))), 4)
    world.counters.clear()
    twin = verifier.verify(world.say("trainer", world.status(JobStatusKind.RUNNING)))
    assert known.heard(twin) is Heard.NEW
    judged = known.judge(twin, 5)
    assert judged.verdict is Verdict.EQUIVOCATION
    [finding] = judged.findings
    assert (finding.kind, finding.position, finding.number) == ("equivocation", 5, (f"trainer/{world.lane}", 1, 1))


def test_an_event_said_again_under_a_new_number_means_nothing_new(world: Any) -> None:
    verifier, known = world.verifier(), Known(world.lane)
    first = verifier.verify(world.say("trainer", world.status(JobStatusKind.QUEUED)))
    known.judge(first, 0)
    again = verifier.verify(world.say("trainer", world.status(JobStatusKind.QUEUED), event_id=first.id))
    assert known.heard(again) is Heard.NEW
    assert known.judge(again, 1).verdict is Verdict.REPEATED


def test_a_missing_cause_is_named_and_so_is_its_late_arrival(world: Any) -> None:
    verifier, known = world.verifier(), Known(world.lane)
    cause = verifier.verify(world.say("orchestrator", world.queued()))
    effect = verifier.verify(world.say("trainer", world.status(JobStatusKind.QUEUED), causes=[cause]))
    judged = known.judge(effect, 0)
    assert judged.missing == (cause.id,)
    assert [f.kind for f in judged.findings] == ["missing_cause"]
    assert [(f.kind, f.about) for f in known.judge(cause, 1).findings] == [("late_cause", "0")]


def test_a_cause_in_another_lane_is_not_expected_here(world: Any) -> None:
    elsewhere = Cause("0190b5a0-0000-7000-8000-000000000000", (world.lane + 1) % 4)
    event = world.verifier().verify(world.say("trainer", world.status(JobStatusKind.QUEUED), causes=[elsewhere]))
    assert Known(world.lane).judge(event, 0).missing == ()


def test_what_was_refused_may_be_missing_and_any_other_cause_of_the_refusal_may_not(world: Any) -> None:
    verifier = world.verifier()
    refused = verifier.verify(world.say("orchestrator", world.queued()))
    other = verifier.verify(world.say("orchestrator", world.queued("job-2")))
    body = EventRefused(
        model=world.model,
        event_id=refused.id,
        event_type=refused.type,
        event_hash=refused.hash,
        service="trainer",
        signer=refused.signer,
        reasons=(Reason(code="no", detail="no"),),
        rules="trainer/v1",
    )
    refusal = verifier.verify(world.say("trainer", body, causes=[refused, other]))
    known = Known(world.lane)
    assert known.judge(refusal, 0).missing == (other.id,)
    assert known.judge(refused, 1).findings == (), "redriven and accepted since: not a late cause"


def test_a_cause_that_is_missing_and_named_twice_is_noted_once(world: Any) -> None:
    nobody = Cause("0190b5a0-0000-7000-8000-000000000000", world.lane)
    event = world.verifier().verify(world.say("orchestrator", world.queued(), causes=[nobody, nobody]))
    judged = Known(world.lane).judge(event, 0)
    assert judged.missing == (nobody.id,)
    assert [finding.about for finding in judged.findings] == [nobody.id]


def test_what_an_event_lacks_and_what_it_was_lacking_for_is_told_by_a_few_findings(world: Any) -> None:
    verifier, known = world.verifier(), Known(world.lane)
    cause = verifier.verify(world.say("orchestrator", world.queued()))
    nobody = [Cause(f"0190b5a0-0000-7000-8000-{n:012}", world.lane) for n in range(31)]
    for position in range(40):
        effect = verifier.verify(world.say("orchestrator", world.queued(f"job-{position}"), causes=[cause, *nobody]))
        judged = known.judge(effect, position)
        assert len(judged.missing) == 32
        assert [finding.kind for finding in judged.findings] == ["missing_cause"] * NAMED
    late = known.judge(cause, 40).findings
    assert [(finding.kind, finding.about) for finding in late] == [("late_cause", str(n)) for n in range(NAMED)]
