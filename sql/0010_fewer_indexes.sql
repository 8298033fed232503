-- The newest jobs and promotions are found by the indexes on (status, created_at); a second one cost each change of a
-- status some ten microseconds.
DROP INDEX jobs_created;
DROP INDEX promotions_created;
