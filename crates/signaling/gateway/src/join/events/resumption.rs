//! What it takes to put a client without a peer connection back into its room at another node.
//!
//! What the client sends goes on with the same SSRCs and keys: the numbers that its keystream depends on are its own. What it receives gets
//! new ones, since a new node would use a keystream twice (RFC 3711 section 9.1). Owns what is remembered for that, and nothing of how the
//! node is found.

use signalbox_protocol::control::{Event, ParticipantLimits, Snapshot, Transports};
use signalbox_protocol::room::{ParticipantInfo, PublishTrack, TrackInfo};
use signalbox_protocol::srtp::{SrtpRequest, SrtpResume, SrtpSession, SrtpStream, SrtpWanted};

use crate::rooms::JoinSpec;
use crate::session::Session;

/// A client without a peer connection, as it was last.
#[derive(Debug)]
pub(super) struct Resumption {
    participant: ParticipantInfo,
    limits: ParticipantLimits,
    streams: SrtpSession,
}

impl Resumption {
    /// None: the client has a peer connection, which only it can take elsewhere.
    pub(super) fn of(snapshot: &Snapshot) -> Option<Self> {
        let streams = snapshot.srtp.as_deref()?.clone();
        Some(Self {
            participant: snapshot.participant.clone(),
            limits: snapshot.limits,
            streams,
        })
    }

    /// Takes in what has changed of the client.
    pub(super) fn observe(&mut self, event: &Event) {
        let (Event::ParticipantUpdated { participant }
        | Event::TrackPublished { participant, .. }
        | Event::TrackUnpublished { participant, .. }
        | Event::TrackMuted { participant, .. }) = event
        else {
            return;
        };
        if participant.id == self.participant.id {
            self.participant = participant.clone();
        }
    }

    /// The join that takes it up again.
    pub(super) fn join(&self, lost: &Session) -> JoinSpec {
        let own = self.participant.clone();
        let streams = self.streams.publish.iter();
        let published: Vec<(&SrtpStream, &TrackInfo)> = streams
            .filter_map(|stream| {
                let track = stream.track.as_ref()?;
                Some((stream, own.tracks.iter().find(|info| info.id == *track)?))
            })
            .collect();
        let receive = self.streams.receive.iter().map(|stream| SrtpWanted {
            kind: stream.kind,
            codec: Some(stream.codec.clone()),
        });
        let suites = self.streams.publish.iter().chain(&self.streams.receive);
        JoinSpec {
            room: lost.room.clone(),
            identity: lost.identity.clone(),
            name: own.name.clone(),
            metadata: own.metadata.clone(),
            attributes: own.attributes.clone(),
            grants: own.grants.clone(),
            limits: self.limits,
            transports: Transports::Srtp,
            auto_subscribe: !self.streams.receive.is_empty(),
            never_pause: false,
            attach: true,
            publish: published.iter().map(|(stream, info)| publish(stream, info)).collect(),
            offer: None,
            one_offer: None,
            srtp: Some(SrtpRequest {
                suite: suites.map(|stream| stream.suite).next().unwrap_or_default(),
                receive: receive.collect(),
                resume: published.iter().map(|(stream, info)| resume(stream, info)).collect(),
                ..SrtpRequest::default()
            }),
            dialect_info: own.dialect_info.clone(),
        }
    }
}

fn publish(stream: &SrtpStream, info: &TrackInfo) -> PublishTrack {
    PublishTrack {
        name: info.name.clone(),
        muted: info.muted,
        width: info.width,
        height: info.height,
        codec: Some(stream.codec.clone()),
        stream: info.stream.clone(),
        dialect_info: info.dialect_info.clone(),
        ..PublishTrack::new(stream.mid.clone(), info.kind, info.source)
    }
}

fn resume(stream: &SrtpStream, info: &TrackInfo) -> SrtpResume {
    SrtpResume {
        ssrc: stream.ssrc,
        payload_type: stream.payload_type,
        key: stream.key.clone(),
        track: info.id.clone(),
    }
}
