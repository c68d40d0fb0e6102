//! Histories of concurrent calls: there must be an order of them, one after the other, that explains every answer and
//! that no call left before it was made or after it was answered.

use std::sync::Mutex;

use signalbox_protocol::Generation;
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

use super::*;

/// One room as the contract has it, when all nodes live.
#[derive(Debug, Clone, Default)]
struct OneRoom {
    last: Option<Assignment>,
    open: bool,
}

#[derive(Debug, Clone)]
enum Call {
    Place(NodeId),
    Find,
    Close(Assignment),
}

#[derive(Debug, Clone, PartialEq)]
enum Answer {
    Placed(Placed),
    Found(Option<Assignment>),
    Closed(bool),
}

impl OneRoom {
    fn current(&self) -> Option<&Assignment> {
        self.last.as_ref().filter(|_| self.open)
    }
}

impl SequentialSpec for OneRoom {
    type Op = Call;
    type Ret = Answer;

    /// Not asked: which epoch a new assignment has is for the store to say.
    fn invoke(&mut self, _: &Call) -> Answer {
        unreachable!("steps are checked instead")
    }

    fn is_valid_step(&mut self, call: &Call, answer: &Answer) -> bool {
        match (call, answer) {
            (Call::Place(node), Answer::Placed(Placed::New(new))) => {
                let next = self.last.as_ref().map_or(0, |last| last.generation.0) + 1;
                let free = self.current().is_none();
                (self.last, self.open) = (Some(new.clone()), true);
                free && new.node == *node && new.generation == Generation(next)
            }
            (Call::Place(_), Answer::Placed(Placed::Existing(existing))) => self.current() == Some(existing),
            // Always permitted, when the map changes while the call is under way.
            (Call::Place(_), Answer::Placed(Placed::Refused)) => true,
            (Call::Find, Answer::Found(found)) => self.current() == found.as_ref(),
            (Call::Close(assignment), Answer::Closed(closed)) => {
                let is_current = self.current() == Some(assignment);
                self.open &= !is_current;
                *closed == is_current
            }
            _ => false,
        }
    }
}

type Tester = Mutex<LinearizabilityTester<usize, OneRoom>>;

async fn answer(store: &impl Store, name: &RoomName, call: Call) -> Answer {
    match call {
        Call::Place(node) => Answer::Placed(place(store, name, node).await),
        Call::Find => Answer::Found(store.find(name).await.unwrap()),
        Call::Close(assignment) => Answer::Closed(close(store, &assignment).await),
    }
}

pub async fn places_finds_and_closes_are_linearizable<S: Store>(store: Arc<S>) {
    let nodes = live_nodes::<2>(&*store).await;
    for round in 0..30 {
        let name = room(&format!("room {round}"));
        let tester = Arc::new(Tester::new(LinearizabilityTester::new(OneRoom::default())));
        let tasks = (0..4_usize).map(|task| {
            let (store, name, tester) = (store.clone(), name.clone(), tester.clone());
            async move {
                let mut seen = None;
                for step in 0..6 {
                    let call = match ((task + step + round) % 3, &seen) {
                        (0, _) => Call::Find,
                        (1, Some(seen)) => Call::Close(Assignment::clone(seen)),
                        _ => Call::Place(nodes[task % 2]),
                    };
                    tester.lock().unwrap().on_invoke(task, call.clone()).unwrap();
                    let answer = answer(&*store, &name, call).await;
                    tester.lock().unwrap().on_return(task, answer.clone()).unwrap();
                    match answer {
                        Answer::Placed(Placed::New(it) | Placed::Existing(it)) | Answer::Found(Some(it)) => {
                            seen = Some(it);
                        }
                        _ => {}
                    }
                }
            }
        });
        at_once(tasks).await;
        let tester = tester.lock().unwrap();
        assert!(tester.is_consistent(), "round {round}: no order explains {tester:?}");
    }
}
