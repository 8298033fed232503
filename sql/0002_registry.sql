-- The projection: what the log says about jobs, artifacts, promotions and deployments. Every row belongs to one lane
-- (the lane leads its key) and follows from that lane's entries alone. `*_position` is the entry that said it.

CREATE TABLE jobs (
    lane smallint NOT NULL, job_id text NOT NULL,
    model text NOT NULL,
    template text, code_ref text, container_digest text,
    dataset_refs jsonb, hyperparams jsonb, seed bigint, training_cmd jsonb,
    cpu_millis integer, memory_mib integer, time_limit_s integer,
    requested_by text, parent_artifacts jsonb,
    status text NOT NULL,                             -- requested, then as job.status says
    attempt integer NOT NULL DEFAULT 0,
    runner text, log_uri text, log_sha256 text,
    queued_time timestamptz, started_time timestamptz, ended_time timestamptz,
    reason_code text NOT NULL DEFAULT '', reason text NOT NULL DEFAULT '',
    artifact_id text, exit_code integer,
    cancel_requested_by text,
    event_id uuid NOT NULL,                           -- the first event about it
    created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL,
    first_position bigint NOT NULL, last_position bigint NOT NULL,
    PRIMARY KEY (lane, job_id)
);
CREATE INDEX jobs_model ON jobs (model, created_at);
CREATE INDEX jobs_status ON jobs (status, created_at);

CREATE TABLE artifacts (
    lane smallint NOT NULL, artifact_id text NOT NULL,
    model text NOT NULL,
    status text NOT NULL,                             -- produced, registered, refused, revoked
    version integer, attestations integer NOT NULL DEFAULT 0,
    job_id text,
    artifact_uri text NOT NULL, artifact_sha256 text NOT NULL, artifact_bytes bigint,
    manifest_uri text, manifest_sha256 text,
    manifest_signature_id text, manifest_signer_id text, manifest_signature text, manifest_signed_at timestamptz,
    manifest_envelope text,
    provenance text, builder_id text, input_checksum text,
    code_ref text, container_digest text, dataset_refs jsonb, parent_artifacts jsonb,
    metadata jsonb, created_by text, keyring_version integer,
    reasons jsonb,                                    -- of a refusal
    revoked_by text, revoked_reason text, revoked_at timestamptz,
    produced_at timestamptz, registered_at timestamptz,
    created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL,
    first_position bigint NOT NULL, last_position bigint NOT NULL,
    PRIMARY KEY (lane, artifact_id)
);
CREATE INDEX artifacts_model ON artifacts (model, version);
CREATE INDEX artifacts_sha256 ON artifacts (artifact_sha256);
CREATE INDEX artifacts_job ON artifacts (job_id);
CREATE INDEX artifacts_signature ON artifacts (manifest_signature_id);

CREATE TABLE versions (
    lane smallint NOT NULL, model text NOT NULL, version integer NOT NULL,
    artifact_id text NOT NULL, registered_at timestamptz NOT NULL, position bigint NOT NULL,
    PRIMARY KEY (lane, model, version)
);

-- Each time these bytes were registered: a bit-equal repetition is one more attestation, not a new version.
CREATE TABLE attestations (
    lane smallint NOT NULL, artifact_id text NOT NULL, attestation integer NOT NULL,
    job_id text, manifest_uri text NOT NULL, manifest_sha256 text NOT NULL, manifest_signature_id text NOT NULL,
    builder_id text NOT NULL, input_checksum text NOT NULL, created_by text NOT NULL,
    event_id uuid NOT NULL, registered_at timestamptz NOT NULL, position bigint NOT NULL,
    PRIMARY KEY (lane, artifact_id, attestation)
);
CREATE INDEX attestations_signature ON attestations (manifest_signature_id);

