//! How a packet leaves: at once, or when it is its turn; with which header; and the same again.

use std::time::Instant;

use crate::bandwidth::Load;
use crate::clock;
use crate::datagram::Datagram;
use crate::packet::OutgoingStream;
use crate::rtp::{HEADER_BYTES, Header};

use super::header::{self, Stamp, Values};
use super::pacer::Queued;
use super::stream::{Line, Sent, Stream};
use super::{Egress, Outgoing, Told, feedback, red, reports};

/// The longest datagram that is sent: with IPv6 and UDP in front it is 1,500 bytes. Higher: paths drop it or cut it up. Lower: what
/// publishers may send does not fit, with what is added to it.
pub const MAX_DATAGRAM_BYTES: usize = 1_452;

/// The longest tag that is behind a packet.
const TAG_BYTES: usize = 16;

/// Bytes of an original sequence number in front of a repaired payload (RFC 4588 section 4).
const REPAIR_HEADER_BYTES: usize = 2;

/// Bytes of a packet that has nothing but padding: the most that its last byte can say (RFC 3550 section 5.1), in whole words.
const PADDING_BYTES: u8 = 252;

/// A payload that is no smaller than this is better to measure with than padding.
const MIN_MEASURING_BYTES: usize = 256;

impl Egress {
    /// Takes a packet that is new to its stream.
    pub(super) fn take(&mut self, now: Instant, stream: OutgoingStream, mut packet: Outgoing) -> bool {
        self.now = now;
        let index = stream.0 as usize;
        let Some(stream) = self.streams.get_mut(index).filter(|_| self.keys.is_some()) else {
            return false;
        };
        // Two packets of one number would be encrypted with the same keystream (RFC 3711 section 9.1).
        if !stream.used.is_new(packet.sequence) || stream.index(packet.sequence).is_none() {
            self.counters.repeated += 1;
            return false;
        }
        let format = self.formats.get(packet.payload_type);
        if packet.red.is_some() {
            let is_red = match format.red {
                Some(red) => {
                    packet.payload_type = red;
                    red::primary(packet.payload()).is_some()
                }
                None => packet.leave_primary(),
            };
            if !is_red {
                self.counters.bad_red += 1;
                return false;
            }
        }
        stream.clock_rate = format.clock_rate;
        stream.payload_type = packet.payload_type;
        if stream.used.take(packet.sequence) {
            stream.newest = Some((packet.timestamp, now));
        }
        if stream.line.is_audio {
            self.send(now, index, packet);
            return true;
        }
        self.pacer.refill(now, self.bandwidth.pacing());
        if self.pacer.may_pass() {
            let is_empty = packet.payload().is_empty();
            self.send(now, index, packet);
            if !is_empty {
                self.begin_probe(now);
            }
        } else {
            self.pacer.queue(Queued {
                stream: index,
                packet,
                since: now,
            });
            self.drop_overdue(now);
        }
        true
    }

    /// Sends what waits, as far as it is its turn.
    pub(super) fn release(&mut self, now: Instant) {
        self.drop_overdue(now);
        while let Some((stream, sequence)) = self.copies.next(now) {
            self.pacer.queue_repair(stream, sequence);
        }
        self.pacer.refill(now, self.bandwidth.pacing());
        while self.pacer.is_open() {
            if let Some((stream, sequence)) = self.pacer.next_repair() {
                self.repair(now, stream, sequence);
            } else if let Some(queued) = self.pacer.next() {
                self.send(now, queued.stream, queued.packet);
            } else {
                break;
            }
        }
        self.probe(now);
    }

    /// What has waited too long is of no use any more, and neither is what was to follow it in its stream.
    fn drop_overdue(&mut self, now: Instant) {
        while let Some(stream) = self.pacer.overdue(now) {
            self.counters.overdue += self.pacer.drop_stream(stream);
            if let Some(stream) = self.streams.get(stream) {
                self.told.push_back(Told::KeyFrameWanted(stream.line.mid));
            }
        }
    }

    /// Sends what is due of a probe: what waits, else what was sent before, else padding.
    fn probe(&mut self, now: Instant) {
        loop {
            self.begin_probe(now);
            if !self.probing.is_due(now) {
                return;
            }
            let before = self.probing.bytes();
            if let Some((stream, sequence)) = self.pacer.next_repair() {
                self.repair(now, stream, sequence);
            } else if let Some(queued) = self.pacer.next() {
                self.send(now, queued.stream, queued.packet);
            } else if !self.pad(now) {
                self.probing.abandon();
            } else if self.probing.bytes() == before {
                // Nothing that is sent can be measured.
                self.probing.abandon();
            }
        }
    }

