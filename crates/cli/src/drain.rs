//! `signalbox drain` and `signalbox undrain`: empty a media node, and let it take rooms again.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use reqwest::Method;
use signalbox_protocol::NodeId;
use signalbox_protocol::node::{Asker, Drain as Progress, DrainNode, DrainState, NodeState, NodeView};

use crate::exit::Usage;
use crate::nodes;
use crate::orchestrators::{Cluster, Orchestrators};
use crate::stdout::print;
use crate::token::parse_ttl;
use crate::when::short;

/// How often to look with `--wait`.
const LOOK: Duration = Duration::from_millis(500);

/// For how long the orchestrators may be away while it waits: the drain goes on without it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The bar's width in characters.
const BAR: usize = 32;

/// Empty a media node: its rooms are moved to others one by one, and it gets no new ones.
///
/// Those in a room go on with their calls. The orchestrators carry a drain on by themselves, whoever asked for it; asked for again, it goes on with
/// the new settings.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    signalbox drain 5f0c --wait                   empty a node before its machine is upgraded\n  \
    signalbox drain 5f0c --rate 1 --deadline 30m  slowly, and at most for half an hour\n  \
    signalbox undrain 5f0c                        it takes rooms again")]
pub struct Drain {
    #[command(flatten)]
    cluster: Cluster,
    /// The node's id, or its beginning if that names one node alone.
    node: String,
    /// Rooms per second.
    #[arg(long, value_name = "RATE", default_value_t = DrainNode::default().rate)]
    rate: f64,
    /// For how long to go on, such as 90s or 30m; rooms that are left then stay. Until it is done, if not given.
    #[arg(long, value_name = "TIME", value_parser = parse_ttl)]
    deadline: Option<Duration>,
    /// Show how it gets on until it has ended; exit code 1 unless the node is empty then.
    #[arg(long)]
    wait: bool,
}

/// Let a media node that is draining take rooms again; rooms that have moved stay where they are.
#[derive(Debug, Args)]
pub struct Undrain {
    #[command(flatten)]
    cluster: Cluster,
    /// The node's id, or its beginning if that names one node alone.
    node: String,
}

impl Drain {
    /// Begins, and waits if it is to.
    pub async fn run(self) -> anyhow::Result<()> {
        if !(self.rate > 0.0 && self.rate.is_finite()) {
            return Err(Usage("--rate is in rooms per second, and more than 0".into()).into());
        }
        let orchestrators = self.cluster.orchestrators()?;
        let node = find(&orchestrators, &self.node).await?;
        let deadline = self.deadline.map(|deadline| u64::try_from(deadline.as_millis()));
        let how = DrainNode {
            rate: self.rate,
            deadline_ms: deadline.transpose().context("--deadline is too long")?,
            asked_by: Asker::Operator,
        };
        let body = serde_json::to_value(how)?;
        let begun: Option<Progress> = orchestrators
            .call(Method::PUT, &path(&node.to_string()), &[], Some(&body))
            .await?;
        let begun = begun.context(
            "the orchestrators do not know the node (any more), or know no drains; are they of this version?",
        )?;
        if !self.wait {
            let left = rooms(begun.rooms_left);
            let eta = eta(&begun);
            return print(&format!(
                "{node} is draining: {left} to move{eta}\nsignalbox drain {node} --wait shows how it gets on; signalbox undrain {node} ends it\n"
            ));
        }
        wait(&orchestrators, node).await
    }
}

impl Undrain {
    /// Cancels.
    pub async fn run(self) -> anyhow::Result<()> {
        let orchestrators = self.cluster.orchestrators()?;
        let node = find(&orchestrators, &self.node).await?;
        let ended: Option<Progress> = orchestrators
            .call(Method::DELETE, &path(&node.to_string()), &[], None)
            .await?;
        let Some(ended) = ended else {
            return print(&format!("{node} was not being drained; it takes rooms\n"));
        };
        let moved = rooms(ended.rooms.saturating_sub(ended.rooms_left));
        print(&format!(
            "{node} takes rooms again; {moved} moved away and stay there\n"
        ))
    }
}

fn path(node: &str) -> [&str; 3] {
    ["nodes", node, "drain"]
}

/// The node that an operator means.
async fn find(orchestrators: &Orchestrators, wanted: &str) -> anyhow::Result<NodeId> {
    let list = nodes::list(orchestrators).await?;
    named(&list.nodes, wanted)
}

fn named(nodes: &[NodeView], wanted: &str) -> anyhow::Result<NodeId> {
    let matching = |node: &&NodeView| node.node.to_string().starts_with(&wanted.to_ascii_lowercase());
    let found: Vec<&NodeView> = nodes.iter().filter(matching).collect();
    match found.as_slice() {
        [one] if one.state == NodeState::Lost => bail!("{} is lost; there is nothing to drain", one.node),
        [one] => Ok(one.node),
        [] => Err(Usage(format!("there is no node {wanted}; `signalbox nodes` lists them")).into()),
        several => {
            let ids: Vec<String> = several.iter().map(|node| node.node.to_string()).collect();
            Err(Usage(format!(
                "{wanted} is the beginning of several nodes' ids: {}",
                ids.join(", ")
            ))
            .into())
        }
    }
}

