//! The statements on nodes: leases, epochs, ejection.
//!
//! A lease is extended, ended and looked at only by statements whose conditions are all on the node's own row, so that of
//! two that contend for it one comes first, and the other sees what it did.
//!
//! An epoch moves on to `greatest(nextval(…), epoch + 1)`: the next of the sequence, which no node has had, unless the
//! node's own came from a store that has been lost since, whose sequence was further on.

/// `$1` node, `$2` region, `$3` zone, `$4` labels, `$5` control, `$6` media, `$7` capacity, `$8` version, `$9` load,
/// `$10` lease in seconds, `$11` track, `$12` the epoch that it comes after. No row: the node's epoch is another one.
///
/// In the update the sequence is read again, after the row is locked: the value drawn for the insert may be older than
/// that of a registration which came first.
pub const REGISTER: &str = "
    INSERT INTO media_node AS n (node_id, epoch, state, region, zone, labels, control, media, capacity, version, load,
                                 lease_until, track)
    VALUES ($1, greatest(nextval('node_epoch_seq'), $12 + 1), 'serving', $2, $3, $4, $5, $6, $7, $8, $9,
            clock_timestamp() + make_interval(secs => $10), $11)
    ON CONFLICT (node_id) DO UPDATE
       SET epoch = greatest(nextval('node_epoch_seq'), n.epoch + 1), epoch_since = clock_timestamp(), state = 'serving', region = excluded.region,
           zone = excluded.zone, labels = excluded.labels, control = excluded.control, media = excluded.media,
           capacity = excluded.capacity, version = excluded.version, load = excluded.load, track = excluded.track,
           beat = 0, renewed_at = clock_timestamp(), lease_until = clock_timestamp() + make_interval(secs => $10),
           ejected_until = NULL, ejections = 0
     WHERE n.epoch = $12
    RETURNING n.epoch";

/// `$1` node.
pub const EPOCH: &str = "SELECT epoch FROM media_node WHERE node_id = $1";

/// `$1` nodes, none twice, `$2` epochs, `$3` beats, `$4` loads, `$5` leases in seconds. A row for each node that there is.
///
/// The rows are locked in order first, and what becomes of each is decided on the locked row. An epoch that is greater
/// than the current one is adopted.
pub const RENEW: &str = "
    WITH told AS (
        SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::jsonb[], $5::float8[])
               AS t (node_id, epoch, beat, load, lease)
    ), held AS (
        SELECT n.node_id, n.state = 'lost' OR n.epoch > t.epoch AS over, n.epoch = t.epoch AND n.beat >= t.beat AS past,
               n.epoch = t.epoch AND n.beat = t.beat AS same, n.epoch < t.epoch AS adopted
          FROM media_node n JOIN told t ON t.node_id = n.node_id
         ORDER BY n.node_id FOR NO KEY UPDATE OF n
    ), renewed AS (
        UPDATE media_node n
           SET epoch = t.epoch, epoch_since = CASE WHEN h.adopted THEN clock_timestamp() ELSE n.epoch_since END, beat = t.beat, load = t.load, renewed_at = clock_timestamp(),
               lease_until = clock_timestamp() + make_interval(secs => t.lease)
          FROM told t, held h
         WHERE n.node_id = t.node_id AND h.node_id = t.node_id AND NOT h.over AND NOT h.past
    )
    SELECT node_id, over, past, same, adopted FROM held";

/// `$1` epoch. Moves the sequence on to an epoch that was adopted, so that no other node gets it. Step by step, since
/// setting it could set it back; as many steps as registrations were lost.
pub const CATCH_UP: &str = "
    SELECT max(nextval('node_epoch_seq'))
      FROM generate_series(1, least($1 - (SELECT last_value FROM node_epoch_seq), 10000))";

