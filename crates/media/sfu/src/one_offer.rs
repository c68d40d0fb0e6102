//! Clients that offer once (WHIP, WHEP): an offer that is taken as a whole or not at all, a counter-offer, and ICE that changes alone.
//!
//! A viewer's m-lines are slots as everyone's are; what is special is only how they come about.

use std::time::Instant;

use signalbox_protocol::ParticipantId;
use signalbox_protocol::control::{COUNTER_OFFER_ID, CounterOffer, OneOffer, Refusal, RefusalReason, Reply, Target};
use signalbox_protocol::room::Kind;

use crate::codec::Codec;
use crate::connection::{Change, NewLine};
use crate::connections::Key;
use crate::packet::Mid;
use crate::participant::{Outlet, Participant};
use crate::publish::{Offered, likely_source, negotiate, no_participant, refused};
use crate::room::{Context, Room};
use crate::sdp::ice::{self, Fragment};
use crate::sdp::{self, Direction, MediaLine};

/// What came of an offer.
pub enum Agreed {
    /// It is answered.
    Answer {
        /// The connection.
        key: Key,
        /// The offer as it was taken.
        offer: String,
        /// The answer.
        answer: String,
    },
    /// It is countered.
    Counter {
        /// The connection.
        key: Key,
        /// The counter-offer.
        sdp: String,
        /// Its m-lines.
        outlets: Vec<Outlet>,
    },
}

impl Room {
    /// Answers or counters the only offer of a client that is not in the room yet. A refused one changes nothing.
    pub fn agree_once(
        &self,
        cx: &mut Context,
        now: Instant,
        participant: &Participant,
        purpose: OneOffer,
        offer: &str,
    ) -> Result<Agreed, Refusal> {
        if purpose == OneOffer::Receive && self.tracks.is_empty() {
            return Err(Refusal::new(
                RefusalReason::NothingLive,
                "Nothing is published in this room at the moment; try again later.",
            ));
        }
        let lines = sdp::media_lines(offer);
        check(cx, participant, purpose, offer, &lines)?;
        let direction = match purpose {
            OneOffer::Publish => Direction::SendOnly,
            OneOffer::Receive => Direction::RecvOnly,
        };
        let one_way = sdp::with_direction(offer, direction);
        let id = &participant.info.id;
        let (key, answer) = negotiate(cx, now, self.key, id, Offered::New(None), &one_way)?;
        let agreed = match purpose {
            OneOffer::Publish => all_usable(cx, key, &lines),
            OneOffer::Receive if self.reaches(cx, key, &lines) => Ok(()),
            OneOffer::Receive => {
                cx.connections.close(key);
                return self.counter(cx, now, id);
            }
        };
        if let Err(refusal) = agreed {
            cx.connections.close(key);
            return Err(refusal);
        }
        Ok(Agreed::Answer {
            key,
            offer: one_way,
            answer,
        })
    }

