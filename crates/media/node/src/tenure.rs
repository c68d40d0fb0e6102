//! The node's tenure: when it registers and when it renews its lease, which orchestrators it asks, what their answers mean, and
//! when it must give up all rooms.
//!
//! **The node stops first.** An orchestrator moves a node's rooms once the lease has run out; so the node counts the lease from the
//! moment that it *sent* the request, which is before the orchestrator counted, takes a margin off ([`MARGIN`]), and ends its epoch
//! when that deadline passes. It never takes an ended epoch up again. The deadline lives in the [`Lease`], where the shards look
//! before each packet.
//!
//! A heartbeat goes round the orchestrators, beginning with the one that confirmed last, until one confirms. One whose database is
//! away may only *promise* to fence nobody for a lease's time; then the next one is asked, and when none confirms the promises
//! decide: see [`Promises`]. An orchestrator that does not answer holds nobody up: after a head start the next one is asked as well.
//!
//! This is a state machine without a clock, socket or task: it says what is to be done, and is told what came of it. [`Tenure`]
//! says how to drive it. The node does so over HTTP, simulations over a simulated network.

mod exchange;
mod round;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use signalbox_protocol::Epoch;
use signalbox_protocol::node::Registered;

use crate::backoff::Backoff;
use crate::lease::{Boottime, Held, Lease};
pub use exchange::{Action, Answer, Ask, Lost, Note, Question};
use round::Round;

/// What is taken off the lease, as its tenth part. Higher: more time to close the rooms before they are placed elsewhere.
/// Lower: fewer rooms are lost to short outages.
pub const MARGIN: u32 = 10;

/// How long a registration may take. Higher: slow answers are waited for. Lower: a dead orchestrator is left sooner.
pub const REGISTER: Duration = Duration::from_secs(2);

/// How long a heartbeat's call may take, as the third part of the lease: with [`HEAD_START`] a whole round then fits into a lease.
pub const ATTEMPT: u32 = 3;

/// In which part of the lease all orchestrators are asked, one after the other, when none of them answers. Higher: a hung one is
/// passed over sooner. Lower: one that is only slow is not doubled.
pub const HEAD_START: u32 = 4;

/// The shortest time between two heartbeats, whatever the orchestrator says.
pub const MIN_HEARTBEAT: Duration = Duration::from_millis(20);

/// How often in a row a registration may come after another epoch than the node's before that counts as a failure: somebody else
/// registers under its id.
const MAX_BEHIND: u32 = 3;

/// Waiting times between two rounds of attempts to register: from the first, doubling, to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How many promises keep a lease while no orchestrator can renew it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Promises {
    /// One suffices, and the lease goes on from when that promise was asked for. The rooms survive an outage of the database as
    /// long as any orchestrator answers. An orchestrator that reaches the database but not this node may fence it meanwhile, and
    /// its rooms are opened elsewhere while it still serves those that reach it.
    #[default]
    One,
    /// All orchestrators must promise in the same round, and the lease goes on from when the first of them was asked. Nobody
    /// fences this node then while it serves. One orchestrator that does not answer during an outage of the database ends all rooms.
    All,
}

/// The state machine.
///
/// **To drive it**, call [`Tenure::poll_action`] until there is nothing to do, carrying out each action before the next call. Then wait
/// for whichever comes first: an answer, for [`Tenure::handle_answer`], or [`Tenure::poll_timeout`]. Then poll again.
///
/// `now` must never go back, and be of the clock that the lease is asked with.
#[derive(Debug)]
pub struct Tenure {
    lease: Arc<Lease>,
    orchestrators: usize,
    promises: Promises,
    rng: StdRng,
    /// The orchestrator to ask first.
    preferred: usize,
    /// The number of the latest round.
    round: u64,
    /// The last epoch that was held.
    last: Option<Held>,
    /// The node's epoch, as far as it was told.
    after: Epoch,
    state: State,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
enum State {
    Registering(Registering),
    Holding(Holding),
    Refused,
}

#[derive(Debug)]
struct Registering {
    backoff: Backoff,
    /// Orchestrators that have failed since the last pause.
    failed: usize,
    /// How often in a row it was told another epoch.
    behind: u32,
    /// When the request that is under way is given up.
    until: Option<Boottime>,
    /// When to send the next request.
    next: Boottime,
}

#[derive(Debug)]
struct Holding {
    held: Held,
    lease: Duration,
    heartbeat: Duration,
    /// The number of the last request.
    beat: u64,
    rooms_wanted: bool,
    round: Round,
    /// When to begin the next round, once this one is over.
    next: Boottime,
}

impl Tenure {
    /// A node that is about to register with one of so many orchestrators, at least one. It keeps `lease` up to date, which nobody
    /// else may grant or renew. The seed spreads the times of attempts to register.
    pub fn new(lease: Arc<Lease>, orchestrators: usize, promises: Promises, seed: u64) -> Self {
        Self {
            lease,
            orchestrators: orchestrators.max(1),
            promises,
            rng: StdRng::seed_from_u64(seed),
            preferred: 0,
            round: 0,
            last: None,
            after: Epoch(0),
            state: State::Registering(Registering::from(Boottime::from(Duration::ZERO))),
            actions: VecDeque::new(),
        }
    }

