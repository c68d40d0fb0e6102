//! Which request waits for which reply, and which session takes whose events. Plain tables under the link's lock; no I/O, no clock.
//!
//! A participant is attached to a link at most once. A new attachment claims the participant when it is *asked for*, so that the old
//! session, if it ends in the meantime, cannot detach what the node is about to attach; it takes over the events when the node has
//! said yes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signalbox_protocol::control::{Command, Event, Reply, Request};
use signalbox_protocol::{Identity, ParticipantId, RoomName};
use tokio::sync::{mpsc, oneshot};

use super::{Answered, Failure, NodeLink};
use crate::session::{EVENT_QUEUE, Feed, Parting, Session};

/// How many requests may be under way on a link. Higher: more memory when a node stalls. Lower: refuses bursts that the node could take.
pub(super) const MAX_PENDING: usize = 16 * 1024;

/// What a request's reply brings with it.
#[derive(Debug)]
pub(super) enum Expected {
    /// A new participant.
    Joined {
        room: RoomName,
        identity: Identity,
        attach: bool,
        /// It was in the room before: its client can find it again.
        is_resumed: bool,
    },
    /// An attachment of a known participant.
    Attached {
        room: RoomName,
        participant: ParticipantId,
        identity: Identity,
    },
    /// Nothing.
    Nothing,
}

impl Expected {
    pub(super) fn of(request: &Request) -> Self {
        match request {
            Request::Join(join) => Self::Joined {
                room: join.room.clone(),
                identity: join.identity.clone(),
                attach: join.attach,
                is_resumed: join.resume.is_some(),
            },
            Request::Participant {
                room,
                participant,
                identity,
                command: Command::Attach,
            } => Self::Attached {
                room: room.clone(),
                participant: participant.clone(),
                identity: identity.clone(),
            },
            _ => Self::Nothing,
        }
    }
}

/// Whoever waits for a reply; none: nobody does.
pub(super) type Waiting = Option<oneshot::Sender<Result<Answered, Failure>>>;

#[derive(Debug)]
struct Pending {
    expected: Expected,
    /// The attachment that it would make.
    serial: u64,
    /// Who owned the participant before, to hand it back if nothing comes of this.
    owner_before: Option<u64>,
    waiting: Waiting,
}

#[derive(Debug)]
struct Attachment {
    /// Who may detach the participant: the attachment that was asked for last.
    owner: u64,
    route: Option<Route>,
}

#[derive(Debug)]
struct Route {
    events: mpsc::Sender<Arc<Event>>,
    replaced: Arc<AtomicBool>,
}

/// The makings of a [`Session`]; made under the lock, turned into one outside of it.
#[derive(Debug)]
pub(super) struct Attached {
    whose: (RoomName, ParticipantId, Identity),
    feed: Option<Feed>,
    parting: Parting,
}

impl Attached {
    pub(super) fn into_session(self, link: Arc<NodeLink>) -> Session {
        Session::new(self.whose, link, self.feed, self.parting)
    }
}

/// What could not be delivered.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Undelivered {
    /// For participants without a session.
    pub(super) nobody: u64,
    /// For sessions whose queue is full; they are lost now.
    pub(super) overflowed: u64,
}

/// A link's tables.
#[derive(Debug, Default)]
pub(super) struct Routing {
    pending: HashMap<u64, Pending>,
    attached: HashMap<ParticipantId, Attachment>,
    /// Serves as request id and as attachment serial.
    last_number: u64,
    broken: bool,
}

impl Routing {
    /// Enters a request; returns its id.
    pub(super) fn begin(&mut self, expected: Expected, waiting: Waiting) -> Result<u64, Failure> {
        if self.broken {
            return Err(Failure::Broken);
        }
        if self.pending.len() >= MAX_PENDING {
            return Err(Failure::Overloaded);
        }
        self.last_number += 1;
        let id = self.last_number;
        let mut owner_before = None;
        if let Expected::Attached { participant, .. } = &expected {
            match self.attached.get_mut(participant) {
                Some(attachment) => owner_before = Some(std::mem::replace(&mut attachment.owner, id)),
                None => {
                    let claim = Attachment { owner: id, route: None };
                    self.attached.insert(participant.clone(), claim);
                }
            }
        }
        self.pending.insert(
            id,
            Pending {
                expected,
                serial: id,
                owner_before,
                waiting,
            },
        );
        Ok(id)
    }

