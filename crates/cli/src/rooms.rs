//! `signalbox rooms`: the room map.

mod why;

use std::time::SystemTime;

use anyhow::Context;
use clap::{Args, Subcommand};
use signalbox_protocol::placement::{RoomList, RoomState, RoomView};
use signalbox_protocol::{NodeId, RoomName};

use crate::orchestrators::{Cluster, Orchestrators};
use crate::stdout::print;
use crate::table::{Align, render};
use crate::when::{short, since};

/// List the rooms and their nodes, or tell why a room is where it is.
///
/// A room is `open`, `closed`, or `orphaned`: its node is gone, and the next join places it anew.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    signalbox rooms                        the first 100, by name\n  \
    signalbox rooms --after daily          those that follow\n  \
    signalbox rooms --node 2b1e…           those of one node\n  \
    signalbox rooms --limit 10000 --json   for programs\n  \
    signalbox rooms why daily              why the room is where it is")]
pub struct Rooms {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    cluster: Cluster,
    /// Only those whose node it is, or was.
    #[arg(long, value_name = "ID")]
    node: Option<NodeId>,
    /// Only those whose names come after this one, byte by byte.
    #[arg(long, value_name = "ROOM")]
    after: Option<RoomName>,
    /// At most so many.
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Why(why::Why),
}

impl Rooms {
    /// Prints a table, one line for each room; or what the subcommand prints.
    pub async fn run(self) -> anyhow::Result<()> {
        let orchestrators = self.cluster.orchestrators()?;
        if let Some(Command::Why(why)) = self.command {
            return why.run(&orchestrators, self.json).await;
        }
        let list = list(&orchestrators, self.node, self.after, self.limit).await?;
        if self.json {
            return print(&format!("{}\n", serde_json::to_string_pretty(&list)?));
        }
        print(&table(&list.rooms, SystemTime::now()))?;
        if let Some(next) = list.next {
            eprintln!("There are more; go on with --after {}", quoted(next.as_str()));
        }
        Ok(())
    }
}

/// Page after page, since an orchestrator may give fewer at once than were asked for.
async fn list(
    orchestrators: &Orchestrators,
    node: Option<NodeId>,
    mut after: Option<RoomName>,
    limit: u32,
) -> anyhow::Result<RoomList> {
    let node = node.map(|node| node.to_string());
    let mut rooms = Vec::new();
    loop {
        let left = (limit as usize).saturating_sub(rooms.len());
        if left == 0 {
            return Ok(RoomList { rooms, next: after });
        }
        let limit = left.to_string();
        let mut query = vec![("limit", limit.as_str())];
        query.extend(after.as_ref().map(|after| ("after", after.as_str())));
        query.extend(node.as_deref().map(|node| ("node", node)));
        let page: Option<RoomList> = orchestrators.get(&["rooms"], &query).await?;
        let page = page.context("the orchestrator has no list of rooms; is it of this version?")?;
        rooms.extend(page.rooms.into_iter().take(left));
        match page.next {
            // A page that leads nowhere would be asked for for ever.
            Some(next) if after.as_ref().is_none_or(|after| *after < next) => after = Some(next),
            _ => return Ok(RoomList { rooms, next: None }),
        }
    }
}

fn table(rooms: &[RoomView], now: SystemTime) -> String {
    let columns = [
        ("ROOM", Align::Left),
        ("NODE", Align::Left),
        ("GENERATION", Align::Right),
        ("STATE", Align::Left),
        ("AGE", Align::Right),
    ];
    let row = |room: &RoomView| {
        [
            room.room.to_string(),
            room.node.to_string(),
            room.generation.to_string(),
            state(room.state).to_owned(),
            short(since(room.placed_at_ms, now)),
        ]
    };
    render(columns, rooms.iter().map(row))
}

fn state(state: RoomState) -> &'static str {
    match state {
        RoomState::Open => "open",
        RoomState::Closed => "closed",
        RoomState::Orphaned => "orphaned",
    }
}

/// As a shell takes it for one word.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@".contains(c);
    if text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_printed_can_be_pasted() {
        assert_eq!(quoted("daily-2"), "daily-2");
        assert_eq!(quoted("it's mine"), r"'it'\''s mine'");
    }
}
