//! Joins datagrams of one destination into runs that leave in one system call (generic segmentation offload, GSO).
//!
//! The kernel's work per send dominates the cost of forwarding, and it is paid once per run. A run is what `UDP_SEGMENT` can
//! express: one destination, segments of equal size, of which only the last may be shorter.
//!
//! It owns the buffer; it must not know sockets.

use std::net::SocketAddr;

/// The most bytes of a run. The kernel's bound is one IP packet's 65,535 bytes with all its headers.
pub const MAX_RUN_BYTES: usize = 65_000;

/// A run that is ready to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run<'a> {
    /// Where to.
    pub to: SocketAddr,
    /// Every segment, one after the other.
    pub bytes: &'a [u8],
    /// The length of each segment in bytes; the last may be shorter.
    pub segment: usize,
}

impl<'a> Run<'a> {
    /// The datagrams one by one.
    pub fn segments(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.bytes.chunks(self.segment.max(1))
    }

    /// How many datagrams it has.
    pub fn count(&self) -> usize {
        self.bytes.len().div_ceil(self.segment.max(1))
    }
}

/// Takes datagrams and gives runs, in the same order. Its buffer is reused.
#[derive(Debug, Default)]
pub struct SendRun {
    to: Option<SocketAddr>,
    bytes: Vec<u8>,
    segment: usize,
    count: usize,
    /// The last segment was shorter: nothing can follow it.
    ended: bool,
}

impl SendRun {
    /// Adds a datagram, if it can be part of the run that is being made. False: take the run with [`SendRun::take`] first.
    /// Empty datagrams are accepted and forgotten.
    pub fn push(&mut self, to: SocketAddr, datagram: &[u8], max_segments: usize) -> bool {
        if datagram.is_empty() {
            return true;
        }
        if self.to.is_none() {
            self.to = Some(to);
            self.segment = datagram.len();
        } else if self.to != Some(to)
            || self.ended
            || datagram.len() > self.segment
            || self.count >= max_segments
            || self.bytes.len() + datagram.len() > MAX_RUN_BYTES
        {
            return false;
        }
        self.ended = datagram.len() < self.segment;
        self.bytes.extend_from_slice(datagram);
        self.count += 1;
        true
    }

    /// Hands over the run, if there is one, and begins anew.
    pub fn take(&mut self, send: impl FnOnce(Run<'_>)) {
        if let Some(to) = self.to.take() {
            send(Run {
                to,
                bytes: &self.bytes,
                segment: self.segment,
            });
        }
        self.bytes.clear();
        self.count = 0;
        self.ended = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (port, segment size, datagrams)
    fn runs_of(datagrams: &[(u16, usize)], max_segments: usize) -> Vec<(u16, usize, usize)> {
        let mut runs = Vec::new();
        let mut run = SendRun::default();
        let mut note = |run: Run<'_>| {
            assert_eq!(run.segments().count(), run.count());
            runs.push((run.to.port(), run.segment, run.count()));
        };
        for &(port, len) in datagrams {
            let to = SocketAddr::from(([10, 0, 0, 1], port));
            let bytes = vec![7; len];
            if !run.push(to, &bytes, max_segments) {
                run.take(&mut note);
                assert!(run.push(to, &bytes, max_segments), "an empty run takes anything");
            }
        }
        run.take(&mut note);
        runs
    }

    #[test]
    fn equal_datagrams_to_one_destination_are_one_run() {
        assert_eq!(runs_of(&[(1, 900), (1, 900), (1, 900)], 64), [(1, 900, 3)]);
    }

    #[test]
    fn only_the_last_datagram_of_a_run_is_shorter() {
        assert_eq!(
            runs_of(&[(1, 900), (1, 100), (1, 100), (1, 100), (1, 900)], 64),
            [(1, 900, 2), (1, 100, 2), (1, 900, 1)]
        );
    }

    #[test]
    fn another_destination_begins_another_run() {
        assert_eq!(
            runs_of(&[(1, 900), (2, 900), (2, 900), (1, 900)], 64),
            [(1, 900, 1), (2, 900, 2), (1, 900, 1)]
        );
    }

    #[test]
    fn a_run_is_bounded_in_segments_and_bytes() {
        assert_eq!(runs_of(&[(1, 10); 5], 2), [(1, 10, 2), (1, 10, 2), (1, 10, 1)]);
        let runs = runs_of(&[(1, 1400); 64], 64);
        assert_eq!(runs, [(1, 1400, 46), (1, 1400, 18)]);
    }

    #[test]
    fn without_offload_every_datagram_leaves_alone() {
        assert_eq!(runs_of(&[(1, 900), (1, 900)], 1), [(1, 900, 1), (1, 900, 1)]);
    }

    #[test]
    fn an_empty_datagram_is_forgotten() {
        assert_eq!(runs_of(&[(1, 0), (1, 9), (1, 0)], 64), [(1, 9, 1)]);
        assert_eq!(runs_of(&[], 64), []);
    }
}
