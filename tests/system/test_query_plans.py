"""What the commands ask of a large projection is answered by indexes: no table that grows with events is read whole."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from ai_infra.devstack import Stack
from ai_infra.readmodel import ReadModel, connect, migrate
from ai_infra_indexer.proofs.making import keyrings_in_postgres, position_in_postgres
from ai_infra_indexer.pruning import low_water, prunable

ENTRIES = 100_000 if os.environ.get("SOAK") else 20_000
LANES = 8
LARGE = 1_000  # rows from which on a table must not be read whole
PLACE = ENTRIES // 2000 * 800 + 40  # an entry of MODEL in lane 0

# g counts entries; a model is in one lane, and each fifth entry is about a job, artifact, promotion and deployment.
FILL = f"""
CREATE TEMP TABLE said AS SELECT g, (g % {LANES})::smallint AS lane, (g / {LANES})::bigint AS position,
    md5('event' || g)::uuid AS event_id, md5('event' || (g - {LANES}))::uuid AS cause,
    'model-' || (g % 400) AS model, 'id-' || g AS id, 'id-' || (g - 2000) AS parent,
    (ARRAY['job.queued', 'job.status', 'artifact.produced', 'deployment.changed', 'canary.status'])[1 + g % 5] AS type,
    timestamptz '2026-01-01' + g * interval '1 minute' AS at, md5('hash' || g) || md5('more' || g) AS hash
FROM generate_series(0, {ENTRIES - 1}) g;
INSERT INTO entries (lane, position, event_id, type, model, signer, principal, producer, epoch, seq, event_hash,
    event_time, append_time, kafka_partition, kafka_offset, causes, verdict, entry)
SELECT lane, position, event_id, type, model, 'trainer-1', 'trainer', 'trainer/' || lane, 1, position, hash,
    at, at, lane, position, ARRAY[cause], 'projected', decode(repeat(hash, 8), 'hex') FROM said;
INSERT INTO audit_events SELECT lane, position, event_id::text, type, '{{}}', hash, hash, hash, 'chain-1', at, at,
    '{{}}', 1 FROM said;