    /// Whether any published track can go out on any of these m-lines.
    fn reaches(&self, cx: &Context, key: Key, lines: &[MediaLine<'_>]) -> bool {
        let Some(connection) = cx.connections.get(key).and_then(|entry| entry.transport.peer()) else {
            return false;
        };
        lines.iter().any(|line| {
            let mid = Mid::from(line.mid);
            connection.sends_on(mid)
                && self.tracks.values().any(|track| {
                    let codec = Codec::from_mime_type(&track.info.mime_type);
                    track.info.kind == line.kind && connection.can_take(mid, codec)
                })
        })
    }

    /// Offers an m-line for each kind that is published, in the codecs that it is published in.
    fn counter(&self, cx: &mut Context, now: Instant, id: &ParticipantId) -> Result<Agreed, Refusal> {
        let of_kind = |kind| self.tracks.values().find(move |track| track.info.kind == kind);
        let kinds: Vec<Kind> = [Kind::Audio, Kind::Video]
            .into_iter()
            .filter(|kind| of_kind(*kind).is_some())
            .collect();
        let add = kinds.iter().filter_map(|kind| {
            of_kind(*kind).map(|track| NewLine {
                kind: *kind,
                // A single MediaStream, whose tracks are to be played in sync.
                stream_id: self.id.clone(),
                track_id: track.id().as_str().to_owned(),
            })
        });
        let change = Change {
            add: add.collect(),
            ..Change::default()
        };
        let key = cx
            .connections
            .open(now, &mut cx.ids, (self.key, id.clone()), Target::Publisher, None)
            .map_err(|fault| refused(&fault))?;
        let connection = cx.connections.change(key).and_then(|entry| entry.transport.peer_mut());
        let (sdp, mids) = match connection.map(|connection| connection.offer(change)) {
            Some(Ok(Some(made))) => made,
            failed => {
                cx.connections.close(key);
                return Err(match failed {
                    Some(Err(fault)) => refused(&fault),
                    _ => no_participant(),
                });
            }
        };
        let outlets = mids.into_iter().zip(kinds).map(|(mid, kind)| Outlet {
            mid,
            kind,
            track: None,
            codec: None,
            rewriter: None,
            is_open: false,
        });
        let codecs: Vec<&str> = self
            .tracks
            .values()
            .map(|track| track.info.mime_type.as_str())
            .collect();
        Ok(Agreed::Counter {
            key,
            sdp: sdp::with_codecs_only(&sdp, &codecs),
            outlets: outlets.collect(),
        })
    }

    /// Takes candidates or new ICE credentials. What is refused leaves the connection as it was.
    pub fn patch_ice(
        &mut self,
        cx: &mut Context,
        id: &ParticipantId,
        sessions: &[String],
        fragment: &str,
    ) -> Result<Reply, Refusal> {
        let Some(participant) = self.participants.get_mut(id) else {
            return Err(no_participant());
        };
        let is_peer = |key: &Key| {
            cx.connections
                .get(*key)
                .is_some_and(|entry| entry.transport.peer().is_some())
        };
        let Some(key) = participant.publisher.filter(is_peer) else {
            return Err(Refusal::new(
                RefusalReason::Unsupported,
                "This participant has no connection that ICE fragments could be for.",
            ));
        };
        let session = cx.connections.ufrag(key);
        if !sessions.is_empty() && !sessions.iter().any(|named| Some(named.as_str()) == session) {
            return Err(Refusal::new(
                RefusalReason::StaleIce,
                "ICE has been restarted since; use the entity-tag that came with the last restart, or restart again with `If-Match: *`.",
            ));
        }
        let bad = |detail: String| Refusal::new(RefusalReason::Sdp, detail);
        let fragment = Fragment::parse(fragment).map_err(bad)?;
        let is_restart = sessions.is_empty();
        let Some(new) = fragment.credentials else {
            return if is_restart {
                Err(bad(
                    "A restart of ICE needs new credentials; send a=ice-ufrag and a=ice-pwd.".to_owned(),
                ))
            } else {
                // Addresses are learned from authenticated checks alone: what a client claims could be anyone's.
                Ok(Reply::Done)
            };
        };
        let Some(offer) = &participant.last_offer else {
            return if is_restart {
                Err(Refusal::new(
                    RefusalReason::Unsupported,
                    "ICE cannot be restarted on a connection that began with the node's offer; end it and POST again.",
                ))
            } else {
                Ok(Reply::Done)
            };
        };
        if !is_restart && ice::credentials(offer).as_ref() == Some(&new) {
            return Ok(Reply::Done);
        }
        // The same credentials once more restart nothing, so that a client whose answer was lost may ask again.
        let offer = ice::with_credentials(offer, &new);
        let Some(connection) = cx.connections.change(key).and_then(|entry| entry.transport.peer_mut()) else {
            return Err(no_participant());
        };
        let answer = connection.accept_offer(&offer).map_err(|fault| refused(&fault))?;
        cx.connections.refresh_ufrag(key);
        participant.last_offer = Some(offer);
        Ok(Reply::IceRestarted {
            session: cx.connections.ufrag(key).unwrap_or_default().to_owned(),
            fragment: ice::fragment_of(&answer),
        })
    }
}

/// The counter-offer as its client sees it: the node waits for the answer as long as for anyone's first packet.
pub fn counter_offer(cx: &Context, sdp: String) -> (u32, String, CounterOffer) {
    let valid_seconds = u32::try_from(cx.limits.departure.as_secs()).unwrap_or(u32::MAX);
    let counter = CounterOffer {
        sdp: sdp.clone(),
        valid_seconds,
    };
    (COUNTER_OFFER_ID, sdp, counter)
}

/// Whether an offer is one for its purpose, and permitted.
fn check(
    cx: &Context,
    participant: &Participant,
    purpose: OneOffer,
    offer: &str,
    lines: &[MediaLine<'_>],
) -> Result<(), Refusal> {
    let bad = |detail: String| Err(Refusal::new(RefusalReason::Sdp, detail));
    if sdp::wants_dtls_client(offer) {
        return bad("The node is always the DTLS client; offer `a=setup:actpass` or `a=setup:passive`.".to_owned());
    }
    let (wrong, right) = match purpose {
        OneOffer::Publish => (Direction::RecvOnly, "sendonly"),
        OneOffer::Receive => (Direction::SendOnly, "recvonly"),
    };
    if let Some(line) = lines
        .iter()
        .find(|line| line.direction == wrong || line.direction == Direction::Inactive)
    {
        return bad(format!(
            "The m-line with mid `{}` goes the wrong way; offer it as `a={right}`.",
            line.mid
        ));
    }
    if purpose == OneOffer::Receive {
        return Ok(());
    }
    if lines.is_empty() {
        return bad("The offer has no audio or video m-line; offer what is to be published.".to_owned());
    }
    let most = participant.max_tracks(&cx.limits);
    if lines.len() > most {
        return bad(format!(
            "The offer publishes {} tracks; publish at most {most}.",
            lines.len()
        ));
    }
    match lines
        .iter()
        .find(|line| !participant.may_publish(likely_source(line.kind)))
    {
        Some(line) => Err(Refusal::new(
            RefusalReason::NotPermitted,
            format!(
                "The token does not allow to publish from {:?}; ask for one with canPublish.",
                likely_source(line.kind)
            ),
        )),
        None => Ok(()),
    }
}

/// Whether the node receives on each m-line (RFC 9725 section 4.4.3: no part of an offer is rejected alone).
fn all_usable(cx: &Context, key: Key, lines: &[MediaLine<'_>]) -> Result<(), Refusal> {
    let unusable = lines.iter().find(|line| {
        let mid = Mid::from(line.mid);
        let connection = cx.connections.get(key).and_then(|entry| entry.transport.peer());
        connection.is_none_or(|connection| !connection.receives_on(mid) || connection.preferred_codec(mid).is_none())
    });
    match unusable {
        Some(line) => Err(Refusal::new(
            RefusalReason::Sdp,
            format!(
                "The m-line with mid `{}` cannot be used; offer Opus for sound, and VP8, H.264, VP9 or AV1 for pictures.",
                line.mid
            ),
        )),
        None => Ok(()),
    }
}
