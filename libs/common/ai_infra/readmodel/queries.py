"""Typed queries on the projection: jobs, artifacts, promotions, deployments, lineage, events, lanes.

It must never write. Every answer is bounded: lists take a limit. `None` as a filter means no filter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Final, Self, TypeVar

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from ai_infra.readmodel.connection import connect
from ai_infra.readmodel.exceptions import DatabaseUnavailable, NotMigrated
from ai_infra.readmodel.rows import (
    ApprovalRow,
    ArtifactRow,
    DeploymentRow,
    EdgeRow,
    EvaluationRow,
    EventRow,
    FindingRow,
    JobRow,
    LaneRow,
    PromotionRow,
    PromotionStepRow,
    RefusalRow,
    Running,
)

R = TypeVar("R")

DEFAULT_LIMIT: Final = 100
_MAX_LINEAGE_DEPTH: Final = 50  # a chain of retrainings longer than that is shown in parts

_LANES: Final = """
SELECT l.lane, l.origin, l.size, l.head_hash,
       (SELECT append_time FROM entries e WHERE e.lane = l.lane AND e.position = l.size - 1) AS last_append_time,
       p.checkpoint_size, p.checkpoint_root, p.checkpoint_at, p.published_size, p.pruned_size,
       (SELECT ts FROM audit_events a WHERE a.lane = l.lane AND a.position = p.pruned_size + 255
        AND a.position < l.size - 1) AS oldest_bundle_time
