//! Subscribing: which track goes out on which m-line of a participant, and the offers that make new m-lines.
//!
//! Two ways, one rule. On a single connection the client's m-lines are slots that are filled as they are free; with two connections
//! the node offers an m-line for each track. Either way an [`Outlet`] names the m-line, and a subscription in the track fills it.

use std::time::Instant;

use signalbox_protocol::control::{Agreed, Event, Refusal, RefusalReason, Transports};
use signalbox_protocol::room::{Kind, Slot};
use signalbox_protocol::{ParticipantId, TrackId};

use crate::codec::Codec;
use crate::connection::{Change, NewLine};
use crate::data::Delivery;
use crate::participant::Outlet;
use crate::publish::{no_participant, refused};
use crate::rewrite::Rewriter;
use crate::room::{Context, Room};
use crate::track::{Subscription, Track};

/// A track that a participant wants.
struct Desired {
    track: TrackId,
    kind: Kind,
    /// The codecs that it is or can be received in, best first.
    codecs: Vec<Option<Codec>>,
}

impl Desired {
    fn of(track: &Track) -> Self {
        Self {
            track: track.id().clone(),
            kind: track.info.kind,
            codecs: track.codecs().collect(),
        }
    }

    /// Whether a slot can carry it. One of a single codec carries what is published in that.
    fn fits(&self, outlet: &Outlet) -> bool {
        outlet.kind == self.kind && (outlet.codec.is_none() || self.codecs.first() == Some(&outlet.codec))
    }
}

impl Room {
    /// [`Room::refresh_subscriptions`] for everyone.
    pub fn refresh_everyones_subscriptions(&mut self, cx: &mut Context, now: Instant) {
        let ids: Vec<ParticipantId> = self.participants.keys().cloned().collect();
        for id in ids {
            self.refresh_subscriptions(cx, now, &id);
        }
    }

    /// Makes what a participant receives what it wants, as far as its m-lines go, and asks for m-lines where they do not.
    pub fn refresh_subscriptions(&mut self, cx: &mut Context, now: Instant, id: &ParticipantId) {
        let Some(participant) = self.participants.get(id) else {
            return;
        };
        let wanted = self
            .tracks
            .values()
            .filter(|track| track.publisher != *id && participant.wants(track.id()));
        match participant.transports {
            Transports::Single | Transports::Srtp => {
                let desired = wanted.map(Desired::of).collect();
                self.fill_slots(cx, now, id, desired);
            }
            Transports::Dual => {
                let desired = wanted.map(|track| track.id().clone()).collect();
                self.offer_lines(cx, id, desired);
            }
        }
        self.allocate(cx, now, id);
        self.tell_of_codecs(cx, id);
    }

