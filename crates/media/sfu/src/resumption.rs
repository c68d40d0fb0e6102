//! What takes a participant up again at another node, as its gateway is told it: with each snapshot in full, and then as it changes.

use std::time::{Duration, Instant};

use signalbox_protocol::control::{
    ChannelInfo, Event, KnownStream, Resumption, ResumptionChange, SaidTrack, Target, Wanted,
};
use signalbox_protocol::room::PublishTrack;
use signalbox_protocol::{ParticipantId, TrackId};

use crate::connection::SentStream;
use crate::connections::Connections;
use crate::packet::{Mid, Rid};
use crate::participant::Participant;
use crate::room::{Context, Room};
use crate::track::Track;

/// A client that was taken up from another node has reached this one, and after so long no handshake is done. Higher: a slow network has more
/// time. Lower: a client that does not begin one joins anew sooner.
const STALLED: Duration = Duration::from_millis(1_500);

impl Room {
    /// What the participant's next node has to know of it; none: it can be moved to no other.
    pub fn resumption(&self, id: &ParticipantId) -> Option<Resumption> {
        let participant = self.participants.get(id).filter(|found| !found.offers_once)?;
        let pending = participant.pending.iter().map(announced);
        let published = self.tracks.values().filter(|track| track.publisher == *id);
        Some(Resumption {
            transports: participant.transports,
            auto_subscribe: participant.auto_subscribe,
            never_pause: participant.never_pause,
            tracks: published.flat_map(said).chain(pending).collect(),
            wants: participant
                .wants
                .keys()
                .filter_map(|track| participant.wanted(track))
                .collect(),
            subscriber: participant.negotiation.agreed.as_deref().cloned(),
            channels: channels(participant),
        })
    }

    /// Tells a participant's gateway that a track of its, or a further encoding, was announced or published, by the id that it was announced
    /// under.
    pub fn tell_of_track(&self, cx: &mut Context, id: &ParticipantId, track: &TrackId) {
        let Some(participant) = self.participants.get(id) else {
            return;
        };
        let pending = participant.pending.iter().find(|(pending, _)| pending == track);
        let pending = pending.map(announced);
        let published = self.tracks.values().filter(|track| track.publisher == *id);
        let published = published.flat_map(said).find(|said| said.id == *track);
        if let Some(track) = published.or(pending) {
            tell(cx, participant, ResumptionChange::Track { track: Box::new(track) });
        }
    }

    /// Tells a participant's gateway that it has said something new about these tracks.
    pub fn tell_of_wants(&self, cx: &mut Context, id: &ParticipantId, tracks: &[TrackId]) {
        let Some(participant) = self.participants.get(id) else {
            return;
        };
        let wants: Vec<Wanted> = tracks.iter().filter_map(|track| participant.wanted(track)).collect();
        if !wants.is_empty() {
            tell(cx, participant, ResumptionChange::Wants { wants });
        }
    }

    /// Tells gateways which streams arrive of their participants' tracks, as far as that has changed, and which participants do not get on here.
    pub fn tend_moves(&mut self, cx: &mut Context, now: Instant) {
        let mut changed = Vec::new();
        for track in self.tracks.values_mut() {
            let known = streams(track, &mut cx.connections);
            if !known.is_empty() && known != track.told_streams {
                track.told_streams = known;
                changed.push(track.id().clone());
            }
        }
        for track in changed {
            let Some((track, publisher)) = self
                .tracks
                .get(&track)
                .and_then(|track| Some((track, self.participants.get(&track.publisher)?)))
            else {
                continue;
            };
            for said in said(track) {
                tell(cx, publisher, ResumptionChange::Track { track: Box::new(said) });
            }
        }
        for (id, participant) in &self.participants {
            if !participant.is_resumed || !participant.is_attached {
                continue;
            }
            for key in participant.connections() {
                let Some(entry) = cx.connections.polled(key) else {
                    continue;
                };
                let heard_for = entry.first_heard.map(|first| now.saturating_duration_since(first));
                if !entry.is_connected && !entry.is_stalled && heard_for.is_some_and(|heard| heard >= STALLED) {
                    entry.is_stalled = true;
                    let target = entry.target;
                    cx.tell_one(id, Event::MoveStalled { target });
                }
            }
        }
    }

    /// Tells a participant's gateway which of its data channels are open.
    pub fn tell_of_channels(&self, cx: &mut Context, id: &ParticipantId) {
        if let Some(participant) = self.participants.get(id) {
            let channels = channels(participant);
            tell(cx, participant, ResumptionChange::Channels { channels });
        }
    }
}

fn tell(cx: &mut Context, participant: &Participant, change: ResumptionChange) {
    if participant.is_attached && !participant.offers_once {
        cx.tell_one(&participant.info.id, Event::Resumable { change });
    }
}

/// What was said of a track that has no m-line yet.
fn announced((track, said): &(TrackId, PublishTrack)) -> SaidTrack {
    SaidTrack {
        id: track.clone(),
        said: said.clone(),
        mid: String::new(),
        streams: Vec::new(),
    }
}

/// What was said of a track and of its further encodings, and what is known of their streams.
fn said(track: &Track) -> impl Iterator<Item = SaidTrack> {
    let first = SaidTrack {
        id: track.id().clone(),
        said: track.said.clone(),
        mid: track.info.mid.clone(),
        streams: Vec::new(),
    };
    let all = std::iter::once(first).chain(track.said_further.iter().cloned());
    all.map(|said| {
        let told = track.told_streams.iter().filter(|(mid, _)| mid.as_str() == said.mid);
        let streams = told.map(|(_, (rid, ssrc, repair_ssrc))| KnownStream {
            rid: rid.as_ref().map_or_else(String::new, |rid| rid.as_str().to_owned()),
            ssrc: *ssrc,
            repair_ssrc: *repair_ssrc,
        });
        SaidTrack {
            streams: streams.collect(),
            ..said
        }
    })
}

/// The streams that arrive of a track on peer connections.
fn streams(track: &Track, connections: &mut Connections) -> Vec<(Mid, SentStream)> {
    let mut known = Vec::new();
    for encoding in track.encodings() {
        let entry = connections.polled(encoding.source);
        let Some(connection) = entry.and_then(|entry| entry.transport.peer_mut()) else {
            continue;
        };
        let layers: Vec<Option<Rid>> = encoding.streams.iter().map(|stream| stream.rid).collect();
        let streams = connection.sent_streams(encoding.mid, layers);
        known.extend(streams.into_iter().map(|stream| (encoding.mid, stream)));
    }
    known
}

fn channels(participant: &Participant) -> Vec<ChannelInfo> {
    let channels = participant.channels.iter().map(|open| ChannelInfo {
        target: if participant.subscriber == Some(open.connection) {
            Target::Subscriber
        } else {
            Target::Publisher
        },
        label: open.delivery.label().to_owned(),
        id: open.stream,
    });
    channels.collect()
}
