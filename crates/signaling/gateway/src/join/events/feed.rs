//! One participant's messages at this gateway, and the one client that reads them.
//!
//! A feed outlives its client's connection for a while: it goes on to collect, so that the client that comes back with the id of its last
//! message gets what it missed. Only the gateway that has the participant attached collects all of its events, so a feed ends as soon
//! as another one attaches it; whoever comes with an id that no feed here has said begins with a snapshot.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use signalbox_protocol::{Identity, ParticipantId, RoomName};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::log::{Log, Next};
use super::message::Told;

/// How long a feed waits for its client to come back. Higher: longer gaps are bridged. Lower: the node learns sooner that a participant
/// has no signaling any more.
pub(super) const PATIENCE: Duration = Duration::from_secs(8);

/// Why a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The participant is no longer in the room; the last message said so.
    Closed,
    /// Another stream of the same participant took over.
    Replaced,
    /// The gateway restarts.
    Restart,
    /// The media node cannot be reached.
    NodeUnreachable,
    /// The client did not come back.
    Abandoned,
}

/// What a reader gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// The next message.
    Message {
        /// Its id.
        id: String,
        /// Its `type`.
        kind: &'static str,
        /// All of it.
        json: Arc<str>,
    },
    /// There will be no more.
    End(End),
}

/// A participant's messages.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) room: RoomName,
    pub(super) participant: ParticipantId,
    pub(super) identity: Identity,
    /// What its messages' ids begin with, so that another feed's are not taken for its own.
    name: String,
    state: Mutex<State>,
    /// For the reader: there is something new.
    changed: Notify,
    /// For whoever fills the feed: a reader has gone, or needs a snapshot.
    pub(super) woken: Notify,
}

#[derive(Debug)]
struct State {
    log: Log,
    /// Who reads, by number; none: nobody, since then.
    reader: Result<u64, Instant>,
    /// The client said goodbye.
    is_abandoned: bool,
    readers: u64,
    wants_snapshot: bool,
    end: Option<End>,
}

impl State {
    fn waits_until(&self) -> Option<Instant> {
        let since = self.reader.err()?;
        Some(if self.is_abandoned { since } else { since + PATIENCE })
    }
}

impl Feed {
    /// A feed without messages.
    pub(super) fn new(room: RoomName, participant: ParticipantId, identity: Identity) -> Self {
        Self {
            room,
            participant,
            identity,
            name: format!("{:016x}", rand::random::<u64>()),
            state: Mutex::new(State {
                log: Log::default(),
                reader: Err(Instant::now()),
                is_abandoned: false,
                readers: 0,
                wants_snapshot: false,
                end: None,
            }),
            changed: Notify::new(),
            woken: Notify::new(),
        }
    }

    /// Adds a message.
    pub(super) fn tell(&self, told: &Told) {
        let mut state = self.state();
        let id = self.id(state.log.next_number());
        let json = told.to_json(&id).into();
        state.log.append(Instant::now(), told.kind(), json);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Its reader is told why there will be no more, after what is still to be read.
    pub(super) fn end(&self, end: End) {
        self.state().end.get_or_insert(end);
        self.changed.notify_waiters();
    }

    /// Lets go of old messages.
    pub(super) fn forget(&self) {
        self.state().log.forget(Instant::now());
    }

    /// Whether the reader has missed something, so that it needs a snapshot. Asked once for each time.
    pub(super) fn takes_snapshot(&self) -> bool {
        std::mem::take(&mut self.state().wants_snapshot)
    }

    /// When it has waited long enough for a reader; none: it has one.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        self.state().waits_until()
    }

    /// Ends it if it has waited long enough for a reader; whether it has.
    pub(super) fn give_up(&self, now: Instant) -> bool {
        let mut state = self.state();
        let is_over = state.waits_until().is_some_and(|until| until <= now);
        if is_over {
            state.end.get_or_insert(End::Abandoned);
        }
        is_over
    }

    /// A reader from the first message on.
    pub(super) fn read(self: &Arc<Self>) -> Reader {
        self.take_over(&mut self.state(), None)
    }

    /// A reader that goes on after the message with this id; the reader before, if any, is told that it is replaced. None if the
    /// message is not one of this feed, or not all that came after it is left.
    pub(super) fn resume(self: &Arc<Self>, last_id: &str) -> Option<Reader> {
        let number = last_id.strip_prefix(&self.name)?.strip_prefix('-')?.parse().ok()?;
        let mut state = self.state();
        let is_of_use = state.end.is_none_or(|end| end == End::Closed);
        if !is_of_use || state.log.after(Some(number)) == Next::Missed {
            return None;
        }
        Some(self.take_over(&mut state, Some(number)))
    }

    fn take_over(self: &Arc<Self>, state: &mut State, last: Option<u64>) -> Reader {
        state.readers += 1;
        state.reader = Ok(state.readers);
        state.is_abandoned = false;
        self.changed.notify_waiters();
        Reader {
            feed: Arc::clone(self),
            number: state.readers,
            last,
        }
    }

    fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.name)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever reads a feed at present.
