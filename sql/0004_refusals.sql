-- What the indexer has refused of known signers and has yet to tell them. A row comes in the transaction that moves the
-- lane over the refused record, and goes when it was said; it is no part of the log, and a rebuild has none.
CREATE TABLE unsaid_refusals (
    lane         smallint NOT NULL REFERENCES lanes,
    topic        text     NOT NULL,                   -- where the refused record is; the partition is the lane
    kafka_offset bigint   NOT NULL,
    event_id     uuid     NOT NULL,
    event_type   text     NOT NULL,
    event_hash   text     NOT NULL,
    signer       text     NOT NULL,
    model        text     NOT NULL,
    code         text     NOT NULL,
    detail       text     NOT NULL,
    traceparent  text,
    PRIMARY KEY (lane, topic, kafka_offset)
);
