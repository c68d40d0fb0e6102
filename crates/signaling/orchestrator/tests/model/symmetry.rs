//! Who is who does not matter.

use stateright::Representative;

use crate::state::{NODES, NodeIndex, RoomRow, State};

/// Nodes are alike, and so are orchestrators: of the states that differ only in who is who, one stands for all.
impl Representative for State {
    fn representative(&self) -> Self {
        let mut state = self.clone();
        state.statements.sort();
        let mut mirrored = self.mirrored();
        mirrored.statements.sort();
        state.min(mirrored)
    }
}

impl State {
    /// With the two nodes exchanged.
    fn mirrored(&self) -> Self {
        let other = |node: NodeIndex| NODES - 1 - node;
        let room = |room: RoomRow| RoomRow {
            node: other(room.node),
            ..room
        };
        let mut state = self.clone();
        state.rows.reverse();
        state.processes.reverse();
        state.room = self.room.map(room);
        for statement in state.statements.iter_mut().flatten() {
            statement.view.reverse();
            statement.candidate = other(statement.candidate);
            statement.from = statement.from.map(room);
        }
        let closes = self.closes.iter().copied();
        state.closes = closes
            .map(|(node, epoch, generation)| (other(node), epoch, generation))
            .collect();
        for one in &mut state.moves {
            one.node = other(one.node);
        }
        state
    }
}
