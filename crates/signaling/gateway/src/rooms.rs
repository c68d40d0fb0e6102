//! Rooms, wherever they are: finds a room's media node and asks it, again with a fresh placement where that can help.
//!
//! Owns the retries. Everything that is retried is idempotent at the node: a second join of an identity evicts the first, a second
//! subscription changes nothing. A join whose answer nobody waits for any more is taken back by the link. Knows no dialect.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use signalbox_protocol::control::{
    Command, Join, Joined, OneOffer, ParticipantLimits, RefusalReason, Reply, Request, RoomCommand, Snapshot,
    Transports,
};
use signalbox_protocol::placement::Placement;
use signalbox_protocol::room::{Grants, MediaAddress, PublishTrack};
use signalbox_protocol::srtp::SrtpRequest;
use signalbox_protocol::{Identity, ParticipantId, RoomName};
use tokio::time::Instant;

use crate::config::Config;
use crate::limits::Lanes;
use crate::metrics::Metrics;
use crate::moves::Moves;
use crate::node_link::{Answered, Failure, NodeLinks};
use crate::observe::spans;
use crate::orchestrators::Orchestrators;
use crate::outcomes::Outcomes;
use crate::placements::{Asker, Found, Need, Placements};
use crate::problem::ApiError;
use crate::reports::Reports;
use crate::routing::Wish;
use crate::session::{Claim, Session};

/// How long a request may take in all, tries and pauses included.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// How long one try may take at the node. Lower than [`REQUEST_DEADLINE`], so that a node that hangs leaves time for the room's next.
const TRY_DEADLINE: Duration = Duration::from_secs(4);

/// How many tries. Higher: survives longer moves of a room. Lower: a caller learns sooner that it should come back later.
const MAX_TRIES: u32 = 4;

/// The longest pause before the second try; it doubles with each try. The pause is random, so that the clients of a lost node do not
/// come back all at once.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// A participant to admit: a [`Join`] without its ticket.
#[derive(Debug, Clone, PartialEq)]
pub struct JoinSpec {
    /// See [`Join::room`].
    pub room: RoomName,
    /// See [`Join::identity`].
    pub identity: Identity,
    /// See [`Join::name`].
    pub name: String,
    /// See [`Join::metadata`].
    pub metadata: String,
    /// See [`Join::attributes`].
    pub attributes: BTreeMap<String, String>,
    /// See [`Join::grants`].
    pub grants: Grants,
    /// See [`Join::limits`].
    pub limits: ParticipantLimits,
    /// See [`Join::transports`].
    pub transports: Transports,
    /// See [`Join::auto_subscribe`].
    pub auto_subscribe: bool,
    /// See [`Join::never_pause`].
    pub never_pause: bool,
    /// See [`Join::attach`].
    pub attach: bool,
    /// See [`Join::publish`].
    pub publish: Vec<PublishTrack>,
    /// See [`Join::offer`].
    pub offer: Option<String>,
    /// See [`Join::one_offer`].
    pub one_offer: Option<OneOffer>,
    /// See [`Join::srtp`].
    pub srtp: Option<SrtpRequest>,
    /// See [`Join::dialect_info`].
    pub dialect_info: Option<String>,
    /// Where its room is to be placed, if it has to be.
    pub wish: Wish,
}

impl JoinSpec {
    fn with_ticket(&self, ticket: &str) -> Join {
        let spec = self.clone();
        Join {
            limits: spec.limits,
            ticket: ticket.to_owned(),
            room: spec.room,
            identity: spec.identity,
            name: spec.name,
            metadata: spec.metadata,
            attributes: spec.attributes,
            grants: spec.grants,
            transports: spec.transports,
            auto_subscribe: spec.auto_subscribe,
            never_pause: spec.never_pause,
            attach: spec.attach,
            publish: spec.publish,
            offer: spec.offer,
            one_offer: spec.one_offer,
            srtp: spec.srtp,
            dialect_info: spec.dialect_info,
            resume: None,
        }
    }
}

/// An admitted participant.
#[derive(Debug)]
pub struct Admitted {
    /// What the node said.
    pub joined: Joined,
    /// Its session, if [`JoinSpec::attach`] was set.
    pub session: Option<Session>,
}

