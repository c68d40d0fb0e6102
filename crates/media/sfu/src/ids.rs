//! Makes ids, ICE credentials and keys from one seeded generator.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use signalbox_protocol::tunnel::Token;
use signalbox_protocol::{ParticipantId, TrackId};

const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Makes ids. The same seed makes the same ones.
pub struct Ids(StdRng);

impl Ids {
    /// A generator.
    pub fn new(seed: [u8; 32]) -> Self {
        Self(StdRng::from_seed(seed))
    }

    /// A room's id.
    pub fn room(&mut self) -> String {
        format!("RM_{}", self.text(12))
    }

    /// A participant's id.
    pub fn participant(&mut self) -> ParticipantId {
        ParticipantId::new(format!("PA_{}", self.text(12)))
    }

    /// A track's id; its third letter tells the kind.
    pub fn track(&mut self, letter: char) -> TrackId {
        TrackId::new(format!("TR_{letter}{}", self.text(12)))
    }

    /// An ICE ufrag, at least 4 characters (RFC 8445 section 5.3).
    pub fn ufrag(&mut self) -> String {
        self.text(10)
    }

    /// An ICE password, at least 22 characters (RFC 8445 section 5.3).
    pub fn password(&mut self) -> String {
        self.text(28)
    }

    /// Where a stream's sequence numbers start.
    pub fn sequence_start(&mut self) -> u16 {
        self.0.random()
    }

    /// An SSRC.
    pub fn ssrc(&mut self) -> u32 {
        self.0.random()
    }

    /// So many bytes that nobody can guess who does not know the seed.
    pub fn secret(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.fill(&mut bytes[..]);
        bytes
    }

    /// A tunnel's name.
    pub fn token(&mut self) -> Token {
        Token::new(self.0.random())
    }

    fn text(&mut self, length: usize) -> String {
        (0..length)
            .map(|_| char::from(ALPHABET[self.0.random_range(0..ALPHABET.len())]))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_ids() {
        let (mut one, mut other) = (Ids::new([7; 32]), Ids::new([7; 32]));
        assert_eq!(one.participant(), other.participant());
        assert_eq!(one.track('V'), other.track('V'));
        assert_ne!(one.password(), one.password());
    }
}
