//! Rates the connections of everyone in a room, and tells of those that changed.

use std::time::Instant;

use signalbox_protocol::control::Event;
use signalbox_protocol::room::ParticipantQuality;

use super::{Report, rate};
use crate::room::{Context, Room};

impl Room {
    /// Rates everyone's connection, and tells of those that changed.
    pub fn rate_qualities(&mut self, cx: &mut Context, now: Instant) {
        let (mut changed, mut hidden) = (Vec::new(), Vec::new());
        for participant in self.participants.values_mut() {
            let entries = || participant.connections().filter_map(|key| cx.connections.get(key));
            // Nobody but a peer connection has to be heard when it publishes nothing.
            let is_silent_by_right = entries().all(|entry| entry.transport.peer().is_none())
                && !self.tracks.values().any(|track| track.publisher == participant.info.id);
            if is_silent_by_right {
                continue;
            }
            // Before the first packet there is nothing to be said.
            let Some(heard) = entries().filter_map(|entry| entry.last_heard).max() else {
                continue;
            };
            let report = entries()
                .map(|entry| entry.transport.report())
                .fold(Report::default(), Report::worse);
            let silent = now.saturating_duration_since(heard);
            let shortfall = participant.receiver.shortfall(now);
            let quality = rate(report, silent, shortfall, participant.quality);
            if participant.quality.replace(quality) != Some(quality) {
                let told = ParticipantQuality {
                    participant: participant.info.id.clone(),
                    quality,
                };
                if participant.grants().hidden {
                    hidden.push(told);
                } else {
                    changed.push(told);
                }
            }
        }
        if !changed.is_empty() {
            self.tell(cx, Event::Quality { participants: changed }, |_| true);
        }
        for told in hidden {
            let id = told.participant.clone();
            let participants = vec![told];
            self.tell(cx, Event::Quality { participants }, |told| *told == id);
        }
    }
}
