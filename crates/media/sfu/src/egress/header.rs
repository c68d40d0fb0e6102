//! RTP header extensions (RFC 8285): which ones a receiver has negotiated, and how a packet's are written.

use crate::packet::Mid;

/// The longest value of the one-byte form (RFC 8285 section 4.2).
const MAX_ONE_BYTE_FORM: usize = 16;

/// The highest id of the one-byte form (RFC 8285 section 4.2); 15 is reserved there.
const MAX_ONE_BYTE_ID: u8 = 14;

/// Which ids a receiver has given to the extensions of an m-line; none: it did not negotiate it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extensions {
    /// `urn:ietf:params:rtp-hdrext:sdes:mid` (RFC 8843 section 15).
    pub mid: Option<u8>,
    /// draft-holmer-rmcat-transport-wide-cc-extensions-01 section 2.
    pub transport_sequence: Option<u8>,
    /// <http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time>
    pub send_time: Option<u8>,
    /// RFC 6464.
    pub audio_level: Option<u8>,
    /// 3GPP TS 26.114 section 7.4.5.
    pub rotation: Option<u8>,
    /// <http://www.webrtc.org/experiments/rtp-hdrext/playout-delay>
    pub playout_delay: Option<u8>,
    /// <http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time>
    pub capture_time: Option<u8>,
    /// AV1 RTP payload format, appendix A.
    pub dependency: Option<u8>,
}

/// What a packet carries in its extensions that its source has said.
#[derive(Debug, Clone, Copy, Default)]
pub struct Values<'a> {
    /// dBov, −127 to 0, and the voice detector (RFC 6464).
    pub audio_level: Option<(i8, bool)>,
    /// Quarter turns clockwise.
    pub rotation: Option<u8>,
    /// The shortest and longest delay until it is shown, in 10 ms, 12 bits each.
    pub playout_delay: Option<(u16, u16)>,
    /// When it was captured: an NTP timestamp, and how far its sender's clock is off, both in 2⁻³² s.
    pub capture_time: Option<(u64, Option<i64>)>,
    /// The dependency descriptor.
    pub dependency: Option<&'a [u8]>,
}

/// What a packet carries in its extensions that depends on when it is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Whether it says its m-line, as long as the receiver may not know whose the SSRC is.
    pub has_mid: bool,
    /// The transport-wide sequence number.
    pub transport_sequence: Option<u16>,
    /// When it is sent, in seconds modulo 64, of which 18 bits are fractions.
    pub send_time: u32,
}

/// Appends a header's extension block, if there is anything to be in it.
pub fn write(ids: &Extensions, mid: Mid, values: Values<'_>, stamp: &Stamp, out: &mut Vec<u8>) {
    let mut block = Block {
        start: out.len(),
        has_long_form: ids.needs_long_form(values.dependency),
        out,
    };
    if stamp.has_mid {
        block.put(ids.mid, mid.as_str().as_bytes());
    }
    if let Some(sequence) = stamp.transport_sequence {
        block.put(ids.transport_sequence, &sequence.to_be_bytes());
    }
    block.put(ids.send_time, &stamp.send_time.to_be_bytes()[1..]);
    if let Some((level, voice)) = values.audio_level {
        block.put(ids.audio_level, &[u8::from(voice) << 7 | level.unsigned_abs().min(127)]);
    }
    if let Some(turns) = values.rotation {
        block.put(ids.rotation, &[turns & 0x03]);
    }
    if let Some((min, max)) = values.playout_delay {
        let both = u32::from(min & 0xfff) << 12 | u32::from(max & 0xfff);
        block.put(ids.playout_delay, &both.to_be_bytes()[1..]);
    }
    match values.capture_time {
        None => {}
        Some((time, None)) => block.put(ids.capture_time, &time.to_be_bytes()),
        Some((time, Some(offset))) => {
            let both = u128::from(time) << 64 | u128::from(offset as u64);
            block.put(ids.capture_time, &both.to_be_bytes());
        }
    }
    if let Some(descriptor) = values.dependency {
        block.put(ids.dependency, descriptor);
    }
    block.end();
}

impl Extensions {
    fn needs_long_form(&self, descriptor: Option<&[u8]>) -> bool {
        let descriptor = descriptor.filter(|_| self.dependency.is_some());
        // Which ids are in use is a matter of the m-line, not of the packet: most packets carry most of them.
        let ids = [
            self.mid,
            self.transport_sequence,
            self.send_time,
            self.audio_level,
            self.rotation,
            self.playout_delay,
            self.capture_time,
            self.dependency,
        ];
        descriptor.is_some_and(|descriptor| descriptor.len() > MAX_ONE_BYTE_FORM || descriptor.is_empty())
            || ids.into_iter().flatten().any(|id| id > MAX_ONE_BYTE_ID)
    }
}