/// `$1` node, `$2` epoch. A drain of it that runs is done if the node has no room any more, else lost: afterwards that could not be
/// told any more, since others take its rooms.
pub const RELEASE: &str = "
    WITH released AS (
        UPDATE media_node n SET epoch = greatest(nextval('node_epoch_seq'), n.epoch + 1), epoch_since = clock_timestamp(), state = 'lost'
         WHERE node_id = $1 AND epoch = $2 AND state <> 'lost'
        RETURNING node_id
    ), ended AS (
        UPDATE drain d
           SET ended_at = clock_timestamp(),
               state = CASE WHEN EXISTS (SELECT 1 FROM room r WHERE r.node_id = $1 AND r.node_epoch = $2 AND r.closed_at IS NULL)
                            THEN 'lost' ELSE 'done' END
          FROM released WHERE d.node_id = released.node_id AND d.epoch = $2 AND d.state = 'running'
    )
    SELECT node_id FROM released";

/// `$1` node, `$2` state; lost changes nothing.
pub const SET_STATE: &str = "
    UPDATE media_node SET state = CASE WHEN state = 'lost' OR $2 = 'lost' THEN state ELSE $2 END
     WHERE node_id = $1
    RETURNING state";

/// Waits until nobody else ejects. By schema, so that two maps in one database do not wait for each other.
pub const LOCK_EJECTION: &str = "
    SELECT pg_advisory_xact_lock(hashtextextended('signalbox eject ' || current_schema(), 0))";

/// `$1` node, `$2` epoch, `$3` base in seconds, `$4` share. Only after [`LOCK_EJECTION`], in the same transaction: then
/// the count has what was ejected before. An ejection grows with each one, up to ten times. Truncation is meant: 10% of
/// 19 nodes is one whole node.
pub const EJECT: &str = "
    UPDATE media_node
       SET ejections = least(ejections + 1, 10),
           ejected_until = clock_timestamp() + make_interval(secs => $3 * least(ejections + 1, 10))
     WHERE node_id = $1 AND epoch = $2 AND state <> 'lost'
       AND (ejected_until IS NULL OR ejected_until <= clock_timestamp())
       AND (SELECT count(*) FILTER (WHERE ejected_until > clock_timestamp()) < greatest(floor(count(*) * $4), 1)
              FROM media_node WHERE state <> 'lost')";

/// `$1` node, `$2` epoch.
pub const EJECTED: &str = "
    SELECT 1 FROM media_node
     WHERE node_id = $1 AND epoch = $2 AND state <> 'lost' AND ejected_until > clock_timestamp()";

/// `$1` orchestrator, `$2` how long a look counts in seconds.
///
/// The incarnation is when the server started, which changes when it is restarted, and the timeline that it writes, the
/// first eight digits of its log files' names, which changes when a standby is promoted.
pub const LOOK: &str = "
    WITH looked AS (
        INSERT INTO orchestrator AS o (name, seen_at) VALUES ($1, clock_timestamp())
        ON CONFLICT (name) DO UPDATE SET seen_at = clock_timestamp()
    )
    SELECT (SELECT count(*) FROM media_node WHERE state <> 'lost' AND lease_until < clock_timestamp()) AS overdue,
           (SELECT count(*) FROM orchestrator
             WHERE name <> $1 AND seen_at >= clock_timestamp() - make_interval(secs => $2)) + 1 AS orchestrators,
           extract(epoch FROM pg_postmaster_start_time())::text || ' '
               || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) AS incarnation";

/// `$1` limit.
pub const OVERDUE: &str = "
    SELECT node_id, epoch, control FROM media_node
     WHERE state <> 'lost' AND lease_until < clock_timestamp() ORDER BY lease_until LIMIT $1";

/// Whether this transaction is the one that fences. By schema, so that two maps in one database do not wait for each
/// other.
pub const TURN_TO_FENCE: &str = "
    SELECT pg_try_advisory_xact_lock(hashtextextended('signalbox fence ' || current_schema(), 0)) AS mine";

