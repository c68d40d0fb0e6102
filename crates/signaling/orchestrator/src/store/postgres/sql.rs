//! The statements, and why each of them holds under races.
//!
//! They run at READ COMMITTED: a statement sees what was committed before it began, and when it has to wait for a row,
//! it looks at that row again afterwards, **but at nothing else**: its subqueries keep the old view. So a condition on
//! another row must be monotone: once true, true for ever. `epoch > node_epoch` is. "The owner is not alive" is not: an
//! owner that registered while the statement waited is not in its view, and its room would be stolen.
//!
//! Those that write several rows lock them in one order, by room and by node, so that no two wait for each other.
//!
//! Owners are compared with `IS NOT DISTINCT FROM`, which no index serves: else a plan that was made while the table was
//! new may go through all rooms of a node to find one.
//!
//! `clock_timestamp()` everywhere: `now()` stands still from the start of a transaction.

pub mod nodes;

/// `$1` room. One row of `room` by primary key, and its node's row.
pub const FIND: &str = "
    SELECT r.room_id, r.node_id, r.node_epoch, r.generation, n.control
      FROM room r JOIN media_node n ON n.node_id = r.node_id
     WHERE r.room_id = $1 AND r.closed_at IS NULL AND NOT n.epoch > r.node_epoch";

/// `$1` rooms. [`FIND`] for each of them; those that are nowhere are left out.
///
/// `LIMIT` keeps the planner from reading the whole table when it guesses that there are many rooms in the array.
pub const FIND_MANY: &str = "
    SELECT o.* FROM unnest($1::text[]) AS wanted (room_id)
     CROSS JOIN LATERAL (
        SELECT r.room_id, r.node_id, r.node_epoch, r.generation, n.control
          FROM room r JOIN media_node n ON n.node_id = r.node_id
         WHERE r.room_id = wanted.room_id AND r.closed_at IS NULL AND NOT n.epoch > r.node_epoch
         LIMIT 1) o";

