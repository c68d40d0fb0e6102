//! The last messages of one stream, numbered, so that a client that lost its connection gets what it missed. No I/O, no clock.
//!
//! Bounded in number, bytes and age. Whoever asks for more than is left needs a fresh snapshot, which voids all before it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// How many messages are kept. Higher: longer gaps are bridged in busy rooms. Lower: less memory for each stream.
const MAX_MESSAGES: usize = 128;

/// How many bytes of messages are kept; the last one always is.
const MAX_BYTES: usize = 64 * 1024;

/// How long a message is kept. Higher: longer gaps are bridged. Lower: idle streams let go of their memory sooner.
const MAX_AGE: Duration = Duration::from_secs(30);

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its place in the stream, from 1.
    pub(super) number: u64,
    /// Its `type`.
    pub(super) kind: &'static str,
    /// All of it.
    pub(super) json: Arc<str>,
    at: Instant,
}

impl Entry {
    fn voids_all_before(&self) -> bool {
        self.kind == "snapshot"
    }
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// This.
    Entry(&'a Entry),
    /// Nothing yet.
    Nothing,
    /// What came next is gone: only a snapshot helps.
    Missed,
}

/// The log.
#[derive(Debug, Default)]
pub(super) struct Log {
    entries: VecDeque<Entry>,
    bytes: usize,
    last: u64,
}

impl Log {
    /// The number of the next message.
    pub(super) fn next_number(&self) -> u64 {
        self.last + 1
    }

    /// Adds a message with [`Log::next_number`].
    pub(super) fn append(&mut self, now: Instant, kind: &'static str, json: Arc<str>) {
        let entry = Entry {
            number: self.next_number(),
            kind,
            json,
            at: now,
        };
        if entry.voids_all_before() {
            self.entries.clear();
            self.bytes = 0;
        }
        self.last = entry.number;
        self.bytes += entry.json.len();
        self.entries.push_back(entry);
        while self.entries.len() > 1 && (self.entries.len() > MAX_MESSAGES || self.bytes > MAX_BYTES) {
            self.drop_first();
        }
    }

    /// Drops what is too old.
    pub(super) fn forget(&mut self, now: Instant) {
        let is_old = |entry: &Entry| now.saturating_duration_since(entry.at) > MAX_AGE;
        while self.entries.front().is_some_and(is_old) {
            self.drop_first();
        }
    }

    /// What comes after a message; none: what to begin with, which is a snapshot.
    pub(super) fn after(&self, number: Option<u64>) -> Next<'_> {
        if number == Some(self.last) {
            return Next::Nothing;
        }
        let Some(first) = self.entries.front() else {
            return Next::Missed;
        };
        let wanted = number.map(|number| number.saturating_add(1));
        match wanted.and_then(|wanted| wanted.checked_sub(first.number)) {
            // From there on all is there, or nobody has ever said it.
            Some(index) => usize::try_from(index)
                .ok()
                .and_then(|index| self.entries.get(index))
                .map_or(Next::Missed, Next::Entry),
            None if first.voids_all_before() => Next::Entry(first),
            None => Next::Missed,
        }
    }

    /// The last message, if it is left.
    pub(super) fn last(&self) -> Option<&Entry> {
        self.entries.back()
    }

    fn drop_first(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry.json.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(messages: &[&'static str]) -> Log {
        let mut log = Log::default();
        for kind in messages {
            log.append(Instant::now(), kind, "{}".into());
        }
        log
    }

    fn number(next: Next<'_>) -> u64 {
        match next {
            Next::Entry(entry) => entry.number,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_was_missed_is_replayed_in_order() {
        let log = log(&["snapshot", "joined", "left"]);
        assert_eq!(number(log.after(None)), 1);
        assert_eq!(number(log.after(Some(1))), 2);
        assert_eq!(number(log.after(Some(2))), 3);
        assert_eq!(log.after(Some(3)), Next::Nothing);
    }

    #[test]
    fn a_number_that_nobody_has_said_is_answered_with_a_gap() {
        let log = log(&["snapshot", "joined"]);
        assert_eq!(log.after(Some(3)), Next::Missed);
        assert_eq!(log.after(Some(u64::MAX)), Next::Missed);
        assert_eq!(Log::default().after(Some(1)), Next::Missed);
    }

    #[test]
    fn a_snapshot_voids_what_was_before_it_and_makes_up_for_it() {
        let log = log(&["snapshot", "joined", "left", "snapshot", "moved"]);
        for missed in [None, Some(0), Some(1), Some(3)] {
            assert_eq!(number(log.after(missed)), 4, "{missed:?}");
        }
        assert_eq!(number(log.after(Some(4))), 5);
    }

    #[test]
    fn it_is_bounded_in_number_bytes_and_age() {
        let mut log = log(&["snapshot"]);
        let now = Instant::now();
        for _ in 0..MAX_MESSAGES {
            log.append(now, "joined", "{}".into());
        }
        assert_eq!(log.entries.len(), MAX_MESSAGES);
        assert_eq!(log.after(Some(0)), Next::Missed);
        assert_eq!(log.after(None), Next::Missed);
        assert_eq!(number(log.after(Some(1))), 2);
        log.append(now, "joined", "x".repeat(MAX_BYTES - 10).into());
        assert!(log.bytes <= MAX_BYTES);
        let before_long = log.next_number();
        log.append(now, "joined", "x".repeat(MAX_BYTES * 2).into());
        assert_eq!(log.entries.len(), 1);
        assert_eq!(number(log.after(Some(before_long - 1))), before_long);
        log.forget(now + MAX_AGE);
        assert_eq!(log.entries.len(), 1);
        log.forget(now + MAX_AGE + Duration::from_secs(1));
        assert_eq!((log.entries.len(), log.bytes), (0, 0));
        assert_eq!(log.after(Some(before_long)), Next::Nothing);
        assert_eq!(log.after(Some(before_long - 1)), Next::Missed);
    }
}
