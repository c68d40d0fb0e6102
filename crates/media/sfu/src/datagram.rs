//! The memory of datagrams on their way out. There is one for each packet and receiver, and an allocation of that size is a dear one; so the memory of what was sent is
//! used again for what comes.

use std::cell::RefCell;
use std::ops::Deref;

use crate::egress::send::MAX_DATAGRAM_BYTES;

/// How many are kept. Higher: more memory after a burst. Lower: the next burst allocates.
const MAX_SPARE: usize = 1_024;

thread_local! {
    /// Memory of those that this thread has sent.
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A datagram that is to be sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Datagram(Vec<u8>);

impl Datagram {
    /// An empty one, with room for the longest.
    pub fn new() -> Self {
        let spare = SPARE.try_with(|spare| spare.borrow_mut().pop()).ok().flatten();
        Self(spare.unwrap_or_else(|| Vec::with_capacity(MAX_DATAGRAM_BYTES)))
    }

    /// To be written.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Deref for Datagram {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Datagram {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Drop for Datagram {
    fn drop(&mut self) {
        if self.0.capacity() < MAX_DATAGRAM_BYTES {
            return;
        }
        let mut bytes = std::mem::take(&mut self.0);
        bytes.clear();
        // A thread that ends has no use for it.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < MAX_SPARE {
                spare.push(bytes);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_what_was_sent_is_used_again_and_is_bounded() {
        let mut first = Datagram::new();
        first.bytes_mut().extend([7; 1_200]);
        let place = first.as_ptr();
        drop(first);
        drop(Datagram::from(vec![1, 2, 3]));
        let second = Datagram::new();
        assert!(second.is_empty() && second.as_ptr() == place);
        let many: Vec<Datagram> = (0..MAX_SPARE + 10).map(|_| Datagram::new()).collect();
        drop(many);
        assert_eq!(SPARE.with_borrow(Vec::len), MAX_SPARE);
    }
}
