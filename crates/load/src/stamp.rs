//! When something was sent, written behind it where no decoder looks: behind the last partition of a VP8 frame (RFC 6386 section 9.5: it takes
//! what is left, and is read only as far as it goes), and in the padding of an Opus packet (RFC 6716 section 3.2.5). So what is sent can be
//! watched, and whoever receives it knows how long it took, be it in this process or not.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MAGIC: [u8; 4] = *b"sbld";

/// How long a stamp is, in bytes.
pub const LENGTH: usize = 12;

/// Ends a payload with the time that it is sent at.
pub fn write(payload: &mut Vec<u8>, at: SystemTime) {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    payload.extend((since.as_micros() as u64).to_be_bytes());
    payload.extend(MAGIC);
}

/// How long a payload took until now; none: it has no stamp. Clocks that differ make what took less than that look as if it took no time.
pub fn age(payload: &[u8], now: SystemTime) -> Option<Duration> {
    let (rest, magic) = payload.split_last_chunk::<4>()?;
    let (_, at) = rest.split_last_chunk::<8>().filter(|_| *magic == MAGIC)?;
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    Some(since.saturating_sub(Duration::from_micros(u64::from_be_bytes(*at))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let at = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let mut payload = vec![1, 2, 3];
        write(&mut payload, at);
        assert_eq!(payload.len(), 3 + LENGTH);
        assert_eq!(
            age(&payload, at + Duration::from_millis(7)),
            Some(Duration::from_millis(7))
        );
        assert_eq!(age(&payload, at - Duration::from_millis(7)), Some(Duration::ZERO));
        payload.push(0);
        assert_eq!(age(&payload, at), None);
        assert_eq!(age(b"sbld", at), None);
    }
}
