"""The section `promotion` of the policy document: what it may say, and how the promoter reads it. Pure.

    {"promotion": {"min_score_e6": {"prod": 900000, "staging": 850000}, "wait_for_facts_s": 30}}

min_score_e6      threshold of an environment, millionths; where none is set, AI_INFRA_MIN_PROMO_SCORE holds
wait_for_facts_s  how long a promotion waits for an artifact or an evaluation that it has not heard of, seconds

A document with anything else in this section is refused when it is set, because a typo must not become a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ai_infra.events.generated import Environment

SECTION: Final = "promotion"
ENVIRONMENTS: Final = (Environment.DEV, Environment.STAGING, Environment.PROD)
WAIT_FOR_FACTS_S: Final = 30  # topics of a lane are read within seconds of each other, restarts of a service included
LONGEST_WAIT_S: Final = 86_400
ONE_E6: Final = 1_000_000


def threshold_of(document: Mapping[str, Any], env: Environment) -> int | None:
    """The environment's threshold in millionths; None where the document sets none."""
    found = _mapping(_mapping(document.get(SECTION)).get("min_score_e6")).get(env.value)
    return found if _is_integer(found, ONE_E6) else None


def wait_seconds(document: Mapping[str, Any]) -> int:
    """How long a promotion waits for facts, seconds."""
    found = _mapping(document.get(SECTION)).get("wait_for_facts_s")
    return found if isinstance(found, int) and _is_integer(found, LONGEST_WAIT_S) else WAIT_FOR_FACTS_S


def problems(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Everything in the section that means nothing, a sentence each."""
    section = document.get(SECTION, {})
    if not isinstance(section, Mapping):
        return (f"{SECTION} is an object, not {section!r}",)
    found = [
        f"{SECTION}.{name} is unknown; there are min_score_e6 and wait_for_facts_s"
        for name in section
        if name not in {"min_score_e6", "wait_for_facts_s"}
    ]
    scores = section.get("min_score_e6", {})
    if not isinstance(scores, Mapping):
        found.append(f"{SECTION}.min_score_e6 is an object of environments, not {scores!r}")
    else:
        for env, value in scores.items():
            if env not in ENVIRONMENTS:
                found.append(f"{SECTION}.min_score_e6.{env}: environments are {', '.join(ENVIRONMENTS)}")
            if not _is_integer(value, ONE_E6):
                found.append(f"{SECTION}.min_score_e6.{env} is 0 to {ONE_E6} millionths, not {value!r}")
    if "wait_for_facts_s" in section and not _is_integer(section["wait_for_facts_s"], LONGEST_WAIT_S):
        found.append(f"{SECTION}.wait_for_facts_s is 0 to {LONGEST_WAIT_S} s, not {section['wait_for_facts_s']!r}")
    return tuple(found)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_integer(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most
