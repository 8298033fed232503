-- The log of each lane, as the indexer sequenced it: heads, entries, the Kernel's hash chain, and what keeps history
-- single (ids, producers' numbers, Kafka offsets). Everything here can be rebuilt from the archive.
-- Forward only: a shipped migration is never edited; the next one changes what it made.

CREATE TABLE lanes (
    lane       smallint PRIMARY KEY CHECK (lane >= 0),
    origin     text     NOT NULL,                     -- origin line of the lane's checkpoints
    size       bigint   NOT NULL DEFAULT 0 CHECK (size >= 0),
    head_hash  text     NOT NULL DEFAULT '',          -- chain hash of entry size-1; '' while empty
    last_ts_us bigint   NOT NULL DEFAULT 0            -- ts of entry size-1, microseconds since the epoch
);
COMMENT ON TABLE lanes IS 'Head of each lane. Moves only by compare-and-swap on (size, head_hash).';

-- What happened behind the transaction that sequences. Each column only says how far a resumable step got; the truth
-- about the archive is the archived checkpoint, the truth about the topic is the offset in Kafka.
CREATE TABLE lane_progress (
    lane            smallint PRIMARY KEY REFERENCES lanes,
    checkpoint_size bigint      NOT NULL DEFAULT 0,   -- entries covered by the newest archived checkpoint
    checkpoint_root text        NOT NULL DEFAULT '',  -- its root, base64
    checkpoint_note text        NOT NULL DEFAULT '',  -- the signed note itself
    checkpoint_at   timestamptz,
    published_size  bigint      NOT NULL DEFAULT 0    -- entries said on audit-events
);

CREATE TABLE lane_offsets (
    lane        smallint NOT NULL REFERENCES lanes,
    topic       text     NOT NULL,
    partition   integer  NOT NULL,
    next_offset bigint   NOT NULL,
    PRIMARY KEY (lane, topic, partition)
);
COMMENT ON TABLE lane_offsets IS 'Where the indexer goes on reading; moves in the transaction that sequences.';

CREATE TABLE entries (
    lane        smallint    NOT NULL,
    position    bigint      NOT NULL,
    event_id    uuid        NOT NULL,
    type        text        NOT NULL,                 -- event type = topic
    model       text        NOT NULL,                 -- the record's key
    subject     text,
    signer      text        NOT NULL,
    principal   text        NOT NULL,
    producer    text,                                 -- null: an uncounted (outside) producer
    epoch       bigint,
    seq         bigint,
    event_hash  text        NOT NULL,
    event_time  timestamptz NOT NULL,                 -- as its sender says
    append_time timestamptz NOT NULL,                 -- as the broker says; what validity is judged by
    kafka_partition integer NOT NULL,
    kafka_offset    bigint  NOT NULL,
    causes      uuid[]      NOT NULL,
    verdict     text        NOT NULL,                 -- projected | repeated | equivocation | refused
    entry       bytea       NOT NULL,                 -- the log entry, as hashed into the tree
    PRIMARY KEY (lane, position)
) PARTITION BY LIST (lane);
CREATE INDEX entries_event_id ON entries (event_id);
CREATE INDEX entries_model ON entries (model, append_time);
CREATE INDEX entries_type ON entries (type, append_time);
CREATE INDEX entries_causes ON entries USING gin (causes);

-- The Kernel's audit events: one hash chain a lane, rows signed by the chain key.
CREATE TABLE audit_events (
    lane       smallint    NOT NULL,
    position   bigint      NOT NULL,
    id         text        NOT NULL,
    event_type text        NOT NULL,
    payload    json        NOT NULL,                  -- exactly the canonical bytes that were hashed
    prev_hash  text,
    hash       text        NOT NULL,
    signature  text        NOT NULL,
    signer_id  text        NOT NULL,
    ts         timestamptz NOT NULL,                  -- strictly increasing within a lane
    created_at timestamptz NOT NULL,                  -- the same, by the name that stock tools order by
    metadata   json        NOT NULL,
    version    integer     NOT NULL,
    PRIMARY KEY (lane, position)
) PARTITION BY LIST (lane);
CREATE INDEX audit_events_created_at ON audit_events (created_at);
CREATE INDEX audit_events_id ON audit_events (id);

-- Never pruned: history is not sequenced twice, however old the repetition.
CREATE TABLE event_ids (
    lane     smallint NOT NULL,
    event_id uuid     NOT NULL,
    position bigint   NOT NULL,                       -- of its first entry
    event_hash text   NOT NULL,
    PRIMARY KEY (lane, event_id)
);
CREATE TABLE producer_events (
    lane       smallint NOT NULL,
    producer   text     NOT NULL,
    epoch      bigint   NOT NULL,
    seq        bigint   NOT NULL,
    position   bigint   NOT NULL,                     -- of the first entry with this number
    event_hash text     NOT NULL,
    PRIMARY KEY (lane, producer, epoch, seq)
);
-- Causes that were not in the lane when their effect was sequenced; the effect's position.
CREATE TABLE missing_causes (
    lane     smallint NOT NULL,
    cause_id uuid     NOT NULL,
    position bigint   NOT NULL,
    PRIMARY KEY (lane, cause_id, position)
);
-- What an auditor should know. Follows from the lane's entries alone.
CREATE TABLE findings (
    lane     smallint NOT NULL,
    position bigint   NOT NULL,
    kind     text     NOT NULL,                       -- withheld | equivocation | late_cause | missing_cause | projection_refused
    about    text     NOT NULL,                       -- the other event or number that it is about
    event_id uuid     NOT NULL,
    producer text,
    epoch    bigint,
    seq      bigint,
    detail   text     NOT NULL,
    PRIMARY KEY (lane, position, kind, about)
);

-- A lane's own partitions, and the schema whose view `audit_events` is that lane alone: a stock verifier connects with
-- ?options=-csearch_path%3Dlane_<p> and nothing else.
CREATE FUNCTION add_lane(p smallint, lane_origin text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    home text := 'lane_' || p;
BEGIN
    IF EXISTS (SELECT 1 FROM lanes WHERE lane = p) THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE SCHEMA IF NOT EXISTS %I', home);
    -- Entries stay in the row up to 8 kB and are not compressed: they are mostly signatures and hashes.
    EXECUTE format('CREATE TABLE %I.entries PARTITION OF entries FOR VALUES IN (%s) WITH (toast_tuple_target = 8160)', home, p);
    EXECUTE format('ALTER TABLE %I.entries ALTER COLUMN entry SET STORAGE EXTERNAL', home);
    EXECUTE format('CREATE TABLE %I.chain PARTITION OF audit_events FOR VALUES IN (%s) WITH (toast_tuple_target = 8160)', home, p);
    EXECUTE format('ALTER TABLE %I.chain ALTER COLUMN payload SET STORAGE EXTERNAL', home);
    EXECUTE format('CREATE VIEW %I.audit_events AS SELECT * FROM %I.chain', home, home);
    INSERT INTO lanes (lane, origin) VALUES (p, lane_origin);
    INSERT INTO lane_progress (lane) VALUES (p);
END $$;
