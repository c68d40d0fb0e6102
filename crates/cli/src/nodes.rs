//! `signalbox nodes`: what the orchestrator knows of the media nodes.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use signalbox_protocol::Secret;
use signalbox_protocol::placement::{NodeList, NodeState, NodeView};
use signalbox_protocol::problem::Problem;

use crate::token::parse_secret;

/// How long to wait for the orchestrator.
const PATIENCE: Duration = Duration::from_secs(10);

/// List the media nodes.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    SIGNALBOX_CLUSTER_SECRET=… signalbox nodes --orchestrator http://10.0.0.5:7890")]
pub struct Nodes {
    /// The orchestrator's URL.
    #[arg(
        long,
        value_name = "URL",
        env = "SIGNALBOX_ORCHESTRATOR",
        default_value = "http://127.0.0.1:7890"
    )]
    orchestrator: String,
    /// The secret that the cluster's processes share. Prefer the environment variable: the process list is public.
    #[arg(long, env = "SIGNALBOX_CLUSTER_SECRET", hide_env_values = true)]
    cluster_secret: String,
}

impl Nodes {
    /// Prints a table, one line for each node.
    pub async fn run(self) -> anyhow::Result<()> {
        let list = list(
            &self.orchestrator,
            &parse_secret("--cluster-secret", &self.cluster_secret)?,
        )
        .await?;
        print!("{}", table(&list.nodes));
        Ok(())
    }
}

/// Asks an orchestrator for its nodes.
pub async fn list(orchestrator: &str, secret: &Secret) -> anyhow::Result<NodeList> {
    let url = format!("{}/v1/nodes", orchestrator.trim_end_matches('/'));
    let response = reqwest::Client::new()
        .get(&url)
        .bearer_auth(secret.expose())
        .timeout(PATIENCE)
        .send()
        .await
        .with_context(|| format!("the orchestrator at {orchestrator} does not answer"))?;
    let status = response.status();
    if !status.is_success() {
        let detail = response.json::<Problem>().await.map(|problem| problem.detail);
        bail!("the orchestrator answered {status}: {}", detail.unwrap_or_default());
    }
    response
        .json()
        .await
        .with_context(|| format!("what {orchestrator} answered is not a list of nodes"))
}

fn table(nodes: &[NodeView]) -> String {
    let mut rows = vec![
        [
            "NODE",
            "STATE",
            "REGION",
            "ROOMS",
            "PARTICIPANTS",
            "PACKETS/S",
            "MEDIA",
            "VERSION",
        ]
        .map(str::to_owned),
    ];
    rows.extend(nodes.iter().map(row));
    let mut widths = [0; 8];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let line: Vec<String> = widths
            .iter()
            .zip(row)
            .map(|(width, cell)| format!("{cell:width$}"))
            .collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn row(node: &NodeView) -> [String; 8] {
    let state = match (node.state, node.live) {
        (NodeState::Lost, _) => "lost",
        (_, false) => "silent",
        (NodeState::Serving, true) => "serving",
        (NodeState::Draining, true) => "draining",
    };
    let media: Vec<String> = node.media.iter().map(ToString::to_string).collect();
    [
        node.node.to_string(),
        state.to_owned(),
        if node.region.is_empty() {
            "-".to_owned()
        } else {
            node.region.clone()
        },
        node.load.rooms.to_string(),
        format!("{}/{}", node.load.participants, node.capacity),
        node.load.packets_per_second.to_string(),
        media.join(","),
        node.version.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use signalbox_protocol::placement::NodeLoad;
    use signalbox_protocol::{Epoch, NodeId};

    use super::*;

    #[test]
    fn a_node_is_one_line() {
        let node = NodeView {
            node: NodeId::random(),
            epoch: Epoch(1),
            state: NodeState::Serving,
            live: true,
            control: String::new(),
            media: vec!["10.0.0.1:50000".parse().unwrap()],
            region: String::new(),
            capacity: 100,
            load: NodeLoad {
                rooms: 2,
                participants: 7,
                packets_per_second: 9,
            },
            version: "0.1.0".to_owned(),
        };
        let text = table(std::slice::from_ref(&node));
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains("serving") && text.contains("7/100") && text.contains("10.0.0.1:50000"));
        assert!(row(&NodeView { live: false, ..node }).contains(&"silent".to_owned()));
    }
}