/// Shows how a drain gets on until it has ended.
async fn wait(orchestrators: &Orchestrators, node: NodeId) -> anyhow::Result<()> {
    let id = node.to_string();
    let is_terminal = std::io::stderr().is_terminal();
    let mut shown = String::new();
    let mut away = Duration::ZERO;
    loop {
        let progress: Progress = match orchestrators.get(&path(&id), &[]).await {
            Ok(Some(progress)) => progress,
            Ok(None) => bail!("the orchestrators do not know of the drain (any more)"),
            // Whichever answers next goes on with it.
            Err(_) if away < PATIENCE => {
                away += LOOK;
                tokio::time::sleep(LOOK).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        away = Duration::ZERO;
        let line = line(&progress);
        if line != shown {
            let mut out = std::io::stderr().lock();
            let _ = if is_terminal {
                write!(out, "\r\x1b[K{line}").and_then(|()| out.flush())
            } else {
                writeln!(out, "{line}")
            };
            shown = line;
        }
        if progress.state != DrainState::Running {
            if is_terminal {
                eprintln!();
            }
            return ended(&progress);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn ended(progress: &Progress) -> anyhow::Result<()> {
    let left = rooms(progress.rooms_left);
    let node = progress.node;
    match progress.state {
        DrainState::Running => Ok(()),
        DrainState::Done => print(&format!("{node} is empty; stop it, or signalbox undrain {node}\n")),
        DrainState::Cancelled => bail!("the drain was cancelled with {left} left; {node} takes rooms again"),
        DrainState::Expired => {
            bail!("the deadline came with {left} left on {node}; drain it again, or signalbox undrain {node}")
        }
        DrainState::Lost => bail!("{node} was lost with {left} left; they are placed anew by whoever is in them"),
    }
}

/// Such as `[########        ] 12 of 50 rooms, 7.6s left`.
fn line(progress: &Progress) -> String {
    let moved = progress.rooms.saturating_sub(progress.rooms_left);
    let part = |whole: usize| match progress.rooms {
        0 => whole,
        all => usize::try_from(moved * whole as u64 / all).unwrap_or(whole),
    };
    let bar: String = (0..BAR)
        .map(|place| if place < part(BAR) { '#' } else { ' ' })
        .collect();
    let stuck = match progress.stuck {
        0 => String::new(),
        stuck => format!(", {stuck} that no other node takes"),
    };
    let eta = eta(progress);
    format!("[{bar}] {moved} of {}{eta}{stuck}", rooms(progress.rooms))
}

fn eta(progress: &Progress) -> String {
    // It takes longer than was thought: how long, nobody knows.
    let left = progress.eta_ms.filter(|ms| *ms > 0);
    left.map_or_else(String::new, |ms| format!(", {} left", short(Duration::from_millis(ms))))
}

fn rooms(count: u64) -> String {
    let word = if count == 1 { "room" } else { "rooms" };
    format!("{count} {word}")
}

#[cfg(test)]
mod tests {
    use signalbox_protocol::Epoch;

    use super::*;

    fn progress(rooms: u64, rooms_left: u64, stuck: u64) -> Progress {
        Progress {
            node: NodeId::random(),
            epoch: Epoch(1),
            state: DrainState::Running,
            rooms,
            rooms_left,
            stuck,
            rate: 5.0,
            eta_ms: Some(rooms_left * 200),
            deadline_ms: None,
            age_ms: 0,
            by: String::new(),
        }
    }

    #[test]
    fn the_bar_is_as_long_as_what_was_moved() {
        for (rooms, left, filled) in [(50, 50, 0), (50, 25, BAR / 2), (50, 0, BAR), (0, 0, BAR)] {
            let line = line(&progress(rooms, left, 0));
            assert_eq!(line.matches('#').count(), filled, "{line}");
        }
        let told = line(&progress(50, 38, 2));
        assert!(
            told.ends_with("12 of 50 rooms, 7.6s left, 2 that no other node takes"),
            "{told}"
        );
    }

    #[test]
    fn the_time_until_the_last_rooms_have_left_is_told_as_well() {
        let leaving = |eta_ms| Progress {
            eta_ms,
            ..progress(50, 0, 0)
        };
        let told = line(&leaving(Some(2_100)));
        assert!(told.ends_with("50 of 50 rooms, 2.1s left"), "{told}");
        for unknown in [Some(0), None] {
            let told = line(&leaving(unknown));
            assert!(told.ends_with("50 of 50 rooms"), "{told}");
        }
    }

    #[test]
    fn only_a_node_that_is_empty_is_a_success() {
        for (state, is_success) in [
            (DrainState::Done, true),
            (DrainState::Cancelled, false),
            (DrainState::Expired, false),
            (DrainState::Lost, false),
        ] {
            let progress = Progress {
                state,
                ..progress(3, 1, 0)
            };
            assert_eq!(ended(&progress).is_ok(), is_success);
        }
    }
}
