//! What a client is told when something happens, message by message.
//!
//! Pure but for the roster that it keeps up to date.

use livekit_protocol as lk;
use livekit_protocol::signal_response::Message;
use signalbox_protocol::control::{CodecWanted, Event, Snapshot, StreamState};
use signalbox_protocol::room::{ParticipantQuality, RoomInfo, Speaker};
use signalbox_protocol::{Identity, ParticipantId, TrackId};

use super::roster::Roster;
use super::translate;

/// The version of LiveKit's server whose signaling this dialect matches. SDKs switch features on by it: RPC between
/// participants at 1.8.0, and what is newer is not promised here.
const SERVER_VERSION: &str = "1.8.0";

/// The version of the signaling protocol.
const PROTOCOL: i32 = 17;

/// How often clients send a ping, in seconds. Higher: a dead connection is noticed later. Lower: more traffic from idle
/// clients.
pub(super) const PING_SECONDS: u8 = 5;

/// How long either side waits for a sign of the other before it gives the connection up, in seconds.
pub(super) const PING_TIMEOUT_SECONDS: u8 = 15;

/// What an event means to a client.
#[derive(Debug, PartialEq)]
pub(super) enum Told {
    /// Send these.
    Messages(Vec<Message>),
    /// The node's offer: remember its id, then send this.
    Offer(lk::SessionDescription),
    /// Send this and close.
    Closed(lk::LeaveRequest),
}

/// The first message of a new session.
pub(super) fn join_response(snapshot: &Snapshot) -> Message {
    Message::Join(lk::JoinResponse {
        room: Some(translate::room(&snapshot.room)),
        participant: Some(translate::participant(&snapshot.participant)),
        other_participants: snapshot.others.iter().map(translate::participant).collect(),
        server_version: SERVER_VERSION.to_owned(),
        // The node offers on the subscriber's connection at once, so that its data channels are there before the first
        // track.
        subscriber_primary: true,
        ping_timeout: PING_TIMEOUT_SECONDS.into(),
        ping_interval: PING_SECONDS.into(),
        server_info: Some(server_info()),
        enabled_publish_codecs: translate::codecs(),
        ..lk::JoinResponse::default()
    })
}

/// The first message of a resumed session; clients drop whatever comes before it.
pub(super) fn reconnect_response() -> Message {
    Message::Reconnect(lk::ReconnectResponse {
        server_info: Some(server_info()),
        ..lk::ReconnectResponse::default()
    })
}

fn server_info() -> lk::ServerInfo {
    lk::ServerInfo {
        edition: lk::server_info::Edition::Standard.into(),
        version: SERVER_VERSION.to_owned(),
        protocol: PROTOCOL,
        ..lk::ServerInfo::default()
    }
}

/// Everything that a client needs to know after it may have missed events. `gone` are those whom it may still believe
/// to be there.
pub(super) fn refresh(snapshot: &Snapshot, gone: Vec<(Identity, ParticipantId)>) -> Vec<Message> {
    let participants = gone
        .into_iter()
        .map(|(identity, id)| lk::ParticipantInfo {
            sid: id.to_string(),
            identity: identity.to_string(),
            state: lk::participant_info::State::Disconnected.into(),
            ..lk::ParticipantInfo::default()
        })
        .chain([translate::participant(&snapshot.participant)])
        .chain(snapshot.others.iter().map(translate::participant))
        .collect();
    let mut messages = vec![
        Message::Update(lk::ParticipantUpdate { participants }),
        room_update(&snapshot.room),
    ];
    messages.extend(speakers(&snapshot.speakers));
    messages.extend(qualities(&snapshot.qualities));
    messages
}

/// The room as it is now.
pub(super) fn room_update(room: &RoomInfo) -> Message {
    Message::RoomUpdate(lk::RoomUpdate {
        room: Some(translate::room(room)),
    })
}

/// Has the client offer anew, as it does whenever the server wants m-lines of it, even if none are wanted.
pub(super) fn offer_wanted() -> Message {
    Message::MediaSectionsRequirement(lk::MediaSectionsRequirement {
        num_audios: 0,
        num_videos: 0,
    })
}