/// `$1` lease in seconds. What the brake counts.
pub const FLEET: &str = "
    SELECT count(*) FILTER (WHERE state <> 'lost' OR fenced_at > clock_timestamp() - make_interval(secs => $1)) AS nodes,
           count(*) FILTER (WHERE state <> 'lost' AND lease_until < clock_timestamp()) AS overdue,
           count(*) FILTER (WHERE fenced_at > clock_timestamp() - make_interval(secs => $1)) AS fenced
      FROM media_node";

/// `$1` grace in seconds, `$2` lease in seconds, `$3` whom to spare. Whom to fence, once the server has been up for a
/// lease: while it was down no node could renew.
pub const DUE: &str = "
    SELECT node_id, epoch FROM media_node
     WHERE state <> 'lost' AND lease_until + make_interval(secs => $1) < clock_timestamp()
       AND clock_timestamp() - pg_postmaster_start_time() > make_interval(secs => $2)
       AND NOT node_id = ANY($3::uuid[])
     ORDER BY lease_until";

/// `$1` nodes, `$2` their epochs, `$3` grace in seconds. Locks the rows in order first, as [`RENEW`] does, and looks at
/// the leases again there: a node may have renewed its own since it was found due.
pub const FENCE: &str = "
    WITH due AS (
        SELECT n.node_id, d.epoch FROM media_node n JOIN unnest($1::uuid[], $2::bigint[]) AS d (node_id, epoch)
               ON d.node_id = n.node_id AND d.epoch = n.epoch
         WHERE n.state <> 'lost' AND n.lease_until + make_interval(secs => $3) < clock_timestamp()
         ORDER BY n.node_id FOR NO KEY UPDATE OF n
    )
    UPDATE media_node n
       SET epoch = greatest(nextval('node_epoch_seq'), n.epoch + 1), epoch_since = clock_timestamp(), state = 'lost', fenced_at = clock_timestamp()
      FROM due WHERE n.node_id = due.node_id
    RETURNING n.node_id, due.epoch";

/// `$1` margin in seconds. The conditions are those of [`super::PLACE`].
pub const CANDIDATES: &str = "
    SELECT node_id, state, lease_until > clock_timestamp() + make_interval(secs => $1) AS lease_holds,
           coalesce(ejected_until > clock_timestamp(), false) AS ejected, region, zone, labels, track, version, capacity,
           load
      FROM media_node WHERE state <> 'lost' ORDER BY node_id";

/// All nodes.
pub const NODES: &str = "
    SELECT node_id, epoch, state, state <> 'lost' AND lease_until > clock_timestamp() AS live, control, media, region,
           zone, labels, track, capacity, load, version,
           greatest(floor(extract(epoch FROM clock_timestamp() - renewed_at) * 1000)::bigint, 0) AS lease_age_ms,
           coalesce(greatest(ceil(extract(epoch FROM ejected_until - clock_timestamp()) * 1000)::bigint, 0), 0) AS ejected_ms
      FROM media_node ORDER BY node_id";

/// `$1` age in seconds, `$2` limit. Longer than any statement takes: one that gives a room to this node must not be under
/// way. As to rows that somebody else has locked, see [`super::PURGE_CLOSED`].
pub const PURGE: &str = "
    DELETE FROM media_node WHERE node_id = ANY (ARRAY(
        SELECT n.node_id FROM media_node n
         WHERE n.state = 'lost' AND n.renewed_at < clock_timestamp() - make_interval(secs => $1)
           AND NOT EXISTS (SELECT 1 FROM room r WHERE r.node_id = n.node_id)
         LIMIT $2 FOR UPDATE OF n SKIP LOCKED))
    RETURNING 1";

/// `$1` age in seconds.
pub const PURGE_ORCHESTRATORS: &str = "
    DELETE FROM orchestrator WHERE seen_at < clock_timestamp() - make_interval(secs => $1)";
