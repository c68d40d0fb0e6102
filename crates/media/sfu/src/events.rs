//! What happens on connections: media to forward, data to deliver, and connections that come and go.

use std::sync::Arc;
use std::time::Instant;

use signalbox_protocol::ParticipantId;
use signalbox_protocol::control::{CloseReason, Event, Target, Transports};
use signalbox_protocol::room::{Kind, ParticipantState};

use crate::api::Output;
use crate::connection::{Channel, ConnectionEvent};
use crate::connections::Key;
use crate::data::{self, Delivery};
use crate::packet::{MediaPacket, Mid};
use crate::participant::{MAX_CHANNELS, OpenChannel, Participant};
use crate::room::{Context, Room};
use crate::track::Track;
use crate::transport::Transport;

impl Room {
    /// Takes an event of a participant's connection.
    pub fn connection_event(
        &mut self,
        cx: &mut Context,
        now: Instant,
        key: Key,
        id: &ParticipantId,
        event: ConnectionEvent,
    ) {
        match event {
            ConnectionEvent::Packet(packet) => self.media(cx, now, key, id, packet),
            ConnectionEvent::Connected => self.connected(cx, now, key, id),
            ConnectionEvent::Disconnected => {}
            ConnectionEvent::Closed => self.closed(cx, now, id),
            ConnectionEvent::KeyFrameWanted(mid) => {
                let track = self.participants.get(id).and_then(|participant| {
                    participant
                        .outlets
                        .iter()
                        .find(|outlet| outlet.mid == mid)?
                        .track
                        .clone()
                });
                if let Some(track) = track.and_then(|track| self.tracks.get_mut(&track)) {
                    track.key_frame_wanted(now, id, &mut cx.connections);
                }
            }
            ConnectionEvent::Estimate => self.allocate(cx, now, id),
            ConnectionEvent::StreamEnded(mid) => self.stream_ended(cx, now, key, id, mid),
            ConnectionEvent::ChannelOpen(channel, delivery, stream) => {
                if let Some(participant) = self.participants.get_mut(id) {
                    let channels = &mut participant.channels;
                    channels.retain(|open| (open.connection, open.channel) != (key, channel));
                    if channels.len() < MAX_CHANNELS {
                        channels.push(OpenChannel {
                            connection: key,
                            channel,
                            delivery,
                            stream,
                        });
                    }
                }
                self.tell_of_channels(cx, id);
                self.drain(cx, id);
            }
            ConnectionEvent::ChannelClosed(channel) => {
                if let Some(participant) = self.participants.get_mut(id) {
                    let channels = &mut participant.channels;
                    channels.retain(|open| (open.connection, open.channel) != (key, channel));
                }
                self.tell_of_channels(cx, id);
            }
            ConnectionEvent::ChannelDrained => self.drain(cx, id),
            ConnectionEvent::Message(channel, message) => self.message(cx, now, key, id, channel, &message),
        }
    }

    fn media(&mut self, cx: &mut Context, now: Instant, key: Key, id: &ParticipantId, packet: MediaPacket) {
        if !self.find_source(key, packet.mid) {
            return;
        }
        let Some(track_id) = self.by_source.get(&(key, packet.mid)) else {
            return;
        };
        let kind = self.tracks.get(track_id).map_or(Kind::Video, |track| track.info.kind);
        let publisher = self.participants.get_mut(id);
        let policer = publisher.map(|publisher| &mut publisher.policer);
        if policer.is_some_and(|policer| !policer.admit(now, kind, packet.mid, packet.rid, packet.payload.len())) {
            cx.stats.dropped_bitrate += 1;
            return;
        }
        let is_heard = |track: &Track| track.info.kind == Kind::Audio && !track.info.muted;
        if self.tracks.get(track_id).is_some_and(is_heard) {
            for (changed, is_selected) in self.loudest.observe(now, track_id, packet.audio_level) {
                if let Some(track) = self.tracks.get_mut(&changed) {
                    track.set_selected(is_selected);
                }
            }
        }
        let Some(track) = self.tracks.get_mut(track_id) else {
            return;
        };
        if kind == Kind::Audio
            && let Some((to, bytes)) = cx.connections.carry(now, key, track_id, &packet)
        {
            cx.stats.bridged += 1;
            let bytes = bytes.into();
            cx.outputs.push_back(Output::Datagram { to, bytes });
        }
        let is_first = track.encoding_on(key, packet.mid) == Some(0);
        let has_new_codec = is_first && track.info.mime_type != packet.codec.mime_type();
        if has_new_codec {
            track.info.mime_type = packet.codec.mime_type().to_owned();
        }
        if let Some(level) = packet.audio_level.filter(|_| !track.info.muted) {
            self.speakers.observe(now, id, level);
        }
        let had_burst = track.has_burst();
        cx.stats.forwarded += track.take(now, key, packet, &mut cx.connections);
        if !had_burst && track.has_burst() {
            cx.bursts.push_back((self.key, track_id.clone()));
        }
        let has_news = track.take_news();
        if has_news {
            let track = track.id().clone();
            self.allocate_soon(&track);
        }
        if has_new_codec {
            if let Some(participant) = self.changed(id) {
                self.tell_about(cx, id, Event::ParticipantUpdated { participant });
            }
            // Some slots carry one codec only.
            self.refresh_everyones_subscriptions(cx, now);
        }
    }

