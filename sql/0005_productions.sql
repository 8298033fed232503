-- Each time bytes were said to be an artifact, with the provenance that came with it. An artifact may be produced more
-- than once, and one of these be refused: what a registered one rests on is named by its registration, which is signed.
-- What was produced before this migration comes with a rebuild.
CREATE TABLE productions (
    lane smallint NOT NULL, event_id uuid NOT NULL,
    artifact_id text NOT NULL, model text NOT NULL, job_id text,
    manifest_uri text NOT NULL, manifest_sha256 text NOT NULL,
    provenance text NOT NULL, input_checksum text NOT NULL,
    produced_at timestamptz NOT NULL, position bigint NOT NULL,
    PRIMARY KEY (lane, event_id)
);
CREATE INDEX productions_artifact ON productions (artifact_id, position);

ALTER TABLE attestations ADD COLUMN produced_event_id uuid;  -- the production that it rests on
ALTER TABLE artifacts DROP COLUMN provenance, DROP COLUMN produced_at;

-- Artifacts with the production that they rest on: that of the first registration; of one that is not registered, the
-- newest. Null where the index does not have it.
CREATE VIEW artifact_details AS
SELECT a.*, p.provenance, p.produced_at
FROM artifacts a
LEFT JOIN attestations t ON t.lane = a.lane AND t.artifact_id = a.artifact_id AND t.attestation = 1
LEFT JOIN LATERAL (
    SELECT provenance, produced_at FROM productions
    WHERE lane = a.lane AND artifact_id = a.artifact_id AND (a.version IS NULL OR event_id = t.produced_event_id)
    ORDER BY position DESC LIMIT 1
) p ON true;
