"""The canary's decisions, made again from the log: it asks nobody, so all of it is recomputed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from ai_infra.bus.replay import Known, Moment, Replayer
from ai_infra.bus.service import Decide
from ai_infra.events.event import Event
from ai_infra_canary.decide import VERSIONS
from ai_infra_canary.service import LISTENS
from ai_infra_canary.verification import PromotionKeys


def versions(known: Known) -> Mapping[str, Decide]:
    """The rules, with the promotion keys of the lane's own keyrings."""
    keys = PromotionKeys()
    keys.learn(known.keyrings)
    return {name: partial(decide, promotion_keys=keys.of) for name, decide in VERSIONS.items()}


def moment(event: Event[Any]) -> Moment:
    """It was decided when it was said, by the keyring that it was said under."""
    return Moment(event.time, event.attributes.keyring)


REPLAYER: Final = Replayer("canary", LISTENS, versions, moment)
