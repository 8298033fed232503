"""Which key an event travels under, and which lane that puts it in.

A body with a `model` field travels under the model's name; a body without one under `_lane/<p>` (an operator's
action also under a model's name); what everybody must know under `_broadcast`.
"""

from __future__ import annotations

from typing import Final

from ai_infra.events.body import Body
from ai_infra.events.exceptions import WrongKey, WrongLane
from ai_infra.events.generated import BODIES
from ai_infra.events.lanes import BROADCAST_KEY, is_model, lane_key, lane_of, lane_of_lane_key

BROADCAST_TOPICS: Final = frozenset({"signer.changed", "policy.changed"})
# Bodies that name a model; Kafka key and field must agree, so that whoever may speak of one model speaks of no other.
MODEL_TOPICS: Final = frozenset(topic for topic, body in BODIES.items() if hasattr(body, "model"))
# An operator may act on a model or on a whole lane.
EITHER_TOPICS: Final = frozenset({"operator.action"})


def model_of(key: str) -> str:
    """The model that a key names; empty for `_lane/<p>` and `_broadcast`."""
    return "" if key.startswith("_") else key


def check_place(topic: str, key: str, partition: int, lanes: int) -> None:
    """Raises WrongKey where events of `topic` don't travel under `key`, WrongLane where not in this partition."""
    check_key(topic, key)
    if topic in BROADCAST_TOPICS:
        expected = 0
    elif (named := lane_of_lane_key(key)) is not None:
        if named >= lanes:
            raise WrongKey(f"{topic}: expected a key from {lane_key(0)} to {lane_key(lanes - 1)}; got {key!r}")
        expected = named
    else:
        expected = lane_of(key, lanes)
    if partition != expected:
        raise WrongLane(
            f"{topic}: expected key {key!r} in partition {expected} of {lanes}; it is in {partition}: "
            "partition by murmur2 as Java's default partitioner does"
        )


def check_key(topic: str, key: str) -> None:
    """Raises WrongKey where events of `topic` don't travel under keys of this form."""
    if topic in BROADCAST_TOPICS:
        if key != BROADCAST_KEY:
            raise WrongKey(f"{topic}: expected the key {BROADCAST_KEY}; got {key!r}")
    elif topic in MODEL_TOPICS:
        if not is_model(key):
            raise WrongKey(f"{topic}: expected a model's name as key; got {key[:200]!r}")
    elif lane_of_lane_key(key) is None and not (topic in EITHER_TOPICS and is_model(key)):
        raise WrongKey(f"{topic}: expected a key like {lane_key(0)}; got {key[:200]!r}")


def check_body_key(body: Body, key: str) -> None:
    """Raises WrongKey where a body is about another model than the key says."""
    if body.TOPIC in MODEL_TOPICS and body.model != key:  # type: ignore[attr-defined]  # MODEL_TOPICS have the field
        raise WrongKey(
            f"{body.TOPIC}: expected key and body.model to be equal; got key {key!r} and model {body.model[:200]!r}"  # type: ignore[attr-defined]
        )
