//! One session whose node is lost, or hands its room over: finds its participant again, or takes it up where its room is now.

use std::sync::Arc;
use std::time::Duration;

use signalbox_protocol::control::{Command, Joined, RefusalReason, Reply, Request, Snapshot, Target};
use signalbox_protocol::placement::Placement;
use signalbox_protocol::room::MediaAddress;
use signalbox_protocol::srtp::SrtpSession;
use signalbox_protocol::tunnel::Tunnel;
use signalbox_protocol::{Identity, ParticipantId, RoomName};
use tokio::time::{Instant, sleep, timeout};

use super::recovery::Place;
use super::{Outcome, Room};
use crate::node_link::{Failure, NodeLink};
use crate::rooms::Rooms;
use crate::session::{Claim, Keeping, Session};

/// How long one try to take a participant up may take at the node.
const TRY_DEADLINE: Duration = Duration::from_secs(4);

/// How long the node that a participant moves away from may take to say how its client is reached.
const TUNNELS_DEADLINE: Duration = Duration::from_millis(500);

/// How often a node that has the room is asked to take a participant up, when it cannot at the moment.
const MAX_TRIES: u32 = 5;

/// The pause between these tries.
const PAUSE: Duration = Duration::from_millis(100);

/// How long to wait for a client's answer to an offer that it has: until then nobody knows what its connection is like.
const ANSWER_PATIENCE: Duration = Duration::from_millis(700);

/// How long a participant that nothing takes up elsewhere is looked for.
const UNRESUMABLE_PATIENCE: Duration = Duration::from_secs(10);

/// Why a participant is looked for.
#[derive(Debug, Clone)]
pub enum Loss {
    /// Only events were lost, or a request has failed: the session was too slow, or its client missed something.
    Events,
    /// The link broke.
    Link,
    /// The link is silent.
    Silence,
    /// The node has closed the participant and is gone, or its room is.
    Closed,
    /// The node hands the room over to this one.
    HandOver(Arc<Placement>),
}

/// What is known of a session that is lost, or soon will be. Taken from it, so that it can go on to be served meanwhile.
#[derive(Debug, Clone)]
pub struct Lost {
    room: RoomName,
    participant: ParticipantId,
    identity: Identity,
    link: Arc<NodeLink>,
    at: Arc<Placement>,
    keeping: Arc<Keeping>,
    shared: Arc<Room>,
}

impl Lost {
    /// None of a session that has no events.
    pub fn of(session: &Session) -> Option<Self> {
        let claim = session.claim.as_ref()?;
        Some(Self {
            room: session.room.clone(),
            participant: session.participant.clone(),
            identity: session.identity.clone(),
            link: Arc::clone(&session.link),
            at: Arc::clone(&claim.at),
            keeping: Arc::clone(&claim.keeping),
            shared: Arc::clone(&claim.membership.room),
        })
    }
}

/// A participant that was taken up at another node, under the same id if that could be done.
#[derive(Debug)]
pub struct TakenUp {
    /// Its session there.
    pub session: Session,
    /// How all is there.
    pub snapshot: Snapshot,
    /// Where its media goes.
    pub media: MediaAddress,
    /// The ICE sessions of its client go on: it has only to be told of another address.
    pub keeps_ice: bool,
    /// Of a client without a peer connection, its streams.
    pub srtp: Option<SrtpSession>,
    /// Which of its connections have to be up there before the old node may let go.
    pub(crate) connections: Vec<Target>,
}

/// What came of looking for a participant.
#[derive(Debug)]
pub enum Recovered {
    /// The node was heard again; the session goes on.
    Unneeded,
    /// It is where it was.
    Here {
        /// Its new session.
        session: Box<Session>,
        /// How all is.
        snapshot: Box<Snapshot>,
    },
    /// It was taken up elsewhere.
    Moved(Box<TakenUp>),
    /// It is no longer in the room, and nothing but its client brings it back. Where the room is now, if it moved.
    Gone(Option<MediaAddress>),
    /// Nobody can say.
    Unreachable,
}

/// Why a node did not take a participant up.
enum NotTaken {
    /// Look for the room again.
    Elsewhere,
    /// Nothing can be done.
    Never,
}