    fn fill_slots(&mut self, cx: &mut Context, now: Instant, id: &ParticipantId, desired: Vec<Desired>) {
        let mut changed = Vec::new();
        let Some(participant) = self.participants.get_mut(id) else {
            return;
        };
        for outlet in &mut participant.outlets {
            // A track that has changed its codec has to leave a slot that cannot carry it.
            let is_stale = |track: &TrackId| {
                !desired
                    .iter()
                    .any(|wanted| wanted.track == *track && wanted.fits(outlet))
            };
            if outlet.track.as_ref().is_some_and(is_stale) {
                if let Some(rewriter) = outlet
                    .track
                    .take()
                    .and_then(|track| self.tracks.get_mut(&track))
                    .and_then(|track| track.unsubscribe(id))
                {
                    outlet.rewriter = Some(rewriter);
                }
                changed.push(outlet.mid);
            }
        }
        let (mut audio, mut video) = (0, 0);
        let mut desired = desired;
        // At another node they were carried by certain slots, which they are to keep.
        let kept = self
            .participants
            .get(id)
            .map_or(&[][..], |participant| &participant.kept.slots);
        desired.sort_by_key(|wanted| !kept.iter().any(|(_, track)| *track == wanted.track));
        for wanted in desired {
            let Some(participant) = self.participants.get_mut(id) else {
                return;
            };
            if participant
                .outlets
                .iter()
                .any(|outlet| outlet.track.as_ref() == Some(&wanted.track))
            {
                continue;
            }
            let takes = |outlet: &Outlet| {
                let entry = participant.publisher.and_then(|key| cx.connections.get(key));
                let mut codecs = wanted.codecs.iter();
                entry.is_some_and(|entry| codecs.any(|codec| entry.transport.can_take(outlet.mid, *codec)))
            };
            let is_free = |outlet: &Outlet| outlet.kind == wanted.kind && outlet.track.is_none() && outlet.is_open;
            let is_fit = |outlet: &Outlet| is_free(outlet) && wanted.fits(outlet) && takes(outlet);
            let mut kept = participant.kept.slots.iter();
            let kept = kept.find(|(_, track)| *track == wanted.track).map(|(mid, _)| *mid);
            let outlets = || participant.outlets.iter();
            let same = outlets().position(|outlet| Some(outlet.mid) == kept && is_fit(outlet));
            match same.or_else(|| outlets().position(is_fit)) {
                Some(index) => {
                    changed.push(participant.outlets[index].mid);
                    self.fill_outlet(cx, now, id, index, &wanted.track);
                }
                // One more m-line would be of no use to a client that cannot take the codec.
                None if participant.transports == Transports::Single && participant.outlets.iter().any(is_free) => {}
                None if wanted.kind == Kind::Audio => audio += 1,
                None => video += 1,
            }
        }
        let Some(participant) = self.participants.get_mut(id) else {
            return;
        };
        if !participant.is_attached {
            return;
        }
        let is_news = participant.slots_wanted != (audio, video) && (audio, video) != (0, 0);
        participant.slots_wanted = (audio, video);
        if !changed.is_empty() {
            let slots: Vec<Slot> = self
                .participants
                .get(id)
                .map(|participant| participant.slots(|track| self.publisher_of(track)))
                .unwrap_or_default()
                .into_iter()
                .filter(|slot| changed.iter().any(|mid| mid.as_str() == slot.mid))
                .collect();
            cx.tell_one(id, Event::Slots { slots });
        }
        if is_news {
            cx.tell_one(id, Event::SlotsWanted { audio, video });
        }
    }

    /// Sends a track on an open m-line.
    pub fn fill_outlet(&mut self, cx: &mut Context, now: Instant, id: &ParticipantId, index: usize, track: &TrackId) {
        let Some(participant) = self.participants.get_mut(id) else {
            return;
        };
        let (Some(key), preference) = (participant.outgoing(), participant.preference(track)) else {
            return;
        };
        let Some(outlet) = participant.outlets.get_mut(index) else {
            return;
        };
        let stream = cx
            .connections
            .change(key)
            .and_then(|entry| entry.transport.outgoing(outlet.mid));
        let (Some(stream), Some(track)) = (stream, self.tracks.get_mut(track)) else {
            return;
        };
        let rewriter = outlet
            .rewriter
            .take()
            .unwrap_or_else(|| Rewriter::new(cx.ids.sequence_start()));
        outlet.track = Some(track.id().clone());
        let subscription = Subscription::new(id.clone(), key, outlet.mid, stream, preference, rewriter);
        track.subscribe(now, subscription, &mut cx.connections);
    }

    fn offer_lines(&mut self, cx: &mut Context, id: &ParticipantId, desired: Vec<TrackId>) {
        let Some(participant) = self.participants.get_mut(id) else {
            return;
        };
        // Nothing more is sent on an m-line as soon as its track is not wanted; the m-line itself goes with the next offer.
        for outlet in &mut participant.outlets {
            if outlet.track.as_ref().is_some_and(|track| !desired.contains(track)) {
                let track = outlet.track.take();
                if let Some(track) = track.and_then(|track| self.tracks.get_mut(&track)) {
                    track.unsubscribe(id);
                }
            }
        }
        let (Some(key), true, None) = (
            participant.subscriber,
            participant.is_attached,
            &participant.negotiation.in_flight,
        ) else {
            return;
        };
        let is_first = participant.negotiation.last_id == 0;
        let missing: Vec<TrackId> = desired
            .into_iter()
            .filter(|track| {
                !participant
                    .outlets
                    .iter()
                    .any(|outlet| outlet.track.as_ref() == Some(track))
            })
            .collect();
        let mut change = Change {
            restart_ice: participant.negotiation.restart_ice && !is_first,
            channels: if is_first {
                vec![Delivery::Reliable, Delivery::Lossy]
            } else {
                Vec::new()
            },
            ..Change::default()
        };
        for track in &missing {
            if let Some(track) = self.tracks.get(track) {
                change.add.push(NewLine {
                    kind: track.info.kind,
                    stream_id: format!("{}|{}", track.publisher, track.info.stream),
                    track_id: track.id().as_str().to_owned(),
                });
            }
        }
        change.stop = participant
            .outlets
            .iter()
            .filter(|outlet| outlet.track.is_none())
            .map(|outlet| outlet.mid)
            .collect();
        if !is_first && !change.restart_ice && change.add.is_empty() && change.stop.is_empty() {
            return;
        }
        let kinds: Vec<Kind> = change.add.iter().map(|line| line.kind).collect();
        let connection = cx.connections.change(key).and_then(|entry| entry.transport.peer_mut());
        let made = connection.map(|connection| connection.offer(change));
        let Some(Ok(Some((sdp, mids)))) = made else {
            return;
        };
        participant.outlets.retain(|outlet| outlet.track.is_some());
        for ((track, kind), mid) in missing.into_iter().zip(kinds).zip(mids) {
            participant.outlets.push(Outlet {
                mid,
                kind,
                track: Some(track),
                codec: None,
                rewriter: None,
                is_open: false,
            });
        }
        let negotiation = &mut participant.negotiation;
        negotiation.restart_ice = false;
        negotiation.last_id += 1;
        negotiation.in_flight = Some((negotiation.last_id, sdp.clone()));
        let event = Event::Offer {
            id: negotiation.last_id,
            sdp,
        };
        cx.tell_one(id, event);
    }

