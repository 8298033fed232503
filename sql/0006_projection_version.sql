-- Which version of the projection a lane's rows were made by: n, that they all are of version n; 0, that they are of no
-- single one, or from before it was written down; -n, that they are not yet all of version n and that whatever was
-- entered since a projection of version n was begun beside them is (`ai-infra db reproject`).
ALTER TABLE lanes ADD COLUMN projection integer NOT NULL DEFAULT 0;
