-- What operators and health need beside the map: the cluster's id, history, groups, ejection, tracks, and who looks after it.

-- One row. Tickets name it, so that those of another cluster with the same secret are refused.
CREATE TABLE cluster (
    cluster_id uuid    PRIMARY KEY DEFAULT gen_random_uuid(),
    one        boolean NOT NULL DEFAULT true UNIQUE CHECK (one)
);
INSERT INTO cluster DEFAULT VALUES;

ALTER TABLE media_node
    ADD COLUMN track         text        NOT NULL DEFAULT 'stable' CHECK (track IN ('stable', 'canary')),
    -- The last heartbeat of the epoch that was taken; one with a smaller number comes from the past.
    ADD COLUMN beat          bigint      NOT NULL DEFAULT 0,
    ADD COLUMN renewed_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When the epoch last moved on. What it orphaned is kept for a while from then.
    ADD COLUMN epoch_since    timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Until then it is given no rooms, because joins on it failed; and how often in a row that has happened.
    ADD COLUMN ejected_until timestamptz,
    ADD COLUMN ejections     integer     NOT NULL DEFAULT 0;

ALTER TABLE room
    ADD COLUMN room_group text COLLATE "C",
    -- Groups whose rooms may not be on the same node.
    ADD COLUMN avoid      text[] COLLATE "C" NOT NULL DEFAULT '{}',
    -- Whether the last placement replaced one that was dead. The row is the only place where the placing statement can see that
    -- for certain, and it has to tell the history.
    ADD COLUMN taken_over boolean NOT NULL DEFAULT false;

-- For anti-affinity. Few rooms have a group, and few avoid any.
CREATE INDEX room_by_group ON room (room_group) WHERE room_group IS NOT NULL AND closed_at IS NULL;
CREATE INDEX room_by_avoided ON room USING gin (avoid) WHERE avoid <> '{}' AND closed_at IS NULL;

-- For purging.
CREATE INDEX room_closed ON room (closed_at) WHERE closed_at IS NOT NULL;

-- What happened to a room, and why.
CREATE TABLE room_history (
    room_id    text COLLATE "C" NOT NULL,
    generation bigint      NOT NULL,
    at         timestamptz NOT NULL,
    event      text        NOT NULL,
    node_id    uuid        NOT NULL,
    node_epoch bigint      NOT NULL,
    by         text        NOT NULL,
    reasons    jsonb
);
CREATE INDEX room_history_of ON room_history (room_id, generation, at);
-- For purging. Not a block range index: the space of purged entries is used again, after which its ranges would say nothing.
CREATE INDEX room_history_age ON room_history (at);

-- The orchestrators that look at this map at present; each counts the others, since each knows only its own placements.
CREATE TABLE orchestrator (
    name    text        PRIMARY KEY,
    seen_at timestamptz NOT NULL
) WITH (fillfactor = 50);