    /// What is to be done at `now`.
    pub fn poll_action(&mut self, now: Boottime) -> Option<Action> {
        if self.actions.is_empty() {
            match &self.state {
                State::Registering(_) => self.advance_registration(now),
                State::Holding(_) => self.advance_lease(now),
                State::Refused => {}
            }
        }
        self.actions.pop_front()
    }

    /// When to poll again if no answer comes before. None: never, as the node was refused.
    pub fn poll_timeout(&self) -> Option<Boottime> {
        match &self.state {
            State::Registering(registering) => Some(registering.until.unwrap_or(registering.next)),
            State::Holding(holding) => {
                let next = holding.round.poll_timeout().unwrap_or(holding.next);
                Some(self.lease.deadline().map_or(next, |deadline| deadline.min(next)))
            }
            State::Refused => None,
        }
    }

    /// Takes in an answer. One that comes too late to matter is ignored.
    pub fn handle_answer(&mut self, now: Boottime, ask: &Ask, answer: Answer) {
        if ask.round != self.round {
            return;
        }
        match (&ask.question, &self.state) {
            (Question::Register { .. }, State::Registering(_)) => self.handle_registration(now, ask, answer),
            (Question::Beat { rooms, .. }, State::Holding(_)) => self.handle_beat(now, ask, *rooms, answer),
            _ => {}
        }
    }

    fn advance_registration(&mut self, now: Boottime) {
        let State::Registering(registering) = &mut self.state else {
            return;
        };
        if registering.until.is_some_and(|until| until <= now) {
            return self.not_registered(now, "no answer in time".to_owned());
        }
        if registering.until.is_none() && registering.next <= now {
            registering.until = Some(now.after(REGISTER));
            self.round += 1;
            self.actions.push_back(Action::Ask(Ask {
                round: self.round,
                orchestrator: self.preferred,
                sent: now,
                within: REGISTER,
                question: Question::Register { after: self.after },
            }));
        }
    }

    fn handle_registration(&mut self, now: Boottime, ask: &Ask, answer: Answer) {
        let why = match answer {
            Answer::Registered(registered) => match self.begin(now, ask.sent, &registered) {
                Ok(()) => return self.preferred = ask.orchestrator,
                Err(why) => why.to_owned(),
            },
            Answer::Refused(why) => {
                self.state = State::Refused;
                return self.actions.push_back(Action::GiveUp(why));
            }
            Answer::Failed(why) => why,
            Answer::Behind(epoch) => match self.comes_after(now, epoch) {
                true => return,
                false => "another process registers under the same --node-id".to_owned(),
            },
            Answer::Renewed(_) | Answer::Past | Answer::Over => "an answer that makes no sense".to_owned(),
        };
        self.not_registered(now, why);
    }

    /// Whether it asks again at once.
    fn comes_after(&mut self, now: Boottime, epoch: Epoch) -> bool {
        let State::Registering(registering) = &mut self.state else {
            return true;
        };
        self.after = epoch;
        registering.behind += 1;
        let again = registering.behind <= MAX_BEHIND;
        if again {
            (registering.until, registering.next) = (None, now);
        }
        again
    }

    fn not_registered(&mut self, now: Boottime, why: String) {
        let State::Registering(registering) = &mut self.state else {
            return;
        };
        self.preferred = (self.preferred + 1) % self.orchestrators;
        registering.until = None;
        registering.behind = 0;
        registering.failed += 1;
        registering.next = if registering.failed < self.orchestrators {
            now
        } else {
            registering.failed = 0;
            now.after(registering.backoff.next(&mut self.rng))
        };
        self.actions.push_back(Action::Note(Note::NotRegistered(why)));
    }

