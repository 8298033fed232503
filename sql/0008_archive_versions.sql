-- VersionIds of what the archive keeps for good (full tiles and bundles, kept checkpoints), as the store gave them when
-- they were written. A lock keeps a version from being deleted; it does not keep a newer version, or a delete marker,
-- from covering it: `audit verify` tells by these which one is the log's. They are no part of the log, and a rebuild has
-- none; then the oldest version is taken for it.
CREATE TABLE archive_versions (
    lane       smallint NOT NULL REFERENCES lanes,
    path       text     NOT NULL,                     -- below lanes/<lane>/
    version_id text     NOT NULL,
    PRIMARY KEY (lane, path)
);
