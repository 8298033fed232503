"""Which policy follows which: the one rule for everybody who takes policies in, live or from the log. Pure."""

from __future__ import annotations

from typing import Any

import orjson

from ai_infra.bus.decision import PolicyView
from ai_infra.errors import AiInfraError
from ai_infra.events.canonical import sha256_hex
from ai_infra.events.generated import PolicyChanged


class BadPolicy(AiInfraError):
    """A policy that nobody takes in: the one before it stays in force."""

    code = "bad_policy"


def successor(policy: PolicyView, changed: PolicyChanged) -> PolicyView:
    """The policy that is in force once a verified `policy.changed` has come after `policy`. Raises BadPolicy."""
    text = changed.policy_json.encode()
    # The very next one: a leap to the largest number would be the last policy that there can be.
    if sha256_hex(text) != changed.policy_sha256 or changed.version != policy.version + 1:
        raise BadPolicy(
            f"policy version {changed.version} does not follow version {policy.version}, or its SHA-256 is not "
            f"{changed.policy_sha256}"
        )
    try:
        document: Any = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadPolicy(f"the policy is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise BadPolicy(f"the policy is no JSON object, but {text[:40]!r}")
    return PolicyView(version=changed.version, sha256=changed.policy_sha256, document=document)