    fn connected(&mut self, cx: &mut Context, now: Instant, key: Key, id: &ParticipantId) {
        if let Some(participant) = self.participants.get(id) {
            self.course_came_up(cx, key, participant);
        }
        let Some(participant) = self.participants.get_mut(id) else {
            return;
        };
        let is_news = participant.info.state != ParticipantState::Active;
        let target = cx.connections.get(key).map(|entry| entry.target);
        participant.info.state = ParticipantState::Active;
        if let Some(target) = target
            && participant.is_attached
        {
            cx.tell_one(id, Event::Connected { target });
        }
        self.end_quiet(cx, now);
        // Whoever waited for this publisher's pictures, and the pictures that this subscriber waits for.
        for track in self.tracks.values_mut() {
            let is_source = track.encodings().iter().any(|encoding| encoding.source == key);
            if is_source || track.subscription(id).is_some() {
                track.request_awaited(now, &mut cx.connections);
            }
        }
        if is_news && let Some(participant) = self.changed(id) {
            self.tell_about(cx, id, Event::ParticipantUpdated { participant });
        }
    }

    /// The client ended a stream that is not negotiated by SDP.
    fn stream_ended(&mut self, cx: &mut Context, now: Instant, key: Key, id: &ParticipantId, mid: Mid) {
        let mut tracks = self.tracks.values();
        let ended = tracks.find(|track| track.encoding_on(key, mid).is_some());
        if let Some(track) = ended.map(|track| track.id().clone()) {
            self.end_track(cx, now, &track);
        }
        let is_over = match cx.connections.get(key).map(|entry| &entry.transport) {
            Some(Transport::Srtp(endpoint)) => endpoint.is_over(),
            Some(Transport::Peer(_)) | None => false,
        };
        if is_over {
            self.closed(cx, now, id);
        }
    }

    /// The client closed its connection. Without signaling, that is how it leaves.
    fn closed(&mut self, cx: &mut Context, now: Instant, id: &ParticipantId) {
        let leaves = self
            .participants
            .get(id)
            .is_some_and(|participant| participant.transports != Transports::Dual && !participant.is_attached);
        if leaves {
            self.remove(cx, now, id, CloseReason::Left);
        }
    }

    fn message(
        &mut self,
        cx: &mut Context,
        now: Instant,
        key: Key,
        id: &ParticipantId,
        channel: Channel,
        message: &[u8],
    ) {
        let Some(sender) = self.participants.get_mut(id) else {
            return;
        };
        let mut channels = sender.channels.iter();
        let delivery = channels.find(|open| (open.connection, open.channel) == (key, channel));
        let delivery = delivery.map(|open| open.delivery);
        let is_reliable = u64::from(delivery == Some(Delivery::Reliable));
        // Counted before it is looked at: what is garbage costs as well.
        if !sender.data.may_send(now, message.len()) {
            cx.stats.dropped_data_rate += 1;
            sender.data.lost_sent += is_reliable;
            return;
        }
        let (Some(delivery), Some(routing), true) = (delivery, data::routing(message), sender.grants().publish_data)
        else {
            cx.stats.dropped_data += 1;
            sender.data.lost_sent += is_reliable;
            return;
        };
        let stamped = data::stamped(message, &sender.info.identity, id);
        for receiver in self.participants.values_mut() {
            let is_other = receiver.info.id != *id && receiver.transports != Transports::Srtp;
            if is_other && routing.is_for(&receiver.info.identity) {
                deliver(cx, receiver, delivery, &stamped);
            }
        }
    }

