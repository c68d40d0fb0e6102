//! One control link's way out: a bounded queue of frames towards one gateway.
//!
//! Replies and events go through the same queue, put there by the same thread, so a participant's events come after the reply
//! that attached it. **Nobody ever waits for a queue.** A gateway that does not read fast enough finds its link closed, as a slow one must
//! not hold a shard and everyone else's rooms; it comes back, attaches its participants again, and the snapshots make up for
//! what it has missed.
//!
//! It must not know what is in a frame, nor the WebSocket.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use signalbox_protocol::control::{NodeFrame, Outcome, Refusal, RefusalReason, Reply};
use signalbox_telemetry::Span;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::counters::Counters;

/// How many frames wait for a gateway to read them. Higher: longer stalls are forgiven, with more memory and older news.
/// Lower: a burst of joins closes links.
pub const QUEUE_FRAMES: usize = 4_096;

/// How many requests of one link may be under way. Higher: longer queues before the gateway is told. Lower: bursts are refused.
pub const MAX_REQUESTS: usize = 512;

/// Which link of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinkId(pub u64);

/// A link's sending end. Clones are the same link.
#[derive(Clone)]
pub struct Link {
    id: LinkId,
    queue: mpsc::Sender<NodeFrame>,
    requests: Arc<Semaphore>,
    slow: CancellationToken,
    counters: Arc<Counters>,
}

impl Link {
    /// A link, and what its gateway is to be sent.
    pub fn new(id: LinkId, counters: Arc<Counters>) -> (Self, mpsc::Receiver<NodeFrame>) {
        Self::with_bounds(id, counters, QUEUE_FRAMES, MAX_REQUESTS)
    }

    fn with_bounds(
        id: LinkId,
        counters: Arc<Counters>,
        frames: usize,
        requests: usize,
    ) -> (Self, mpsc::Receiver<NodeFrame>) {
        let (queue, frames) = mpsc::channel(frames);
        let link = Self {
            id,
            queue,
            requests: Arc::new(Semaphore::new(requests)),
            slow: CancellationToken::new(),
            counters,
        };
        (link, frames)
    }

    /// Which it is.
    pub fn id(&self) -> LinkId {
        self.id
    }

    /// Puts a frame into the queue. When it is full the link ends: see [`Link::slow`].
    pub fn push(&self, frame: NodeFrame) {
        if self.slow.is_cancelled() {
            // A gap in the stream must not be followed by more of it.
            return Counters::add(&self.counters.frames_dropped);
        }
        match self.queue.try_send(frame) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.slow.cancel();
                Counters::add(&self.counters.frames_dropped);
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Counters::add(&self.counters.frames_dropped),
        }
    }

    /// Cancelled when the gateway has read too slowly.
    pub fn slow(&self) -> &CancellationToken {
        &self.slow
    }

    /// Begins a request; it must be answered through what is returned, which ends its span. None: it was refused, as too many are under way.
    pub fn begin(&self, id: u64, span: Span) -> Option<Answer> {
        match Arc::clone(&self.requests).try_acquire_owned() {
            Ok(permit) => Some(Answer {
                link: self.clone(),
                id,
                span,
                _permit: permit,
                answered: false,
            }),
            Err(_) => {
                note_refusal(&span, RefusalReason::Overloaded);
                self.refuse(id, overloaded("Too many requests are under way on this link"));
                None
            }
        }
    }

    /// Answers a request that was not begun.
    pub fn refuse(&self, id: u64, refusal: Refusal) {
        self.counters.refused(refusal.reason);
        self.push(NodeFrame::Reply {
            id,
            result: Outcome::Refused(refusal),
        });
    }
}

/// The duty to answer one request, once. Dropped without, it refuses: that is when a queue was full, or was dropped with requests
/// in it.
pub struct Answer {
    link: Link,
    id: u64,
    span: Span,
    _permit: OwnedSemaphorePermit,
    answered: bool,
}