/// That no room which must not be with this one is on the node `n`. Once the transaction holds [`LOCK_GROUPS`], nobody
/// else can put one there; that it may have left is seen late, which refuses too much, never too little.
macro_rules! apart {
    ($room:literal, $group:literal, $avoid:literal) => {
        concat!(
            "
               AND NOT EXISTS (
                    SELECT 1 FROM room o JOIN media_node m ON m.node_id = o.node_id
                     WHERE o.node_id = n.node_id AND o.room_id <> ",
            $room,
            " AND o.closed_at IS NULL AND NOT m.epoch > o.node_epoch
                       AND (o.room_group = ANY(",
            $avoid,
            "::text[]) OR (o.avoid <> '{}' AND o.avoid @> ARRAY[",
            $group,
            "::text])))"
        )
    };
}

/// What happens when the room has a row.
///
/// After a wait for it `r` is its newest version, so `closed_at` is up to date; the subquery on the owner's epoch may be
/// out of date, which errs on the side of leaving the room where it is.
macro_rules! take_over {
    () => {
        "
        ON CONFLICT (room_id) DO UPDATE
           SET node_id = excluded.node_id, node_epoch = excluded.node_epoch, generation = r.generation + 1,
               assigned_at = clock_timestamp(), closed_at = NULL, taken_over = r.closed_at IS NULL,
               room_group = excluded.room_group, avoid = excluded.avoid, wish = excluded.wish
         WHERE r.closed_at IS NOT NULL
            OR EXISTS (SELECT 1 FROM media_node o WHERE o.node_id = r.node_id AND o.epoch > r.node_epoch)
        RETURNING r.room_id, r.node_id, r.node_epoch, r.generation, r.assigned_at, r.taken_over"
    };
}

macro_rules! place {
    ($condition:expr) => {
        concat!(
            "
    WITH placed AS (
        INSERT INTO room AS r (room_id, node_id, node_epoch, generation, assigned_at, room_group, avoid, wish)
        SELECT $1::text, n.node_id, n.epoch, 1, clock_timestamp(), $6::text, $7::text[], $8::jsonb
          FROM media_node n
         WHERE n.node_id = $2 AND n.state = 'serving'
           AND n.lease_until > clock_timestamp() + make_interval(secs => $3)",
            $condition,
            take_over!(),
            "
    ), noted AS (
        INSERT INTO room_history (room_id, generation, at, event, node_id, node_epoch, by, reasons)
        SELECT room_id, generation, assigned_at, CASE WHEN taken_over THEN 'taken_over' ELSE 'placed' END,
               node_id, node_epoch, $4::text, $5::jsonb
          FROM placed
    )
    SELECT p.room_id, p.node_id, p.node_epoch, p.generation, n.control, true AS new
      FROM placed p JOIN media_node n ON n.node_id = p.node_id"
        )
    };
}

/// `$1` room, `$2` candidate, `$3` margin in seconds, `$4` by, `$5` reasons, `$6` group, `$7` avoid, `$8` wish. No row:
/// somebody else has it, or the candidate takes none. See `take_over!` above for the races.
///
/// The candidate's epoch and control address come from one view, so they belong together. If it is fenced meanwhile, the
/// room goes to an epoch that is over: dead from the start, and free for the next.
pub const PLACE: &str = place!("");

/// [`PLACE`], unless the candidate hosts a room that must not be with this one. Only after [`LOCK_GROUPS`], in the same
/// transaction: then this statement's view has whatever was placed under those locks before.
pub const PLACE_APART: &str = place!(apart!("$1", "$6", "$7"));

/// `$1` rooms, ordered and none twice, `$2` candidates, `$3` margins in seconds, `$4` by, `$5` reasons, `$6` wishes; none of
/// the rooms has a group or avoids one. For each room a row if this statement placed it (`new`), or if somebody has it in the
/// statement's view.
///
/// As [`PLACE`] under races. In addition rooms that have a live owner in the view are not attempted: a row that is
/// locked in vain costs as much as one that is written. As to `LIMIT`, see [`FIND_MANY`].
pub const PLACE_MANY: &str = concat!(
    "
    WITH proposed AS MATERIALIZED (
        SELECT p.*, n.epoch, n.control, o.node_id AS owner, o.node_epoch AS owner_epoch,
               o.generation AS owner_generation, o.control AS owner_control
          FROM unnest($1::text[], $2::uuid[], $3::float8[], $4::text[], $5::jsonb[], $6::jsonb[])
               AS p (room_id, candidate, margin, by, reasons, wish)
          LEFT JOIN LATERAL (
            SELECT r.node_id, r.node_epoch, r.generation, m.control
              FROM room r JOIN media_node m ON m.node_id = r.node_id
             WHERE r.room_id = p.room_id AND r.closed_at IS NULL AND NOT m.epoch > r.node_epoch
             LIMIT 1) o ON true
          LEFT JOIN LATERAL (
            SELECT n.epoch, n.control FROM media_node n
             WHERE n.node_id = p.candidate AND n.state = 'serving'
               AND n.lease_until > clock_timestamp() + make_interval(secs => p.margin)
             LIMIT 1) n ON true
    ), placed AS (
        INSERT INTO room AS r (room_id, node_id, node_epoch, generation, assigned_at, room_group, avoid, wish)
        SELECT p.room_id, p.candidate, p.epoch, 1, clock_timestamp(), NULL, '{}', p.wish
          FROM proposed p
         WHERE p.owner IS NULL AND p.epoch IS NOT NULL
         ORDER BY p.room_id COLLATE \"C\"",
    take_over!(),
    "
    ), won AS (
        SELECT w.*, p.control, p.by, p.reasons FROM placed w JOIN proposed p ON p.room_id = w.room_id
    ), noted AS (
        INSERT INTO room_history (room_id, generation, at, event, node_id, node_epoch, by, reasons)
        SELECT room_id, generation, assigned_at, CASE WHEN taken_over THEN 'taken_over' ELSE 'placed' END,
               node_id, node_epoch, by, reasons
          FROM won
    )
    SELECT room_id, node_id, node_epoch, generation, control, true AS new FROM won
    UNION ALL
    SELECT room_id, owner, owner_epoch, owner_generation, owner_control, false FROM proposed WHERE owner IS NOT NULL"
);

/// `$1` the names of groups. Of two transactions that name a group in common the second one waits for the end of the
/// first. By schema, so that two maps in one database do not wait for each other; in the order of the locks' numbers, so
/// that none wait in a circle.
pub const LOCK_GROUPS: &str = "
    SELECT pg_advisory_xact_lock(lock) FROM (
        SELECT DISTINCT hashtextextended('signalbox group ' || current_schema() || ' ' || name, 0) AS lock
          FROM unnest($1::text[]) AS groups (name) ORDER BY lock) locks";

/// `$1` room, `$2` node, `$3` epoch, `$4` generation: what the room was placed with, if that is its assignment.
pub const WANTED: &str = "
    SELECT room_group, avoid, wish FROM room
     WHERE room_id = $1 AND (node_id, node_epoch, generation) IS NOT DISTINCT FROM ($2, $3, $4) AND closed_at IS NULL";

/// `$1` room, `$2` node, `$3` epoch, `$4` generation, `$5` candidate, `$6` margin in seconds, `$7` by, `$8` reasons,
/// `$9` group, `$10` avoid, as [`WANTED`] told them: they change only with the generation. No row: nothing was changed.
///
/// All conditions on the room are on the row that is locked, but for the owner's epoch: if that moves on meanwhile, a
/// dead room is moved, as anybody may. As to the candidate see [`PLACE`].
pub const HAND_OFF: &str = concat!(
    "
    WITH moved AS (
        UPDATE room r
           SET node_id = n.node_id, node_epoch = n.epoch, generation = r.generation + 1,
               assigned_at = clock_timestamp(), taken_over = false
          FROM media_node n
         WHERE r.room_id = $1 AND (r.node_id, r.node_epoch, r.generation) IS NOT DISTINCT FROM ($2, $3, $4)
           AND r.closed_at IS NULL
           AND NOT EXISTS (SELECT 1 FROM media_node o WHERE o.node_id = r.node_id AND o.epoch > r.node_epoch)
           AND n.node_id = $5 AND n.node_id <> r.node_id AND n.state = 'serving'
           AND n.lease_until > clock_timestamp() + make_interval(secs => $6)",
    apart!("$1", "$9", "$10"),
    "
        RETURNING r.room_id, r.node_id, r.node_epoch, r.generation, r.assigned_at, n.control
    ), noted AS (
        INSERT INTO room_history (room_id, generation, at, event, node_id, node_epoch, by, reasons)
        SELECT room_id, generation, assigned_at, 'handed_off', node_id, node_epoch, $7::text, $8::jsonb FROM moved
    )
    SELECT room_id, node_id, node_epoch, generation, control FROM moved"
);

/// `$1` room, `$2` node, `$3` epoch, `$4` generation, `$5` by. All conditions are on the row that is locked.
pub const CLOSE: &str = "
    WITH closed AS (
        UPDATE room SET closed_at = clock_timestamp()
         WHERE room_id = $1 AND (node_id, node_epoch, generation) IS NOT DISTINCT FROM ($2, $3, $4) AND closed_at IS NULL
        RETURNING room_id, generation, closed_at, node_id, node_epoch
    )
    INSERT INTO room_history (room_id, generation, at, event, node_id, node_epoch, by)
    SELECT room_id, generation, closed_at, 'closed', node_id, node_epoch, $5::text FROM closed
    RETURNING room_id";

/// `$1` group, `$2` avoid. A view, out of date when it arrives: only [`PLACE_APART`] decides.
pub const OCCUPIED: &str = "
    SELECT DISTINCT r.node_id FROM room r JOIN media_node n ON n.node_id = r.node_id
     WHERE r.closed_at IS NULL AND NOT n.epoch > r.node_epoch
       AND (r.room_group = ANY($2::text[]) OR (r.avoid <> '{}' AND r.avoid @> ARRAY[$1::text]))";

/// `$1` node, `$2` epoch, `$3` rooms. Those of them that are the node's, in their generations.
pub const HELD: &str = "
    SELECT r.room_id, r.generation FROM room r
     WHERE r.room_id = ANY($3::text[]) AND (r.node_id, r.node_epoch) IS NOT DISTINCT FROM ($1, $2) AND r.closed_at IS NULL
       AND EXISTS (SELECT 1 FROM media_node n WHERE n.node_id = $1 AND n.epoch = $2 AND n.state <> 'lost')";

/// `$1` node, `$2` epoch, `$3` rooms, none twice, `$4` their generations, `$5` by.
///
/// The condition on the room is on the row that is locked, and a generation is never told that was not handed out. If the
/// node is fenced meanwhile, its rooms are dead from the start, as in [`PLACE`].
pub const RESTORE: &str = "
    WITH restored AS (
        INSERT INTO room AS r (room_id, node_id, node_epoch, generation, assigned_at)
        SELECT t.room_id, n.node_id, n.epoch, t.generation, clock_timestamp()
          FROM unnest($3::text[], $4::bigint[]) AS t (room_id, generation)
          JOIN media_node n ON n.node_id = $1 AND n.epoch = $2 AND n.state <> 'lost'
         ORDER BY t.room_id COLLATE \"C\"
        ON CONFLICT (room_id) DO UPDATE
           SET node_id = excluded.node_id, node_epoch = excluded.node_epoch, generation = excluded.generation,
               assigned_at = clock_timestamp(), closed_at = NULL, taken_over = false
         WHERE r.generation < excluded.generation
        RETURNING r.room_id, r.generation, r.assigned_at
    )
    INSERT INTO room_history (room_id, generation, at, event, node_id, node_epoch, by)
    SELECT room_id, generation, assigned_at, 'restored', $1, $2, $5::text FROM restored";

macro_rules! room_views {
    ($rest:literal) => {
        concat!(
            "
    SELECT r.room_id, r.node_id, r.node_epoch, r.generation, r.room_group,
           CASE WHEN r.closed_at IS NOT NULL THEN 'closed' WHEN n.epoch > r.node_epoch THEN 'orphaned' ELSE 'open'
           END AS state,
           floor(extract(epoch FROM r.assigned_at) * 1000)::bigint AS placed_at_ms
      FROM room r JOIN media_node n ON n.node_id = r.node_id
     WHERE ",
            $rest
        )
    };
}

/// `$1` room.
pub const ROOM: &str = room_views!("r.room_id = $1");

/// `$1` after this room, `$2` limit. A range of the primary key.
pub const ROOMS: &str = room_views!("r.room_id > $1 ORDER BY r.room_id LIMIT $2");

/// `$1` after this room, `$2` limit, `$3` node.
pub const ROOMS_OF_NODE: &str = room_views!("r.room_id > $1 AND r.node_id = $3 ORDER BY r.room_id LIMIT $2");

/// `$1` room, `$2` limit. By generation first: it grows for certain, a clock may be set back.
pub const HISTORY: &str = "
    SELECT event, floor(extract(epoch FROM at) * 1000)::bigint AS at_ms, generation, node_id, node_epoch, by, reasons
      FROM room_history WHERE room_id = $1 ORDER BY generation DESC, at DESC LIMIT $2";

/// `$1` age in seconds, `$2` limit. The conditions are looked at again once the row is locked; a row that somebody else
/// has locked is left for the next time. An array, because it is made once, whatever the plan.
pub const PURGE_CLOSED: &str = "
    DELETE FROM room WHERE room_id = ANY (ARRAY(
        SELECT room_id FROM room WHERE closed_at < clock_timestamp() - make_interval(secs => $1)
         LIMIT $2 FOR UPDATE SKIP LOCKED))
    RETURNING 1";

/// `$1` age in seconds, `$2` limit. As [`PURGE_CLOSED`]; that the owner's epoch is over stays true.
pub const PURGE_ORPHANED: &str = "
    DELETE FROM room WHERE room_id = ANY (ARRAY(
        SELECT r.room_id FROM media_node n JOIN room r ON r.node_id = n.node_id AND r.node_epoch < n.epoch
         WHERE r.closed_at IS NULL
           AND greatest(n.epoch_since, r.assigned_at) < clock_timestamp() - make_interval(secs => $1)
         LIMIT $2 FOR UPDATE OF r SKIP LOCKED))
    RETURNING 1";

/// `$1` age in seconds, `$2` limit. Entries are never changed.
pub const PURGE_HISTORY: &str = "
    DELETE FROM room_history WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM room_history WHERE at < clock_timestamp() - make_interval(secs => $1)
         ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED))
    RETURNING 1";
