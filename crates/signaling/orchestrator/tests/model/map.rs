//! The model: the map's statements as PostgreSQL runs them at READ COMMITTED, and the nodes that go by them.
//!
//! There is no clock. A node may stop at any time, be it that it could not renew its lease, that it crashed, or that it
//! goes; and a node that has stopped may be fenced at any time. A release is the same step, on the node's own word. A
//! message takes as long as it likes, tickets among them: every ticket that was ever signed may arrive at any later time.
//!
//! **A statement** that places or hands off is two steps. It begins with a view of `media_node`; then it may wait for
//! the room's row. It ends by reading the room's row as it is now, and everything else as it was in its view, and
//! commits. Statements on a single row (register, fence, release, close) are one step each: they look at that row only.

use std::collections::BTreeSet;

use stateright::{Model, Property};

use crate::properties;
use crate::state::{Epoch, Generation, How, Move, NODES, NodeIndex, ORCHESTRATORS, Process, RoomRow, State, Statement};

/// What is explored, and what is taken away.
#[derive(Debug, Clone)]
pub struct Map {
    /// The last epoch that is handed out. Higher: more lives of nodes.
    pub max_epoch: Epoch,
    /// The last generation of the room. Higher: more moves of it.
    pub max_generation: Generation,
    /// Whether rooms are handed off.
    pub hand_offs: bool,
    /// What is wrong.
    pub flaw: Option<Flaw>,
}

impl Default for Map {
    fn default() -> Self {
        Self {
            max_epoch: 3,
            max_generation: 3,
            hand_offs: true,
            flaw: None,
        }
    }
}

/// What may be wrong, so that the properties are seen to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// A room is free when nobody alive is seen to own it, instead of when its owner's epoch is seen to be over.
    NaivePredicate,
    /// A node is fenced before it has stopped by itself.
    FenceTooEarly,
    /// A node admits to a room that it has closed.
    ForgetsClosedRooms,
    /// A registration is carried out whatever the node's epoch is by then.
    UnconditionalRegistration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The node registers after the epoch that it has, and holds the new one from then on. That it learns of it later is the
    /// same as that it does nothing with it at first; and what it is told when it did not know its epoch changes nothing.
    Register { node: NodeIndex },
    /// The node gives up on a registration that is on the way, be it the process or its predecessor.
    GiveUp { node: NodeIndex },
    /// That registration reaches the database all the same.
    RegisterLate { node: NodeIndex },
    /// The node's heartbeat is answered that its epoch is over.
    Over { node: NodeIndex },
    /// The node stops by itself, or crashes.
    Stop { node: NodeIndex },
    /// The node's epoch is ended: by a fence, or by its release.
    Fence { node: NodeIndex },
    /// An orchestrator places the room: the statement takes its view.
    BeginPlace { orchestrator: usize, candidate: NodeIndex },
    /// An orchestrator hands the room off: the statement takes its view.
    BeginHandOff { orchestrator: usize, candidate: NodeIndex },
    /// The statement gets the room's row, and commits.
    EndStatement { orchestrator: usize },
    /// Somebody comes to the node with a ticket.
    Admit { node: NodeIndex, generation: Generation },
    /// The node's room is empty: it stops hosting it and asks to close it.
    Empty { node: NodeIndex },
    /// The request to close reaches the database.
    Close {
        node: NodeIndex,
        epoch: Epoch,
        generation: Generation,
    },
    /// The node is told that its room was handed off.
    Moved { node: NodeIndex },
}

