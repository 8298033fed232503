-- What commands list newest first, and look up beside it, without reading a table whole.
CREATE INDEX jobs_created ON jobs (created_at);
CREATE INDEX artifacts_created ON artifacts (created_at);
CREATE INDEX promotions_created ON promotions (created_at);
CREATE INDEX said_findings_at ON said_findings (at);

-- As in 0005. The first attestation is looked up for each artifact that is shown (LIMIT keeps Postgres from joining all).
CREATE OR REPLACE VIEW artifact_details AS
SELECT a.*, p.provenance, p.produced_at
FROM artifacts a
LEFT JOIN LATERAL (
    SELECT produced_event_id FROM attestations
    WHERE lane = a.lane AND artifact_id = a.artifact_id AND attestation = 1 LIMIT 1
) t ON true
LEFT JOIN LATERAL (
    SELECT provenance, produced_at FROM productions
    WHERE lane = a.lane AND artifact_id = a.artifact_id AND (a.version IS NULL OR event_id = t.produced_event_id)
    ORDER BY position DESC LIMIT 1
) p ON true;
