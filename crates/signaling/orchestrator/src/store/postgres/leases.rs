//! Leases: renewed in batches, ended under the brake; and ejection.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use signalbox_protocol::node::NodeLoad;
use signalbox_protocol::{Epoch, NodeId};
use sqlx::Row;
use sqlx::types::{Json, Uuid};

use super::batch::Job;
use super::connections::Connections;
use super::rows::{count, unsigned};
use super::sql::nodes as sql;
use crate::Error;
use crate::brake::{Brake, Fleet};
use crate::store::{Fenced, Renewal};

/// Renewals, in batches.
#[derive(Debug)]
pub struct Renewals(pub Arc<Connections>);

/// One of [`Renewals`].
#[derive(Debug)]
pub struct Renew {
    pub node: NodeId,
    pub epoch: i64,
    pub beat: i64,
    pub load: NodeLoad,
    pub lease: Duration,
}

impl Job for Renewals {
    type Request = Renew;
    type Answer = Renewal;
    type Key = NodeId;

    const NAME: &'static str = "heartbeats";
    const AT_ONCE: usize = 1;
    const MOST: usize = 500;
    const QUEUE: usize = 16_384;

    fn key(renew: &Renew) -> &NodeId {
        &renew.node
    }

    async fn run(&self, renewals: &[Renew]) -> Result<Vec<Renewal>, Error> {
        let nodes: Vec<Uuid> = renewals.iter().map(|renew| renew.node.0).collect();
        let epochs: Vec<i64> = renewals.iter().map(|renew| renew.epoch).collect();
        let beats: Vec<i64> = renewals.iter().map(|renew| renew.beat).collect();
        let loads: Vec<Json<NodeLoad>> = renewals.iter().map(|renew| Json(renew.load)).collect();
        let leases: Vec<f64> = renewals.iter().map(|renew| renew.lease.as_secs_f64()).collect();
        let query = sqlx::query(sql::RENEW);
        let query = query.bind(&nodes).bind(&epochs).bind(beats).bind(loads).bind(leases);
        let answer = self.0.repeatable(query).await?;

        let mut outcomes = vec![Renewal::Over; renewals.len()];
        for row in &answer.rows {
            let Ok(index) = nodes.binary_search(&row.try_get("node_id")?) else {
                continue;
            };
            // What was carried out twice finds its own beat there the second time.
            let own = answer.repeated && row.try_get("same")?;
            outcomes[index] = if row.try_get("over")? {
                Renewal::Over
            } else if row.try_get("past")? && !own {
                Renewal::Past
            } else {
                Renewal::Renewed
            };
            if outcomes[index] == Renewal::Renewed && row.try_get("adopted")? {
                self.0.rows(sqlx::query(sql::CATCH_UP).bind(epochs[index])).await?;
            }
        }
        Ok(outcomes)
    }

    fn shared(_: &Renew, _: &Renewal, _: &Renew) -> Option<Renewal> {
        None
    }
}

/// Ends the epochs of those that are overdue, as many as the brake permits.
pub async fn fence_expired(
    connections: &Connections,
    brake: &Brake,
    spared: &BTreeSet<NodeId>,
) -> Result<Fenced, Error> {
    let spared: Vec<Uuid> = spared.iter().map(|node| node.0).collect();
    connections
        .transaction(async |connection| {
            // The brake counts what others have fenced, so only one may count and fence at a time. Whoever does not get
            // the turn leaves the work to the one who has it.
            let turn = sqlx::query(sql::TURN_TO_FENCE).fetch_one(&mut *connection).await?;
            if !turn.try_get::<bool, _>("mine")? {
                return Ok(Fenced::default());
            }
            // Each statement of the transaction sees what was committed before it began, so this one sees what the last
            // turn did.
            let fleet = sqlx::query(sql::FLEET).bind(brake.lease.as_secs_f64());
            let fleet = fleet.fetch_one(&mut *connection).await?;
            let permitted = brake.permits(Fleet {
                nodes: count(&fleet, "nodes")?,
                overdue: count(&fleet, "overdue")?,
                fenced: count(&fleet, "fenced")?,
            });
            let due = sqlx::query(sql::DUE)
                .bind(brake.grace.as_secs_f64())
                .bind(brake.lease.as_secs_f64())
                .bind(spared)
                .fetch_all(&mut *connection)
                .await?;
            let held = due.len().saturating_sub(permitted);
            let mut nodes = Vec::<Uuid>::new();
            let mut epochs = Vec::<i64>::new();
            for row in due.iter().take(permitted) {
                nodes.push(row.try_get("node_id")?);
                epochs.push(row.try_get("epoch")?);
            }
            let mut fenced = Fenced {
                nodes: Vec::new(),
                held,
            };
            if nodes.is_empty() {
                return Ok(fenced);
            }
            let done = sqlx::query(sql::FENCE)
                .bind(nodes)
                .bind(epochs)
                .bind(brake.grace.as_secs_f64())
                .fetch_all(connection)
                .await?;
            for row in &done {
                fenced
                    .nodes
                    .push((NodeId(row.try_get("node_id")?), Epoch(unsigned(row, "epoch")?)));
            }
            Ok(fenced)
        })
        .await
}

/// Ejects the node, or finds that it is ejected.
pub async fn eject(
    connections: &Connections,
    node: NodeId,
    epoch: i64,
    base: Duration,
    share: f64,
) -> Result<bool, Error> {
    connections
        .transaction(async |connection| {
            sqlx::query(sql::LOCK_EJECTION).execute(&mut *connection).await?;
            sqlx::query(sql::EJECT)
                .bind(node.0)
                .bind(epoch)
                .bind(base.as_secs_f64())
                .bind(share)
                .execute(&mut *connection)
                .await?;
            let ejected = sqlx::query(sql::EJECTED).bind(node.0).bind(epoch);
            Ok(ejected.fetch_optional(connection).await?.is_some())
        })
        .await
}