impl Rooms {
    /// Finds the participant of a session again. Does not end before it is known what becomes of it, unless nothing takes it up elsewhere, as
    /// when `take_up` is not set.
    pub async fn recover(&self, lost: Lost, loss: Loss, take_up: bool) -> Recovered {
        let began = Instant::now();
        let is_planned = matches!(loss, Loss::HandOver(_));
        let take_up = take_up && lost.keeping.kept().is_resumable();
        if matches!(loss, Loss::Events) && !lost.link.is_broken() && !lost.link.is_silent() {
            match self.attach_at(&lost).await {
                Ok((session, snapshot)) => return here(session, snapshot),
                Err(Failure::Refused(_)) => return Recovered::Gone(None),
                Err(_) => {}
            }
        }
        let recovered = self.find_participant(&lost, loss, take_up);
        let recovered = if take_up {
            recovered.await
        } else {
            let found = timeout(UNRESUMABLE_PATIENCE, recovered).await;
            found.unwrap_or(Recovered::Unreachable)
        };
        if matches!(recovered, Recovered::Moved(_)) && !is_planned {
            self.metrics().recovered(began.elapsed());
        }
        recovered
    }

    async fn find_participant(&self, lost: &Lost, loss: Loss, take_up: bool) -> Recovered {
        let moves = self.moves();
        let mut from = Arc::clone(&lost.at);
        let is_served = matches!(loss, Loss::HandOver(_));
        let mut tries = 0;
        let mut to = match &loss {
            Loss::HandOver(to) => Some(Arc::clone(to)),
            _ => None,
        };
        loop {
            let outcome = match to.take() {
                Some(to) => moves.hand_over(&lost.shared, &from, &to).await,
                None => {
                    let all = matches!(loss, Loss::Link | Loss::Silence) && Arc::ptr_eq(&from, &lost.at);
                    moves.find(&lost.shared, &from, all).await
                }
            };
            let (placement, media) = match outcome {
                Outcome::Elsewhere(placement, media) => (placement, media),
                Outcome::Back if Place::of(&from) != Place::of(&lost.at) => {
                    tries += 1;
                    if tries >= MAX_TRIES {
                        return Recovered::Gone(None);
                    }
                    sleep(PAUSE).await;
                    match self.take_up(lost, &from, is_served).await {
                        Ok(taken) => return Recovered::Moved(Box::new(taken)),
                        Err(NotTaken::Never) => return Recovered::Gone(None),
                        Err(NotTaken::Elsewhere) => moves.doubt(&lost.shared, &from),
                    }
                    continue;
                }
                Outcome::Back => {
                    let is_as_before = !lost.link.is_broken() && !lost.link.is_silent();
                    if matches!(loss, Loss::Silence) && is_as_before {
                        return Recovered::Unneeded;
                    }
                    match self.attach_at(lost).await {
                        Ok((session, snapshot)) => return here(session, snapshot),
                        Err(Failure::Refused(_)) => return Recovered::Gone(None),
                        Err(_) => {
                            moves.doubt(&lost.shared, &from);
                            sleep(PAUSE).await;
                        }
                    }
                    continue;
                }
            };
            if !take_up {
                return Recovered::Gone(Some(media));
            }
            match self.take_up(lost, &placement, is_served).await {
                Ok(taken) => return Recovered::Moved(Box::new(taken)),
                Err(NotTaken::Never) => return Recovered::Gone(Some(media)),
                Err(NotTaken::Elsewhere) => {
                    self.placements().forget(&lost.room, &placement);
                    from = placement;
                }
            }
        }
    }

    /// Attaches the participant where it was.
    async fn attach_at(&self, lost: &Lost) -> Result<(Session, Snapshot), Failure> {
        let deadline = Instant::now() + TRY_DEADLINE;
        let link = self.links().get(&lost.at.control, deadline).await?;
        let attach = Request::Participant {
            room: lost.room.clone(),
            participant: lost.participant.clone(),
            identity: lost.identity.clone(),
            command: Command::Attach,
        };
        let answered = link.request(attach, deadline).await?;
        let Reply::Snapshot(snapshot) = answered.reply else {
            return Err(Failure::Broken);
        };
        let claim = || self.claim_of(&snapshot, &lost.at);
        let session = answered.session.and_then(|session| session.claim(claim));
        session.map(|session| (session, *snapshot)).ok_or(Failure::Broken)
    }