#[derive(Debug)]
pub(super) struct Reader {
    feed: Arc<Feed>,
    number: u64,
    /// The last message that was read; none: begin with a snapshot.
    last: Option<u64>,
}

impl Reader {
    /// What comes next. Nothing is lost when the future is dropped before it is ready.
    pub(super) async fn next(&mut self) -> Read {
        let feed = Arc::clone(&self.feed);
        loop {
            let mut changed = std::pin::pin!(feed.changed.notified());
            // Before looking, so that what is told in between is not slept through.
            changed.as_mut().enable();
            if let Some(read) = self.take() {
                return read;
            }
            changed.await;
        }
    }

    /// The client said goodbye: nobody will come back.
    pub(super) fn abandon(self) {
        let mut state = self.feed.state();
        if state.reader == Ok(self.number) {
            state.is_abandoned = true;
        }
    }

    fn take(&mut self) -> Option<Read> {
        let mut state = self.feed.state();
        if state.reader != Ok(self.number) {
            return Some(Read::End(End::Replaced));
        }
        let entry = match state.log.after(self.last) {
            Next::Entry(entry) => Some(entry),
            Next::Nothing => None,
            // Too slow, and nothing follows that would make up for it: at least the last word.
            Next::Missed if state.end == Some(End::Closed) => state.log.last(),
            Next::Missed => {
                self.last = None;
                if !std::mem::replace(&mut state.wants_snapshot, true) {
                    self.feed.woken.notify_one();
                }
                None
            }
        };
        if let Some(entry) = entry {
            self.last = Some(entry.number);
            return Some(Read::Message {
                id: self.feed.id(entry.number),
                kind: entry.kind,
                json: Arc::clone(&entry.json),
            });
        }
        state.end.map(Read::End)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.feed.state();
        if state.reader == Ok(self.number) {
            state.reader = Err(Instant::now());
            drop(state);
            self.feed.woken.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed() -> Arc<Feed> {
        Arc::new(Feed::new(
            "daily".parse().unwrap(),
            ParticipantId::new("PA_a"),
            "ann".parse().unwrap(),
        ))
    }

    fn wanted(audio: u32) -> Told {
        Told::SlotsWanted { audio, video: 0 }
    }

    async fn id(reader: &mut Reader) -> String {
        match reader.next().await {
            Read::Message { id, .. } => id,
            other => panic!("{other:?}"),
        }
    }

    /// A feed whose reader has had one message; the reader, and the message's id.
    async fn read_once() -> (Arc<Feed>, Reader, String) {
        let feed = feed();
        feed.tell(&wanted(1));
        let mut reader = feed.read();
        reader.last = Some(0);
        let id = id(&mut reader).await;
        (feed, reader, id)
    }

    #[tokio::test]
    async fn who_comes_back_in_time_gets_what_it_missed() {
        let (feed, reader, last) = read_once().await;
        let before = Instant::now();
        drop(reader);
        feed.tell(&wanted(2));
        assert!(!feed.give_up(before + PATIENCE - Duration::from_millis(1)));
        let mut back = feed.resume(&last).unwrap();
        assert_ne!(id(&mut back).await, last);
        assert!(!feed.give_up(Instant::now() + PATIENCE * 2), "it is being read");
    }

    #[tokio::test]
    async fn who_stays_away_or_says_goodbye_finds_nothing() {
        let (feed, reader, last) = read_once().await;
        drop(reader);
        assert!(feed.give_up(Instant::now() + PATIENCE));
        assert!(feed.resume(&last).is_none());
        let (feed, reader, _) = read_once().await;
        reader.abandon();
        assert!(feed.give_up(Instant::now()));
    }

    #[tokio::test]
    async fn another_feeds_ids_and_nonsense_are_not_resumed() {
        let (feed, _reader, last) = read_once().await;
        let (other, ..) = read_once().await;
        assert!(other.resume(&last).is_none());
        for nonsense in ["", "-", "x-1", &last[..16], &format!("{last}0000000000000000000000")] {
            assert!(feed.resume(nonsense).is_none(), "{nonsense}");
        }
    }

    #[tokio::test]
    async fn a_second_reader_replaces_the_first() {
        let (feed, mut first, last) = read_once().await;
        let mut second = feed.resume(&last).unwrap();
        assert_eq!(first.next().await, Read::End(End::Replaced));
        drop(first);
        assert_eq!(feed.waits_until(), None, "the second one still reads");
        feed.tell(&wanted(2));
        id(&mut second).await;
    }

    #[tokio::test]
    async fn a_reader_that_is_too_slow_asks_for_a_snapshot_once() {
        let (feed, mut slow, _) = read_once().await;
        for number in 0..200 {
            feed.tell(&wanted(number));
        }
        assert!(slow.take().is_none() && slow.take().is_none());
        feed.woken.notified().await;
        assert!(feed.takes_snapshot() && !feed.takes_snapshot());
        // Whatever else happens, it is not over before its last word.
        feed.tell(&Told::Closed {
            reason: signalbox_protocol::control::CloseReason::RoomClosed,
        });
        feed.end(End::Closed);
        assert!(matches!(slow.next().await, Read::Message { kind: "closed", .. }));
        assert_eq!(slow.next().await, Read::End(End::Closed));
    }
}