struct Block<'a> {
    start: usize,
    has_long_form: bool,
    out: &'a mut Vec<u8>,
}

impl Block<'_> {
    fn put(&mut self, id: Option<u8>, value: &[u8]) {
        let (Some(id), Ok(length)) = (id, u8::try_from(value.len())) else {
            return;
        };
        if self.out.len() == self.start {
            self.out
                .extend(if self.has_long_form { [0x10, 0x00] } else { [0xbe, 0xde] });
            self.out.extend([0, 0]);
        }
        if self.has_long_form {
            self.out.extend([id, length]);
        } else {
            self.out.push(id << 4 | length.saturating_sub(1) & 0x0f);
        }
        self.out.extend_from_slice(value);
    }

    fn end(self) {
        let length = self.out.len() - self.start;
        if length == 0 {
            return;
        }
        let padded = length.next_multiple_of(4);
        self.out.resize(self.start + padded, 0);
        let words = (padded / 4 - 1) as u16;
        if let Some(field) = self.out.get_mut(self.start + 2..self.start + 4) {
            field.copy_from_slice(&words.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Extensions = Extensions {
        mid: Some(4),
        transport_sequence: Some(3),
        send_time: Some(2),
        audio_level: Some(1),
        rotation: Some(13),
        playout_delay: Some(5),
        capture_time: Some(7),
        dependency: Some(6),
    };

    fn written(ids: &Extensions, values: &Values<'_>, stamp: &Stamp) -> Vec<u8> {
        let mut out = vec![9];
        write(ids, "12".into(), *values, stamp, &mut out);
        out.split_off(1)
    }

    /// The elements of a block, by id.
    fn elements(block: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let words = usize::from(u16::from_be_bytes([block[2], block[3]]));
        assert_eq!(block.len(), 4 + words * 4);
        let (mut rest, mut found) = (&block[4..], Vec::new());
        while let Some((&first, tail)) = rest.split_first() {
            if first == 0 {
                rest = tail;
                continue;
            }
            let (id, length, tail) = match block[0] {
                0xbe => (first >> 4, usize::from(first & 0x0f) + 1, tail),
                _ => (first, usize::from(tail[0]), &tail[1..]),
            };
            found.push((id, tail[..length].to_vec()));
            rest = &tail[length..];
        }
        found.sort();
        found
    }

    #[test]
    fn what_was_negotiated_is_written_and_nothing_else() {
        let values = Values {
            audio_level: Some((-37, true)),
            rotation: Some(3),
            playout_delay: Some((0xabc, 0x123)),
            capture_time: Some((0x0102_0304_0506_0708, Some(-1))),
            dependency: Some(&[0x80, 0, 1]),
        };
        let stamp = Stamp {
            has_mid: true,
            transport_sequence: Some(0x1234),
            send_time: 0x00ab_cdef,
        };
        let block = written(&ALL, &values, &stamp);
        assert_eq!(block[..2], [0xbe, 0xde]);
        let mut time = vec![1, 2, 3, 4, 5, 6, 7, 8];
        time.extend([0xff; 8]);
        let expected = vec![
            (1, vec![0x80 | 37]),
            (2, vec![0xab, 0xcd, 0xef]),
            (3, vec![0x12, 0x34]),
            (4, b"12".to_vec()),
            (5, vec![0xab, 0xc1, 0x23]),
            (6, vec![0x80, 0, 1]),
            (7, time),
            (13, vec![3]),
        ];
        assert_eq!(elements(&block), expected);
        assert!(written(&Extensions::default(), &values, &stamp).is_empty());
        let only = Extensions {
            rotation: Some(13),
            ..Extensions::default()
        };
        assert_eq!(written(&only, &values, &stamp), [0xbe, 0xde, 0, 1, 0xd0, 3, 0, 0]);
        assert!(written(&only, &Values::default(), &stamp).is_empty());
    }

    #[test]
    fn long_values_and_high_ids_make_the_long_form() {
        let long = Values {
            dependency: Some(&[7; 255]),
            ..Values::default()
        };
        let block = written(&ALL, &long, &Stamp::default());
        assert_eq!(block[..2], [0x10, 0x00]);
        assert_eq!(elements(&block)[1], (6, vec![7; 255]));
        let high = Extensions {
            send_time: Some(15),
            ..Extensions::default()
        };
        let block = written(&high, &Values::default(), &Stamp::default());
        assert_eq!(elements(&block), [(15, vec![0, 0, 0])]);
        // What nobody can write, nobody gets.
        let longer = Values {
            dependency: Some(&[7; 256]),
            ..Values::default()
        };
        assert_eq!(
            elements(&written(&ALL, &longer, &Stamp::default())),
            [(2, vec![0, 0, 0])]
        );
    }
}
