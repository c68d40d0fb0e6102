//! The streams of one client without a peer connection.
//!
//! The contract is a peer connection's: what is written or taken in only queues, and [`Endpoint::poll`] must run until
//! [`Polled::Idle`].

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::codec::PayloadFormat;
use crate::connection::{ConnectionEvent, Polled};
use crate::packet::{MediaPacket, Mid, OutgoingStream, PayloadType};
use crate::quality::{Losses, Report};
use crate::rewrite::Rewritten;

use super::Refused;
use super::inbound::Inbound;
use super::outbound::Outbound;
use crate::clock::Clock;
use crate::rtp;

/// How long an endpoint that has nothing to do is left alone.
const LONG: Duration = Duration::from_secs(3_600);

/// What an SSRC of an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// That of a published stream, by its place.
    Published(usize),
    /// The one that the client's RTCP about a received stream comes from, by the stream's place.
    Feedback(usize),
    /// That of a received stream, by its place.
    Received(usize),
}

/// A client's streams.
pub struct Endpoint {
    name: String,
    clock: Clock,
    idle: Duration,
    inbound: Vec<Option<Inbound>>,
    outbound: Vec<Outbound>,
    datagrams: VecDeque<(SocketAddr, Vec<u8>)>,
    events: VecDeque<ConnectionEvent>,
    due: Option<Instant>,
    scratch: Vec<u8>,
}

impl Endpoint {
    /// A client without streams, of this canonical name (RFC 3550 section 6.5.1), whose received streams stop after `idle`
    /// without a sign of life.
    pub fn new(name: String, clock: Clock, idle: Duration) -> Self {
        Self {
            name,
            clock,
            idle,
            inbound: Vec::new(),
            outbound: Vec::new(),
            datagrams: VecDeque::new(),
            events: VecDeque::new(),
            due: None,
            scratch: Vec::new(),
        }
    }

    /// Adds a published stream.
    pub fn publish(&mut self, stream: Inbound) {
        self.inbound.push(Some(stream));
    }

    /// Adds a received stream.
    pub fn receive(&mut self, stream: Outbound) {
        self.outbound.push(stream);
    }

    /// The SSRCs that datagrams for this client name.
    pub fn ssrcs(&self) -> impl Iterator<Item = (u32, Stream)> {
        let published = self.inbound.iter().enumerate();
        let published = published.filter_map(|(place, stream)| Some((stream.as_ref()?.ssrc, Stream::Published(place))));
        let received = self.outbound.iter().enumerate();
        published.chain(received.flat_map(|(place, stream)| {
            [
                (stream.feedback_ssrc, Stream::Feedback(place)),
                (stream.ssrc, Stream::Received(place)),
            ]
        }))
    }

