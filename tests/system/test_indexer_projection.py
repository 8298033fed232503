"""What the projection shows of an artifact that was produced more than once, in a real database and rebuilt."""

from __future__ import annotations

import itertools
import secrets
from pathlib import Path
from typing import Any

import pytest
from tests.unit.indexer.voices import LANES, worlds

from ai_infra.devstack import Stack
from ai_infra.events.canonical import sha256_hex
from ai_infra.events.event import Event
from ai_infra.events.generated import (
    ArtifactProduced,
    ArtifactRefused,
    AuditFinding,
    FindingKind,
    ManifestSignature,
    Reason,
)
from ai_infra.manifest.registration import Registration, sign_registration
from ai_infra.readmodel import ReadModel, connect, migrate
from ai_infra.readmodel.search import search_artifacts
from ai_infra.trust.init import init_keys
from ai_infra.trust.keyrings import Keyrings
from ai_infra_indexer import parity
from ai_infra_indexer.appending import append
from ai_infra_indexer.history import Verdict
from ai_infra_indexer.replay import Replay
from ai_infra_indexer.sequence import sequence
from ai_infra_indexer.store import ensure_lane, read_head, read_known
from ai_infra_indexer.taking import load

# Three productions of the same bytes and what the registry makes of each, in every order that is possible.
STEPS = ("produced a", "refused a", "produced b", "registered b", "produced c", "refused c")
ORDERS = [
    order
    for order in itertools.permutations(STEPS)
    if all(
        order.index(f"produced {p}") < order.index(f"{answer} {p}")
        for answer, p in (("refused", "a"), ("registered", "b"), ("refused", "c"))
    )
]


class Telling:
    """Says what happened to one artifact, step by step."""

    def __init__(self, world: Any, artifact: str) -> None:
        self.world, self.artifact = world, artifact
        self.produced: dict[str, Event[Any]] = {}

    def step(self, what: str) -> Event[Any]:
        kind, _, which = what.partition(" ")
        event: Event[Any] = getattr(self, f"_{kind}")(which)
        return event

    def _say(self, who: str, body: Any, causes: tuple[Event[Any], ...] = ()) -> Event[Any]:
        event: Event[Any] = self.world.verifier().verify(self.world.say(who, body, causes=causes))
        return event

    def _produced(self, which: str) -> Event[Any]:
        body = ArtifactProduced(
            artifact_id=self.artifact,
            model=self.world.model,
            job_id=f"job-{which}-{self.artifact}",
            artifact_uri=f"s3://models/{self.artifact}",
            artifact_sha256="b" * 64,
            artifact_bytes=1,
            manifest_uri=f"s3://models/{which}.json",
            manifest_sha256=which * 64,
            provenance=f'{{"by":"{which}"}}',
            input_checksum="d" * 64,
            rules="trainer/v1",
        )
        self.produced[which] = self._say("trainer", body)
        return self.produced[which]

    def _refused(self, which: str) -> Event[Any]:
        body = ArtifactRefused(
            artifact_id=self.artifact,
            model=self.world.model,
            job_id=f"job-{which}-{self.artifact}",
            artifact_uri=f"s3://models/{self.artifact}",
            artifact_sha256="b" * 64,
            reasons=(Reason(code="bad_provenance", detail=which),),
            rules="registry/v1",
        )
        return self._say("registry", body, (self.produced[which],))

    def _registered(self, which: str) -> Event[Any]:
        cause = self.produced[which]
        key = self.world.signers["manifest-1"]
        registration = Registration(
            artifact_id=self.artifact,
            model=self.world.model,
            version=1,
            artifact_sha256="b" * 64,
            artifact_bytes=1,
            manifest_sha256=which * 64,
            provenance_sha256=sha256_hex(cause.body.provenance.encode()),
            input_checksum="d" * 64,
            builder_id="urn:builder",
            produced_event_id=cause.id,
            keyring_version=1,
            rules="registry/v1",
            registered_at=cause.time,
        )
        signed = sign_registration(registration, key.sign, key.key_id)
        body = self.world.registered(
            self.artifact,
            new_version=False,
            job_id=f"job-{which}-{self.artifact}",
            manifest_sha256=which * 64,
            manifest_signature_id=signed.manifest_signature_id,
            manifest_signature=ManifestSignature(
                signer_id=signed.signer_id, signature=signed.signature, ts=signed.ts, envelope=signed.envelope
            ),
        )
        return self._say("registry", body, (cause,))


