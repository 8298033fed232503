"""How the whole system is: what `status` shows, and for everything that isn't well, which command is next.

Each part is looked at on its own: that one doesn't answer is a finding, not the end of the look.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from ai_infra.bus.broadcast import Broadcast
from ai_infra.bus.kafka.topics import SERVICE_INPUTS, SERVICES, check_topics, group_of
from ai_infra.bus.kafka.unread import RETENTION_ALARM, retention_used, retentions
from ai_infra.cli.endpoints import Replica, replicas, revival
from ai_infra.cli.halted import HaltedLane, halted_lanes
from ai_infra.cli.letters import OPEN, dead_letters
from ai_infra.cli.output import duration
from ai_infra.cli.positions import INDEXER, Position, age, positions, total
from ai_infra.cli.reading import LogReader
from ai_infra.client.gate import Gate
from ai_infra.errors import AiInfraError
from ai_infra.settings import Settings
from ai_infra.trust.keyring import Keyring

BEHIND_SECONDS: Final = 60.0  # an input that waits longer than that isn't being worked on as it should
NOT_FINAL_SECONDS: Final = 300.0  # a checkpoint is made every few seconds; minutes mean that the archive is away
FINDINGS_DAYS: Final = 7
PRUNED_DAYS: Final = 2  # beyond AI_INFRA_HOT_DAYS: the indexer looks every minute
KEY_ENDS_DAYS: Final = 30
DELEGATION_SHARE: Final = 0.25  # renewed at half; below a quarter the signing service has been away for long
CATCH_UP_SECONDS: Final = 15.0
_MENDED_BY: Final = {"projection": "ai-infra db reproject"}  # checks of /readyz that a command mends

if TYPE_CHECKING:
    from ai_infra.readmodel.rows import LaneRow  # its room needs psycopg, which a producer's installation doesn't have

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that isn't well. `problem`: it needs somebody now; else it's worth knowing. `next`: a command."""

    problem: bool
    subject: str
    what: str
    next: str


@dataclass(slots=True)
class ServiceVitals:
    """One service. `running`: members of its group; `behind` in offsets; `waiting_seconds`: age of its oldest input;
    `retention_used`: the largest share of a topic's retention that an unread input has used up, 0..1."""

    name: str
    running: int = 0
    lanes: int = 0
    behind: int | None = None
    waiting_seconds: float = 0.0
    retention_used: float = 0.0
    halted: list[HaltedLane] = field(default_factory=list)
    dead_letters: int = 0
    replicas: list[Replica] = field(default_factory=list)
    delegation_seconds: float | None = None


@dataclass(slots=True)
class Vitals:
    """Everything that `status` knows."""

    time: datetime
    environment: str
    parts: dict[str, str] = field(default_factory=dict)
    services: list[ServiceVitals] = field(default_factory=list)
    lanes: list[LaneRow] = field(default_factory=list)
    keyring: int | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def well(self) -> bool:
        return not any(finding.problem for finding in self.findings)

    def problem(self, subject: str, what: str, then: str) -> None:
        self.findings.append(Finding(True, subject, what, then))

    def remark(self, subject: str, what: str, then: str) -> None:
        self.findings.append(Finding(False, subject, what, then))


def examine(settings: Settings, say: Say = lambda _: None) -> Vitals:
    """Looks at everything. Raises only ConfigurationError: where nothing is configured, nothing can be looked at."""
    settings.kafka.client_config()
    vitals = Vitals(datetime.now(UTC), settings.environment)
    say("asking the replicas")
    answering = replicas(settings)
    say("asking Kafka")
    revive = revival(settings) or "ai-infra doctor"
    _part(vitals, "Kafka", revive, lambda: _kafka(settings, vitals, answering, say))
    if settings.database.configured:
        say("asking Postgres")
        _part(vitals, "Postgres", revive, lambda: _postgres(settings, vitals))
    else:
        vitals.parts["Postgres"] = "not configured"
    say("asking the object store")
    _part(vitals, "object store", revive, lambda: _objects(settings))
    # Causes before effects: a service that isn't ready often waits for one of the parts.
    vitals.findings.sort(key=lambda f: (not f.problem, f.subject not in vitals.parts))
    return vitals


