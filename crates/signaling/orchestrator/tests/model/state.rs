//! What there is at one moment: the database's rows, the processes, and what is on the way between them.

use std::collections::BTreeSet;

pub const NODES: usize = 2;
pub const ORCHESTRATORS: usize = 2;

pub type NodeIndex = usize;
pub type Epoch = u8;
pub type Generation = u8;

/// A row of `media_node`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeRow {
    pub epoch: Epoch,
    pub lost: bool,
}

/// The room's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomRow {
    pub node: NodeIndex,
    pub epoch: Epoch,
    pub generation: Generation,
    pub closed: bool,
}

/// A media node's process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process {
    /// The epoch that it holds.
    pub epoch: Option<Epoch>,
    /// The generation of the room that it hosts: it has admitted somebody by a ticket.
    pub hosts: Option<Generation>,
    /// The last generation that it has closed in this epoch.
    pub closed: Generation,
    /// A registration that it gave up is on the way, and comes after this epoch.
    pub gave_up: Option<Epoch>,
}

/// A statement that waits for the room's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Statement {
    /// What it saw when it began.
    pub view: [Option<NodeRow>; NODES],
    pub candidate: NodeIndex,
    /// Whose room it hands off; none: it places.
    pub from: Option<RoomRow>,
}

/// How a room came to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum How {
    Placed,
    TakenOver {
        /// Whether the owner's epoch was over in truth, whatever the statement saw.
        owner_was_over: bool,
    },
    HandedOff,
}

/// One placement. Nobody in the model reads these but the properties, and tickets: each was signed with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Move {
    pub generation: Generation,
    pub node: NodeIndex,
    pub epoch: Epoch,
    pub how: How,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State {
    pub rows: [Option<NodeRow>; NODES],
    pub room: Option<RoomRow>,
    pub last_epoch: Epoch,
    pub processes: [Process; NODES],
    pub statements: [Option<Statement>; ORCHESTRATORS],
    /// Requests to close, on the way.
    pub closes: BTreeSet<(NodeIndex, Epoch, Generation)>,
    /// In the order in which they were committed.
    pub moves: Vec<Move>,
}

impl State {
    fn next_epoch(&mut self) -> Epoch {
        self.last_epoch += 1;
        self.last_epoch
    }

    /// The node's epoch, 0 before its first.
    pub fn epoch_of(&self, node: NodeIndex) -> Epoch {
        self.rows[node].map_or(0, |row| row.epoch)
    }

    pub fn register(&mut self, node: NodeIndex) {
        let epoch = self.next_epoch();
        self.rows[node] = Some(NodeRow { epoch, lost: false });
    }

    pub fn end_epoch(&mut self, node: NodeIndex) {
        let epoch = self.next_epoch();
        self.rows[node] = Some(NodeRow { epoch, lost: true });
    }

    pub fn begin(&mut self, orchestrator: usize, candidate: NodeIndex, from: Option<RoomRow>) {
        self.statements[orchestrator] = Some(Statement {
            view: self.rows,
            candidate,
            from,
        });
    }

    /// Whether the epoch that the room was placed in is over, in truth.
    pub fn is_over(&self, room: RoomRow) -> bool {
        self.rows[room.node].is_some_and(|row| row.epoch > room.epoch)
    }

    /// Whether the room went on from this generation by a hand-off.
    pub fn was_handed_off(&self, generation: Generation) -> bool {
        let next = |next: &Move| next.generation == generation + 1 && next.how == How::HandedOff;
        self.moves.iter().any(next)
    }
}

impl Process {
    /// It drops its room and its epoch, and what it remembers of them.
    pub fn stop(&mut self) {
        (self.epoch, self.hosts, self.closed) = (None, None, 0);
    }

    /// It hosts the room no more, and remembers that.
    pub fn leave(&mut self) -> Option<Generation> {
        let generation = self.hosts.take();
        self.closed = self.closed.max(generation.unwrap_or(0));
        generation
    }
}
