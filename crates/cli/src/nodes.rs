//! `signalbox nodes`: what the orchestrators know of the media nodes.

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use signalbox_protocol::node::{NodeList, NodeState, NodeView};
use signalbox_protocol::placement::Track;

use crate::orchestrators::{Cluster, Orchestrators};
use crate::stdout::print;
use crate::table::{Align, or_dash, render};
use crate::when::short;

/// List the media nodes.
///
/// A node is `serving`, `draining` (it takes no new rooms), `ejected` (it takes none for a while, because joins on it failed), `silent` (its
/// lease has run out, but nobody has taken its rooms away), or `lost`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    SIGNALBOX_CLUSTER_SECRET=… signalbox nodes --orchestrator http://10.0.0.5:7890,http://10.0.0.6:7890\n  \
    signalbox nodes --json | jq '.nodes[] | select(.state == \"lost\") | .node'")]
pub struct Nodes {
    #[command(flatten)]
    cluster: Cluster,
    /// Print the orchestrator's JSON.
    #[arg(long)]
    json: bool,
}

impl Nodes {
    /// Prints a table, one line for each node.
    pub async fn run(self) -> anyhow::Result<()> {
        let list = list(&self.cluster.orchestrators()?).await?;
        if self.json {
            return print(&format!("{}\n", serde_json::to_string_pretty(&list)?));
        }
        print(&table(&list.nodes))
    }
}

/// Asks for all nodes.
pub async fn list(orchestrators: &Orchestrators) -> anyhow::Result<NodeList> {
    let list = orchestrators.get(&["nodes"], &[]).await?;
    list.context("the orchestrator has no list of nodes; is it of this version?")
}

fn table(nodes: &[NodeView]) -> String {
    use Align::{Left, Right};
    let columns = [
        ("NODE", Left),
        ("STATE", Left),
        ("REGION", Left),
        ("TRACK", Left),
        ("VERSION", Left),
        ("ROOMS", Right),
        ("PARTICIPANTS", Right),
        ("PACKETS/S", Right),
        ("CPU", Right),
        ("LEASE", Right),
        ("MEDIA", Left),
    ];
    render(columns, nodes.iter().map(row))
}

fn row(node: &NodeView) -> [String; 11] {
    let track = match node.track {
        Track::Stable => "stable",
        Track::Canary => "canary",
    };
    let media: Vec<String> = node.media.iter().map(ToString::to_string).collect();
    [
        node.node.to_string(),
        state(node).to_owned(),
        or_dash(&node.region),
        track.to_owned(),
        or_dash(&node.version),
        node.load.rooms.to_string(),
        format!("{}/{}", node.load.participants, node.capacity),
        node.load.packets_per_second.to_string(),
        format!("{}%", node.load.cpu_percent),
        short(Duration::from_millis(node.lease_age_ms)),
        or_dash(&media.join(",")),
    ]
}

/// In one word, the gravest.
fn state(node: &NodeView) -> &'static str {
    match (node.state, node.live) {
        (NodeState::Lost, _) => "lost",
        (_, false) => "silent",
        (NodeState::Draining, true) => "draining",
        (NodeState::Serving, true) if node.ejected_ms > 0 => "ejected",
        (NodeState::Serving, true) => "serving",
    }
}

#[cfg(test)]
mod tests {
    use signalbox_protocol::node::NodeLoad;
    use signalbox_protocol::{Epoch, NodeId};

    use super::*;

    fn node() -> NodeView {
        NodeView {
            node: NodeId::random(),
            epoch: Epoch(1),
            state: NodeState::Serving,
            live: true,
            control: String::new(),
            media: vec!["10.0.0.1:50000".parse().unwrap()],
            region: String::new(),
            zone: String::new(),
            labels: Default::default(),
            track: Track::Canary,
            capacity: 100,
            load: NodeLoad {
                rooms: 2,
                participants: 7,
                packets_per_second: 9,
                cpu_percent: 130,
            },
            version: "0.1.0".to_owned(),
            lease_age_ms: 400,
            ejected_ms: 0,
        }
    }

    #[test]
    fn a_node_is_one_line() {
        let text = table(&[node()]);
        assert_eq!(text.lines().count(), 2);
        for cell in ["serving", "canary", "7/100", "130%", "0.4s", "10.0.0.1:50000"] {
            assert!(text.contains(cell), "{text}");
        }
    }

    #[test]
    fn the_gravest_state_is_told() {
        let with = |change: fn(&mut NodeView)| {
            let mut node = node();
            change(&mut node);
            state(&node)
        };
        assert_eq!(with(|_| ()), "serving");
        assert_eq!(with(|node| node.ejected_ms = 1), "ejected");
        assert_eq!(with(|node| node.state = NodeState::Draining), "draining");
        assert_eq!(with(|node| node.live = false), "silent");
        assert_eq!(
            with(|node| {
                node.state = NodeState::Lost;
                node.live = false;
            }),
            "lost"
        );
    }
}