    /// The request was not sent after all.
    pub(super) fn cancel(&mut self, id: u64) {
        self.refused(id);
    }

    /// The node refused; returns who waits. None for an id that is not under way.
    pub(super) fn refused(&mut self, id: u64) -> Option<Waiting> {
        let pending = self.pending.remove(&id)?;
        if let Expected::Attached { participant, .. } = &pending.expected {
            self.hand_back(participant, pending.serial, pending.owner_before);
        }
        Some(pending.waiting)
    }

    /// The node agreed; returns who waits, and the participant's new attachment. None for an id that is not under way.
    pub(super) fn done(&mut self, id: u64, reply: &Reply) -> Option<(Waiting, Option<Attached>)> {
        let Pending {
            expected,
            serial,
            owner_before,
            waiting,
        } = self.pending.remove(&id)?;
        let attached = match (expected, reply) {
            (
                Expected::Joined {
                    room,
                    identity,
                    attach,
                    is_resumed,
                },
                Reply::Joined(joined),
            ) => {
                let participant = joined.snapshot.participant.id.clone();
                let feed = attach.then(|| self.attach(participant.clone(), serial));
                Some(Attached {
                    whose: (room, participant, identity),
                    feed,
                    parting: if is_resumed { Parting::Detach } else { Parting::Leave },
                })
            }
            (
                Expected::Attached {
                    room,
                    participant,
                    identity,
                },
                Reply::Snapshot(_),
            ) => {
                let feed = Some(self.attach(participant.clone(), serial));
                Some(Attached {
                    whose: (room, participant, identity),
                    feed,
                    parting: Parting::Detach,
                })
            }
            (Expected::Attached { participant, .. }, _) => {
                self.hand_back(&participant, serial, owner_before);
                None
            }
            _ => None,
        };
        Some((waiting, attached))
    }

    /// Queues an event for each of these participants.
    pub(super) fn deliver(&mut self, to: &[ParticipantId], event: Event) -> Undelivered {
        let last = matches!(event, Event::Closed { .. } | Event::AttachedElsewhere);
        let event = Arc::new(event);
        let mut undelivered = Undelivered::default();
        for participant in to {
            let Some(attachment) = self.attached.get_mut(participant) else {
                undelivered.nobody += 1;
                continue;
            };
            match attachment
                .route
                .as_ref()
                .map(|route| route.events.try_send(Arc::clone(&event)))
            {
                Some(Ok(())) => {}
                Some(Err(mpsc::error::TrySendError::Full(_))) => {
                    // The owner stays: the session still has to detach when it is dropped.
                    attachment.route = None;
                    undelivered.overflowed += 1;
                }
                Some(Err(mpsc::error::TrySendError::Closed(_))) | None => undelivered.nobody += 1,
            }
            if last {
                self.attached.remove(participant);
            }
        }
        undelivered
    }

    /// Ends an attachment; whether it was still the participant's owner.
    pub(super) fn release(&mut self, participant: &ParticipantId, serial: u64) -> bool {
        let mine = self
            .attached
            .get(participant)
            .is_some_and(|attachment| attachment.owner == serial);
        if mine {
            self.attached.remove(participant);
        }
        mine
    }

    /// The link is over: everyone who waits, and every session, learns it by the end of its channel.
    pub(super) fn break_off(&mut self) {
        self.broken = true;
        self.pending.clear();
        self.attached.clear();
    }