/// The way to all rooms.
#[derive(Debug)]
pub struct Rooms {
    orchestrators: Arc<Orchestrators>,
    placements: Arc<Placements>,
    reports: Arc<Reports>,
    outcomes: Arc<Outcomes>,
    links: Arc<NodeLinks>,
    lanes: Lanes,
    moves: Arc<Moves>,
    metrics: Arc<Metrics>,
}

impl Rooms {
    pub(crate) fn new(config: &Config, metrics: Arc<Metrics>) -> Result<Self, ApiError> {
        let secret = config.cluster_secret.current();
        let orchestrators = Arc::new(Orchestrators::new(&config.orchestrator, secret.clone())?);
        let placements = Arc::new(Placements::new(Arc::clone(&orchestrators), Arc::clone(&metrics)));
        let reports = Arc::new(Reports::new(
            Arc::clone(&orchestrators),
            Arc::clone(&placements),
            Arc::clone(&metrics),
        ));
        let links = Arc::new(NodeLinks::new(secret.clone(), Arc::clone(&metrics)));
        Ok(Self {
            moves: Moves::new(Arc::clone(&placements), Arc::clone(&links), Arc::clone(&reports)),
            outcomes: Arc::new(Outcomes::new(Arc::clone(&orchestrators))),
            orchestrators,
            placements,
            reports,
            links,
            lanes: Lanes::new(&config.limits, Arc::clone(&metrics)),
            metrics,
        })
    }

    /// Opens a room for `user`, where `wish` says, or finds it open: where its media goes, and a ticket for it.
    ///
    /// # Errors
    /// 503 when no node can host the room or its node does not answer.
    pub async fn open(
        &self,
        room: &RoomName,
        user: &Identity,
        wish: &Wish,
    ) -> Result<(MediaAddress, String), ApiError> {
        let asker = Asker {
            user: Some(user),
            wish: Some(wish),
        };
        let (placement, answered) = self
            .ask(room, asker, Need::Ticket, |placement| Request::Open {
                ticket: placement.ticket.clone(),
                room: room.clone(),
            })
            .await?;
        match answered.reply {
            Reply::Opened { media } => Ok((media, placement.ticket.clone())),
            reply => Err(unexpected(&reply)),
        }
    }

    /// Admits a participant.
    ///
    /// # Errors
    /// 503 when no node can host the room or its node does not answer; [`ApiError::NothingLive`] when somebody who only receives would be
    /// the first in the room; else the node's refusal.
    pub async fn join(&self, spec: JoinSpec) -> Result<Admitted, ApiError> {
        let need = match spec.one_offer {
            Some(OneOffer::Receive) => Need::OpenRoom,
            Some(OneOffer::Publish) | None => Need::Ticket,
        };
        let asker = Asker {
            user: Some(&spec.identity),
            wish: Some(&spec.wish),
        };
        let asked = self
            .ask(&spec.room, asker, need, |placement| {
                Request::Join(Box::new(spec.with_ticket(&placement.ticket)))
            })
            .await;
        let asked = asked.map_err(|error| match error {
            ApiError::NoRoom => {
                ApiError::NothingLive("The room is not open; try again when somebody publishes in it.".into())
            }
            error => error,
        });
        let admitted = asked.and_then(|(placement, answered)| match answered.reply {
            Reply::Joined(joined) => {
                let claim = || {
                    let media = Some(joined.media);
                    let snapshot = Snapshot {
                        media,
                        srtp: joined.srtp.clone().map(Box::new),
                        ..joined.snapshot.clone()
                    };
                    Claim::new(&placement, self.moves.enter(&snapshot, &placement), &snapshot)
                };
                let session = answered.session.and_then(|session| session.claim(claim));
                Ok(Admitted {
                    joined: *joined,
                    session,
                })
            }
            reply => Err(unexpected(&reply)),
        });
        match &admitted {
            Ok(_) => self.metrics.joins.increment(),
            // Players ask again and again until there is something to watch.
            Err(ApiError::NothingLive(_)) => {}
            Err(_) => self.metrics.joins_failed.increment(),
        }
        admitted
    }