/// None when nobody is named.
pub(super) fn speakers(speakers: &[Speaker]) -> Option<Message> {
    (!speakers.is_empty()).then(|| {
        Message::SpeakersChanged(lk::SpeakersChanged {
            speakers: speakers.iter().map(translate::speaker).collect(),
        })
    })
}

/// None when nobody is named.
pub(super) fn qualities(told: &[ParticipantQuality]) -> Option<Message> {
    (!told.is_empty()).then(|| {
        Message::ConnectionQuality(lk::ConnectionQualityUpdate {
            updates: told.iter().map(translate::connection_quality).collect(),
        })
    })
}

/// Which encodings of an own track to send. None when no codec is named.
#[allow(deprecated)] // Clients that know one codec alone still read `subscribed_qualities`.
fn encodings_wanted(track: &TrackId, wanted: &[CodecWanted]) -> Option<Message> {
    let codecs: Vec<_> = wanted.iter().map(translate::codec_wanted).collect();
    let first = codecs.first()?;
    Some(Message::SubscribedQualityUpdate(lk::SubscribedQualityUpdate {
        track_sid: track.to_string(),
        subscribed_qualities: first.qualities.clone(),
        subscribed_codecs: codecs,
    }))
}

/// None when no track is named.
fn stream_states(streams: &[StreamState]) -> Option<Message> {
    (!streams.is_empty()).then(|| {
        Message::StreamStateUpdate(lk::StreamStateUpdate {
            stream_states: streams.iter().map(translate::stream_state).collect(),
        })
    })
}

/// What an event means to the client that the roster belongs to.
pub(super) fn tell(event: Event, roster: &mut Roster) -> Told {
    Told::Messages(match event {
        Event::ParticipantJoined { participant }
        | Event::ParticipantUpdated { participant }
        | Event::TrackPublished { participant, .. }
        | Event::TrackMuted { participant, .. } => {
            roster.put(&participant);
            vec![update(translate::participant(&participant))]
        }
        Event::ParticipantLeft { participant } => {
            if roster.remove(&participant) {
                vec![update(translate::departed(&participant))]
            } else {
                Vec::new()
            }
        }
        Event::TrackUnpublished { participant, track } => {
            roster.put(&participant);
            let mut messages = vec![update(translate::participant(&participant))];
            if participant.id == *roster.me() {
                messages.push(Message::TrackUnpublished(lk::TrackUnpublishedResponse {
                    track_sid: track.to_string(),
                }));
            }
            messages
        }
        Event::Speakers { speakers: changed } => speakers(&changed).into_iter().collect(),
        Event::Quality { participants } => qualities(&participants).into_iter().collect(),
        // The SDK mutes its own track by it.
        Event::MutedRemotely { track } => vec![Message::Mute(lk::MuteTrackRequest {
            sid: track.to_string(),
            muted: true,
        })],
        // They belong to the other kind of connection, or are the session's business.
        Event::Slots { .. } | Event::SlotsWanted { .. } | Event::AttachedElsewhere => Vec::new(),
        Event::Resumable { .. } | Event::Connected { .. } | Event::MoveStalled { .. } | Event::Moving { .. } => {
            Vec::new()
        }
        Event::RoomUpdated { room } => {
            roster.put_room(&room);
            vec![room_update(&roster.room())]
        }
        Event::EncodingsWanted { track, codecs } => encodings_wanted(&track, &codecs).into_iter().collect(),
        Event::StreamStates { streams } => stream_states(&streams).into_iter().collect(),
        Event::SubscriptionFailed { track, reason, .. } => {
            vec![Message::SubscriptionResponse(lk::SubscriptionResponse {
                track_sid: track.to_string(),
                err: translate::subscription_error(reason).into(),
            })]
        }
        // The protocol has no word for them; receivers see a gap in the senders' sequence numbers.
        Event::DataLost { .. } | Event::PublishLimited { .. } => Vec::new(),
        Event::Offer { id, sdp } => {
            return Told::Offer(lk::SessionDescription {
                r#type: "offer".to_owned(),
                sdp,
                id,
                ..lk::SessionDescription::default()
            });
        }
        Event::Closed { reason } => return Told::Closed(translate::closed(reason)),
    })
}

fn update(participant: lk::ParticipantInfo) -> Message {
    Message::Update(lk::ParticipantUpdate {
        participants: vec![participant],
    })
}
