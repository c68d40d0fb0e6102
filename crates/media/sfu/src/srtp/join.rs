//! What a client without a peer connection asks for becomes streams: checked as a whole before anything changes, then opened.

use std::collections::HashSet;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use signalbox_protocol::control::{Join, Refusal, RefusalReason};
use signalbox_protocol::room::{Kind, PublishTrack};
use signalbox_protocol::srtp::{SrtpProof, SrtpRequest, SrtpSession, SrtpStream, SrtpSuite};
use signalbox_protocol::{ParticipantId, TrackId};

use crate::codec::Codec;
use crate::packet::Mid;
use crate::participant::{Outlet, Participant, UnclaimedLine};
use crate::publish::letter;
use crate::rewrite::Rewriter;
use crate::room::{Context, Room};

use super::endpoint::Endpoint;
use super::inbound::Inbound;
use super::outbound::Outbound;
use crate::cipher::Cipher;
use crate::keys::MasterKey;
use crate::reporter::Reporter;
use crate::rtp;

/// The streams of a participant that is about to join.
pub struct Plan {
    endpoint: Endpoint,
    tracks: Vec<(TrackId, PublishTrack, Mid)>,
    outlets: Vec<Outlet>,
    session: SrtpSession,
}

/// What a stream is made of.
struct Wish {
    mid: Mid,
    codec: Codec,
    payload_type: u8,
    ssrc: u32,
    suite: SrtpSuite,
    key: MasterKey,
}

impl Room {
    /// Makes the streams that a join asks for. A request that cannot be met changes nothing.
    pub fn plan_streams(&self, cx: &mut Context, participant: &Participant, join: &Join) -> Result<Plan, Refusal> {
        let Some(request) = &join.srtp else {
            return Err(invalid(
                "An SRTP participant's join says in `srtp` which streams it wants.",
            ));
        };
        if join.offer.is_some() {
            return Err(invalid("An SRTP participant makes no SDP offer; leave it out."));
        }
        let wanted = self.wanted(participant, request)?;
        check_counts(cx, join, request, wanted.len())?;
        // What the participant has that this one replaces is free.
        let replaced = self.by_identity.get(&join.identity);
        let mut ssrcs = Ssrcs {
            replaced: replaced.and_then(|id| self.participants.get(id)?.publisher),
            taken: HashSet::new(),
        };
        // Those that the client has chosen first, so that none of ours meets them.
        for (index, _) in join.publish.iter().enumerate() {
            if let Some(ssrc) = chosen(request, index) {
                ssrcs.choose(cx, ssrc)?;
            }
        }
        let name = participant.info.id.as_str().to_owned();
        let mut plan = Plan {
            endpoint: Endpoint::new(name, cx.clock, cx.limits.srtp_idle),
            tracks: Vec::new(),
            outlets: Vec::new(),
            session: SrtpSession {
                idle_ms: cx.limits.srtp_idle.as_millis() as u64,
                ..SrtpSession::default()
            },
        };
        for (index, said) in join.publish.iter().enumerate() {
            let codec = codec(said.kind, said.codec.as_deref())?;
            let suite = request.suite;
            let mut wish = Wish {
                mid: Mid::from(index.to_string().as_str()),
                codec,
                payload_type: payload_type(codec),
                ssrc: 0,
                suite,
                key: MasterKey::generate(suite, |length| cx.ids.secret(length)),
            };
            wish.ssrc = chosen(request, index).unwrap_or_else(|| ssrcs.make(cx));
            let mut track = None;
            if let Some(resumed) = request.resume.get(index) {
                if !rtp::is_payload_type(resumed.payload_type) {
                    let detail = format!("Payload type {} is none that RTP can have here.", resumed.payload_type);
                    return Err(invalid(detail));
                }
                let taken = self.tracks.get(&resumed.track);
                if taken.is_some_and(|taken| Some(&taken.publisher) != replaced) {
                    return Err(invalid(
                        "The track to resume is published by somebody else; join without `resume`.",
                    ));
                }
                wish.payload_type = resumed.payload_type;
                wish.key = MasterKey::read(suite, &resumed.key)
                    .ok_or_else(|| invalid("A key to resume is not of the suite; join without `resume`."))?;
                track = Some(resumed.track.clone());
            }
            let track = track.unwrap_or_else(|| cx.ids.track(letter(said.kind)));
            plan.publish(cx, &mut ssrcs, said, track, wish, !request.resume.is_empty())?;
        }
        for (index, codec) in wanted.into_iter().enumerate() {
            let wish = Wish {
                mid: Mid::from((join.publish.len() + index).to_string().as_str()),
                codec,
                payload_type: payload_type(codec),
                ssrc: ssrcs.make(cx),
                suite: request.suite,
                key: MasterKey::generate(request.suite, |length| cx.ids.secret(length)),
            };
            plan.receive(cx, &mut ssrcs, wish)?;
        }
        Ok(plan)
    }