impl Model for Map {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            rows: [None; NODES],
            room: None,
            last_epoch: 0,
            processes: [Process::default(); NODES],
            statements: [None; ORCHESTRATORS],
            closes: BTreeSet::new(),
            moves: Vec::new(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for node in 0..NODES {
            self.node_actions(state, node, actions);
        }
        for orchestrator in 0..ORCHESTRATORS {
            if state.statements[orchestrator].is_some() {
                actions.push(Action::EndStatement { orchestrator });
                continue;
            }
            for candidate in (0..NODES).filter(|node| state.rows[*node].is_some_and(|row| !row.lost)) {
                actions.push(Action::BeginPlace {
                    orchestrator,
                    candidate,
                });
                if self.hand_offs && state.room.is_some_and(|room| room.node != candidate && !room.closed) {
                    actions.push(Action::BeginHandOff {
                        orchestrator,
                        candidate,
                    });
                }
            }
        }
        for (node, epoch, generation) in state.closes.iter().copied() {
            actions.push(Action::Close {
                node,
                epoch,
                generation,
            });
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        self.act(&mut state, action);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(self)
    }
}

impl Map {
    fn node_actions(&self, state: &State, node: NodeIndex, actions: &mut Vec<Action>) {
        let process = state.processes[node];
        let row = state.rows[node];
        let more_epochs = state.last_epoch < self.max_epoch;
        if process.epoch.is_some() {
            actions.push(Action::Stop { node });
        } else if more_epochs {
            actions.push(Action::Register { node });
            if process.gave_up.is_none() {
                actions.push(Action::GiveUp { node });
            }
        }
        let late = process
            .gave_up
            .is_some_and(|after| after == state.epoch_of(node) || self.flaw == Some(Flaw::UnconditionalRegistration));
        if more_epochs && late {
            actions.push(Action::RegisterLate { node });
        }
        if let (Some(row), Some(epoch)) = (row, process.epoch)
            && (row.lost || row.epoch != epoch)
        {
            actions.push(Action::Over { node });
        }
        // A node that cannot renew its lease has stopped before the lease, with its grace, is over.
        let has_stopped = row.is_some_and(|row| process.epoch != Some(row.epoch));
        if row.is_some_and(|row| !row.lost) && more_epochs && (has_stopped || self.flaw == Some(Flaw::FenceTooEarly)) {
            actions.push(Action::Fence { node });
        }
        // A ticket is for one node, one epoch and one generation. The node refuses another node's and another epoch's,
        // one that is older than the room it hosts, and one for a room that it has closed.
        let tickets = state.moves.iter().filter(|ticket| ticket.node == node);
        for ticket in tickets.filter(|ticket| process.epoch == Some(ticket.epoch)) {
            let generation = ticket.generation;
            let forgets = self.flaw == Some(Flaw::ForgetsClosedRooms);
            if process.hosts.is_none_or(|hosts| hosts < generation) && (forgets || generation > process.closed) {
                actions.push(Action::Admit { node, generation });
            }
        }
        if let Some(hosts) = process.hosts {
            actions.push(Action::Empty { node });
            if state.was_handed_off(hosts) {
                actions.push(Action::Moved { node });
            }
        }
    }

    fn act(&self, state: &mut State, action: Action) {
        match action {
            Action::Register { node } => {
                state.register(node);
                state.processes[node].epoch = Some(state.last_epoch);
            }
            Action::GiveUp { node } => state.processes[node].gave_up = Some(state.epoch_of(node)),
            Action::RegisterLate { node } => {
                state.register(node);
                state.processes[node].gave_up = None;
            }
            Action::Over { node } | Action::Stop { node } => state.processes[node].stop(),
            Action::Fence { node } => state.end_epoch(node),
            Action::BeginPlace {
                orchestrator,
                candidate,
            } => {
                state.begin(orchestrator, candidate, None);
            }
            Action::BeginHandOff {
                orchestrator,
                candidate,
            } => {
                state.begin(orchestrator, candidate, state.room);
            }
            Action::EndStatement { orchestrator } => {
                if let Some(statement) = state.statements[orchestrator].take() {
                    self.end_statement(state, &statement);
                }
            }
            Action::Admit { node, generation } => state.processes[node].hosts = Some(generation),
            Action::Empty { node } => {
                let process = &mut state.processes[node];
                let generation = process.leave();
                if let (Some(epoch), Some(generation)) = (process.epoch, generation) {
                    state.closes.insert((node, epoch, generation));
                }
            }
            Action::Close {
                node,
                epoch,
                generation,
            } => {
                state.closes.remove(&(node, epoch, generation));
                if let Some(room) = &mut state.room
                    && (room.node, room.epoch, room.generation) == (node, epoch, generation)
                {
                    room.closed = true;
                }
            }
            Action::Moved { node } => {
                state.processes[node].leave();
            }
        }
    }

    /// The room's row as it is now, the nodes' rows as they were.
    fn end_statement(&self, state: &mut State, statement: &Statement) {
        let Some(candidate) = statement.view[statement.candidate] else {
            return;
        };
        let sees_over = |room: RoomRow| {
            let owner = statement.view[room.node];
            if self.flaw == Some(Flaw::NaivePredicate) {
                !owner.is_some_and(|owner| owner.epoch == room.epoch && !owner.lost)
            } else {
                owner.is_some_and(|owner| owner.epoch > room.epoch)
            }
        };
        let how = match (state.room, statement.from) {
            (None, None) => How::Placed,
            (Some(room), None) if room.closed => How::Placed,
            (Some(room), None) if sees_over(room) => How::TakenOver {
                owner_was_over: state.is_over(room),
            },
            (Some(room), Some(from)) if room == from && !sees_over(room) => How::HandedOff,
            _ => return,
        };
        let generation = state.room.map_or(0, |room| room.generation) + 1;
        if generation > self.max_generation {
            return;
        }
        state.room = Some(RoomRow {
            node: statement.candidate,
            epoch: candidate.epoch,
            generation,
            closed: false,
        });
        state.moves.push(Move {
            generation,
            node: statement.candidate,
            epoch: candidate.epoch,
            how,
        });
    }
}