FROM lanes l JOIN lane_progress p USING (lane) ORDER BY l.lane
"""

_GRAVE: Final = """
SELECT lane_of, kind, count(*) AS count FROM said_findings
WHERE kind IN ('withheld', 'equivocation') AND at > %s GROUP BY lane_of, kind ORDER BY lane_of, kind
"""

# A lane leads every key. Who looks for an id in all lanes says so, and each lane's part of the index is asked; else the
# table would be read whole, or have a second index that every entry pays for.
_ANY_LANE: Final = "lane = ANY(ARRAY(SELECT lane FROM lanes))"
_IDS: Final[Mapping[str, str]] = {
    "jobs": "job_id",
    "artifact_details": "artifact_id",
    "promotions": "promotion_id",
    "promotion_steps": "promotion_id",
    "approvals": "promotion_id",
    "refused_events": "event_id",
}

# The newest of a table whose index leads with the status: the newest of each status, merged. An index on the time alone
# would cost every change of a status as much as the query saves.
_NEWEST: Final = """
WITH RECURSIVE known AS (
    (SELECT status FROM {table} ORDER BY status LIMIT 1)
    UNION ALL
    SELECT (SELECT t.status FROM {table} t WHERE t.status > known.status ORDER BY t.status LIMIT 1) FROM known
    WHERE known.status IS NOT NULL
)
SELECT {names} FROM known CROSS JOIN LATERAL (
    SELECT * FROM {table} t WHERE t.status = known.status ORDER BY t.created_at DESC LIMIT %(limit)s
) newest ORDER BY created_at DESC, {id} LIMIT %(limit)s
"""

# Up: what the thing came from. Down: what came from it. Each edge once, nearest first.
_LINEAGE: Final = """
WITH RECURSIVE walk AS (
    SELECT {edge}, 1 AS depth FROM lineage_edges e
    WHERE {any_lane} AND e.{near_kind} = %(kind)s AND e.{near_id} = %(id)s
    UNION
    SELECT {edge}, walk.depth + 1 FROM lineage_edges e
    JOIN walk ON e.{near_kind} = walk.{far_kind} AND e.{near_id} = walk.{far_id}
    WHERE {any_lane} AND walk.depth < %(depth)s
)
SELECT {names} FROM walk GROUP BY {names} ORDER BY min(depth), position, parent_kind, parent_id LIMIT %(limit)s
"""


class ReadModel:
    """Queries over one connection; use from one thread. A context manager."""

    def __init__(self, url: str) -> None:
        self._connection = connect(url, application="ai-infra reader", read_only=True, autocommit=True)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- jobs, artifacts ----------------------------------------------------------------------------------------------

    def job(self, job_id: str) -> JobRow | None:
        return self._one(JobRow, "jobs", {"job_id": job_id})

    def jobs(self, *, model: str | None = None, status: str | None = None, limit: int = DEFAULT_LIMIT) -> list[JobRow]:
        """Newest first."""
        if model is None and status is None:
            return self._newest(JobRow, "jobs", limit)
        return self._list(JobRow, "jobs", {"model": model, "status": status}, "created_at DESC, job_id", limit)

    def artifact(self, artifact_id: str) -> ArtifactRow | None:
        return self._one(ArtifactRow, "artifact_details", {"artifact_id": artifact_id})

    def artifact_version(self, model: str, version: int) -> ArtifactRow | None:
        return self._one(ArtifactRow, "artifact_details", {"model": model, "version": version})

    def artifact_by_signature(self, manifest_signature_id: str) -> ArtifactRow | None:
        """The artifact whose manifest has this signature, in any of its attestations."""
        found = self._list(
            ArtifactRow, "artifact_details", {"manifest_signature_id": manifest_signature_id}, "created_at", 1
        )
        if found:
            return found[0]
        query = "SELECT artifact_id FROM attestations WHERE manifest_signature_id = %s LIMIT 1"
        rows = self._rows(query, (manifest_signature_id,))
        return self.artifact(rows[0]["artifact_id"]) if rows else None

    def artifacts(
        self,
        *,
        model: str | None = None,
        status: str | None = None,
        sha256: str | None = None,
        job_id: str | None = None,
        limit: int = DEFAULT_LIMIT,
    ) -> list[ArtifactRow]:
        """Newest first."""
        where = {"model": model, "status": status, "artifact_sha256": sha256, "job_id": job_id}
        return self._list(ArtifactRow, "artifact_details", where, "created_at DESC, artifact_id", limit)

    def versions(self, artifact_ids: Iterable[str | None]) -> dict[str, int]:
        """The versions of those of these artifacts that have one, by artifact."""
        query = (
            f"SELECT artifact_id, version FROM artifacts WHERE {_ANY_LANE} "  # noqa: S608 - a fixed condition
            "AND artifact_id = ANY(%s) AND version IS NOT NULL"
        )
        rows = self._rows(query, (sorted(filter(None, set(artifact_ids))),))
        return {row["artifact_id"]: row["version"] for row in rows}

    def evaluations(self, artifact_id: str, *, limit: int = DEFAULT_LIMIT) -> list[EvaluationRow]:
        """Newest first."""
        return self._list(EvaluationRow, "evaluations", {"artifact_id": artifact_id}, "recorded_at DESC", limit)

    def lineage(self, kind: str, id: str, *, down: bool = False, limit: int = 1000) -> list[EdgeRow]:
        """Edges from `kind` (artifact, deployment, promotion, job, dataset, code, evaluation) up to all its origins.

        With `down` to everything that came from it. Nearest first.
        """
        near, far = ("parent", "child") if down else ("child", "parent")
        names = sql.SQL(", ").join(sql.Identifier(f.name) for f in fields(EdgeRow))
        query = sql.SQL(_LINEAGE).format(
            edge=sql.SQL(", ").join(sql.Identifier("e", f.name) for f in fields(EdgeRow)),
            names=names,
            any_lane=sql.SQL("e." + _ANY_LANE),
            near_kind=sql.Identifier(f"{near}_kind"),
            near_id=sql.Identifier(f"{near}_id"),
            far_kind=sql.Identifier(f"{far}_kind"),
            far_id=sql.Identifier(f"{far}_id"),
        )
        rows = self._rows(query, {"kind": kind, "id": id, "depth": _MAX_LINEAGE_DEPTH, "limit": limit})
        return [EdgeRow(**row) for row in rows]

    # --- promotions, deployments --------------------------------------------------------------------------------------

    def promotion(self, promotion_id: str) -> PromotionRow | None:
        return self._one(PromotionRow, "promotions", {"promotion_id": promotion_id})

    def promotions(
        self,
        *,
        model: str | None = None,
        env: str | None = None,
        status: str | None = None,
        artifact_id: str | None = None,
        limit: int = DEFAULT_LIMIT,
    ) -> list[PromotionRow]:
        """Newest first."""
        where = {"model": model, "target_env": env, "status": status, "artifact_id": artifact_id}
        if not any(where.values()):
            return self._newest(PromotionRow, "promotions", limit)
        return self._list(PromotionRow, "promotions", where, "created_at DESC, promotion_id", limit)

    def promotion_steps(self, promotion_id: str) -> list[PromotionStepRow]:
        """In the order of the log."""
        return self._list(PromotionStepRow, "promotion_steps", {"promotion_id": promotion_id}, "position", 10_000)

    def approvals(self, promotion_id: str) -> list[ApprovalRow]:
        """In the order of the log."""
        return self._list(ApprovalRow, "approvals", {"promotion_id": promotion_id}, "position", 10_000)

    def deployments(
        self, *, model: str | None = None, env: str | None = None, limit: int = DEFAULT_LIMIT
    ) -> list[DeploymentRow]:
        """Every change, newest first."""
        order = "changed_at DESC, revision DESC"
        return self._list(DeploymentRow, "deployments", {"model": model, "env": env}, order, limit)

    def current_deployments(self, *, model: str | None = None, env: str | None = None) -> list[DeploymentRow]:
        """What serves now."""
        return self._list(DeploymentRow, "current_deployments", {"model": model, "env": env}, "model, env", 10_000)

    def what_ran(self, model: str, env: str, at: datetime | None = None) -> Running | None:
        """What served `model` in `env` at that time (None: now), since when, until when, and why."""
        asked = {"model": model, "env": env, "at": at}
        # Times are the canary's; what was said last counts, which the revision tells.
        before = "%(at)s::timestamptz IS NULL OR changed_at <= %(at)s"
        found = self._deployment(before, "revision DESC", asked)
        if found is None:
            return None
        following = self._deployment("revision > %(revision)s", "revision", {**asked, "revision": found.revision})
        artifact = self.artifact(found.stable_artifact_id) if found.stable_artifact_id else None
        promotion = self.promotion(found.promotion_id) if found.promotion_id else None
        until = following.changed_at if following is not None else None
        return Running(model, env, at or found.changed_at, found, artifact, promotion, until, following)

    # --- the log ------------------------------------------------------------------------------------------------------

    def event(self, event_id: str) -> EventRow | None:
        """The first entry with this id, with its body. Old ones are in the archive alone: `audit prove` finds them."""
        rows = self._events("e.event_id = %(id)s", {"id": event_id}, "e.lane, e.position", 1, bodies=True)
        return rows[0] if rows else None

    def events(
        self,
        *,
        model: str | None = None,
        type: str | None = None,
        lane: int | None = None,
        after: int | None = None,
        bodies: bool = False,
        limit: int = DEFAULT_LIMIT,
    ) -> list[EventRow]:
        """Newest first; with `lane` and `after`, the entries after that position, oldest first (for `tail`)."""
        where, values = ["true"], dict[str, Any]()
        for name, value in (("model", model), ("type", type), ("lane", lane)):
            if value is not None:
                where.append(f"e.{name} = %({name})s")
                values[name] = value
        order = "e.append_time DESC, e.lane, e.position DESC"
        if after is not None:
            where.append("e.position > %(after)s")
            values["after"], order = after, "e.lane, e.position"
        return self._events(" AND ".join(where), values, order, limit, bodies=bodies)

    def effects(self, event_id: str, *, limit: int = DEFAULT_LIMIT) -> list[EventRow]:
        """Events that name this one as a cause, oldest first."""
        condition = "e.causes @> ARRAY[%(id)s]::uuid[]"
        return self._events(condition, {"id": event_id}, "e.append_time, e.lane, e.position", limit, bodies=False)

    def lanes(self) -> list[LaneRow]:
        return [LaneRow(**row) for row in self._rows(_LANES, ())]

    def refusals(self, event_id: str) -> list[RefusalRow]:
        """Which services refused this event, and why."""
        return self._list(RefusalRow, "refused_events", {"event_id": event_id}, "at", DEFAULT_LIMIT)

    def findings(self, *, lane: int | None = None, limit: int = DEFAULT_LIMIT) -> list[FindingRow]:
        return self._list(FindingRow, "findings", {"lane": lane}, "lane, position", limit)

    def grave_findings(self, since: datetime) -> list[tuple[int, str, int]]:
        """(lane, kind, how many) of withheld events and equivocations that were said since."""
        rows = self._rows(_GRAVE, (since,))
        return [(row["lane_of"], row["kind"], row["count"]) for row in rows]

    # --- how ----------------------------------------------------------------------------------------------------------

    def _events(self, where: str, values: dict[str, Any], order: str, limit: int, *, bodies: bool) -> list[EventRow]:
        payload = "a.payload" if bodies else "NULL AS payload"
        join = "LEFT JOIN audit_events a ON a.lane = e.lane AND a.position = e.position" if bodies else ""
        names = ", ".join(f"e.{f.name}" for f in fields(EventRow) if f.name != "payload")
        # Only column names and fixed conditions are put together here; every value is a parameter.
        query = f"SELECT {names}, {payload} FROM entries e {join} WHERE {where} ORDER BY {order} LIMIT %(limit)s"  # noqa: S608
        rows = self._rows(query, {**values, "limit": limit})
        return [EventRow(**{**row, "causes": [str(c) for c in row["causes"]]}) for row in rows]

    def _deployment(self, condition: str, order: str, values: dict[str, Any]) -> DeploymentRow | None:
        names = ", ".join(f.name for f in fields(DeploymentRow))
        # As above: names and fixed conditions.
        query = (
            f"SELECT {names} FROM deployments WHERE model = %(model)s AND env = %(env)s AND ({condition}) "  # noqa: S608
            f"ORDER BY {order} LIMIT 1"
        )
        rows = self._rows(query, values)
        return DeploymentRow(**rows[0]) if rows else None

    def _newest(self, row_type: type[R], table: str, limit: int) -> list[R]:
        names = [f.name for f in fields(row_type)]  # type: ignore[arg-type]  # every row type is a dataclass
        query = sql.SQL(_NEWEST).format(
            table=sql.Identifier(table),
            names=sql.SQL(", ").join(sql.Identifier("newest", name) for name in names),
            id=sql.Identifier(_IDS[table]),
        )
        return [row_type(**row) for row in self._rows(query, {"limit": limit})]

    def _one(self, row_type: type[R], table: str, where: dict[str, Any]) -> R | None:
        found = self._list(row_type, table, where, "lane", 1)
        return found[0] if found else None

    def _list(self, row_type: type[R], table: str, where: dict[str, Any], order: str, limit: int) -> list[R]:
        names = [f.name for f in fields(row_type)]  # type: ignore[arg-type]  # every row type is a dataclass
        given = {name: value for name, value in where.items() if value is not None}
        fixed = _ANY_LANE if _IDS.get(table) in given else "true"
        conditions = sql.SQL(" AND ").join(
            [sql.SQL(fixed), *(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in given)]
        )
        query = sql.SQL("SELECT {} FROM {} WHERE {} ORDER BY {} LIMIT %s").format(
            sql.SQL(", ").join(map(sql.Identifier, names)), sql.Identifier(table), conditions, _order(order)
        )
        return [row_type(**row) for row in self._rows(query, [*given.values(), limit])]

    def _rows(self, query: str | sql.Composed, values: Sequence[Any] | dict[str, Any]) -> list[dict[str, Any]]:
        try:
            with self._connection.cursor(row_factory=dict_row) as cursor:
                cursor.execute(query if isinstance(query, sql.Composed) else query.encode(), values)
                return [dict(_texts(row)) for row in cursor.fetchall()]
        except psycopg.errors.InvalidTextRepresentation:
            return []  # a text that is no id is the id of nothing
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
            raise NotMigrated() from None
        except psycopg.OperationalError as error:
            raise DatabaseUnavailable(f"Postgres went away in the middle of a query: {error}") from None


def _order(order: str) -> sql.Composed:
    parts = []
    for part in order.split(", "):
        name, _, direction = part.partition(" ")
        parts.append(sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL("DESC" if direction else "ASC")))
    return sql.SQL(", ").join(parts)


def _texts(row: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Ids as text, whatever their column's type."""
    for name, value in row.items():
        yield name, str(value) if name.endswith("event_id") and value is not None else value