def _part(vitals: Vitals, name: str, then: str, look: Callable[[], None]) -> None:
    try:
        look()
    except AiInfraError as error:
        vitals.parts[name] = "FAILED"
        vitals.problem(name, str(error), then)
    except ImportError as error:
        vitals.parts[name] = f"not looked at: {error.name} isn't installed (pip install 'ai-infra[cli]')"
    else:
        vitals.parts[name] = "ok"


def _kafka(settings: Settings, vitals: Vitals, answering: list[Replica], say: Say) -> None:
    problems = check_topics(settings)
    for problem in problems[:5]:
        (vitals.problem if problem.serious else vitals.remark)(problem.subject, problem.what, problem.fix)
    if len(problems) > 5:
        vitals.remark("topics", f"{len(problems) - 5} more differences", "ai-infra topics check")
    if any(p.what == "missing" for p in problems):
        return
    reader = LogReader(settings)
    halted: list[HaltedLane] = []
    letters: Counter[str] = Counter()
    # Without a keyring nobody's word counts, but groups and lag are there to be seen.
    _part(vitals, "keyring", "ai-infra keys publish", lambda: _trusted(settings, vitals, reader, halted, letters, say))
    say("looking how far the services are")
    where = _positions(settings, reader)
    kept = retentions(reader.admin, (topic for name in SERVICES for topic in SERVICE_INPUTS[name]))
    for name in SERVICES:
        group = reader.admin.group(group_of(name))
        mine = [p for p in where if p.service == name]
        service = ServiceVitals(
            name=name,
            running=len(group.members),
            lanes=len({p for member in group.members for _, p in member.partitions}),
            halted=[h for h in halted if h.service == name],
            dead_letters=letters[name],
            replicas=[r for r in answering if r.service == name],
        )
        if mine:
            service.behind, service.waiting_seconds = total(mine)
            service.retention_used = max(retention_used(age(p.oldest_unread), kept[p.topic]) for p in mine)
        vitals.services.append(service)
        _judge(settings, vitals, service, mine)


def _trusted(
    settings: Settings,
    vitals: Vitals,
    reader: LogReader,
    halted: list[HaltedLane],
    letters: Counter[str],
    say: Say,
) -> None:
    """What only a known keyring lets one believe."""
    with closing(Broadcast(settings, service="cli")) as broadcast:
        broadcast.catch_up(CATCH_UP_SECONDS)
        _keys(broadcast.keyrings.latest, vitals)
        say("looking for halted lanes")
        halted += halted_lanes(reader, broadcast.verifier, settings.log.lanes)
    say("looking for dead letters")
    with closing(Gate(settings)) as gate:
        letters.update(d.service for d in dead_letters(reader, gate, range(settings.log.lanes)) if d.outcome == OPEN)


def _positions(settings: Settings, reader: LogReader) -> list[Position]:
    others = positions(settings, reader, [name for name in SERVICES if name != INDEXER])
    try:
        return others + positions(settings, reader, [INDEXER])
    except (AiInfraError, ImportError):
        return others  # Postgres has a line of its own