    fn send(&mut self, now: Instant, index: usize, packet: Outgoing) {
        let Some(stream) = self.streams.get(index) else {
            return;
        };
        let (ssrc, line) = (stream.line.ssrc, stream.line);
        let (Some(sealed), has_mid) = (stream.index(packet.sequence), !stream.is_bound) else {
            return;
        };
        let stamp = self.stamp(now, &line, has_mid);
        let Some(bytes) = self.seal(stream, &packet, &stamp, ssrc, sealed, None) else {
            self.counters.oversize += 1;
            return;
        };
        let format = self.formats.get(packet.payload_type);
        let payload_bytes = packet.payload().len();
        let load = match (line.is_audio, payload_bytes) {
            (true, _) => Load::Audio,
            // Nothing can be measured with packets that are so small.
            (false, 0) => Load::Padding,
            (false, _) => Load::Video,
        };
        if line.is_audio {
            self.overhead.add(now, bytes.len());
        }
        if line.repair_ssrc.is_some() && format.repair.is_some() && format.has_nack {
            self.transmitted(&stamp, index, packet.sequence, false);
        }
        self.leave(now, &stamp, bytes, load);
        if line.repair_ssrc.is_some() && format.repair.is_some() && !packet.payload().is_empty() {
            self.probing.padding_stream = Some(index);
        }
        self.repair_budget =
            (self.repair_budget + payload_bytes / feedback::REPAIR_SHARE).min(feedback::MAX_REPAIR_BUDGET);
        let Some(stream) = self.streams.get_mut(index) else {
            return;
        };
        if stream.packets == 0 {
            let due = now + reports::FIRST_REPORT;
            self.report_due = Some(self.report_due.map_or(due, |before| before.min(due)));
        }
        stream.packets = stream.packets.wrapping_add(1);
        stream.bytes = stream.bytes.wrapping_add(payload_bytes as u32);
        if format.has_nack {
            stream.history.keep(now, packet.sequence, Sent { packet, stamp });
        }
    }

    /// Sends a packet again, which the history has allowed.
    fn repair(&mut self, now: Instant, index: usize, sequence: u64) {
        let sent = self.streams.get(index).and_then(|stream| stream.history.get(sequence));
        let Some(sent) = sent.cloned() else {
            return;
        };
        if let Some(bytes) = self.send_again(now, index, &sent, Load::Video) {
            self.counters.repaired += 1;
            self.overhead.add(now, bytes);
        }
    }

    /// Sends something only to measure. `false`: there is nothing that may be sent.
    fn pad(&mut self, now: Instant) -> bool {
        let Some(index) = self.probing.padding_stream else {
            return false;
        };
        let newest = self.streams.get(index);
        let is_large = |sent: &Sent| sent.packet.payload().len() >= MIN_MEASURING_BYTES;
        let newest = newest.and_then(|stream| stream.history.newest(now, is_large));
        let is_sent = match newest.cloned() {
            Some(sent) => self.send_again(now, index, &sent, Load::Padding).is_some(),
            None => self.send_padding(now, index),
        };
        self.counters.padding += u64::from(is_sent);
        is_sent
    }

    /// Sends a packet again: in its repair stream (RFC 4588), or as it was. Returns how many bytes that were.
    fn send_again(&mut self, now: Instant, index: usize, sent: &Sent, load: Load) -> Option<usize> {
        let stream = self.streams.get_mut(index)?;
        let line = stream.line;
        let repair = line.repair_ssrc.zip(self.formats.get(sent.packet.payload_type).repair);
        let Some((ssrc, payload_type)) = repair else {
            // To the byte: the same index with any other header would give the key away (NIST SP 800-38D section 8).
            let sealed = stream.index(sent.packet.sequence)?;
            let stream = self.streams.get(index)?;
            let bytes = self.seal(stream, &sent.packet, &sent.stamp, line.ssrc, sealed, None)?;
            let length = bytes.len();
            self.ready.push_back(bytes);
            return Some(length);
        };
        let sequence = stream.next_repair();
        let has_mid = !stream.is_repair_bound;
        let stamp = self.stamp(now, &line, has_mid);
        let stream = self.streams.get(index)?;
        let bytes = self.seal(stream, &sent.packet, &stamp, ssrc, sequence, Some(payload_type))?;
        let length = bytes.len();
        self.transmitted(&stamp, index, sent.packet.sequence, true);
        self.leave(now, &stamp, bytes, load);
        Some(length)
    }

