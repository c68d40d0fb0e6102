//! What a client's message asks for, in the control protocol's words.
//!
//! Pure: it decides, [`super::socket`] acts.

use livekit_protocol as lk;
use livekit_protocol::request_response::{Reason, Request as Subject};
use livekit_protocol::signal_request::Message;
use serde::Deserialize;
use signalbox_protocol::TrackId;
use signalbox_protocol::control::{Command, Preference, Target};

use super::publish;
use super::translate::quality_from;

/// The most tracks that one message may name; the rest is dropped. A room with more is subscribed to in several
/// messages.
const MAX_TRACKS: usize = 10_000;

/// What is to be done about a message.
#[derive(Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "it is made and used up within one turn of a connection's loop"
)]
pub(super) enum Action {
    /// Ask the node for this, then answer as said.
    Ask(Vec<(Command, Answer)>),
    /// Answer at once.
    Reply(lk::signal_response::Message),
    /// The client leaves.
    Leave,
    /// Nothing.
    Ignore,
}

/// How to answer once the node has replied.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    /// Not at all; a refusal is only logged.
    Silent,
    /// With the SDP answer to the offer of this id.
    Offer {
        /// The client's number for its offer.
        id: u32,
    },
    /// With the published track.
    Published {
        /// The announcement, to name it by `cid` or to hand it back.
        request: Box<lk::AddTrackRequest>,
    },
    /// With a [`lk::RequestResponse`], if the client gave the request an id or it was refused.
    Report {
        /// The client's number for its request; 0: none.
        id: u32,
        /// The request, to hand it back when it was refused.
        subject: Box<Subject>,
    },
}

/// What a message asks for.
///
/// `last_offer` is the id of the node's latest offer, for clients that do not repeat it.
pub(super) fn read(message: Message, last_offer: u32) -> Action {
    match message {
        Message::Offer(offer) => ask(Command::Offer { sdp: offer.sdp }, Answer::Offer { id: offer.id }),
        Message::Answer(answer) => {
            let id = if answer.id == 0 { last_offer } else { answer.id };
            ask(Command::Answer { id, sdp: answer.sdp }, Answer::Silent)
        }
        Message::Trickle(trickle) => match candidate(&trickle) {
            Some(command) => ask(command, Answer::Silent),
            None => Action::Ignore,
        },
        Message::AddTrack(request) => match publish::track(request.clone()) {
            Ok(track) => ask(
                Command::Publish(Box::new(track)),
                Answer::Published {
                    request: Box::new(request),
                },
            ),
            Err(reason) => Action::Reply(refused(
                0,
                Reason::UnsupportedType,
                reason.detail(),
                Some(Subject::AddTrack(request)),
            )),
        },
        Message::Mute(request) => ask(
            Command::Mute {
                track: TrackId::new(request.sid.clone()),
                muted: request.muted,
            },
            Answer::Report {
                id: 0,
                subject: Box::new(Subject::Mute(request)),
            },
        ),
        Message::Subscription(request) => Action::Ask(subscription(request).into_iter().collect()),
        Message::TrackSetting(settings) => ask(track_setting(settings), Answer::Silent),
        Message::UpdateMetadata(request) => ask(
            Command::Update {
                // Clients send what they do not mean to change as an empty text.
                name: (!request.name.is_empty()).then(|| request.name.clone()),
                metadata: (!request.metadata.is_empty()).then(|| request.metadata.clone()),
                attributes: request.attributes.clone().into_iter().collect(),
            },
            Answer::Report {
                id: request.request_id,
                subject: Box::new(Subject::UpdateMetadata(request)),
            },
        ),
        Message::SyncState(state) => Action::Ask(sync_state(state)),
        Message::Leave(_) => Action::Leave,
        Message::Ping(_) => Action::Reply(lk::signal_response::Message::Pong(super::now_ms())),
        Message::PingReq(ping) => Action::Reply(lk::signal_response::Message::PongResp(lk::Pong {
            last_ping_timestamp: ping.timestamp,
            timestamp: super::now_ms(),
        })),
        Message::PublishDataTrackRequest(request) => unsupported(Some(Subject::PublishDataTrack(request))),
        Message::UnpublishDataTrackRequest(request) => unsupported(Some(Subject::UnpublishDataTrack(request))),
        // Silence would let its sender believe that others cannot receive its tracks.
        Message::SubscriptionPermission(_) => unsupported(None),
        // Hints that the media node draws from the SDP and the media itself, and tools of LiveKit's own tests.
        _ => Action::Ignore,
    }
}