    fn begin(&mut self, now: Boottime, sent: Boottime, registered: &Registered) -> Result<(), &'static str> {
        let held = Held {
            epoch: registered.epoch,
            cluster: registered.cluster,
        };
        // The map takes what was assigned to earlier epochs for dead. A database that has lost some of them counts on from there.
        if self
            .last
            .is_some_and(|last| last.cluster == held.cluster && held.epoch <= last.epoch)
        {
            return Err("the epoch was no later than the last one");
        }
        let lease = Duration::from_millis(registered.lease_ms);
        if !self.lease.grant(held, deadline(sent, lease), now) {
            return Err("the lease had run out when it arrived");
        }
        (self.last, self.after) = (Some(held), held.epoch);
        let heartbeat = Duration::from_millis(registered.heartbeat_ms);
        self.state = State::Holding(Holding {
            held,
            lease,
            heartbeat,
            beat: 0,
            rooms_wanted: false,
            round: Round::over(),
            next: sent.after(interval(heartbeat, lease)),
        });
        self.actions.push_back(Action::Note(Note::Registered(held)));
        Ok(())
    }

    fn advance_lease(&mut self, now: Boottime) {
        let State::Holding(holding) = &mut self.state else {
            return;
        };
        if self.lease.held(now) != Some(holding.held) {
            return self.lose(now, Lost::Expired);
        }
        if !holding.round.is_open() && holding.next <= now {
            self.round += 1;
            let head_start = holding.lease / HEAD_START / u32::try_from(self.orchestrators).unwrap_or(u32::MAX);
            holding.round = Round::new(self.preferred, self.orchestrators, head_start, now);
            holding.next = now.after(interval(holding.heartbeat, holding.lease));
        }
        holding.round.expire(now);
        let within = (holding.lease / ATTEMPT).min(self.lease.remaining(now));
        if let Some(orchestrator) = holding.round.poll_next(now, within) {
            holding.beat += 1;
            self.actions.push_back(Action::Ask(Ask {
                round: self.round,
                orchestrator,
                sent: now,
                within,
                question: Question::Beat {
                    epoch: holding.held.epoch,
                    beat: holding.beat,
                    rooms: holding.rooms_wanted,
                },
            }));
        } else if let Some(note) = holding.round.conclude(self.promises) {
            self.actions.push_back(Action::Note(note));
        }
    }

    fn handle_beat(&mut self, now: Boottime, ask: &Ask, named_rooms: bool, answer: Answer) {
        let State::Holding(holding) = &mut self.state else {
            return;
        };
        let renewed = match answer {
            Answer::Renewed(renewed) => renewed,
            Answer::Over => {
                // It answers, so it is asked for the next epoch.
                self.preferred = ask.orchestrator;
                return self.lose(now, Lost::Over);
            }
            Answer::Past => return holding.round.handle_past(ask.orchestrator),
            Answer::Failed(why) | Answer::Refused(why) => return holding.round.handle_failure(ask.orchestrator, why),
            Answer::Registered(_) | Answer::Behind(_) => {
                let why = "an answer that makes no sense".to_owned();
                return holding.round.handle_failure(ask.orchestrator, why);
            }
        };
        holding.lease = Duration::from_millis(renewed.lease_ms);
        // Kept until a heartbeat that named them was confirmed: another orchestrator's answer must not make it forgotten.
        let done = named_rooms && !renewed.promised;
        holding.rooms_wanted = renewed.rooms_wanted || (holding.rooms_wanted && !done);
        if !renewed.stale.is_empty() {
            self.actions.push_back(Action::Close(renewed.stale));
        }
        let granted = deadline(ask.sent, holding.lease);
        let deadline = if renewed.promised {
            holding.round.handle_promise(ask.orchestrator, granted, self.promises)
        } else {
            Some(granted)
        };
        // When it comes after the deadline the lease is not renewed; the next poll sees that it has run out.
        let renews = deadline.is_some_and(|deadline| self.lease.renew(holding.held.epoch, deadline, now));
        if renews && !renewed.promised && holding.round.is_open() {
            self.preferred = ask.orchestrator;
            holding.round = Round::over();
            self.actions.push_back(Action::Note(Note::Renewed));
        }
    }

    fn lose(&mut self, now: Boottime, why: Lost) {
        let State::Holding(holding) = &self.state else { return };
        let epoch = holding.held.epoch;
        self.lease.revoke();
        self.state = State::Registering(Registering::from(now));
        self.actions.retain(|action| !matches!(action, Action::Ask(_)));
        self.actions.push_back(Action::Fence { epoch, why });
    }
}

impl Registering {
    fn from(now: Boottime) -> Self {
        let (first, most) = BACKOFF;
        Self {
            backoff: Backoff::new(first, most),
            failed: 0,
            behind: 0,
            until: None,
            next: now,
        }
    }
}

/// When the node must have stopped if nothing else comes.
fn deadline(sent: Boottime, lease: Duration) -> Boottime {
    sent.after(lease - lease / MARGIN)
}

fn interval(heartbeat: Duration, lease: Duration) -> Duration {
    heartbeat.min(lease / 2).max(MIN_HEARTBEAT)
}
