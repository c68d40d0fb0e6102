//! The statements, and why each of them holds under races.
//!
//! They run at READ COMMITTED: a statement sees what was committed before it began, and when it has to wait for a row,
//! it looks at that row again afterwards, **but at nothing else**: its subqueries keep the old view. So a condition on
//! another row must be monotone: once true, true for ever. `epoch > node_epoch` is. "The owner is not alive" is not: an
//! owner that registered while the statement waited is not in its view, and its room would be stolen.
//!
//! `clock_timestamp()` everywhere: `now()` stands still from the start of a transaction.

/// `$1` room. One row of `room` by primary key, and its node's row.
pub const FIND: &str = "
    SELECT r.node_id, r.node_epoch, r.generation, n.control
      FROM room r JOIN media_node n ON n.node_id = r.node_id
     WHERE r.room_id = $1 AND r.closed_at IS NULL AND NOT n.epoch > r.node_epoch";

/// `$1` room, `$2` candidate, `$3` margin in seconds. No row: somebody else has it, or the candidate takes none.
///
/// After a wait for the room's row `r` is its newest version, so `closed_at` is up to date; the subquery on the owner's
/// epoch may be out of date, which errs on the side of leaving the room where it is. The candidate's epoch and control
/// address come from one view, so they belong together.
pub const PLACE: &str = "
    WITH placed AS (
        INSERT INTO room AS r (room_id, node_id, node_epoch, generation, assigned_at)
        SELECT $1::text, n.node_id, n.epoch, 1, clock_timestamp()
          FROM media_node n
         WHERE n.node_id = $2 AND n.state = 'serving'
           AND n.lease_until > clock_timestamp() + make_interval(secs => $3)
        ON CONFLICT (room_id) DO UPDATE
           SET node_id = excluded.node_id, node_epoch = excluded.node_epoch, generation = r.generation + 1,
               assigned_at = excluded.assigned_at, closed_at = NULL
         WHERE r.closed_at IS NOT NULL
            OR EXISTS (SELECT 1 FROM media_node o WHERE o.node_id = r.node_id AND o.epoch > r.node_epoch)
        RETURNING r.node_id, r.node_epoch, r.generation
    )
    SELECT p.node_id, p.node_epoch, p.generation, n.control
      FROM placed p JOIN media_node n ON n.node_id = p.node_id";

/// `$1` room, `$2` node, `$3` epoch, `$4` generation. All conditions are on the row that is locked.
pub const CLOSE: &str = "
    UPDATE room SET closed_at = clock_timestamp()
     WHERE room_id = $1 AND node_id = $2 AND node_epoch = $3 AND generation = $4 AND closed_at IS NULL";

/// `$1` node, `$2` region, `$3` zone, `$4` labels, `$5` control, `$6` media, `$7` capacity, `$8` version, `$9` load,
/// `$10` lease in seconds.
///
/// In the update the sequence is read again, after the row is locked: the value drawn for the insert may be older than
/// that of a registration which came first.
pub const REGISTER: &str = "
    INSERT INTO media_node AS n (node_id, epoch, state, region, zone, labels, control, media, capacity, version, load, lease_until)
    VALUES ($1, nextval('node_epoch_seq'), 'serving', $2, $3, $4, $5, $6, $7, $8, $9,
            clock_timestamp() + make_interval(secs => $10))
    ON CONFLICT (node_id) DO UPDATE
       SET epoch = nextval('node_epoch_seq'), state = 'serving', region = excluded.region, zone = excluded.zone,
           labels = excluded.labels, control = excluded.control, media = excluded.media, capacity = excluded.capacity,
           version = excluded.version, load = excluded.load,
           lease_until = clock_timestamp() + make_interval(secs => $10)
    RETURNING n.epoch";

/// `$1` node, `$2` epoch, `$3` load, `$4` lease in seconds. All conditions are on the row that is locked, as are those
/// of a fence: of the two one comes first and the other does nothing.
pub const RENEW: &str = "
    UPDATE media_node SET lease_until = clock_timestamp() + make_interval(secs => $4), load = $3
     WHERE node_id = $1 AND epoch = $2 AND state <> 'lost' AND lease_until > clock_timestamp()";

/// `$1` node, `$2` epoch.
pub const RELEASE: &str = "
    UPDATE media_node SET epoch = nextval('node_epoch_seq'), state = 'lost'
     WHERE node_id = $1 AND epoch = $2 AND state <> 'lost'";

/// Nodes whose lease ran out.
pub const OVERDUE: &str = "
    SELECT count(*) AS overdue FROM media_node WHERE state <> 'lost' AND lease_until < clock_timestamp()";

/// Whether this transaction is the one that fences. By schema, so that two maps in one database do not wait for each
/// other.
pub const TURN_TO_FENCE: &str = "
    SELECT pg_try_advisory_xact_lock(hashtext('signalbox fence'), hashtext(current_schema())) AS mine";

/// `$1` lease in seconds. What the brake counts.
pub const FLEET: &str = "
    SELECT count(*) FILTER (WHERE state <> 'lost' OR fenced_at > clock_timestamp() - make_interval(secs => $1)) AS nodes,
           count(*) FILTER (WHERE state <> 'lost' AND lease_until < clock_timestamp()) AS overdue,
           count(*) FILTER (WHERE fenced_at > clock_timestamp() - make_interval(secs => $1)) AS fenced
      FROM media_node";

/// `$1` grace in seconds, `$2` lease in seconds. Whom to fence, once the server has been up for a lease: while it was
/// down no node could renew.
pub const DUE: &str = "
    SELECT node_id, epoch FROM media_node
     WHERE state <> 'lost' AND lease_until + make_interval(secs => $1) < clock_timestamp()
       AND clock_timestamp() - pg_postmaster_start_time() > make_interval(secs => $2)
     ORDER BY lease_until";

/// `$1` node, `$2` epoch, `$3` grace in seconds. Looks at the lease again: the node may have renewed it since it was
/// found due.
pub const FENCE: &str = "
    UPDATE media_node SET epoch = nextval('node_epoch_seq'), state = 'lost', fenced_at = clock_timestamp()
     WHERE node_id = $1 AND epoch = $2 AND state <> 'lost'
       AND lease_until + make_interval(secs => $3) < clock_timestamp()";

/// `$1` margin in seconds. The conditions are those of [`PLACE`].
pub const CANDIDATES: &str = "
    SELECT node_id, region, capacity, load FROM media_node
     WHERE state = 'serving' AND lease_until > clock_timestamp() + make_interval(secs => $1)";

/// All nodes.
pub const NODES: &str = "
    SELECT node_id, epoch, state, (state <> 'lost' AND lease_until > clock_timestamp()) AS live, control, media, region, capacity,
           load, version
      FROM media_node ORDER BY node_id";