    fn attach(&mut self, participant: ParticipantId, serial: u64) -> Feed {
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        let replaced = Arc::new(AtomicBool::new(false));
        let feed = Feed {
            serial,
            events: receiver,
            replaced: Arc::clone(&replaced),
        };
        let attachment = self.attached.entry(participant).or_insert(Attachment {
            owner: serial,
            route: None,
        });
        if let Some(old) = attachment.route.replace(Route { events, replaced }) {
            // Before the channel ends, so that the old session knows why it did.
            old.replaced.store(true, Ordering::Release);
        }
        feed
    }

    /// A claim that came to nothing: the owner before has its say again.
    fn hand_back(&mut self, participant: &ParticipantId, serial: u64, owner_before: Option<u64>) {
        let Some(attachment) = self.attached.get_mut(participant) else {
            return;
        };
        if attachment.owner != serial {
            return;
        }
        match owner_before {
            Some(owner) => attachment.owner = owner,
            None => {
                self.attached.remove(participant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ann() -> ParticipantId {
        ParticipantId::new("PA_ann")
    }

    fn claim(routing: &mut Routing) -> u64 {
        let expected = Expected::Attached {
            room: "daily".parse().unwrap(),
            participant: ann(),
            identity: "ann".parse().unwrap(),
        };
        routing.begin(expected, None).unwrap()
    }

    #[test]
    fn a_session_cannot_detach_what_is_being_attached_anew() {
        let mut routing = Routing::default();
        let first = claim(&mut routing);
        let _feed = routing.attach(ann(), first);
        claim(&mut routing);
        assert!(!routing.release(&ann(), first));
    }

    #[test]
    fn after_a_refused_attachment_the_old_session_detaches_again() {
        let mut routing = Routing::default();
        let first = claim(&mut routing);
        let mut feed = routing.attach(ann(), first);
        let second = claim(&mut routing);
        routing.refused(second);
        routing.deliver(&[ann()], Event::SlotsWanted { audio: 1, video: 0 });
        assert!(feed.events.try_recv().is_ok());
        assert!(routing.release(&ann(), first));
    }

    #[test]
    fn a_full_queue_ends_the_session_but_not_its_duty_to_detach() {
        let mut routing = Routing::default();
        let first = claim(&mut routing);
        let mut feed = routing.attach(ann(), first);
        let wanted = Event::SlotsWanted { audio: 1, video: 0 };
        for _ in 0..EVENT_QUEUE {
            assert_eq!(routing.deliver(&[ann()], wanted.clone()), Undelivered::default());
        }
        assert_eq!(routing.deliver(&[ann()], wanted).overflowed, 1);
        for _ in 0..EVENT_QUEUE {
            assert!(feed.events.try_recv().is_ok());
        }
        assert_eq!(feed.events.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
        assert!(!feed.replaced.load(Ordering::Acquire));
        assert!(routing.release(&ann(), first));
    }

    #[test]
    fn a_session_whose_participant_is_attached_elsewhere_cannot_detach_it() {
        let mut routing = Routing::default();
        let first = claim(&mut routing);
        let mut feed = routing.attach(ann(), first);
        routing.deliver(&[ann()], Event::AttachedElsewhere);
        assert_eq!(*feed.events.try_recv().unwrap(), Event::AttachedElsewhere);
        assert!(!routing.release(&ann(), first));
    }

    #[test]
    fn too_many_requests_under_way_are_refused() {
        let mut routing = Routing::default();
        for _ in 0..MAX_PENDING {
            routing.begin(Expected::Nothing, None).unwrap();
        }
        assert_eq!(routing.begin(Expected::Nothing, None), Err(Failure::Overloaded));
    }

    #[test]
    fn whoever_waits_learns_that_the_link_broke() {
        let mut routing = Routing::default();
        let (reply, mut answer) = oneshot::channel();
        routing.begin(Expected::Nothing, Some(reply)).unwrap();
        routing.break_off();
        assert!(matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        assert_eq!(routing.begin(Expected::Nothing, None), Err(Failure::Broken));
    }
}