    /// Takes up the session of a participant that was admitted before, by whichever gateway.
    ///
    /// # Errors
    /// [`ApiError::NoParticipant`] when it is gone or another identity's; 503 when its node does not answer.
    pub async fn attach(
        &self,
        room: &RoomName,
        participant: &ParticipantId,
        identity: &Identity,
    ) -> Result<(Session, Snapshot), ApiError> {
        let (placement, answered) = self.ask_for(room, participant, identity, Command::Attach).await?;
        let Reply::Snapshot(snapshot) = answered.reply else {
            return Err(unexpected(&answered.reply));
        };
        let claim = || Claim::new(&placement, self.moves.enter(&snapshot, &placement), &snapshot);
        let session = answered.session.and_then(|session| session.claim(claim));
        Ok((session.ok_or(ApiError::Internal)?, *snapshot))
    }

    /// Does something for a participant without a session.
    ///
    /// # Errors
    /// [`ApiError::NoParticipant`] when it is gone or another identity's; 503 when its node does not answer; else the node's refusal.
    pub async fn command(
        &self,
        room: &RoomName,
        participant: &ParticipantId,
        identity: &Identity,
        command: Command,
    ) -> Result<Reply, ApiError> {
        Ok(self.ask_for(room, participant, identity, command).await?.1.reply)
    }

    /// Does something for somebody who administers a room. The caller has checked that it may.
    ///
    /// # Errors
    /// [`ApiError::NoRoom`] when the room is not open, and it is not opened by that; 503 when its node does not answer; else the
    /// node's refusal.
    pub async fn administer(&self, room: &RoomName, command: RoomCommand) -> Result<Reply, ApiError> {
        let request = |_: &Placement| Request::Administer {
            room: room.clone(),
            command: command.clone(),
        };
        let (_, answered) = self.ask(room, Asker::default(), Need::Location, request).await?;
        Ok(answered.reply)
    }

    pub(crate) fn moves(&self) -> &Arc<Moves> {
        &self.moves
    }

    pub(crate) fn links(&self) -> &NodeLinks {
        &self.links
    }

    pub(crate) fn outcomes(&self) -> &Arc<Outcomes> {
        &self.outcomes
    }

