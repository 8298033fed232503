"""What each role needs on the broker, and no more: the ACLs that an operator sets beside our own signatures.

The broker's ACLs keep strangers from filling topics; who may say what is decided by the keyring all the same. A pure
table: nothing here talks to a broker.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ai_infra.bus.kafka.config import transactional_id_prefix
from ai_infra.bus.kafka.topics import (
    BROADCAST_TOPICS,
    LANE_TOPICS,
    PLAIN,
    SERVICE_INPUTS,
    SERVICES,
    group_of,
    own_topics,
)
from ai_infra.errors import ConfigurationError
from ai_infra.trust.roles import ROLES

LITERAL: Final = "literal"
PREFIXED: Final = "prefixed"
READERS: Final = ("Read", "Describe")
WRITERS: Final = ("Write", "Describe")
KERNEL: Final = "kernel"
ADMINISTRATOR: Final = "administrator"


@dataclass(frozen=True, slots=True)
class Acl:
    """A role may do `operations` on the resource of that name. `pattern`: literal, or prefixed."""

    role: str
    principal: str
    operations: tuple[str, ...]
    resource: str
    name: str
    pattern: str = LITERAL

    def resource_type(self) -> str:
        """As people read it."""
        return self.resource if self.pattern == LITERAL else f"{self.resource} (prefix)"


def acls(roles: Iterable[str] = ()) -> tuple[Acl, ...]:
    """The ACLs of these roles, of all where none is named. Raises ConfigurationError for an unknown one."""
    wanted = tuple(dict.fromkeys(roles))
    known = (*SERVICES, "orchestrator", "operator", "approver", KERNEL, ADMINISTRATOR)
    for role in wanted:
        if role not in known:
            raise ConfigurationError(f"there is no role {role!r} on the broker; there are {', '.join(known)}")
    return tuple(acl for role in wanted or known for acl in _of(role))


def with_principals(found: Sequence[Acl], names: Iterable[str]) -> tuple[Acl, ...]:
    """The same with the broker's own names for roles, each as `ROLE=TYPE:NAME`."""
    principals: dict[str, str] = {}
    for text in names:
        role, separator, principal = text.partition("=")
        if not separator or ":" not in principal:
            raise ConfigurationError(f"--principal wants ROLE=TYPE:NAME, e.g. trainer=User:CN=trainer; got {text!r}")
        principals[role] = principal
    return tuple(replace(acl, principal=principals.get(acl.role, acl.principal)) for acl in found)


def as_commands(found: Iterable[Acl]) -> list[str]:
    """Command lines for Kafka's own tool; `$KAFKA_BOOTSTRAP_SERVERS` is the caller's."""
    flags = {"topic": "--topic", "group": "--group", "transactional id": "--transactional-id"}
    alike: dict[tuple[str, tuple[str, ...], str, str], list[str]] = {}
    for acl in found:
        alike.setdefault((acl.principal, acl.operations, acl.resource, acl.pattern), []).append(acl.name)
    lines = []
    for (principal, operations, resource, pattern), names in alike.items():
        words = ["--allow-principal", shlex.quote(principal)]
        words += [word for operation in operations for word in ("--operation", operation)]
        if resource == "cluster":
            words.append("--cluster")
        else:
            words += [word for name in dict.fromkeys(names) for word in (flags[resource], shlex.quote(name))]
            words += ["--resource-pattern-type", pattern]
        lines.append('kafka-acls.sh --bootstrap-server "$KAFKA_BOOTSTRAP_SERVERS" --add --force ' + " ".join(words))
    return lines


def _of(role: str) -> list[Acl]:
    def may(operations: tuple[str, ...], resource: str, name: str, pattern: str = LITERAL) -> Acl:
        return Acl(role, f"User:{role}", operations, resource, name, pattern)

    if role == ADMINISTRATOR:
        return [
            may(("Create", "Describe", "DescribeConfigs", "AlterConfigs"), "topic", "*"),
            may(("Read", "Describe"), "group", "ai-infra.", PREFIXED),
            may(("Describe", "DescribeConfigs"), "cluster", "kafka-cluster"),
        ]
    if role == KERNEL:
        # It commits under groups of its own, whose names are its business.
        return [may(READERS, "topic", PLAIN), may(("Read",), "group", "kernel", PREFIXED)]
    found = [may(READERS, "topic", topic) for topic in BROADCAST_TOPICS]
    if role in SERVICES:
        found += _of_service(role, may)
    else:
        # People and orchestrators read what is said about their models; what they hear they verify themselves.
        found += [may(READERS, "topic", topic) for topic in LANE_TOPICS]
        found.append(may(("Describe",), "group", "ai-infra.", PREFIXED))
    found += [may(WRITERS, "topic", topic) for topic in ROLES[role]]
    if role == "operator":
        for service in SERVICES:
            state, retry, dead = own_topics(service)
            found += [may(READERS, "topic", state), may((*READERS, "Write"), "topic", retry)]
            found += [may(READERS, "topic", dead), may(("Read", "Describe"), "group", group_of(service))]
        found.append(may(WRITERS, "transactional id", transactional_id_prefix("cli"), PREFIXED))
    return found


def _of_service(service: str, may: Callable[..., Acl]) -> list[Acl]:
    state, _, dead = own_topics(service)
    found = [may(READERS, "topic", topic) for topic in SERVICE_INPUTS[service]]
    found.append(may((*READERS, "Write"), "topic", state))
    found.append(may(WRITERS, "topic", dead))
    found.append(may(READERS, "group", group_of(service)))
    found.append(may(WRITERS, "transactional id", transactional_id_prefix(service), PREFIXED))
    if service == "indexer":
        # Reading too: its group commits there how far it has published.
        found.append(may((*READERS, "Write"), "topic", PLAIN))
        # How long its inputs are kept, against how long they have waited.
        found += [may(("DescribeConfigs",), "topic", topic) for topic in SERVICE_INPUTS[service]]
        # It looks back into a lane's topics for causes that it has not met.
        found += [may(READERS, "topic", topic) for topic in LANE_TOPICS if topic not in SERVICE_INPUTS[service]]
    return found