    /// Sends the unanswered offer again: signaling was lost, and it may have been lost with it.
    pub fn repeat_offer(&self, cx: &mut Context, id: &ParticipantId) {
        let in_flight = self
            .participants
            .get(id)
            .and_then(|participant| participant.negotiation.in_flight.as_ref());
        if let Some((offer, sdp)) = in_flight {
            let event = Event::Offer {
                id: *offer,
                sdp: sdp.clone(),
            };
            cx.tell_one(id, event);
        }
    }

    /// Takes a client's answer to the node's offer.
    pub fn take_answer(
        &mut self,
        cx: &mut Context,
        now: Instant,
        id: &ParticipantId,
        offer: u32,
        answer: &str,
    ) -> Result<(), Refusal> {
        let Some(participant) = self.participants.get_mut(id) else {
            return Err(no_participant());
        };
        let (Some(key), Some((in_flight, _))) = (participant.outgoing(), &participant.negotiation.in_flight) else {
            return Err(Refusal::new(RefusalReason::Invalid, "There is no offer to answer."));
        };
        if *in_flight != offer {
            return Err(Refusal::new(
                RefusalReason::Invalid,
                "This answers an offer that is no longer the last one.",
            ));
        }
        let Some(connection) = cx.connections.change(key).and_then(|entry| entry.transport.peer_mut()) else {
            return Err(no_participant());
        };
        let taken = connection.accept_answer(answer);
        cx.connections.refresh_ufrag(key);
        let answered = participant.negotiation.in_flight.take();
        if let Err(fault) = taken {
            participant.outlets.retain(|outlet| outlet.is_open);
            return Err(refused(&fault));
        }
        if participant.transports == Transports::Dual {
            participant.negotiation.agreed = answered.map(|(id, offer)| {
                Box::new(Agreed {
                    id,
                    offer,
                    answer: answer.to_owned(),
                })
            });
        }
        // On a single connection a client may refuse m-lines, which then carry nothing.
        if participant.transports == Transports::Single {
            let connection = cx.connections.get(key).and_then(|entry| entry.transport.peer());
            participant
                .outlets
                .retain(|outlet| connection.is_some_and(|connection| connection.sends_on(outlet.mid)));
            if participant.outlets.is_empty() {
                return Err(Refusal::new(
                    RefusalReason::Sdp,
                    "The SDP answer takes none of the offered m-lines; answer at least one with `a=recvonly`.",
                ));
            }
        }
        let opened: Vec<(usize, Option<TrackId>)> = participant
            .outlets
            .iter_mut()
            .enumerate()
            .filter(|(_, outlet)| !outlet.is_open)
            .map(|(index, outlet)| {
                outlet.is_open = true;
                (index, outlet.track.clone())
            })
            .collect();
        for (index, track) in opened {
            if let Some(track) = track {
                self.fill_outlet(cx, now, id, index, &track);
            }
        }
        self.refresh_subscriptions(cx, now, id);
        Ok(())
    }
}
