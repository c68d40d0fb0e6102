//! Reading and writing fields that are not whole bytes, most significant bit first.

/// Reads bits.
#[derive(Debug, Clone)]
pub struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    /// From the beginning.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bits that have been read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The next bits, 32 at most; none: there are not as many.
    pub fn take(&mut self, count: usize) -> Option<u32> {
        let mut value: u64 = 0;
        let end = self.at + count;
        while self.at < end {
            let byte = *self.bytes.get(self.at / 8)?;
            let left = 8 - self.at % 8;
            let used = left.min(end - self.at);
            let field = (u64::from(byte) >> (left - used)) & ((1 << used) - 1);
            value = value << used | field;
            self.at += used;
        }
        Some(value as u32)
    }

    /// The next bit.
    pub fn flag(&mut self) -> Option<bool> {
        self.take(1).map(|bit| bit == 1)
    }

    /// A number below `count`, in as few bits as it needs: ns(n) of the AV1 specification, section 4.10.7.
    pub fn take_below(&mut self, count: u32) -> Option<u32> {
        let width = 32 - count.leading_zeros();
        let short = (1_u32 << width).wrapping_sub(count);
        let value = self.take(width.saturating_sub(1) as usize)?;
        if value < short {
            return Some(value);
        }
        Some((value << 1) - short + self.take(1)?)
    }
}

/// Writes bits; what does not fill the last byte is zero.
#[derive(Debug, Default)]
pub struct BitWriter {
    bytes: Vec<u8>,
    used: usize,
}

impl BitWriter {
    /// With room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            used: 0,
        }
    }

    /// Appends the lowest bits of a value, 32 at most.
    pub fn put(&mut self, value: u32, count: usize) {
        for bit in (0..count).rev() {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value >> bit & 1) as u8) << (7 - self.used % 8);
            }
            self.used += 1;
        }
    }

    /// Appends what a reader has, up to a position.
    pub fn copy(&mut self, from: &mut BitReader<'_>, end: usize) {
        while from.position() < end {
            let count = (end - from.position()).min(24);
            let Some(value) = from.take(count) else {
                return;
            };
            self.put(value, count);
        }
    }

    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let mut writer = BitWriter::default();
        writer.put(0b101, 3);
        writer.put(0xabcd, 16);
        writer.put(1, 1);
        let bytes = writer.into_bytes();
        assert_eq!(bytes.len(), 3);
        let mut reader = BitReader::new(&bytes);
        assert_eq!(reader.take(3), Some(0b101));
        assert_eq!(reader.take(16), Some(0xabcd));
        assert_eq!(reader.flag(), Some(true));
        assert_eq!(reader.take(5), None);
    }

    #[test]
    fn a_bounded_number_takes_as_few_bits_as_it_needs() {
        // Of five values the first three take two bits, the others three.
        for (bytes, value, bits) in [
            ([0b0000_0000], 0, 2),
            ([0b1000_0000], 2, 2),
            ([0b1100_0000], 3, 3),
            ([0b1110_0000], 4, 3),
        ] {
            let mut reader = BitReader::new(&bytes);
            assert_eq!(reader.take_below(5), Some(value));
            assert_eq!(reader.position(), bits);
        }
        let mut reader = BitReader::new(&[]);
        assert_eq!(reader.take_below(1), Some(0), "there is only one");
    }

    #[test]
    fn a_copy_may_begin_anywhere() {
        let bytes = [0x12, 0x34, 0x56, 0x78, 0x9a];
        let mut reader = BitReader::new(&bytes);
        reader.take(4);
        let mut writer = BitWriter::default();
        writer.copy(&mut reader, 40);
        assert_eq!(writer.into_bytes(), [0x23, 0x45, 0x67, 0x89, 0xa0]);
    }
}
