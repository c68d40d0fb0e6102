//! `signalbox rooms why ROOM`: what the orchestrators wrote down when they placed it.

use std::fmt::Write;
use std::time::SystemTime;

use anyhow::anyhow;
use clap::Args;
use signalbox_protocol::RoomName;
use signalbox_protocol::history::{Considered, Drained, Filter, HistoryEntry, Reasons, RoomEvent, RoomPlacement};
use signalbox_protocol::node::Asker;
use signalbox_protocol::placement::{RoomState, Track};

use crate::orchestrators::Orchestrators;
use crate::stdout::print;
use crate::table::{Align, or_dash, render};
use crate::when::{short, since, utc};

/// Tell why a room is where it is.
///
/// For each time that it was placed: when, by which orchestrator, by which policy, and the nodes that could have had it with their scores (the
/// share of a node's capacity that is, or soon will be, in use) or the reason for which they could not. Newest first; kept for a bounded time.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    signalbox rooms why daily\n  \
    signalbox rooms why 'room with spaces' --json | jq '.history[0].reasons.candidates'")]
pub struct Why {
    /// The room.
    room: RoomName,
}

impl Why {
    /// Prints it.
    pub async fn run(self, orchestrators: &Orchestrators, json: bool) -> anyhow::Result<()> {
        let room = self.room;
        let found: Option<RoomPlacement> = orchestrators.get(&["rooms", room.as_str(), "placement"], &[]).await?;
        let placement = found.ok_or_else(|| {
            anyhow!(
                "the room `{room}` was never placed, or that was longer ago than the history is kept; \
                 `signalbox rooms` lists those that are known"
            )
        })?;
        if json {
            return print(&format!("{}\n", serde_json::to_string_pretty(&placement)?));
        }
        print(&told(&placement, SystemTime::now()))
    }
}

fn told(placement: &RoomPlacement, now: SystemTime) -> String {
    let room = &placement.now;
    let is = match room.state {
        RoomState::Open => "is open on",
        RoomState::Closed => "is closed; it was last on",
        RoomState::Orphaned => "is orphaned, since its node is gone; the next join places it anew. It was last on",
    };
    let mut text = format!("The room `{}` {is}\n", room.room);
    // Writing to a `String` cannot fail.
    let _ = writeln!(
        text,
        "node {}, epoch {}, generation {}, since {}.",
        room.node,
        room.epoch,
        room.generation,
        when(room.placed_at_ms, now)
    );
    if let Some(group) = &room.group {
        let _ = writeln!(text, "It is of the group `{group}`.");
    }
    if placement.history.is_empty() {
        text.push_str("\nWhat happened to it was longer ago than the history is kept.\n");
    }
    for entry in &placement.history {
        text.push('\n');
        text.push_str(&event(entry, now));
    }
    text
}

fn when(at_ms: u64, now: SystemTime) -> String {
    format!("{} ({} ago)", utc(at_ms), short(since(at_ms, now)))
}

fn event(entry: &HistoryEntry, now: SystemTime) -> String {
    let drained = entry.reasons.as_ref().and_then(|reasons| reasons.drained);
    let what = match entry.event {
        RoomEvent::HandedOff if drained.is_some() => "handed over, because its node was drained,",
        RoomEvent::Placed => "placed",
        RoomEvent::TakenOver => "placed anew, because its node's epoch was over,",
        RoomEvent::HandedOff => "moved from a live node",
        RoomEvent::Closed => "closed",
        RoomEvent::Restored => "entered as its node told it, because the map had lost it,",
    };
    let mut text = format!(
        "{}: {what} by {}\n  on node {}, epoch {}, generation {}\n",
        when(entry.at_ms, now),
        entry.by,
        entry.node,
        entry.epoch,
        entry.generation
    );
    if let Some(drained) = drained {
        text.push_str(&drain(&drained, now));
    }
    if let Some(reasons) = &entry.reasons {
        text.push_str(&choice(reasons, entry));
    }
    text
}

fn drain(drained: &Drained, now: SystemTime) -> String {
    let asked = match drained.asked_by {
        Asker::Operator => "as an operator asked",
        Asker::Node => "as the node itself asked, which was told to end",
    };
    format!(
        "  node {} was drained from {} on, {asked}\n",
        drained.node,
        when(drained.began_at_ms, now)
    )
}

fn choice(reasons: &Reasons, entry: &HistoryEntry) -> String {
    let mut text = String::from("  ");
    if let Some(rule) = &reasons.rule {
        let _ = write!(text, "rule {rule}; ");
    }
    let _ = write!(text, "policy {}", reasons.policy);
    match (&reasons.region, &reasons.spilled_to) {
        (Some(asked), Some(spilled)) => {
            let _ = write!(
                text,
                "; region {}, spilled over to {}",
                or_dash(asked),
                or_dash(spilled)
            );
        }
        (Some(asked), None) => {
            let _ = write!(text, "; region {}", or_dash(asked));
        }
        (None, Some(spilled)) => {
            let _ = write!(text, "; spilled over to region {}", or_dash(spilled));
        }
        (None, None) => {}
    }
    let track = match reasons.track {
        Track::Stable => "stable",
        Track::Canary => "canary",
    };
    let _ = write!(text, "; track {track}");
    if reasons.track_fallback {
        text.push_str(", of which no node could take it, so that any track would do");
    }
    text.push('\n');
    if reasons.panic {
        text.push_str("  more than half of the nodes were ejected, so that ejection was ignored\n");
    }
    let columns = [
        ("NODE", Align::Left),
        ("REGION", Align::Left),
        ("SCORE", Align::Right),
        ("", Align::Left),
    ];
    let row = |candidate: &Considered| {
        let verdict = match candidate.filtered {
            _ if candidate.node == entry.node => "chosen",
            Some(filter) => because(filter),
            None => "",
        };
        [
            candidate.node.to_string(),
            or_dash(&candidate.region),
            format!("{:.3}", candidate.score),
            verdict.to_owned(),
        ]
    };
    for line in render(columns, reasons.candidates.iter().map(row)).lines() {
        let _ = writeln!(text, "    {line}");
    }
    if reasons.omitted > 0 {
        let _ = writeln!(text, "    and {} more", reasons.omitted);
    }
    text
}