    /// The codec of each stream to receive.
    fn wanted(&self, participant: &Participant, request: &SrtpRequest) -> Result<Vec<Codec>, Refusal> {
        let tracks = self.tracks.values().filter(|_| request.receive_present);
        let present = tracks.filter(|track| {
            // A participant that this one replaces takes its tracks with it.
            let publisher = self.participants.get(&track.publisher);
            let is_replaced = publisher.is_some_and(|other| other.info.identity == participant.info.identity);
            !is_replaced && participant.wants(track.id())
        });
        let present = present.map(|track| {
            let known = Codec::from_mime_type(&track.info.mime_type);
            Ok(known.unwrap_or(usual(track.info.kind)))
        });
        let asked = request.receive.iter().map(|wanted| match &wanted.codec {
            None => Ok(usual(wanted.kind)),
            Some(_) => codec(wanted.kind, wanted.codec.as_deref()),
        });
        present.chain(asked).collect()
    }

    /// Opens planned streams for a participant that is in the room now; what it is told of them.
    pub fn open_streams(&mut self, cx: &mut Context, now: Instant, id: &ParticipantId, plan: Plan) -> SrtpSession {
        let key = cx.connections.open_srtp(now, plan.endpoint, self.key, id.clone());
        if let Some(participant) = self.participants.get_mut(id) {
            participant.publisher = Some(key);
            participant.outlets = plan.outlets;
        }
        for (track, said, mid) in plan.tracks {
            let line = UnclaimedLine {
                mid,
                kind: said.kind,
                track_id: None,
                layers: Vec::new(),
            };
            self.go_live(cx, now, id, key, &line, (track, said));
        }
        self.refresh_subscriptions(cx, now, id);
        let mut session = plan.session;
        let carried = self.participants.get(id).map(|participant| participant.outlets.iter());
        for (stream, outlet) in session.receive.iter_mut().zip(carried.into_iter().flatten()) {
            stream.track.clone_from(&outlet.track);
        }
        if let Some(participant) = self.participants.get_mut(id) {
            let mut kept = session.clone();
            // Each is good once.
            kept.receive.iter_mut().for_each(|stream| stream.proof = None);
            participant.srtp = Some(Box::new(kept));
        }
        session
    }
}

impl Plan {
    fn publish(
        &mut self,
        cx: &mut Context,
        ssrcs: &mut Ssrcs,
        said: &PublishTrack,
        track: TrackId,
        wish: Wish,
        is_resumed: bool,
    ) -> Result<(), Refusal> {
        let feedback_key = MasterKey::generate(wish.suite, |length| cx.ids.secret(length));
        let feedback = Reporter::new(ssrcs.make(cx), cipher(&feedback_key)?);
        let stream = wish.told(Some(track.clone()), &feedback_key, feedback.ssrc);
        let (mid, ssrc, payload_type, codec) = (wish.mid, wish.ssrc, wish.payload_type, wish.codec);
        let cipher = cipher(&wish.key)?;
        let inbound = Inbound::new(mid, ssrc, payload_type, codec, cipher, feedback, is_resumed);
        self.endpoint.publish(inbound);
        // Simulcast layers are told apart by names that these streams do not carry.
        let said = PublishTrack {
            layers: Vec::new(),
            codec: Some(codec.mime_type().to_owned()),
            ..said.clone()
        };
        self.tracks.push((track, said, mid));
        self.session.publish.push(stream);
        Ok(())
    }

    fn receive(&mut self, cx: &mut Context, ssrcs: &mut Ssrcs, wish: Wish) -> Result<(), Refusal> {
        let feedback_key = MasterKey::generate(wish.suite, |length| cx.ids.secret(length));
        let feedback_ssrc = ssrcs.make(cx);
        let mut stream = wish.told(None, &feedback_key, feedback_ssrc);
        let sender = Reporter::new(wish.ssrc, cipher(&wish.key)?);
        let outbound = Outbound::new(
            wish.mid,
            wish.payload_type,
            wish.codec,
            sender,
            feedback_ssrc,
            cipher(&feedback_key)?,
        );
        stream.proof = outbound.proof().map(|proof| SrtpProof(STANDARD.encode(proof)));
        self.endpoint.receive(outbound);
        self.outlets.push(Outlet {
            mid: wish.mid,
            kind: wish.codec.kind(),
            track: None,
            codec: Some(wish.codec),
            rewriter: Some(Rewriter::new(cx.ids.sequence_start())),
            is_open: true,
        });
        self.session.receive.push(stream);
        Ok(())
    }
}

