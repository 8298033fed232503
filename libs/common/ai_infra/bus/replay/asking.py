"""The rules of a service, asked again as they were asked then, and not for ever. Pure."""

from __future__ import annotations

from typing import Any, Final

from ai_infra.bus.decision import NO_POLICY, Context, Decision, Refuse, Trigger
from ai_infra.bus.replay.here import Here
from ai_infra.bus.replay.words import Known, Moment, Replayer
from ai_infra.events.event import Event

_TRIES: Final = 30_000  # calls of `decide` for one decision: some seconds


class GivenUp(Exception):
    """As many orders of hearing were tried as there is time for."""


class Asking:
    """Asks them. `begin` before each decision that is to be explained."""

    def __init__(self, replayer: Replayer, lane: int, known: Known) -> None:
        self._service, self._lane, self._known = replayer.service, lane, known
        self.versions = replayer.versions(known)
        self._tries = _TRIES

    def begin(self, more: int = 0) -> None:
        self._tries = _TRIES + more

    def decide(self, here: Here, trigger: Trigger, moment: Moment, said: Event[Any]) -> Decision | Refuse | None:
        """What they answer at this place; None where they have no answer. Raises GivenUp."""
        self._tries -= 1
        if self._tries < 0:
            raise GivenUp
        policy = self._known.policies.get(moment.policy, NO_POLICY)
        context = Context(
            now=moment.now,
            lane=self._lane,
            service=self._service,
            rules=said.body.rules,
            keyring=moment.keyring,
            policy=policy,
        )
        try:
            return self.versions[said.body.rules](here, trigger, context)
        except Refuse as refused:
            return refused
        except (KeyError, ValueError, TypeError, AttributeError):
            return None  # in this order of hearing the rules have no answer