CREATE TABLE evaluations (
    lane smallint NOT NULL, evaluation_id text NOT NULL,
    model text NOT NULL, artifact_id text NOT NULL, dataset_ref jsonb NOT NULL,
    score_e6 bigint NOT NULL, metrics_e6 jsonb NOT NULL, evaluator text NOT NULL,
    report_uri text, report_sha256 text,
    event_id uuid NOT NULL, recorded_at timestamptz NOT NULL, position bigint NOT NULL,
    PRIMARY KEY (lane, evaluation_id)
);
CREATE INDEX evaluations_artifact ON evaluations (artifact_id, recorded_at);

CREATE TABLE promotions (
    lane smallint NOT NULL, promotion_id text NOT NULL,
    model text NOT NULL, kind text NOT NULL,          -- promotion | rollback
    artifact_id text, target_env text NOT NULL,
    status text NOT NULL,                             -- requested, then as decided, then applied or reverted as deployed
    request_reason text, requested_by text, requested_at timestamptz, request_event_id uuid,
    emergency boolean NOT NULL DEFAULT false, traffic_percent integer, confidence_e6 bigint, evidence jsonb,
    idempotency_key text, not_after timestamptz, expected_current_artifact_id text,
    manifest_signature_id text, evaluation_id text, score_e6 bigint, threshold_e6 bigint,
    reasons jsonb, verifier_id text, policy_answer jsonb, policy_version integer, policy_sha256 text,
    fallback boolean NOT NULL DEFAULT false, plan_percent jsonb,
    decision_envelope text, decided_at timestamptz, applied_at timestamptz, ended_at timestamptz, outcome_reason text,
    created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL,
    first_position bigint NOT NULL, last_position bigint NOT NULL,
    PRIMARY KEY (lane, promotion_id)
);
CREATE INDEX promotions_model ON promotions (model, target_env, created_at);
CREATE INDEX promotions_artifact ON promotions (artifact_id);
CREATE INDEX promotions_status ON promotions (status, created_at);

-- Every step of a decision, in order.
CREATE TABLE promotion_steps (
    lane smallint NOT NULL, promotion_id text NOT NULL, position bigint NOT NULL,
    status text NOT NULL, said_by text NOT NULL, reasons jsonb NOT NULL, detail jsonb NOT NULL,
    event_id uuid NOT NULL, at timestamptz NOT NULL,
    PRIMARY KEY (lane, promotion_id, position)
);
CREATE TABLE approvals (
    lane smallint NOT NULL, promotion_id text NOT NULL, position bigint NOT NULL,
    artifact_id text NOT NULL, target_env text NOT NULL,
    approver text NOT NULL, decision text NOT NULL, reason text NOT NULL, envelope text NOT NULL,
    event_id uuid NOT NULL, at timestamptz NOT NULL,
    PRIMARY KEY (lane, promotion_id, position)
);

-- What served where, since when: one row a change; the row with the highest revision is what serves now.
CREATE TABLE deployments (
    lane smallint NOT NULL, model text NOT NULL, env text NOT NULL, revision bigint NOT NULL,
    promotion_id text, stable_artifact_id text, candidate_artifact_id text, candidate_percent integer NOT NULL,
    previous_stable_artifact_id text, cause text NOT NULL, reason text NOT NULL,
    event_id uuid NOT NULL, changed_at timestamptz NOT NULL, position bigint NOT NULL,
    PRIMARY KEY (lane, model, env, revision)
);
CREATE INDEX deployments_at ON deployments (model, env, changed_at);
CREATE TABLE rollout_steps (
    lane smallint NOT NULL, promotion_id text NOT NULL, position bigint NOT NULL,
    model text NOT NULL, env text NOT NULL, artifact_id text NOT NULL, phase integer NOT NULL,
    state text NOT NULL, verdicts jsonb NOT NULL, counts jsonb NOT NULL, reason text NOT NULL,
    event_id uuid NOT NULL, at timestamptz NOT NULL,
    PRIMARY KEY (lane, promotion_id, position)
);
CREATE TABLE serving_replicas (
    lane smallint NOT NULL, model text NOT NULL, env text NOT NULL, replica text NOT NULL,
    artifact_id text NOT NULL, artifact_sha256 text NOT NULL, manifest_signature_id text NOT NULL,
    state text NOT NULL, reason text NOT NULL, at timestamptz NOT NULL, position bigint NOT NULL,
    PRIMARY KEY (lane, model, env, replica)
);
CREATE TABLE drift_suggestions (
    lane smallint NOT NULL, suggestion_id text NOT NULL,
    model text NOT NULL, env text NOT NULL, artifact_id text NOT NULL,
    window_start timestamptz NOT NULL, window_end timestamptz NOT NULL, rows bigint NOT NULL,
    features jsonb NOT NULL, alpha_e9 bigint NOT NULL, report_uri text NOT NULL, report_sha256 text NOT NULL,
    job_id text, reason text NOT NULL, event_id uuid NOT NULL, at timestamptz NOT NULL, position bigint NOT NULL,
    PRIMARY KEY (lane, suggestion_id)
);