fn because(filter: Filter) -> &'static str {
    match filter {
        Filter::State => "no: draining or lost",
        Filter::Lease => "no: its lease was about to run out",
        Filter::Ejected => "no: joins on it had failed",
        Filter::Version => "no: its software is too old",
        Filter::Labels => "no: it lacks a label",
        Filter::Track => "no: of the other track",
        Filter::Capacity => "no: full",
        Filter::AntiAffinity => "no: it hosts a room that this one avoids, or that avoids this one",
        Filter::Region => "no: outside of the preferred region",
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use signalbox_protocol::placement::{Policy, RoomView};
    use signalbox_protocol::{Epoch, Generation, NodeId};

    use super::*;

    fn node(n: u8) -> NodeId {
        format!("00000000-0000-0000-0000-0000000000{n:02}").parse().unwrap()
    }

    fn placement() -> RoomPlacement {
        let considered = |n, score, filtered| Considered {
            node: node(n),
            region: "eu".into(),
            score,
            filtered,
        };
        let reasons = Reasons {
            policy: Policy::TwoChoices,
            rule: Some("german".into()),
            region: Some("us".into()),
            spilled_to: Some("eu".into()),
            track: Track::Canary,
            track_fallback: true,
            panic: true,
            candidates: vec![
                considered(2, 0.125, None),
                considered(1, 0.5, None),
                considered(3, 0.0, Some(Filter::State)),
            ],
            omitted: 7,
            drained: None,
        };
        let entry = |event, at_ms, generation, n, reasons| HistoryEntry {
            event,
            at_ms,
            generation: Generation(generation),
            node: node(n),
            epoch: Epoch(u64::from(n)),
            by: "orchestrator-a".into(),
            reasons,
        };
        RoomPlacement {
            now: RoomView {
                room: "daily".parse().unwrap(),
                node: node(2),
                epoch: Epoch(2),
                generation: Generation(2),
                state: RoomState::Open,
                group: Some("team".into()),
                placed_at_ms: 60_000,
            },
            history: vec![
                entry(RoomEvent::TakenOver, 60_000, 2, 2, Some(reasons)),
                entry(RoomEvent::Placed, 1_000, 1, 1, None),
            ],
        }
    }

    #[test]
    fn everything_that_was_written_down_is_told() {
        let text = told(&placement(), UNIX_EPOCH + Duration::from_secs(72));
        let expected = "\
The room `daily` is open on
node 00000000-0000-0000-0000-000000000002, epoch 2, generation 2, since 1970-01-01 00:01:00 UTC (12s ago).
It is of the group `team`.

1970-01-01 00:01:00 UTC (12s ago): placed anew, because its node's epoch was over, by orchestrator-a
  on node 00000000-0000-0000-0000-000000000002, epoch 2, generation 2
  rule german; policy two-choices; region us, spilled over to eu; track canary, of which no node could take it, so that any track would do
  more than half of the nodes were ejected, so that ejection was ignored
    NODE                                  REGION  SCORE
    00000000-0000-0000-0000-000000000002  eu      0.125  chosen
    00000000-0000-0000-0000-000000000001  eu      0.500
    00000000-0000-0000-0000-000000000003  eu      0.000  no: draining or lost
    and 7 more

1970-01-01 00:00:01 UTC (71s ago): placed by orchestrator-a
  on node 00000000-0000-0000-0000-000000000001, epoch 1, generation 1
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_room_that_was_handed_over_by_a_drain_says_whose_wish_that_was() {
        for (asked_by, says) in [
            (Asker::Operator, "as an operator asked\n"),
            (Asker::Node, "as the node itself asked, which was told to end\n"),
        ] {
            let mut placement = placement();
            let entry = &mut placement.history[0];
            entry.event = RoomEvent::HandedOff;
            let reasons = entry.reasons.as_mut().unwrap();
            reasons.drained = Some(Drained {
                node: node(1),
                asked_by,
                began_at_ms: 50_000,
            });
            let text = told(&placement, UNIX_EPOCH + Duration::from_secs(72));
            let expected = "\
1970-01-01 00:01:00 UTC (12s ago): handed over, because its node was drained, by orchestrator-a
  on node 00000000-0000-0000-0000-000000000002, epoch 2, generation 2
  node 00000000-0000-0000-0000-000000000001 was drained from 1970-01-01 00:00:50 UTC (22s ago) on, ";
            assert!(text.contains(&format!("{expected}{says}")), "{text}");
        }
    }

    #[test]
    fn a_room_without_a_node_or_without_a_history_says_so() {
        let mut placement = placement();
        placement.history.clear();
        placement.now.state = RoomState::Orphaned;
        let text = told(&placement, UNIX_EPOCH);
        assert!(
            text.contains("its node is gone") && text.contains("longer ago"),
            "{text}"
        );
    }
}