INSERT INTO event_ids SELECT lane, event_id, position, hash FROM said;
INSERT INTO producer_events SELECT lane, 'trainer/' || lane, 1, position, position, hash FROM said;
UPDATE lanes SET size = {ENTRIES // LANES};
UPDATE lane_progress SET checkpoint_size = {ENTRIES // LANES}, published_size = {ENTRIES // LANES};
DELETE FROM said WHERE g % 5 <> 0;
INSERT INTO jobs (lane, job_id, model, status, event_id, created_at, updated_at, first_position, last_position)
SELECT lane, id, model, (ARRAY['queued', 'running', 'completed', 'failed'])[1 + g / 5 % 4], event_id, at, at, position,
    position FROM said;
INSERT INTO artifacts (lane, artifact_id, model, status, version, job_id, artifact_uri, artifact_sha256,
    manifest_signature_id, created_at, updated_at, first_position, last_position)
SELECT lane, id, model, 'registered', g / 400, id, 's3://m/' || id, hash, 'sig-' || id, at, at, position, position
FROM said;
INSERT INTO attestations SELECT lane, id, 1, id, 's3://m', hash, 'again-' || id, 'b', hash, 'ci', event_id, at,
    position, event_id FROM said;
INSERT INTO productions SELECT lane, event_id, id, model, id, 's3://m', hash, '{{}}', hash, at, position FROM said;
INSERT INTO evaluations SELECT lane, id, model, id, '{{}}', 900000, '{{}}', 'ci', null, null, event_id, at, position
FROM said;
INSERT INTO promotions (lane, promotion_id, model, kind, artifact_id, target_env, status, created_at, updated_at,
    first_position, last_position)
SELECT lane, id, model, 'promotion', id, 'prod', (ARRAY['applied', 'rejected'])[1 + g / 5 % 2], at, at, position,
    position FROM said;
INSERT INTO promotion_steps SELECT lane, id, position, 'applied', 'canary', '[]', '{{}}', event_id, at FROM said;
INSERT INTO approvals SELECT lane, id, position, id, 'prod', 'alice', 'approve', '', '{{}}', event_id, at FROM said;
INSERT INTO deployments SELECT lane, model, 'prod', 1 + g / 400, id, id, null, 0, parent, 'promotion_applied', '',
    event_id, at, position FROM said;
INSERT INTO lineage_edges SELECT lane, 'artifact', id, 'derived_from', 'artifact', parent, model, '{{}}', position
FROM said;
INSERT INTO refused_events SELECT lane, event_id, 'registry', model, 'artifact.produced', hash, 'trainer-1', '[]',
    event_id, at, position FROM said;
INSERT INTO said_findings SELECT lane, position, (ARRAY['withheld', 'missing_cause'])[1 + g / 5 % 2], lane, null, 1, 1,
    1, position, event_id::text, '', event_id, at FROM said;
INSERT INTO findings SELECT lane, position, 'missing_cause', hash, event_id, null, 1, 1, '' FROM said;
"""


@pytest.fixture(scope="module")
def large(stack: Stack) -> Iterator[str]:
    name = f"large_{uuid.uuid4().hex[:12]}"
    url = stack.create_database(name)
    migrate(url)
    with connect(url, autocommit=True) as connection:
        for lane in range(LANES):
            connection.execute("SELECT add_lane(%s::smallint, %s)", (lane, f"o/lanes/{lane}"))
        connection.execute(FILL.encode())
        connection.execute("ANALYZE")
    yield url
    stack.drop_database(name)


class Plans:
    """Of each query that is made over a connection: what Postgres reads whole to answer it."""

    def __init__(self, connection: psycopg.Connection[Any], url: str) -> None:
        self._beside = connect(url, autocommit=True)
        counted = self._beside.execute("SELECT relname, reltuples FROM pg_class WHERE relkind = 'r'")
        self._rows = dict(counted.fetchall())
        self.whole: list[str] = []
        plans = self

        class Planned(psycopg.Cursor[Any]):
            def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
                plans.look_at(query, params)
                return super().execute(query, params, **options)

        connection.cursor_factory = Planned

    def look_at(self, query: Any, values: Any) -> None:
        text = query if isinstance(query, str | bytes) else query.as_string(self._beside)
        text = text.decode() if isinstance(text, bytes) else text
        [[plan]] = self._beside.execute(f"EXPLAIN (FORMAT JSON) {text}".encode(), values).fetchall()
        self._look(plan[0]["Plan"], limited=False)

    def _look(self, node: dict[str, Any], *, limited: bool) -> None:
        kind, relation = node["Node Type"], node.get("Relation Name")
        by_index = "Index Cond" in node or (limited and kind.startswith("Index")) or kind == "Bitmap Heap Scan"
        if relation is not None and not by_index and self._rows.get(relation, 0) > LARGE:
            self.whole.append(f"{kind} of {relation}: {node.get('Filter')}")
        # What is sorted or gathered first is read whole, whatever limit stands above it.
        ends = kind in ("Sort", "Aggregate", "Hash", "Hash Join", "WindowAgg", "Recursive Union")
        for below in node.get("Plans", ()):
            self._look(below, limited=(limited or kind == "Limit") and not ends)

    def close(self) -> None:
        self._beside.close()


def md5(text: str) -> str:
    """As Postgres makes a UUID of it."""
    return str(uuid.UUID(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()))


MODEL, ID, EVENT = "model-40", f"id-{PLACE}", md5(f"event{PLACE}")
THEN = datetime(2026, 1, 8, 12, tzinfo=UTC)
LATELY = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=ENTRIES, days=-1)

ASKED: dict[str, Callable[[ReadModel], Any]] = {
    "a job": lambda m: m.job(ID),
    "jobs": lambda m: m.jobs(),
    "jobs of a model": lambda m: m.jobs(model=MODEL),
    "jobs that are queued": lambda m: m.jobs(status="queued"),
    "an artifact": lambda m: m.artifact(ID),
    "an artifact of a version": lambda m: m.artifact_version(MODEL, PLACE // 400),
    "an artifact by its signature": lambda m: m.artifact_by_signature(f"sig-{ID}"),
    "an artifact by a later signature": lambda m: m.artifact_by_signature(f"again-{ID}"),
    "artifacts": lambda m: m.artifacts(),
    "artifacts of a model": lambda m: m.artifacts(model=MODEL, status="registered"),
    "artifacts by bytes": lambda m: m.artifacts(sha256="a" * 64),
    "artifacts of a job": lambda m: m.artifacts(job_id=ID),
    "versions of artifacts": lambda m: m.versions([ID, "id-80"]),
    "evaluations": lambda m: m.evaluations(ID),
    "lineage up": lambda m: m.lineage("artifact", ID),
    "lineage down": lambda m: m.lineage("artifact", ID, down=True),
    "a promotion": lambda m: m.promotion(ID),
    "promotions": lambda m: m.promotions(),
    "promotions of a model": lambda m: m.promotions(model=MODEL, env="prod"),
    "promotions that were rejected": lambda m: m.promotions(status="rejected"),
    "promotions of an artifact": lambda m: m.promotions(artifact_id=ID),
    "steps of a promotion": lambda m: m.promotion_steps(ID),
    "approvals": lambda m: m.approvals(ID),
    "deployments of a model": lambda m: m.deployments(model=MODEL, env="prod"),
    "what serves": lambda m: m.current_deployments(model=MODEL, env="prod"),
    "what ran": lambda m: m.what_ran(MODEL, "prod", THEN),
    "what runs": lambda m: m.what_ran(MODEL, "prod"),
    "an event": lambda m: m.event(EVENT),
    "events of a model": lambda m: m.events(model=MODEL),
    "events behind a position": lambda m: m.events(lane=3, after=2_000),
    "effects of an event": lambda m: m.effects(EVENT),
    "lanes": lambda m: m.lanes(),
    "refusals of an event": lambda m: m.refusals(EVENT),
    "findings of a lane": lambda m: m.findings(lane=3),
    "grave findings": lambda m: m.grave_findings(LATELY),
}
EMPTY_IS_RIGHT = {"artifacts by bytes"}


@pytest.fixture
def planned(large: str) -> Iterator[tuple[ReadModel, Plans]]:
    with ReadModel(large) as model:
        plans = Plans(model._connection, large)
        yield model, plans
        plans.close()


@pytest.mark.parametrize("what", ASKED)
def test_what_the_commands_ask_for_reads_no_large_table_whole(planned: tuple[ReadModel, Plans], what: str) -> None:
    model, plans = planned
    assert ASKED[what](model) or what in EMPTY_IS_RIGHT
    assert plans.whole == []


def test_the_newest_are_the_newest_of_every_status(large: str) -> None:
    with ReadModel(large) as model:
        for found in (model.jobs(limit=9), model.promotions(limit=9)):
            assert [getattr(row, "job_id", None) or row.promotion_id for row in found] == [  # type: ignore[union-attr]
                f"id-{g}" for g in range(ENTRIES - 5, ENTRIES - 50, -5)
            ]
            assert len({row.status for row in found}) > 1


def test_what_proofs_and_pruning_ask_for_reads_no_large_table_whole(planned: tuple[ReadModel, Plans]) -> None:
    model, plans = planned
    connection = model._connection
    assert position_in_postgres(connection, EVENT, None) == (0, PLACE // LANES)
    assert position_in_postgres(connection, EVENT, 3) is None
    keyrings_in_postgres(connection, 0)
    assert prunable(connection, 2, THEN) == 1280
    low_water(connection, 2)
    assert plans.whole == []


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM sira_canary_rollback_log WHERE product = %s ORDER BY created_at DESC LIMIT 1",
        "SELECT * FROM siramodel_registry WHERE product = %s AND status = 'production' ORDER BY created_at DESC",
        "SELECT * FROM model_artifacts WHERE model = %s",
        "SELECT * FROM training_jobs WHERE model = %s",
        "SELECT * FROM model_promotions WHERE model = %s",
    ],
)
def test_the_seeds_questions_to_their_views_read_no_large_table_whole(
    planned: tuple[ReadModel, Plans], query: str
) -> None:
    model, plans = planned
    model._connection.execute(query.encode(), (MODEL,)).fetchall()
    assert plans.whole == []
