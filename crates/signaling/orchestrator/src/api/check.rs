//! What a request may say. The limits are those of [`signalbox_protocol::placement`].

use std::collections::BTreeMap;

use signalbox_protocol::canary::{MAX_REPORTED, MAX_REPORTED_NODES, ReportOutcomes, SetCanary};
use signalbox_protocol::node::RegisterNode;
use signalbox_protocol::placement::{MAX_GROUPS, MAX_LABELS, MAX_TEXT_BYTES, PlaceRoom};

use super::failure::{Failure, Kind};
use crate::public_address::why_not_public;

/// The most media addresses of a registration: one for each shard.
const MAX_MEDIA: usize = 256;

/// The most numbers of a version.
const MAX_VERSION_NUMBERS: usize = 4;

/// Refuses a placement that cannot be right.
pub fn placement(request: &PlaceRoom) -> Result<(), Failure> {
    labels(&request.labels)?;
    if request.avoid.len() > MAX_GROUPS {
        return Err(Failure::bad_request(format!(
            "`avoid` names {} groups; at most {MAX_GROUPS} can be avoided.",
            request.avoid.len()
        )));
    }
    let optional = [
        ("region", &request.region),
        ("user", &request.user),
        ("min_version", &request.min_version),
        ("group", &request.group),
    ];
    for (field, value) in optional {
        if let Some(value) = value {
            text(field, value)?;
        }
    }
    for group in &request.avoid {
        text("avoid", group)?;
    }
    if request.group.iter().chain(&request.avoid).any(String::is_empty) {
        return Err(Failure::bad_request(
            "A group must have a name: leave `group` out, or name it.",
        ));
    }
    match &request.min_version {
        Some(version) if !is_version(version) => Err(Failure::bad_request(
            "`min_version` must be one to four numbers with dots between them, such as 1.4 or 1.4.2.",
        )),
        _ => Ok(()),
    }
}

/// Refuses a canary share that cannot be right.
pub fn canary(wanted: &SetCanary) -> Result<(), Failure> {
    if !(0.0..=1.0).contains(&wanted.share) {
        return Err(Failure::bad_request(
            "`share` is a share of the users: a number from 0 to 1, such as 0.1 for every tenth.",
        ));
    }
    text("why", &wanted.why)
}

/// Refuses outcomes that cannot be right.
pub fn outcomes(report: &ReportOutcomes) -> Result<(), Failure> {
    if report.nodes.len() > MAX_REPORTED_NODES {
        return Err(Failure::bad_request(format!(
            "`nodes` names {} nodes; at most {MAX_REPORTED_NODES} are possible.",
            report.nodes.len()
        )));
    }
    if report
        .nodes
        .iter()
        .any(|node| node.joins.ok.max(node.joins.failed) > MAX_REPORTED)
    {
        return Err(Failure::bad_request(format!(
            "`joins` counts what came since the last report: at most {MAX_REPORTED} of each."
        )));
    }
    Ok(())
}

/// Refuses a registration that cannot be right. `public`: media addresses must be reachable from the internet.
pub fn registration(node: &RegisterNode, public: bool) -> Result<(), Failure> {
    // Nobody could connect to a `wss://` one: gateways and orchestrators speak no TLS to nodes.
    if !node.control.starts_with("ws://") {
        return Err(Failure::bad_request(
            "`control` must be a WebSocket URL without TLS, such as ws://10.0.0.7:7900; keep it on a private network.",
        ));
    }
    if node.media.is_empty() || node.media.len() > MAX_MEDIA {
        return Err(Failure::bad_request(format!(
            "`media` names {} addresses; it must name 1 to {MAX_MEDIA}.",
            node.media.len()
        )));
    }
    labels(&node.labels)?;
    let texts = [
        ("control", &node.control),
        ("region", &node.region),
        ("zone", &node.zone),
        ("version", &node.version),
    ];
    for (field, value) in texts {
        text(field, value)?;
    }
    if !public {
        return Ok(());
    }
    for address in &node.media {
        if let Some(why) = why_not_public(address.ip()) {
            return Err(Failure::new(
                Kind::PrivateMediaAddress,
                format!(
                    "The media address {address} is {why}, and this cluster takes only nodes that clients on the internet can \
                     reach: set the node's --media-ip to its public address, or start the orchestrators without \
                     --require-public-media."
                ),
            ));
        }
    }
    Ok(())
}

fn labels(labels: &BTreeMap<String, String>) -> Result<(), Failure> {
    if labels.len() > MAX_LABELS {
        return Err(Failure::bad_request(format!(
            "`labels` has {} pairs; at most {MAX_LABELS} are possible.",
            labels.len()
        )));
    }
    labels
        .iter()
        .flat_map(|(key, value)| [key, value])
        .try_for_each(|label| text("labels", label))
}

/// Control characters would garble operators' tables; NUL, the database refuses.
fn text(field: &str, text: &str) -> Result<(), Failure> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(Failure::bad_request(format!(
            "A text of `{field}` has {} bytes; at most {MAX_TEXT_BYTES} are possible.",
            text.len()
        )));
    }
    if text.chars().any(char::is_control) {
        return Err(Failure::bad_request(format!(
            "`{field}` holds a control character; use printable ones only."
        )));
    }
    Ok(())
}

fn is_version(version: &str) -> bool {
    version.split('.').count() <= MAX_VERSION_NUMBERS
        && version
            .split('.')
            .all(|number| number.bytes().all(|byte| byte.is_ascii_digit()) && number.parse::<u32>().is_ok())
}