impl Wish {
    fn told(&self, track: Option<TrackId>, feedback_key: &MasterKey, feedback_ssrc: u32) -> SrtpStream {
        SrtpStream {
            mid: self.mid.as_str().to_owned(),
            track,
            kind: self.codec.kind(),
            codec: self.codec.mime_type().to_owned(),
            clock_rate: self.codec.clock_rate(),
            payload_type: self.payload_type,
            ssrc: self.ssrc,
            suite: self.suite,
            key: self.key.to_wire(),
            feedback_ssrc,
            feedback_key: feedback_key.to_wire(),
            proof: None,
        }
    }
}

/// The SSRCs of a join.
struct Ssrcs {
    /// The connection whose SSRCs are free, since its owner is replaced.
    replaced: Option<usize>,
    taken: HashSet<u32>,
}

impl Ssrcs {
    fn choose(&mut self, cx: &Context, ssrc: u32) -> Result<(), Refusal> {
        let owner = cx.connections.owner_of_ssrc(ssrc);
        if owner.is_some() && owner != self.replaced {
            let detail = format!("SSRC {ssrc} is in use on this port; leave it out and one is chosen.");
            return Err(invalid(detail));
        }
        if !self.taken.insert(ssrc) {
            let detail = format!("Two tracks have SSRC {ssrc}; give each its own, or leave them out.");
            return Err(invalid(detail));
        }
        Ok(())
    }

    fn make(&mut self, cx: &mut Context) -> u32 {
        loop {
            let ssrc = cx.ids.ssrc();
            // Some tools take 0 for "none".
            if ssrc != 0 && cx.connections.owner_of_ssrc(ssrc).is_none() && self.taken.insert(ssrc) {
                return ssrc;
            }
        }
    }
}

fn check_counts(cx: &Context, join: &Join, request: &SrtpRequest, wanted: usize) -> Result<(), Refusal> {
    let streams = join.publish.len() + wanted;
    if streams > cx.limits.media_lines {
        let detail = format!(
            "The join asks for {streams} streams; publish and receive at most {} together.",
            cx.limits.media_lines
        );
        return Err(invalid(detail));
    }
    if request.ssrcs.len() > join.publish.len() {
        return Err(invalid(
            "There are more `ssrcs` than tracks to publish; give one for each track, or none.",
        ));
    }
    if !request.resume.is_empty() && request.resume.len() != join.publish.len() {
        return Err(invalid(
            "`resume` must name a stream for each track to publish, or be left out.",
        ));
    }
    Ok(())
}

/// The SSRC that the client has chosen for a track, or had before.
fn chosen(request: &SrtpRequest, index: usize) -> Option<u32> {
    let resumed = request.resume.get(index).map(|resumed| resumed.ssrc);
    resumed.or_else(|| request.ssrcs.get(index).copied().flatten())
}

fn codec(kind: Kind, said: Option<&str>) -> Result<Codec, Refusal> {
    let usable = match kind {
        Kind::Audio => "`audio/opus`",
        Kind::Video => "`video/VP8`, `video/H264`, `video/VP9` or `video/AV1`",
    };
    let said = said.ok_or_else(|| invalid(format!("An SRTP track needs a codec; say {usable}.")))?;
    let codec = Codec::from_mime_type(said).filter(|codec| codec.kind() == kind);
    codec.ok_or_else(|| {
        // It may be long, and comes from outside.
        let said: String = said.chars().take(40).collect();
        invalid(format!(
            "The codec {said:?} is not known for this kind of track; say {usable}."
        ))
    })
}

fn usual(kind: Kind) -> Codec {
    match kind {
        Kind::Audio => Codec::Opus,
        Kind::Video => Codec::Vp8,
    }
}

/// The payload types that browsers use as well.
fn payload_type(codec: Codec) -> u8 {
    match codec {
        Codec::Opus => 111,
        Codec::Vp8 => 96,
        Codec::Vp9 => 98,
        Codec::H264 => 102,
        Codec::Av1 => 45,
    }
}

fn cipher(key: &MasterKey) -> Result<Cipher, Refusal> {
    Cipher::new(key).map_err(|_| Refusal::new(RefusalReason::Internal, "A key could not be made; join again."))
}

fn invalid(detail: impl Into<String>) -> Refusal {
    Refusal::new(RefusalReason::Invalid, detail)
}
