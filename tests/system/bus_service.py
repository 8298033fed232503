"""A small service on the real runtime: it borrows the canary's name and key and decides what an event asks it to.

Each `evaluation.recorded` names in `evaluator` what is to be done. `python -m tests.system.bus_service DIRECTORY` runs
it as a process of its own, as `ai-infra run` would; DIRECTORY is where gates are opened.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from ai_infra.bus.decision import (
    NOTHING,
    Context,
    Decision,
    Done,
    Put,
    Refuse,
    Say,
    StateView,
    Tick,
    Timer,
    Trigger,
    Work,
    WorkItem,
)
from ai_infra.bus.service import Service, WorkKind
from ai_infra.events.generated import (
    CanaryStatus,
    Environment,
    EvaluationRecorded,
    EventRefused,
    ProducerHeartbeat,
    Reason,
    RolloutState,
)

NAME = "canary"


@dataclass(frozen=True)
class Total:
    """How many events of a model were counted; id: the model."""

    count: int


@dataclass(frozen=True)
class Note:
    """As long as was wished; id: the model."""

    text: str


@dataclass(frozen=True)
class Errand:
    word: str


@dataclass(frozen=True)
class Fetched:
    word: str


Gate = Callable[[str], None]
"""Called inside `decide` with the wish: a test may hold it there."""


def decide(state: StateView, trigger: Trigger, context: Context, *, gate: Gate = lambda _: None) -> Decision:
    """`refuse`, `fail`, `ignore`, `timer:<seconds>`, `work:<word>`; anything else is counted, ticks and results too.
    `note:<bytes>` is counted and noted."""
    if isinstance(trigger, Tick):
        return count(state, trigger.model, f"tick {trigger.key}")
    if isinstance(trigger, Done):
        word = trigger.result.word if trigger.error is None else f"error {trigger.error.code}"
        return count(state, trigger.model, f"done {trigger.work_id} attempt {trigger.attempt} {word}")
    body = trigger.body
    if not isinstance(body, EvaluationRecorded):
        return NOTHING
    gate(body.evaluator)
    wish, _, detail = body.evaluator.partition(":")
    match wish:
        case "refuse":
            raise Refuse(Reason(code="not_today", detail="asked to refuse"))
        case "fail":
            raise RuntimeError("asked to fail")
        case "ignore":
            return NOTHING
        case "timer":
            return Decision(timers=(Timer(body.evaluation_id, context.now + timedelta(seconds=float(detail))),))
        case "note":
            counted = count(state, body.model, body.evaluator)
            return replace(counted, state=(*counted.state, Put(body.model, Note("x" * int(detail)))))
        case "work":
            return Decision(work=(Work("errand", body.evaluation_id, Errand(detail)),))
    return count(state, body.model, body.evaluator)


def count(state: StateView, model: str, why: str) -> Decision:
    """One more of this model, and say so."""
    known = state.get(Total, model)
    number = 1 if known is None else known.count + 1
    status = CanaryStatus(
        model=model,
        env=Environment.DEV,
        promotion_id="bench",
        artifact_id="bench",
        phase=number,
        phases_percent=(),
        state=RolloutState.HOLDING,
        verdicts=(),
        counts=(),
        reason=why,
        rules="bench/v1",
    )
    return Decision(events=(Say(status, subject=model),), state=(Put(model, Total(number)),))


def fetch(item: WorkItem) -> Fetched:
    """Work that is done at once."""
    return Fetched(item.args.word)


def service(
    *,
    listens: tuple[type, ...] = (EvaluationRecorded,),
    gate: Gate = lambda _: None,
    run: Callable[[WorkItem], Any] = fetch,
    slots: int = 2,
    quick: bool = False,
) -> Service:
    """The service, with what a test wants different."""
    return Service(
        name=NAME,
        listens=listens,
        says=(CanaryStatus, EventRefused, ProducerHeartbeat),
        decide=lambda state, trigger, context: decide(state, trigger, context, gate=gate),
        rules="bench/v1",
        records=(Total, Note),
        work={"errand": WorkKind(run=run, args=Errand, result=Fetched, slots=slots, quick=quick)},
    )


def gate_of_files(directory: Path) -> Gate:
    """Holds at `hold` until there is a file `open`; leaves a file `held-<pid>` first."""

    def gate(wish: str) -> None:
        if wish == "hold":
            (directory / f"held-{os.getpid()}").touch()
            while not (directory / "open").exists():
                time.sleep(0.01)  # between two looks; the test opens it

    return gate


def deaf(item: WorkItem) -> Fetched:
    """Work that goes on whatever it is told; word `deaf` never ends."""
    while item.args.word == "deaf":
        time.sleep(0.05)
    return Fetched(item.args.word)


if __name__ == "__main__":
    from ai_infra.bus.run import run_service
    from ai_infra.cli.stopping import stop_on_signal
    from ai_infra.settings import load_settings
    from ai_infra.telemetry.logs import configure_logging

    settings = load_settings()
    configure_logging(settings, NAME)
    with stop_on_signal() as stop:
        code = run_service(service(gate=gate_of_files(Path(sys.argv[1])), run=deaf), settings, stop)
    sys.exit(code)