def _judge(settings: Settings, vitals: Vitals, service: ServiceVitals, mine: list[Position]) -> None:
    name = service.name
    lost = [p for p in mine if p.lost]
    if lost:
        first = lost[0]
        vitals.problem(
            name,
            f"{first.topic}/{first.lane}: {first.lost} records were deleted before they were read",
            f"ai-infra lag {name}",
        )
    if service.running == 0:
        vitals.problem(name, "no replica is running", f"ai-infra run {name} (or: ai-infra dev up --services)")
    elif service.lanes < settings.log.lanes:
        vitals.problem(
            name,
            f"only {service.lanes} of {settings.log.lanes} lanes are being worked",
            f"ai-infra groups show {name}",
        )
    elif service.waiting_seconds > BEHIND_SECONDS and not service.halted:
        vitals.problem(
            name, f"an input has been waiting for {duration(service.waiting_seconds)}", f"ai-infra lag {name}"
        )
    if service.retention_used >= RETENTION_ALARM:
        harm = "history would be lost" if name == INDEXER else "it would never be answered"
        vitals.problem(
            name,
            f"its oldest input has used {service.retention_used:.0%} of its topic's retention: {harm}",
            f"ai-infra lag {name}",
        )
    for halt in service.halted:
        vitals.problem(
            f"{name}/{halt.lane}",
            f"halted {duration(age(halt.since))} ago after {halt.failures} failures ({halt.code}: {halt.reason})",
            f"ai-infra dlq list --service {name}; mend it; ai-infra groups resume {name} --lane {halt.lane} "
            f"--reason TEXT",
        )
    if service.dead_letters:
        many = f"{service.dead_letters} dead letters" if service.dead_letters > 1 else "1 dead letter"
        vitals.remark(name, many, f"ai-infra dlq list --service {name}")
    for replica in service.replicas:
        if replica.status != "ok":
            why = "; ".join(f"{check}: {reason}" for check, reason in replica.reasons.items())
            then = _MENDED_BY.get(next(iter(replica.reasons), ""), f"ai-infra dev logs {replica.name}")
            vitals.problem(replica.name, f"{replica.status} ({why})", then)
    lives = [r.delegation_seconds for r in service.replicas if r.delegation_seconds is not None]
    if lives:
        service.delegation_seconds = min(lives)
        if service.delegation_seconds < DELEGATION_SHARE * settings.keys.delegation_hours * 3600:
            vitals.problem(
                name,
                f"it can sign for {duration(service.delegation_seconds)} more: its signing service doesn't answer",
                "ai-infra keys test",
            )


def _keys(keyring: Keyring, vitals: Vitals) -> None:
    vitals.keyring = keyring.version
    now = vitals.time
    for key in keyring.keys.values():
        if key.not_after is None or key.id in keyring.revocations:
            continue
        ends = datetime.fromtimestamp(key.not_after / 1000, UTC)
        if ends < now:
            continue  # retired, as intended
        if ends - now < timedelta(days=KEY_ENDS_DAYS):
            left = duration((ends - now).total_seconds())
            vitals.remark(f"key {key.id}", f"ends in {left}", f"ai-infra keys rotate {key.id}")


def _postgres(settings: Settings, vitals: Vitals) -> None:
    from ai_infra.readmodel.exceptions import MigrationError
    from ai_infra.readmodel.migrations import require_current
    from ai_infra.readmodel.queries import ReadModel

    try:
        require_current(settings.database.url)
    except MigrationError as error:
        vitals.problem("Postgres", str(error), "ai-infra db migrate")
    with ReadModel(settings.database.url) as model, suppress(MigrationError):  # said above
        vitals.lanes = model.lanes()
        for number, kind, count in model.grave_findings(vitals.time - timedelta(days=FINDINGS_DAYS)):
            what = f"{count} finding{'' if count == 1 else 's'} of the last {FINDINGS_DAYS} days: {kind}"
            vitals.remark(f"lane {number}", what, f"ai-infra audit complete --lane {number}")
    hot = settings.log.hot_days
    for lane in vitals.lanes:
        old = age(lane.oldest_bundle_time) / 86_400
        if hot and old > hot + PRUNED_DAYS:
            what = f"its oldest rows have been in Postgres for {old:.0f} days and should have left after {hot}"
            vitals.remark(f"lane {lane.lane}", what, f"ai-infra db prune --lane {lane.lane}")
        missing = lane.size - lane.checkpoint_size
        # Both: a quiet lane has an old checkpoint and nothing that it lacks; a busy one has news that is seconds old.
        waiting = min(age(lane.checkpoint_at or lane.last_append_time), age(lane.last_append_time))
        if missing > 0 and waiting > NOT_FINAL_SECONDS:
            vitals.problem(
                f"lane {lane.lane}",
                f"{missing} entries have not been covered by a checkpoint for {duration(waiting)}",
                "ai-infra dev logs indexer-0 (is the archive there?)",
            )


def _objects(settings: Settings) -> None:
    from ai_infra.objects.connection import connect, request

    with request("status", settings.objects.archive_bucket):
        connect(settings).head_bucket(Bucket=settings.objects.archive_bucket)