    pub(crate) fn placements(&self) -> &Placements {
        &self.placements
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The figures of the calls to the orchestrators, and of the links to the nodes, in the Prometheus text format.
    pub(crate) fn render_upstreams(&self) -> String {
        self.orchestrators.render() + &self.links.render()
    }

    /// Ends all links to nodes, after what is queued on them was sent.
    pub(crate) async fn close(&self) {
        self.links.close().await;
    }

    async fn ask_for(
        &self,
        room: &RoomName,
        participant: &ParticipantId,
        identity: &Identity,
        command: Command,
    ) -> Result<(Arc<Placement>, Answered), ApiError> {
        let request = |_: &Placement| Request::Participant {
            room: room.clone(),
            participant: participant.clone(),
            identity: identity.clone(),
            command: command.clone(),
        };
        let asker = Asker {
            user: Some(identity),
            wish: None,
        };
        match self.ask(room, asker, Need::Location, request).await {
            Ok(asked) => Ok(asked),
            Err(ApiError::NoRoom) => Err(ApiError::NoParticipant(
                "The room is not open (any more), so nobody is in it; join again.".into(),
            )),
            Err(error) => Err(error),
        }
    }

    /// Asks the room's node, with a fresh placement after each failure that one may cure.
    async fn ask(
        &self,
        room: &RoomName,
        asker: Asker<'_>,
        need: Need,
        request: impl Fn(&Placement) -> Request,
    ) -> Result<(Arc<Placement>, Answered), ApiError> {
        let _turn = self.lanes.turn(need != Need::Location).await?;
        let deadline = Instant::now() + REQUEST_DEADLINE;
        let mut error = ApiError::NodeUnavailable;
        let mut unknown_at: Option<Arc<Placement>> = None;
        let mut blamed = None;
        for attempt in 0..MAX_TRIES {
            if attempt > 0 && unknown_at.is_none() {
                pause(attempt, deadline).await;
            }
            let placed = self.place(room, asker, need, deadline).await?;
            let placement = placed.placement;
            if unknown_at.take().is_some_and(|before| same_place(&before, &placement)) {
                return Err(error);
            }
            let try_deadline = deadline.min(Instant::now() + TRY_DEADLINE);
            let request = request(&placement);
            let span = spans::asking(&request, &placement);
            let failure = match span.run(self.links.get(&placement.control, try_deadline)).await {
                Ok(link) => match span.run(link.request(request, try_deadline)).await {
                    Ok(answered) => {
                        spans::replied(&span, &answered);
                        if need != Need::Location {
                            self.reports.joined(&placement);
                            self.outcomes.joined(placement.node);
                        }
                        return Ok((placement, answered));
                    }
                    Err(failure) => {
                        let had_time = try_deadline < deadline;
                        // Once for each join, however often it is tried there.
                        if need != Need::Location && is_fault(&failure, had_time) && blamed != Some(placement.node) {
                            blamed = Some(placement.node);
                            self.reports.join_failed(&placement);
                            self.outcomes.failed(placement.node, room, asker.user);
                        }
                        failure
                    }
                },
                Err(failure) => {
                    if failure == Failure::Broken && !self.links.is_closing() {
                        self.reports.unreachable(&placement);
                        if need != Need::Location {
                            self.outcomes.failed(placement.node, room, asker.user);
                        }
                    }
                    failure
                }
            };
            spans::not_done(&span, &failure);
            drop(span);
            match &failure {
                Failure::Refused(refusal) => match refusal.reason {
                    RefusalReason::Ticket | RefusalReason::Closing | RefusalReason::Full => {
                        self.metrics.placements_refused.increment();
                    }
                    // The room may have moved since the placement was cached; the same answer from the same place is final.
                    RefusalReason::NoParticipant | RefusalReason::NoRoom if placed.may_be_outdated => {
                        unknown_at = Some(Arc::clone(&placement));
                    }
                    _ => return Err(failure.into()),
                },
                Failure::Broken | Failure::TimedOut => {}
                Failure::Overloaded | Failure::TooLarge => return Err(failure.into()),
            }
            tracing::debug!(%room, node = %placement.node, ?failure, attempt, "the placement did not serve");
            self.placements.forget(room, &placement);
            error = failure.into();
            if Instant::now() >= deadline {
                break;
            }
        }
        Err(error)
    }

    async fn place(&self, room: &RoomName, asker: Asker<'_>, need: Need, deadline: Instant) -> Result<Found, ApiError> {
        let span = spans::placing(room);
        let finding = tokio::time::timeout_at(deadline, self.placements.find(room, asker, need));
        let found = span.run(finding).await;
        let found = found.unwrap_or(Err(ApiError::OrchestratorUnavailable));
        spans::placed(&span, &found);
        found
    }
}

/// Whether the node is to blame for a failed join, rather than the join itself or a node that is full or moves rooms, as nodes do.
fn is_fault(failure: &Failure, had_time: bool) -> bool {
    match failure {
        Failure::Broken => true,
        Failure::TimedOut => had_time,
        Failure::Refused(refusal) => refusal.reason == RefusalReason::Internal,
        Failure::Overloaded | Failure::TooLarge => false,
    }
}

fn same_place(a: &Placement, b: &Placement) -> bool {
    (a.node, a.epoch, a.generation) == (b.node, b.epoch, b.generation)
}

async fn pause(attempt: u32, deadline: Instant) {
    let longest = FIRST_PAUSE * 2_u32.saturating_pow(attempt.saturating_sub(1).min(8));
    let pause = longest.mul_f64(rand::random_range(0.2..1.0));
    tokio::time::sleep_until(deadline.min(Instant::now() + pause)).await;
}

/// The node answered something else than was asked: a fault of its software.
pub(crate) fn unexpected(reply: &Reply) -> ApiError {
    let kind = match reply {
        Reply::Opened { .. } => "opened",
        Reply::Joined(_) => "joined",
        Reply::Snapshot(_) => "snapshot",
        Reply::Answer { .. } => "answer",
        Reply::Published { .. } => "published",
        Reply::Room { .. } => "room",
        Reply::Participant { .. } => "participant",
        Reply::IceRestarted { .. } => "ice_restarted",
        Reply::Tunnels { .. } => "tunnels",
        Reply::Done => "done",
    };
    tracing::error!(reply = kind, "a media node's reply does not fit the request");
    ApiError::Internal
}
