-- Nodes that are emptied: one row for each, of the last time. Any orchestrator carries one on.
CREATE TABLE drain (
    node_id       uuid        PRIMARY KEY REFERENCES media_node ON DELETE CASCADE,
    -- The node's epoch when it began: with another one there is nothing left to move.
    epoch         bigint      NOT NULL,
    -- Rooms per second.
    rate          double precision NOT NULL CHECK (rate > 0),
    deadline      timestamptz,
    state         text        NOT NULL CHECK (state IN ('running', 'done', 'cancelled', 'expired', 'lost')),
    -- Rooms that were handed over, and those that nobody took so far.
    moved         bigint      NOT NULL DEFAULT 0,
    stuck         bigint      NOT NULL DEFAULT 0,
    began_at      timestamptz NOT NULL,
    ended_at      timestamptz,
    -- The orchestrator that carries it on, and until when nobody else may.
    claimed_by    text,
    claimed_until timestamptz
);