-- Where things came from: child <- parent.
CREATE TABLE lineage_edges (
    lane smallint NOT NULL,
    child_kind text NOT NULL, child_id text NOT NULL,
    relation text NOT NULL,                           -- trained_by, trained_on, built_from, derived_from, evaluates, promotes, deploys
    parent_kind text NOT NULL, parent_id text NOT NULL,
    model text NOT NULL, detail jsonb NOT NULL, position bigint NOT NULL,
    PRIMARY KEY (lane, child_kind, child_id, relation, parent_kind, parent_id)
);
CREATE INDEX lineage_parent ON lineage_edges (parent_kind, parent_id);

-- Who may say what, as entered into this lane (broadcasts are entered into every lane).
CREATE TABLE keyrings (
    lane smallint NOT NULL, version integer NOT NULL,
    keyring text NOT NULL, keyring_sha256 text NOT NULL, reason text NOT NULL,
    event_id uuid NOT NULL, at timestamptz NOT NULL, position bigint NOT NULL,
    PRIMARY KEY (lane, version)
);
CREATE TABLE keys (
    lane smallint NOT NULL, key_id text NOT NULL,
    public_key text NOT NULL, principal text NOT NULL, use text NOT NULL,
    since_version integer NOT NULL, last_version integer NOT NULL, revoked_version integer,
    since_position bigint NOT NULL, revoked_position bigint,
    PRIMARY KEY (lane, key_id)
);
CREATE TABLE policies (
    lane smallint NOT NULL, version integer NOT NULL,
    policy jsonb NOT NULL, policy_sha256 text NOT NULL, reason text NOT NULL,
    event_id uuid NOT NULL, at timestamptz NOT NULL, position bigint NOT NULL,
    PRIMARY KEY (lane, version)
);

CREATE TABLE refused_events (
    lane smallint NOT NULL, event_id uuid NOT NULL, service text NOT NULL,
    model text NOT NULL, event_type text NOT NULL, event_hash text NOT NULL, signer text NOT NULL,
    reasons jsonb NOT NULL, refusal_event_id uuid NOT NULL, at timestamptz NOT NULL, position bigint NOT NULL,
    PRIMARY KEY (lane, event_id, service)
);
CREATE TABLE operator_actions (
    lane smallint NOT NULL, position bigint NOT NULL,
    action text NOT NULL, target text NOT NULL, arguments jsonb NOT NULL, reason text NOT NULL, operator text NOT NULL,
    event_id uuid NOT NULL, at timestamptz NOT NULL,
    PRIMARY KEY (lane, position)
);
CREATE TABLE heartbeats (
    lane smallint NOT NULL, producer text NOT NULL, epoch bigint NOT NULL,
    seq bigint NOT NULL, event_hash text NOT NULL, at timestamptz NOT NULL, position bigint NOT NULL,
    PRIMARY KEY (lane, producer, epoch)
);
CREATE TABLE said_findings (
    lane smallint NOT NULL, position bigint NOT NULL,
    kind text NOT NULL, lane_of integer NOT NULL, producer text, epoch bigint, first_seq bigint, last_seq bigint,
    about_position bigint, about_event_id text, detail text NOT NULL, event_id uuid NOT NULL, at timestamptz NOT NULL,
    PRIMARY KEY (lane, position)
);