fn ask(command: Command, answer: Answer) -> Action {
    Action::Ask(vec![(command, answer)])
}

fn unsupported(subject: Option<Subject>) -> Action {
    Action::Reply(refused(
        0,
        Reason::UnsupportedType,
        "This server does not support the request.",
        subject,
    ))
}

/// The report that a request was not done.
pub(super) fn refused(
    id: u32,
    reason: Reason,
    detail: impl Into<String>,
    request: Option<Subject>,
) -> lk::signal_response::Message {
    lk::signal_response::Message::RequestResponse(lk::RequestResponse {
        request_id: id,
        reason: reason.into(),
        message: detail.into(),
        request,
    })
}

/// The report that a request was done.
pub(super) fn done(id: u32) -> lk::signal_response::Message {
    refused(id, Reason::Ok, "", None)
}

/// What is used of the browser's `RTCIceCandidateInit`.
#[derive(Deserialize)]
struct CandidateInit {
    candidate: String,
}

/// None for what is no candidate, and for the empty one that marks the end.
fn candidate(trickle: &lk::TrickleRequest) -> Option<Command> {
    let init: CandidateInit = serde_json::from_str(&trickle.candidate_init).ok()?;
    if init.candidate.is_empty() {
        return None;
    }
    let target = match lk::SignalTarget::try_from(trickle.target) {
        Ok(lk::SignalTarget::Publisher) => Target::Publisher,
        Ok(lk::SignalTarget::Subscriber) => Target::Subscriber,
        Err(_) => return None,
    };
    Some(Command::Candidate {
        target,
        candidate: init.candidate,
    })
}

fn track_ids(sids: impl IntoIterator<Item = String>) -> Vec<TrackId> {
    sids.into_iter().take(MAX_TRACKS).map(TrackId::new).collect()
}

fn subscription(request: lk::UpdateSubscription) -> Option<(Command, Answer)> {
    let by_participant = request.participant_tracks.into_iter().flat_map(|p| p.track_sids);
    let tracks = track_ids(request.track_sids.into_iter().chain(by_participant));
    let command = Command::Subscribe {
        subscribed: request.subscribe,
        tracks,
    };
    match &command {
        Command::Subscribe { tracks, .. } if tracks.is_empty() => None,
        _ => Some((command, Answer::Silent)),
    }
}

fn track_setting(settings: lk::UpdateTrackSettings) -> Command {
    let off = settings.quality == i32::from(lk::VideoQuality::Off);
    let sized = settings.width > 0 || settings.height > 0;
    Command::Prefer {
        tracks: track_ids(settings.track_sids),
        preference: Preference {
            enabled: !settings.disabled && !off,
            // A client that knows the size leaves the quality at the enum's zero, which is the lowest.
            quality: if sized { None } else { quality_from(settings.quality) },
            width: settings.width,
            height: settings.height,
            fps: settings.fps,
            priority: settings.priority,
        },
    }
}

/// What a resumed client wanted while nobody listened. The rest of its state is the node's own.
fn sync_state(state: lk::SyncState) -> Vec<(Command, Answer)> {
    let mut commands: Vec<_> = state.subscription.and_then(subscription).into_iter().collect();
    let disabled = track_ids(state.track_sids_disabled);
    if !disabled.is_empty() {
        commands.push((
            Command::Prefer {
                tracks: disabled,
                preference: Preference {
                    enabled: false,
                    ..Preference::default()
                },
            },
            Answer::Silent,
        ));
    }
    commands
}