@pytest.fixture
def world(tmp_path: Path) -> Any:
    directory = tmp_path / "keys"
    init_keys(directory)
    return worlds(directory)()


def test_an_artifact_shows_what_its_registration_rests_on_whatever_was_refused_before_or_after(
    world: Any, database: str, stack: Stack
) -> None:
    assert len(ORDERS) == 90
    events = [world.verifier().verify(world.keyring_record())]
    told = [Telling(world, f"art-{n}") for n in range(len(ORDERS))]
    for telling, order in zip(told, ORDERS, strict=True):
        events += [telling.step(what) for what in order]
    only_produced = Telling(world, "art-new")
    events += [only_produced.step(what) for what in ("produced a", "refused a", "produced c")]

    migrate(database)
    raws: list[bytes] = []
    with connect(database, autocommit=True) as connection:
        ensure_lane(connection, world.lane, f"example.org/log/lanes/{world.lane}")
        for at in range(0, len(events), 50):
            batch, head = events[at : at + 50], read_head(connection, world.lane)
            lines, after = sequence(head, batch, world.chain())
            append(connection, head, lines, after, known=read_known(connection, world.lane, batch), offsets={})
            raws += [line.raw for line in lines]
    with ReadModel(database) as model:
        for telling, order in zip(told, ORDERS, strict=True):
            row = model.artifact(telling.artifact)
            assert row is not None
            assert (row.status, row.provenance, row.manifest_sha256, row.job_id) == (
                "registered",
                '{"by":"b"}',
                "b" * 64,
                f"job-b-{telling.artifact}",
            ), order
            assert (row.produced_at, row.reasons) == (telling.produced["b"].append_time, None), order
            jobs = [edge.parent_id for edge in model.lineage("artifact", telling.artifact) if edge.parent_kind == "job"]
            assert jobs == [f"job-b-{telling.artifact}"], order
        row = model.artifact("art-new")
        assert row is not None
        assert (row.status, row.provenance, row.reasons) == ("produced", '{"by":"c"}', None)
    assert [found.provenance for found in search_artifacts(database, "art-new")] == ['{"by":"c"}']

    name = f"again_{secrets.token_hex(6)}"
    again = stack.create_database(name)
    migrate(again)
    keyrings = Keyrings(world.roots)
    with connect(again, autocommit=True) as connection:
        ensure_lane(connection, world.lane, f"example.org/log/lanes/{world.lane}")
        head = read_head(connection, world.lane)
        load(connection, Replay(head, keyrings, LANES, chain_signatures=True), raws)
    with parity.snapshot(database) as live, parity.snapshot(again) as rebuilt:
        comparisons, differences = parity.compare(live, rebuilt)
    assert differences == []
    assert sum(c.live_rows for c in comparisons if c.table == "productions") == 3 * len(ORDERS) + 2
    stack.drop_database(name)


def test_a_finding_whose_own_projection_is_refused_brings_no_finding(world: Any, database: str) -> None:
    """Else each would bring the next one. Any other refused projection is named by one."""
    migrate(database)
    job = world.verifier().verify(world.say("orchestrator", world.queued()))
    body = AuditFinding(
        kind=FindingKind.MISSING_CAUSE,
        lane_of=world.lane,
        producer=None,
        epoch=None,
        first_seq=None,
        last_seq=None,
        position=0,
        event_id=job.id,
        detail="d",
    )
    finding = world.verifier().verify(world.say("indexer", body))
    with connect(database, autocommit=True) as connection:
        connection.execute("ALTER TABLE said_findings ADD CHECK (false)")
        connection.execute("ALTER TABLE jobs ADD CHECK (false)")
        ensure_lane(connection, world.lane, "o")
        head = read_head(connection, world.lane)
        lines, after = sequence(head, [job, finding], world.chain())
        known = read_known(connection, world.lane, [job, finding])
        done = append(connection, head, lines, after, known=known, offsets={})
    assert set(done.verdicts.values()) == {Verdict.REFUSED}
    assert [(found.kind, found.event_id) for found in done.findings] == [("projection_refused", job.id)]
