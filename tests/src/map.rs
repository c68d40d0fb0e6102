//! What an orchestrator answers about rooms and nodes.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use reqwest::{Response, StatusCode};
use signalbox_protocol::history::RoomPlacement;
use signalbox_protocol::node::{NodeList, NodeView};
use signalbox_protocol::placement::{PlaceRoom, Placement, RoomList, RoomView};
use signalbox_protocol::{Epoch, Generation, NodeId, RoomName};

use crate::eventually;

/// Asks one orchestrator.
#[derive(Debug, Clone)]
pub struct Map {
    http: reqwest::Client,
    orchestrator: String,
    secret: String,
}

/// Why a placement was not given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotPlaced {
    /// 503, and after how many seconds to try again.
    Later(u64),
    /// Anything else.
    Failed(String),
}

/// Where a room is, without what changes from answer to answer.
pub type Place = (NodeId, Epoch, Generation);

/// The place of a placement.
pub fn place(placement: &Placement) -> Place {
    (placement.node, placement.epoch, placement.generation)
}

impl Map {
    /// For an orchestrator at `http://…`.
    pub fn new(orchestrator: &str, secret: &str) -> Self {
        Self {
            http: reqwest::Client::new(),
            orchestrator: orchestrator.to_owned(),
            secret: secret.to_owned(),
        }
    }

    async fn get(&self, path: &str) -> anyhow::Result<Response> {
        let request = self
            .http
            .get(format!("{}{path}", self.orchestrator))
            .bearer_auth(&self.secret);
        Ok(request.send().await?)
    }

    /// Places a room, or finds it placed.
    ///
    /// # Errors
    /// When it is not placed.
    pub async fn place(&self, room: &RoomName) -> Result<Placement, NotPlaced> {
        self.place_as(&PlaceRoom::new(room.clone())).await
    }

    /// The same, with more wishes than the room's name.
    ///
    /// # Errors
    /// When it is not placed.
    pub async fn place_as(&self, wish: &PlaceRoom) -> Result<Placement, NotPlaced> {
        let request = self
            .http
            .post(format!("{}/v1/placements", self.orchestrator))
            .bearer_auth(&self.secret);
        let failed = |error: reqwest::Error| NotPlaced::Failed(format!("{:#}", anyhow::Error::new(error)));
        let response = request.json(wish).send().await.map_err(failed)?;
        match response.status() {
            StatusCode::OK => response.json().await.map_err(failed),
            StatusCode::SERVICE_UNAVAILABLE => {
                let after = response
                    .headers()
                    .get("retry-after")
                    .and_then(|after| after.to_str().ok()?.parse().ok());
                Err(after.map_or(
                    NotPlaced::Failed("503 without Retry-After".to_owned()),
                    NotPlaced::Later,
                ))
            }
            status => Err(NotPlaced::Failed(format!(
                "{status}: {}",
                response.text().await.unwrap_or_default()
            ))),
        }
    }

    /// All nodes.
    ///
    /// # Errors
    /// When the orchestrator does not answer.
    pub async fn nodes(&self) -> anyhow::Result<Vec<NodeView>> {
        let list: NodeList = self.get("/v1/nodes").await?.error_for_status()?.json().await?;
        Ok(list.nodes)
    }

    /// One node.
    ///
    /// # Errors
    /// When the orchestrator does not answer, or does not know it.
    pub async fn node(&self, id: NodeId) -> anyhow::Result<NodeView> {
        let nodes = self.nodes().await?;
        nodes
            .into_iter()
            .find(|node| node.node == id)
            .context("an unknown node")
    }

    /// The epochs of all nodes.
    ///
    /// # Errors
    /// When the orchestrator does not answer.
    pub async fn epochs(&self) -> anyhow::Result<BTreeMap<NodeId, Epoch>> {
        let nodes = self.nodes().await?;
        Ok(nodes.into_iter().map(|node| (node.node, node.epoch)).collect())
    }

    /// Waits until so many nodes are live.
    ///
    /// # Panics
    /// When that takes longer than [`crate::PATIENCE`].
    pub async fn until_nodes(&self, wanted: usize) {
        eventually(&format!("{wanted} live nodes"), async || {
            let nodes = self.nodes().await.ok()?;
            (nodes.iter().filter(|node| node.live).count() >= wanted).then_some(())
        })
        .await;
    }

    /// All rooms, from as many pages as there are.
    ///
    /// # Errors
    /// When the orchestrator does not answer.
    pub async fn rooms(&self) -> anyhow::Result<Vec<RoomView>> {
        let mut rooms = Vec::new();
        let mut query = String::new();
        loop {
            let page: RoomList = self
                .get(&format!("/v1/rooms{query}"))
                .await?
                .error_for_status()?
                .json()
                .await?;
            rooms.extend(page.rooms);
            match page.next {
                // The names here need no escaping.
                Some(next) => query = format!("?after={next}"),
                None => return Ok(rooms),
            }
        }
    }

    /// Where a room is, and why.
    ///
    /// # Errors
    /// When the orchestrator does not answer, or has never placed the room.
    pub async fn why(&self, room: &RoomName) -> anyhow::Result<RoomPlacement> {
        let response = self.get(&format!("/v1/rooms/{room}/placement")).await?;
        if !response.status().is_success() {
            bail!("{}: {}", response.status(), response.text().await.unwrap_or_default());
        }
        Ok(response.json().await?)
    }
}
