"""Every metric of the project, in one table.

A metric is defined here and nowhere else, as a module-level object that any room may move. Names are those that
`docs/names.md` promises, and for our own `ai_infra_<room>_<what>_<unit>`. Labels are bounded sets: services, topics,
lanes, codes. Never a model's event id, an artifact or anything else that grows with traffic; a model's name is a label
only where the seeds' dashboards ask for it. Everything has a label or is set by the process that owns it, so that a
process exports no zero for what it doesn't do.

Counters of what was processed move after the Kafka transaction has committed, never before.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

# Buckets, seconds. They bracket the objectives: 0.5 s for a registration, 2 s for a promotion, 30 s for a job's start.
_QUICK: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_FLOW: Final = (0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 3600.0)
_LONG: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 24 * 3600.0)
_SIZES: Final = (1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0)

# --- The main flow: what the objectives are about ---------------------------------------------------------------------

# How long a training ran, from the start of its process to its end. outcome: completed, failed, cancelled, timed_out.
TRAINING_JOB_DURATION: Final = Histogram(
    "ai_infra_training_job_duration_seconds", "Wall-clock time of trainings.", ["outcome"], buckets=_LONG
)
# From the append of job.queued to the start of the training's process. Objective: p95 below 30 s for small jobs.
TRAINING_JOB_STARTUP: Final = Histogram(
    "ai_infra_training_job_startup_seconds", "From job.queued to a running training.", ["service"], buckets=_LONG
)
# From the append of artifact.produced to the verdict, or to the signature that makes it one; the commit that says it
# follows in milliseconds. What is verified or signed again counts again. outcome: registered, refused. Objective: p95
# below 0.5 s.
ARTIFACT_REGISTRATION_LATENCY: Final = Histogram(
    "ai_infra_artifact_registration_latency_seconds",
    "From artifact.produced to its signed registration, or to the verdict that refuses it.",
    ["outcome"],
    buckets=_FLOW,
)
# From the append of promotion.requested to a signed decision, which is said with the next commit; what is signed again
# counts again. status: as in promotion.decided. Objective: p95 below 2 s.
PROMOTION_LATENCY: Final = Histogram(
    "ai_infra_promotion_latency_seconds",
    "From promotion.requested to a signed decision.",
    ["status"],
    buckets=_FLOW,
)
# Deployments that the canary took back by itself.
CANARY_ROLLBACKS: Final = Counter("ai_infra_canary_rollbacks_total", "Automatic reverts of a deployment.", ["env"])
# Retrainings that drift has suggested.
DRIFT_SUGGESTIONS: Final = Counter("ai_infra_drift_suggestions_total", "Suggestions to retrain.", ["env"])
# Time of one check with SentinelNet. outcome: allow, deny, quarantine, remediate, error.
SENTINELNET_LATENCY: Final = Histogram(
    "ai_infra_sentinelnet_latency_seconds", "Time of a SentinelNet check.", ["outcome"], buckets=_QUICK
)
# Work that has been asked for and isn't done: running and waiting, in the lanes of this process.
QUEUE_DEPTH: Final = Gauge("ai_infra_queue_depth", "Pending work of a service.", ["service", "kind"])

# --- bus: the runtime under every service -----------------------------------------------------------------------------

# End of a partition minus the committed position. 1 at rest is normal: transaction markers take offsets.
KAFKA_CONSUMER_LAG: Final = Gauge(
    "kafka_consumer_lag", "Records behind the end of a partition.", ["group", "topic", "partition"]
)
# Age of the record that was last taken, when taken: how late a lane is, in time. 0 when it is at the end.
BUS_LANE_DELAY: Final = Gauge(
    "ai_infra_bus_lane_delay_seconds", "Append time of the last record taken, against now.", ["service", "lane"]
)
# Triggers that were decided. trigger: event, tick, done.
BUS_TRIGGERS: Final = Counter("ai_infra_bus_triggers_total", "Triggers decided and committed.", ["service", "trigger"])
# Records that were taken. outcome: decided, refused, dead_letter, duplicate, junk (unknown writer, over the rate).
BUS_RECORDS: Final = Counter(
    "ai_infra_bus_records_total", "Records taken from a topic and committed.", ["service", "topic", "outcome"]
)
BUS_SAID: Final = Counter("ai_infra_bus_said_total", "Events said and committed.", ["service", "topic"])
# reason: the error's code, e.g. bad_signature, not_allowed, undecodable_body.
BUS_DEAD_LETTERS: Final = Counter("ai_infra_bus_dead_letters_total", "Records put aside.", ["service", "reason"])
# Any error that the runtime met and answered. code: AiInfraError.code or the Kafka error's name.
BUS_ERRORS: Final = Counter("ai_infra_bus_errors_total", "Errors met by the runtime.", ["service", "code"])
# Time of one call of the schema registry. outcome: ok, not_found, refused, unavailable.
BUS_SCHEMA_REGISTRY: Final = Histogram(
    "ai_infra_bus_schema_registry_seconds", "Time of a schema registry call.", ["outcome"], buckets=_QUICK
)
BUS_DECIDE: Final = Histogram("ai_infra_bus_decide_seconds", "Time inside `decide`.", ["service"], buckets=_QUICK)
BUS_TRANSACTION: Final = Histogram(
    "ai_infra_bus_transaction_seconds", "From begin to commit of a transaction.", ["service"], buckets=_QUICK
)
BUS_BATCH: Final = Histogram("ai_infra_bus_batch_records", "Records in a transaction.", ["service"], buckets=_SIZES)
# reason: stale_generation, abortable, fatal, revoked.
BUS_ABORTS: Final = Counter("ai_infra_bus_aborts_total", "Transactions aborted.", ["service", "reason"])
# event: assigned, revoked, lost.
BUS_REBALANCES: Final = Counter("ai_infra_bus_rebalances_total", "Changes of lanes.", ["service", "event"])
BUS_LANES: Final = Gauge("ai_infra_bus_owned_lanes", "Lanes that this process works.", ["service"])
BUS_LANE_HALTED: Final = Gauge("ai_infra_bus_lane_halted_info", "1 while a lane is halted.", ["service", "lane"])
BUS_PAUSED: Final = Gauge("ai_infra_bus_paused_lanes", "Lanes paused for back-pressure.", ["service"])
BUS_STATE_RECORDS: Final = Gauge("ai_infra_bus_state_records", "State records in memory.", ["service", "lane"])
BUS_RESTORE: Final = Histogram("ai_infra_bus_restore_seconds", "Time to restore a lane.", ["service"], buckets=_LONG)
# outcome: done, error, cancelled, lost.
BUS_WORK: Final = Histogram(
    "ai_infra_bus_work_seconds", "Time of a piece of work.", ["service", "kind", "outcome"], buckets=_LONG
)

# --- trust: keys and who may say what ---------------------------------------------------------------------------------

# A signing service that didn't answer, or answered with a signature that doesn't verify. scheme: env, file, awskms, …
SIGN_ERRORS: Final = Counter("ai_infra_sign_errors_total", "Signatures that failed.", ["scheme", "key"])
TRUST_SIGN: Final = Histogram(
    "ai_infra_trust_sign_seconds", "Time of a signature by a long-lived key.", ["scheme"], buckets=_QUICK
)
# With the signing service away, events can be signed for this much longer.
TRUST_DELEGATION_REMAINING: Final = Gauge(
    "ai_infra_trust_delegation_remaining_seconds", "Life left in the session key's delegation.", ["service"]
)
TRUST_KEYRING_VERSION: Final = Gauge("ai_infra_trust_keyring_version", "Newest keyring seen.", ["service"])
TRUST_VERIFY_FAILURES: Final = Counter(
    "ai_infra_trust_verify_failures_total", "Events that failed verification.", ["service", "code"]
)

# --- objects: the object store ----------------------------------------------------------------------------------------

# outcome: ok, not_found, conflict, unavailable, error.
OBJECTS_REQUEST: Final = Histogram(
    "ai_infra_objects_request_seconds", "Time of an object store request.", ["operation", "outcome"], buckets=_QUICK
)
OBJECTS_BYTES: Final = Counter("ai_infra_objects_transferred_bytes_total", "Bytes moved.", ["direction"])

# --- indexer: the log -------------------------------------------------------------------------------------------------

# stage: projected (in Postgres), archived (in the bucket), final (covered by a checkpoint), published (audit-events),
# pruned (old: in the bucket alone).
INDEXER_POSITION: Final = Gauge("ai_infra_indexer_position_entries", "Entries done in a lane.", ["lane", "stage"])
INDEXER_ENTRIES: Final = Counter("ai_infra_indexer_entries_total", "Entries sequenced.", ["lane"])
# stage: verify, project, archive, checkpoint, publish.
INDEXER_STAGE: Final = Histogram("ai_infra_indexer_stage_seconds", "Time of a stage.", ["stage"], buckets=_QUICK)
# Age of the oldest entry that no checkpoint covers yet; 0 when all are covered.
INDEXER_UNCOVERED: Final = Gauge("ai_infra_indexer_uncovered_seconds", "Age of what isn't final.", ["lane"])
INDEXER_FINDINGS: Final = Counter("ai_infra_indexer_findings_total", "Findings said.", ["kind"])
# Numbers of counted producers that never came though the lane's topics were read past them. Alarm above 0.
INDEXER_WITHHELD: Final = Gauge("ai_infra_indexer_withheld_events", "Events withheld from the log.", ["lane"])
# How far the oldest unread input has got towards its deletion, 0..1. Alarm at 0.5.
INDEXER_RETENTION_USED: Final = Gauge("ai_infra_indexer_retention_used_ratio", "Towards losing input.", ["lane"])
# use: audit, chain. 0: its key is revoked, or not in the keyring that counts, and no other is at hand. Alarm at 0.
INDEXER_KEY_STANDS: Final = Gauge("ai_infra_indexer_key_stands", "Whether a key at hand may sign.", ["use"])
# 1 where a lane's rows were made by another projection than the program's: `ai-infra db reproject`.
INDEXER_PROJECTION_OUTDATED: Final = Gauge("ai_infra_indexer_projection_outdated", "Rows to make anew.", ["lane"])

# --- HTTP, serving and drift, by the names of the seeds' dashboards ---------------------------------------------------

HTTP_REQUEST_DURATION: Final = Histogram(
    "http_request_duration_seconds",
    "Time of an HTTP request.",
    ["service", "route", "method", "status"],
    buckets=_QUICK,
)
MODEL_INFERENCE_LATENCY: Final = Histogram(
    "model_inference_latency_seconds", "Time of an inference.", ["model", "env", "arm"], buckets=_QUICK
)
# The same in the seeds' older unit.
MODEL_INFERENCE_TIME_MS: Final = Histogram(
    "model_inference_time_ms",
    "Time of an inference, milliseconds.",
    ["model", "env", "arm"],
    buckets=tuple(1000 * b for b in _QUICK),
)
MODEL_INFERENCE_ERROR_RATE: Final = Gauge(
    "model_inference_error_rate", "Share of inferences that failed, last window.", ["model", "env", "arm"]
)
MODEL_PREDICTION_QUALITY: Final = Gauge(
    "model_prediction_quality", "Share of predictions that labels confirm, last window.", ["model", "env", "arm"]
)
# Jensen-Shannon distance, 0..1, the largest over features. The seeds alarm at 0.1.
MODEL_DRIFT_SCORE: Final = Gauge("model_drift_score", "Distance from the training's baseline.", ["model", "env"])


def exported_names() -> frozenset[str]:
    """Names of all metric families that this table defines, as Prometheus shows them (`_total` for counters)."""
    found: set[str] = set()
    for value in globals().values():
        if isinstance(value, Counter):
            found.update(f"{family.name}_total" for family in value.describe())
        elif isinstance(value, Gauge | Histogram):
            found.update(family.name for family in value.describe())
    return frozenset(found)
