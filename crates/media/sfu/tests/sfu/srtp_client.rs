//! A client without a peer connection: publishes synthetic media, and keeps what it receives.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use signalbox_protocol::room::Kind;
use signalbox_protocol::srtp::SrtpSession;

use crate::sfu::srtp_streams::{Receiver, Sender};

pub struct SrtpClient {
    pub address: SocketAddr,
    pub senders: Vec<Sender>,
    pub receivers: Vec<Receiver>,
    /// It sends no media while this is set.
    pub is_silent: bool,
    /// It sends no reports while this is set.
    pub is_quiet: bool,
    started: Instant,
    next_report: Instant,
}

impl SrtpClient {
    pub fn new(now: Instant, address: SocketAddr, session: &SrtpSession) -> Self {
        let senders = session.publish.iter().map(|stream| Sender::new(now, stream));
        let receivers = session.receive.iter().map(Receiver::new);
        Self {
            address,
            senders: senders.collect(),
            receivers: receivers.collect(),
            is_silent: false,
            is_quiet: false,
            started: now,
            next_report: now,
        }
    }

    /// When it wants to be polled.
    pub fn due(&self) -> Instant {
        let frames = self.senders.iter().map(|sender| sender.next);
        frames.chain([self.next_report]).min().unwrap()
    }

    /// The stream of a kind that it receives.
    pub fn receiver(&mut self, kind: Kind) -> &mut Receiver {
        self.receivers
            .iter_mut()
            .find(|receiver| receiver.stream.kind == kind)
            .unwrap()
    }

    /// The stream of a kind that it sends.
    pub fn sender(&mut self, kind: Kind) -> &mut Sender {
        self.senders
            .iter_mut()
            .find(|sender| sender.stream.kind == kind)
            .unwrap()
    }

    /// The proofs of all addresses that it receives on, as the join handed them out.
    pub fn proofs(&self) -> Vec<Vec<u8>> {
        let proofs = self
            .receivers
            .iter()
            .map(|receiver| receiver.stream.proof.as_ref().unwrap());
        proofs.map(|proof| STANDARD.decode(&proof.0).unwrap()).collect()
    }

    /// What is to be put on the network: media, and a report a second about each stream that it receives.
    pub fn poll(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        for sender in &mut self.senders {
            while sender.next <= now {
                sender.frame(self.is_silent, &mut out);
            }
        }
        if self.next_report <= now {
            self.next_report += Duration::from_secs(1);
            let receivers = self.receivers.iter_mut().filter(|_| !self.is_quiet);
            out.extend(receivers.map(|receiver| receiver.report(now)));
        }
        out
    }

    /// Takes a datagram; what is to be sent at once. Everything must be authentic.
    pub fn receive(&mut self, now: Instant, datagram: &[u8]) -> Vec<Vec<u8>> {
        let is_rtcp = (192..=223).contains(&datagram[1]);
        let at = if is_rtcp { 4 } else { 8 };
        let ssrc = u32::from_be_bytes(datagram[at..at + 4].try_into().unwrap());
        if let Some(sender) = self
            .senders
            .iter_mut()
            .find(|sender| sender.stream.feedback_ssrc == ssrc)
        {
            return sender.feedback(datagram);
        }
        let passed = now.duration_since(self.started);
        let receiver = self.receivers.iter_mut().find(|receiver| receiver.stream.ssrc == ssrc);
        receiver
            .expect("a datagram of a known stream")
            .take(now, passed, datagram, is_rtcp);
        Vec::new()
    }
}