    fn send_padding(&mut self, now: Instant, index: usize) -> bool {
        let Some(stream) = self.streams.get_mut(index) else {
            return false;
        };
        let line = stream.line;
        let repair = line.repair_ssrc.zip(self.formats.get(stream.payload_type).repair);
        let (Some((ssrc, payload_type)), Some((timestamp, _))) = (repair, stream.newest) else {
            return false;
        };
        let sequence = stream.next_repair();
        let has_mid = !stream.is_repair_bound;
        let stamp = self.stamp(now, &line, has_mid);
        let header = Header {
            marker: false,
            payload_type,
            sequence: sequence as u16,
            timestamp,
            ssrc,
            is_padded: true,
            length: HEADER_BYTES,
        };
        let mut datagram = Datagram::new();
        let bytes = datagram.bytes_mut();
        let length = begin(bytes, header, &line, Values::default(), &stamp);
        bytes.resize(length + usize::from(PADDING_BYTES), 0);
        if let Some(last) = bytes.last_mut() {
            *last = PADDING_BYTES;
        }
        let sealed = self
            .keys
            .as_ref()
            .is_some_and(|keys| keys.sender.cipher.seal_rtp(bytes, length, ssrc, sequence).is_ok());
        if sealed {
            self.leave(now, &stamp, datagram, Load::Padding);
        }
        sealed
    }

    /// What a packet is stamped with that leaves now.
    fn stamp(&self, now: Instant, line: &Line, has_mid: bool) -> Stamp {
        let transport_sequence = line.extensions.transport_sequence;
        Stamp {
            has_mid,
            transport_sequence: transport_sequence.map(|_| self.numbers.next() as u16),
            send_time: clock::abs_send_time(self.clock.ntp(now)),
        }
    }

    /// A packet of a stream leaves with this stamp.
    fn transmitted(&mut self, stamp: &Stamp, stream: usize, sequence: u64, is_again: bool) {
        if stamp.transport_sequence.is_some() {
            self.transmissions.sent(self.numbers.next(), stream, sequence, is_again);
        }
    }

    /// Hands a datagram over, and remembers that it was.
    fn leave(&mut self, now: Instant, stamp: &Stamp, bytes: Datagram, load: Load) {
        self.pacer.spend(bytes.len());
        if stamp.transport_sequence.is_some() {
            let probe = self.probing.sent(now, bytes.len());
            self.bandwidth.sent(now, self.numbers.next(), bytes.len(), load, probe);
            self.numbers.used();
        }
        self.ready.push_back(bytes);
    }

    /// Makes a datagram; in a repair stream if its payload type is given. `None`: it is too long.
    fn seal(
        &self,
        stream: &Stream,
        packet: &Outgoing,
        stamp: &Stamp,
        ssrc: u32,
        index: u64,
        repair: Option<u8>,
    ) -> Option<Datagram> {
        let header = Header {
            marker: packet.marker,
            payload_type: repair.unwrap_or(packet.payload_type),
            sequence: index as u16,
            timestamp: packet.timestamp,
            ssrc,
            is_padded: packet.payload().is_empty() && repair.is_none(),
            length: HEADER_BYTES,
        };
        let mut datagram = Datagram::new();
        let bytes = datagram.bytes_mut();
        let mut length = begin(bytes, header, &stream.line, packet.values(), stamp);
        let clear = length;
        if repair.is_some() {
            bytes.extend((packet.sequence as u16).to_be_bytes());
            length += REPAIR_HEADER_BYTES;
        }
        if bytes.len() + packet.payload().len() + TAG_BYTES > MAX_DATAGRAM_BYTES {
            return None;
        }
        bytes.extend_from_slice(packet.payload());
        if let Some(payload) = bytes.get_mut(length..) {
            packet.pictures.apply(payload);
            if let Some(payload_type) = packet.red {
                red::relabel(payload, payload_type);
            }
        }
        if header.is_padded {
            // One word of padding, which is all there is.
            bytes.extend([0, 0, 0, 4]);
        }
        let cipher = &self.keys.as_ref()?.sender.cipher;
        cipher.seal_rtp(bytes, clear, ssrc, index).ok()?;
        Some(datagram)
    }
}

/// Writes a header with its extensions. Returns its length.
fn begin(bytes: &mut Vec<u8>, header: Header, line: &Line, values: Values<'_>, stamp: &Stamp) -> usize {
    bytes.extend(header.to_bytes());
    header::write(&line.extensions, line.mid, values, stamp, bytes);
    if let Some(first) = bytes.first_mut() {
        *first |= u8::from(header.is_padded) << 5;
    }
    let length = bytes.len();
    if length > HEADER_BYTES
        && let Some(first) = bytes.first_mut()
    {
        *first |= 0x10;
    }
    length
}