    /// Takes a datagram that names a stream.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        source: SocketAddr,
        datagram: &[u8],
        stream: Stream,
    ) -> Result<(), Refused> {
        match (stream, rtp::is_rtcp(datagram)) {
            (Stream::Published(place), is_rtcp) => {
                let stream = self.inbound.get_mut(place).and_then(Option::as_mut);
                let stream = stream.ok_or(Refused::Unauthentic)?;
                if is_rtcp {
                    if stream.handle_rtcp(now, source, datagram, &mut self.scratch)? {
                        self.events.push_back(ConnectionEvent::StreamEnded(stream.mid));
                    }
                } else {
                    let arrived = stream.handle_rtp(now, source, datagram, &mut self.scratch)?;
                    let first = arrived.is_newly_proven.then_some(ConnectionEvent::Connected);
                    self.events.extend(first);
                    self.events.extend(arrived.packet.map(ConnectionEvent::Packet));
                }
                let due = stream.next_due(self.idle);
                self.wake(due);
            }
            (Stream::Feedback(place), true) => {
                let stream = self.outbound.get_mut(place).ok_or(Refused::Unauthentic)?;
                let mut again = |to, bytes| self.datagrams.push_back((to, bytes));
                let heard = stream.handle_rtcp(now, source, datagram, &mut self.scratch, &self.clock, &mut again)?;
                if heard.is_newly_proven {
                    self.events.push_back(ConnectionEvent::Connected);
                }
                if (heard.is_newly_proven || heard.wants_key_frame) && !heard.has_ended {
                    self.events.push_back(ConnectionEvent::KeyFrameWanted(stream.mid));
                }
                if heard.has_ended {
                    self.events.push_back(ConnectionEvent::StreamEnded(stream.mid));
                }
                let due = stream.next_due(self.idle);
                self.wake(due);
            }
            (Stream::Received(place), true) => {
                let stream = self.outbound.get_mut(place).ok_or(Refused::Unauthentic)?;
                stream.handle_plain(now, source, datagram)?;
            }
            (Stream::Feedback(_) | Stream::Received(_), false) => return Err(Refused::Unauthentic),
        }
        Ok(())
    }

    /// Whether a datagram for a stream comes from the address that has been proven for it.
    pub fn is_proven(&self, stream: Stream, source: SocketAddr) -> bool {
        match stream {
            Stream::Published(place) => {
                let stream = self.inbound.get(place).and_then(Option::as_ref);
                stream.is_some_and(|stream| stream.is_at(source))
            }
            Stream::Feedback(place) | Stream::Received(place) => {
                let stream = self.outbound.get(place);
                stream.is_some_and(|stream| stream.is_at(source))
            }
        }
    }

    /// Ends a published stream; its SSRC.
    pub fn end_published(&mut self, mid: Mid) -> Option<u32> {
        let stream = self
            .inbound
            .iter_mut()
            .find(|stream| stream.as_ref().is_some_and(|stream| stream.mid == mid))?;
        stream.take().map(|stream| stream.ssrc)
    }

    /// Whether nothing can come from it, nor go to it, without a new proof.
    pub fn is_over(&self) -> bool {
        self.inbound.iter().all(Option::is_none) && !self.outbound.iter().any(Outbound::is_proven)
    }

    /// How its packets arrive, at either end.
    pub fn report(&self) -> Report {
        let (mut incoming, mut outgoing, mut rtt) = (Losses::default(), Losses::default(), None);
        for (packets, loss) in self.inbound.iter().flatten().map(Inbound::loss) {
            incoming.add(packets, loss);
        }
        for reported in self.outbound.iter().filter_map(Outbound::report) {
            outgoing.add(reported.packets.into(), reported.loss);
            rtt = rtt.max(reported.round_trip);
        }
        let direction = |losses: Losses| Report {
            loss: losses.share(),
            rtt,
        };
        direction(incoming).worse(direction(outgoing))
    }

    /// The stream that is sent under a name.
    pub fn outgoing(&self, mid: Mid) -> Option<OutgoingStream> {
        let place = self.outbound.iter().position(|stream| stream.mid == mid)?;
        u32::try_from(place).ok().map(OutgoingStream)
    }

    /// Its client's signaling is there: what was proven holds.
    pub fn keep(&mut self, now: Instant) {
        for stream in &mut self.outbound {
            stream.keep(now);
        }
    }

    /// Whether a stream's receiver has proven its address.
    pub fn takes(&self, stream: OutgoingStream) -> bool {
        self.outbound.get(stream.0 as usize).is_some_and(Outbound::is_proven)
    }

    /// Whether a published stream's sender has proven its address.
    pub fn hears(&self, mid: Mid) -> bool {
        self.inbound
            .iter()
            .flatten()
            .any(|stream| stream.mid == mid && stream.is_proven())
    }

    /// The payload type of a format on a received stream, if it is in the stream's codec.
    pub fn payload_type(&self, mid: Mid, format: PayloadFormat) -> Option<PayloadType> {
        let stream = self.outbound.iter().find(|stream| stream.mid == mid)?;
        (format.codec() == Some(stream.codec)).then_some(PayloadType(stream.payload_type))
    }

    /// Queues a packet on a received stream.
    pub fn write(&mut self, stream: OutgoingStream, packet: &MediaPacket, rewritten: &Rewritten) -> bool {
        let Some(stream) = self.outbound.get_mut(stream.0 as usize) else {
            return false;
        };
        let Some(datagram) = stream.write(packet, rewritten) else {
            return false;
        };
        self.datagrams.push_back(datagram);
        let due = stream.next_due(self.idle);
        self.wake(due);
        true
    }

    /// Asks the client for a key frame of a published stream.
    pub fn request_key_frame(&mut self, now: Instant, mid: Mid) {
        let stream = self.inbound.iter_mut().flatten().find(|stream| stream.mid == mid);
        self.datagrams
            .extend(stream.and_then(|stream| stream.request_key_frame(now, &self.name)));
    }

    /// The next thing to do.
    pub fn poll(&mut self, now: Instant) -> Polled {
        loop {
            if let Some((to, bytes)) = self.datagrams.pop_front() {
                let bytes = bytes.into();
                return Polled::Datagram { by: None, to, bytes };
            }
            if let Some(event) = self.events.pop_front() {
                return Polled::Event(event);
            }
            match self.due {
                Some(due) if due <= now => self.handle_timeout(now),
                Some(due) => return Polled::Idle(due),
                None => return Polled::Idle(now + LONG),
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.due = None;
        for stream in self.inbound.iter_mut().flatten() {
            self.datagrams.extend(stream.handle_timeout(now, &self.name, self.idle));
        }
        for stream in &mut self.outbound {
            let datagram = stream.handle_timeout(now, &self.name, &self.clock, self.idle);
            self.datagrams.extend(datagram);
            if stream.is_key_frame_due(now) {
                self.events.push_back(ConnectionEvent::KeyFrameWanted(stream.mid));
            }
        }
        let inbound = self
            .inbound
            .iter()
            .flatten()
            .filter_map(|stream| stream.next_due(self.idle));
        let outbound = self.outbound.iter().filter_map(|stream| stream.next_due(self.idle));
        // At a time that has passed, nothing may be left to do: it would be done again at once, and for ever.
        self.due = inbound
            .chain(outbound)
            .min()
            .map(|due| due.max(now + Duration::from_millis(1)));
    }

    fn wake(&mut self, due: Option<Instant>) {
        self.due = self.due.into_iter().chain(due).min();
    }
}