    /// Looks at what everyone has published lately: asks those near their cap to send no more, and tells those who do anyway.
    pub fn police(&mut self, cx: &mut Context, now: Instant) {
        let mut told = Vec::new();
        for (id, participant) in &mut self.participants {
            let Some(review) = participant.policer.review(now) else {
                continue;
            };
            let limit_bps = participant.policer.cap_bps();
            if review.ask
                && let Some((mid, rid)) = participant.policer.pictures().next()
                && let Some(entry) = participant.publisher.and_then(|key| cx.connections.change(key))
            {
                entry.transport.limit_incoming(mid, rid, limit_bps);
            }
            if review.tell {
                tracing::warn!(participant = %id, limit_bps, "a participant publishes more than it may; some of it is dropped");
                told.push((id.clone(), Event::PublishLimited { limit_bps }));
            }
        }
        for (id, event) in told {
            self.tell(cx, event, |told| *told == id);
        }
    }

    fn drain(&mut self, cx: &mut Context, id: &ParticipantId) {
        if let Some(receiver) = self.participants.get_mut(id) {
            drain_backlog(cx, receiver);
        }
    }

    /// Sends what waits, and tells whoever has lost messages. For the case that a connection has not said that there is room again:
    /// what filled its buffer may have been another channel's.
    pub fn tend_data(&mut self, cx: &mut Context) {
        let mut told = Vec::new();
        for (id, participant) in &mut self.participants {
            if participant.data.is_waiting() {
                drain_backlog(cx, participant);
            }
            let (sent, received) = (participant.data.lost_sent, participant.data.lost_received);
            if (sent, received) != (0, 0) && participant.is_attached {
                (participant.data.lost_sent, participant.data.lost_received) = (0, 0);
                told.push((id.clone(), Event::DataLost { sent, received }));
            }
        }
        for (id, event) in told {
            cx.tell_one(&id, event);
        }
    }
}

/// Gives a message to one receiver. A slow one loses lossy messages at once, and reliable ones when its queue is full; nobody else
/// notices.
fn deliver(cx: &mut Context, receiver: &mut Participant, delivery: Delivery, message: &Arc<[u8]>) {
    // One that has no data channels takes part without them, and has lost nothing.
    if !receiver.data.has_channels {
        return;
    }
    let is_reliable = delivery == Delivery::Reliable;
    let must_wait = is_reliable && receiver.data.is_waiting();
    if !must_wait && send(cx, receiver, delivery, message) {
        return;
    }
    if !is_reliable {
        cx.stats.dropped_data_slow += 1;
    } else if !receiver.data.wait(message) {
        cx.stats.dropped_data_slow += 1;
        receiver.data.lost_received += 1;
    }
}

fn drain_backlog(cx: &mut Context, receiver: &mut Participant) {
    while let Some(message) = receiver.data.first() {
        if !send(cx, receiver, Delivery::Reliable, message) {
            return;
        }
        receiver.data.sent();
    }
}

/// Puts a message on a receiver's channel; false: it has none, or there is no room.
fn send(cx: &mut Context, receiver: &Participant, delivery: Delivery, message: &[u8]) -> bool {
    let wanted = match receiver.transports {
        Transports::Single | Transports::Srtp => Target::Publisher,
        Transports::Dual => Target::Subscriber,
    };
    let channel = receiver.channels.iter().find(|open| {
        let entry = cx.connections.get(open.connection);
        open.delivery == delivery && entry.is_some_and(|entry| entry.target == wanted)
    });
    let Some(OpenChannel {
        connection, channel, ..
    }) = channel
    else {
        return false;
    };
    let at_most = match delivery {
        Delivery::Reliable => usize::MAX,
        Delivery::Lossy => data::MAX_LOSSY_BUFFER,
    };
    // A fault shows itself again when the connection is polled, and is handled there.
    cx.connections
        .change(*connection)
        .and_then(|entry| entry.transport.peer_mut())
        .is_some_and(|connection| connection.send(*channel, message, at_most).unwrap_or(false))
}