impl Answer {
    /// Answers.
    pub fn send(mut self, result: Result<Reply, Refusal>) {
        self.answered = true;
        match result {
            Ok(reply) => {
                self.span.note("signalbox.result", "ok");
                if let Reply::Joined(joined) = &reply {
                    self.span.note("signalbox.participant", &joined.snapshot.participant.id);
                }
                self.link.push(NodeFrame::Reply {
                    id: self.id,
                    result: Outcome::Ok(reply),
                });
            }
            Err(refusal) => {
                note_refusal(&self.span, refusal.reason);
                self.link.refuse(self.id, refusal);
            }
        }
    }

    /// The link that asked.
    pub fn link(&self) -> &Link {
        &self.link
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.answered {
            note_refusal(&self.span, RefusalReason::Overloaded);
            self.link
                .refuse(self.id, overloaded("The node has too much to do, or is stopping"));
        }
    }
}

/// A refusal for want of time or room.
pub fn overloaded(what: &str) -> Refusal {
    Refusal::new(RefusalReason::Overloaded, format!("{what}; try again in a moment."))
}

/// How many requests were refused, by reason, in the order in which they are shown.
pub const REFUSALS: [(RefusalReason, &str); 14] = [
    (RefusalReason::Ticket, "ticket"),
    (RefusalReason::Closing, "closing"),
    (RefusalReason::Full, "full"),
    (RefusalReason::NoRoom, "no_room"),
    (RefusalReason::NoParticipant, "no_participant"),
    (RefusalReason::NoTrack, "no_track"),
    (RefusalReason::Sdp, "sdp"),
    (RefusalReason::NothingLive, "nothing_live"),
    (RefusalReason::StaleIce, "stale_ice"),
    (RefusalReason::Unsupported, "unsupported"),
    (RefusalReason::NotPermitted, "not_permitted"),
    (RefusalReason::Invalid, "invalid"),
    (RefusalReason::Overloaded, "overloaded"),
    (RefusalReason::Internal, "internal"),
];

fn name(reason: RefusalReason) -> &'static str {
    let known = REFUSALS.iter().find(|(known, _)| *known == reason);
    known.map_or("other", |(_, name)| name)
}

fn note_refusal(span: &Span, reason: RefusalReason) {
    span.note("signalbox.result", name(reason));
    if reason == RefusalReason::Internal {
        span.fail("a fault of the node");
    }
}

impl Counters {
    fn refused(&self, reason: RefusalReason) {
        if let Some(index) = REFUSALS.iter().position(|(known, _)| *known == reason)
            && let Some(counter) = self.refusals.get(index)
        {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use signalbox_protocol::ParticipantId;
    use signalbox_protocol::control::Event;

    use super::*;

    fn event() -> NodeFrame {
        NodeFrame::Event {
            to: vec![ParticipantId::new("PA_a")],
            event: Event::SlotsWanted { audio: 1, video: 0 },
        }
    }

    #[tokio::test]
    async fn a_full_queue_ends_the_link_without_anyone_waiting() {
        let (link, mut frames) = Link::with_bounds(LinkId(1), Arc::default(), 2, 1);
        link.push(event());
        link.push(event());
        assert!(!link.slow().is_cancelled());
        link.push(event());
        assert!(link.slow().is_cancelled());
        assert!(frames.recv().await.is_some());
        link.push(event());
        drop(link);
        assert!(frames.recv().await.is_some());
        assert!(frames.recv().await.is_none(), "nothing follows the gap");
    }

    #[tokio::test]
    async fn requests_over_the_bound_are_refused_and_answers_make_room() {
        let (link, mut frames) = Link::with_bounds(LinkId(1), Arc::default(), 8, 1);
        let first = link.begin(1, Span::default()).unwrap();
        assert!(link.begin(2, Span::default()).is_none());
        first.send(Ok(Reply::Done));
        let third = link.begin(3, Span::default()).unwrap();
        drop(third);
        let mut answers = Vec::new();
        for _ in 0..3 {
            if let Some(NodeFrame::Reply { id, result }) = frames.recv().await {
                answers.push((id, matches!(result, Outcome::Ok(_))));
            }
        }
        assert_eq!(answers, [(2, false), (1, true), (3, false)]);
    }
}
