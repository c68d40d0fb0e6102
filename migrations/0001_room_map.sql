-- The room map: which node hosts which room, and which nodes hold a lease.
--
-- An assignment is dead if and only if its node's epoch has moved on: media_node.epoch > room.node_epoch. Only fencing,
-- releasing and registering move an epoch, and no statement but those of leases reads a clock. The clock is the database's.

-- One sequence for all nodes: a value never repeats, so an epoch names one registration of one node. CACHE must stay 1: with a
-- larger one two connections hand out values out of order, and an epoch could shrink.
CREATE SEQUENCE node_epoch_seq AS bigint START 1 CACHE 1;

CREATE TABLE media_node (
    node_id     uuid        PRIMARY KEY,
    epoch       bigint      NOT NULL,
    state       text        NOT NULL CHECK (state IN ('serving', 'draining', 'lost')),
    region      text        NOT NULL,
    zone        text        NOT NULL,
    labels      jsonb       NOT NULL,
    control     text        NOT NULL,
    media       jsonb       NOT NULL,
    capacity    bigint      NOT NULL,
    version     text        NOT NULL,
    load        jsonb       NOT NULL,
    lease_until timestamptz NOT NULL,
    -- When it last lost its lease to a fence. The brake counts these.
    fenced_at   timestamptz
) WITH (fillfactor = 50); -- Heartbeats update each row twice a second; the free half keeps those updates in the page (HOT).

CREATE TABLE room (
    -- Compared byte by byte: room names are identifiers, not words of a language.
    room_id     text COLLATE "C" PRIMARY KEY,
    node_id     uuid        NOT NULL,
    node_epoch  bigint      NOT NULL,
    -- Grows by one with each placement. The row outlives the room so that a generation does not repeat.
    generation  bigint      NOT NULL CHECK (generation > 0),
    assigned_at timestamptz NOT NULL,
    closed_at   timestamptz
);

-- All rooms of one registration of one node. No foreign key: rows of nodes are kept as long as a room refers to them.
CREATE INDEX room_by_node ON room (node_id, node_epoch);