    /// Takes the participant up where its room is expected. `is_served`: the node that it was at goes on to serve it meanwhile.
    async fn take_up(&self, lost: &Lost, at: &Arc<Placement>, is_served: bool) -> Result<TakenUp, NotTaken> {
        wait_for_answer(&lost.keeping).await?;
        let (join, connections) = {
            let kept = lost.keeping.kept();
            (kept.join(&lost.room, &at.ticket), kept.connections())
        };
        let mut join = join.ok_or(NotTaken::Never)?;
        if is_served && let Some(resume) = &mut join.resume {
            resume.tunnels = tunnels(lost).await;
        }
        let deadline = Instant::now() + TRY_DEADLINE;
        let link = self.links().get(&at.control, deadline).await;
        let link = link.map_err(|_| NotTaken::Elsewhere)?;
        let answered = match link.request(Request::Join(Box::new(join)), deadline).await {
            Ok(answered) => answered,
            Err(failure) => {
                let (room, participant, node) = (&lost.room, &lost.participant, at.node);
                tracing::info!(%room, %participant, %node, ?failure, "a participant was not taken up");
                return Err(not_taken(&failure));
            }
        };
        let Reply::Joined(joined) = answered.reply else {
            return Err(NotTaken::Never);
        };
        let Joined {
            mut snapshot,
            media,
            srtp,
            keeps_ice,
            ..
        } = *joined;
        snapshot.media = Some(media);
        let claim = || self.claim_of(&snapshot, at);
        let session = answered.session.and_then(|session| session.claim(claim));
        Ok(TakenUp {
            session: session.ok_or(NotTaken::Never)?,
            snapshot,
            media,
            keeps_ice,
            srtp,
            connections,
        })
    }

    fn claim_of(&self, snapshot: &Snapshot, at: &Arc<Placement>) -> Claim {
        Claim::new(at, self.moves().enter(snapshot, at), snapshot)
    }
}

/// The ways to the participant's client over the node that it was at; none: that node cannot, or does not answer, and the client is reached once it
/// has begun ICE anew.
async fn tunnels(lost: &Lost) -> Vec<Tunnel> {
    let request = Request::Participant {
        room: lost.room.clone(),
        participant: lost.participant.clone(),
        identity: lost.identity.clone(),
        command: Command::OpenTunnels,
    };
    match lost.link.request(request, Instant::now() + TUNNELS_DEADLINE).await {
        Ok(answered) => match answered.reply {
            Reply::Tunnels { tunnels } => tunnels,
            _ => Vec::new(),
        },
        Err(failure) => {
            tracing::debug!(room = %lost.room, participant = %lost.participant, ?failure, "no tunnels to a participant");
            Vec::new()
        }
    }
}

fn here(session: Session, snapshot: Snapshot) -> Recovered {
    Recovered::Here {
        session: Box::new(session),
        snapshot: Box::new(snapshot),
    }
}

/// An offer that the client has, but has not answered, has made its connection into something that nobody knows.
async fn wait_for_answer(keeping: &Keeping) -> Result<(), NotTaken> {
    let answered = async {
        loop {
            let mut answered = std::pin::pin!(keeping.answered.notified());
            answered.as_mut().enable();
            if keeping.kept().offered.is_none() {
                return;
            }
            answered.await;
        }
    };
    timeout(ANSWER_PATIENCE, answered).await.map_err(|_| NotTaken::Never)
}

fn not_taken(failure: &Failure) -> NotTaken {
    match failure {
        Failure::Broken | Failure::TimedOut | Failure::Overloaded => NotTaken::Elsewhere,
        Failure::TooLarge => NotTaken::Never,
        Failure::Refused(refusal) => match refusal.reason {
            RefusalReason::Ticket
            | RefusalReason::Closing
            | RefusalReason::Full
            | RefusalReason::NoRoom
            | RefusalReason::Overloaded => NotTaken::Elsewhere,
            _ => NotTaken::Never,
        },
    }
}
