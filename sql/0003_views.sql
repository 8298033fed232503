-- Read-only views by the names that the seeds' runbooks know (docs/names.md), and the ones that span lanes.
-- The runbooks write these tables; here a command does what the write was for.

CREATE VIEW training_jobs AS
SELECT job_id AS id, job_id, model, template, code_ref, container_digest, dataset_refs, hyperparams, seed, training_cmd,
       requested_by, status, attempt, runner, log_uri, artifact_id, reason_code, reason, exit_code,
       queued_time, started_time, ended_time, created_at, updated_at, lane
FROM jobs;

CREATE VIEW model_artifacts AS
SELECT artifact_id, artifact_uri AS artifact_url, artifact_sha256, code_ref, container_digest, dataset_refs,
       manifest_signer_id AS signer_id, manifest_signature_id, metadata, created_at AS create_ts, created_by,
       'sha256:' || artifact_sha256 AS checksum, model, version, status, job_id, attestations, lane
FROM artifacts;

CREATE VIEW model_promotions AS
SELECT promotion_id, artifact_id, target_env, manifest_signature_id, applied_at, status, model, kind, requested_by,
       requested_at, decided_at, reasons,
       jsonb_build_object('policy', policy_answer, 'score_e6', score_e6, 'threshold_e6', threshold_e6,
                          'fallback', fallback) AS evaluation, lane
FROM promotions;

-- What serves now: the newest change of each (model, env).
CREATE VIEW current_deployments AS
SELECT DISTINCT ON (lane, model, env) *
FROM deployments ORDER BY lane, model, env, revision DESC;

CREATE VIEW siramodel_registry AS
SELECT a.artifact_id AS model_id, a.model AS product, a.model AS name, a.version,
       CASE WHEN a.status = 'revoked' THEN 'revoked'
            WHEN EXISTS (SELECT 1 FROM current_deployments d WHERE d.lane = a.lane AND d.model = a.model AND d.env = 'prod'
                         AND d.stable_artifact_id = a.artifact_id) THEN 'production'
            WHEN EXISTS (SELECT 1 FROM current_deployments d WHERE d.lane = a.lane AND d.model = a.model AND d.env = 'prod'
                         AND d.candidate_artifact_id = a.artifact_id) THEN 'canary'
            ELSE a.status END AS status,
       a.artifact_uri AS storage_s3_key, a.artifact_sha256 AS checksum, a.metadata, a.created_by, a.created_at, a.lane
FROM artifacts a WHERE a.version IS NOT NULL;

CREATE VIEW sira_canary_rollback_log AS
SELECT d.event_id AS id, d.model AS product, d.previous_stable_artifact_id AS rolled_back_model_id,
       p.artifact_id AS canary_model_id, d.stable_artifact_id AS production_model_id,
       CASE WHEN d.reason = '' THEN d.cause ELSE d.cause || ': ' || d.reason END AS reason,
       CASE WHEN d.cause = 'rollback' THEN COALESCE(p.requested_by, 'canary') ELSE 'canary' END AS rolled_back_by,
       d.env, d.changed_at AS created_at, d.lane
FROM deployments d LEFT JOIN promotions p ON p.lane = d.lane AND p.promotion_id = d.promotion_id
WHERE d.cause IN ('auto_reverted', 'rollback', 'stopped', 'revoked');
