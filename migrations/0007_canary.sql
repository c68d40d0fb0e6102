-- The canary share as it was set at run time, by an operator or by a rollback; the greatest version counts. No row: each orchestrator's own
-- setting. The key is the compare-and-set: of those that come after the same version one gets the next.
CREATE TABLE canary_change (
    version     bigint      PRIMARY KEY CHECK (version > 0),
    at          timestamptz NOT NULL,
    share_from  double precision NOT NULL,
    share       double precision NOT NULL CHECK (share >= 0 AND share <= 1),
    changed_by  text        NOT NULL CHECK (changed_by IN ('operator', 'rollback')),
    why         text        NOT NULL
);

-- What came of joins and connections on the nodes of each track, in equal stretches of time. The version is that of the share: what was counted
-- under another one says nothing about this one.
CREATE TABLE track_outcome (
    version            bigint      NOT NULL,
    -- When the stretch began.
    bucket             timestamptz NOT NULL,
    track              text        NOT NULL CHECK (track IN ('stable', 'canary')),
    joins_ok           bigint      NOT NULL,
    joins_failed       bigint      NOT NULL,
    connections_ok     bigint      NOT NULL,
    connections_failed bigint      NOT NULL,
    PRIMARY KEY (version, bucket, track)
) WITH (fillfactor = 50); -- The newest two rows are updated about once a second by each orchestrator.
