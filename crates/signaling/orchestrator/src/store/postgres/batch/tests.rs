//! With a job that only notes what it is asked, and is let go on by the test.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::*;

const PATIENT: Duration = Duration::from_secs(30);

/// What a request stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Good,
    /// The job fails because of it.
    Bad,
    /// The job panics.
    Fatal,
}

#[derive(Debug)]
struct Request {
    key: usize,
    kind: Kind,
}

#[derive(Debug, Default)]
struct Noted {
    batches: Mutex<Vec<Vec<usize>>>,
    begun: AtomicUsize,
    away: std::sync::atomic::AtomicBool,
}

/// Answers each request with the number of those that were in the statement.
#[derive(Debug)]
struct Notes {
    noted: Arc<Noted>,
    permits: Arc<Semaphore>,
}

impl Job for Notes {
    type Request = Request;
    type Answer = usize;
    type Key = usize;

    const NAME: &'static str = "notes";
    const AT_ONCE: usize = 1;
    const MOST: usize = 10;
    const QUEUE: usize = 20;

    fn key(request: &Request) -> &usize {
        &request.key
    }

    async fn run(&self, requests: &[Request]) -> Result<Vec<usize>, Error> {
        self.noted.begun.fetch_add(1, Ordering::SeqCst);
        self.permits.acquire().await.unwrap().forget();
        let keys = requests.iter().map(|request| request.key).collect();
        self.noted.batches.lock().unwrap().push(keys);
        if self.noted.away.load(Ordering::SeqCst) {
            return Err(sqlx::Error::PoolTimedOut.into());
        }
        assert!(requests.iter().all(|request| request.kind != Kind::Fatal), "fatal");
        if requests.iter().any(|request| request.kind == Kind::Bad) {
            return Err(sqlx::Error::RowNotFound.into());
        }
        Ok(vec![requests.len(); requests.len()])
    }

    fn shared(_: &Request, answer: &usize, other: &Request) -> Option<usize> {
        // Odd keys cannot share.
        other.key.is_multiple_of(2).then_some(*answer)
    }
}

struct Fixture {
    batcher: Arc<Batcher<Notes>>,
    noted: Arc<Noted>,
    permits: Arc<Semaphore>,
    calls: JoinSet<(usize, Result<usize, Error>)>,
}

impl Fixture {
    /// A batcher whose first statement, of a call with key 100, is under way.
    async fn busy() -> Self {
        let (noted, permits) = (Arc::new(Noted::default()), Arc::new(Semaphore::new(0)));
        let job = Notes {
            noted: noted.clone(),
            permits: permits.clone(),
        };
        let mut fixture = Self {
            batcher: Arc::new(Batcher::new(job, PATIENT)),
            noted,
            permits,
            calls: JoinSet::new(),
        };
        fixture.call(100, Kind::Good);
        fixture.until(|noted, _| noted.begun.load(Ordering::SeqCst) == 1).await;
        fixture
    }

    fn call(&mut self, key: usize, kind: Kind) {
        let batcher = self.batcher.clone();
        self.calls
            .spawn(async move { (key, batcher.call(Request { key, kind }).await) });
    }

    async fn until(&self, is_so: impl Fn(&Noted, usize) -> bool) {
        let asking = async {
            while !is_so(&self.noted, self.batcher.0.lock().queue.len()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENT, asking).await.expect("it becomes so");
    }

    async fn until_queued(&self, count: usize) {
        self.until(|_, queued| queued == count).await;
    }

    /// Lets all statements go on, and returns the answers by key.
    async fn finish(mut self) -> (Vec<(usize, Result<usize, Error>)>, Vec<Vec<usize>>) {
        self.permits.add_permits(1000);
        let mut answers = Vec::new();
        while let Some(answer) = self.calls.join_next().await {
            answers.push(answer.unwrap());
        }
        answers.sort_by_key(|(key, _)| *key);
        (answers, self.noted.batches.lock().unwrap().clone())
    }
}

#[tokio::test]
async fn calls_that_come_while_a_statement_is_under_way_share_the_next_in_order() {
    let mut fixture = Fixture::busy().await;
    for (waiting, key) in [7, 3, 5, 1].into_iter().enumerate() {
        fixture.call(key, Kind::Good);
        fixture.until_queued(waiting + 1).await;
    }
    let (answers, batches) = fixture.finish().await;
    assert_eq!(batches, [vec![100], vec![1, 3, 5, 7]]);
    let answers: Vec<usize> = answers.into_iter().map(|(_, answer)| answer.unwrap()).collect();
    assert_eq!(answers, [4, 4, 4, 4, 1]);
}

#[tokio::test]
async fn calls_of_one_key_share_an_answer_or_wait_for_the_next_statement() {
    let mut fixture = Fixture::busy().await;
    for key in [2, 2, 2, 3, 3] {
        fixture.call(key, Kind::Good);
    }
    fixture.until_queued(5).await;
    let (answers, batches) = fixture.finish().await;
    assert_eq!(batches, [vec![100], vec![2, 3], vec![3]]);
    let mut answers: Vec<usize> = answers.into_iter().map(|(_, answer)| answer.unwrap()).collect();
    answers.sort_unstable();
    assert_eq!(answers, [1, 1, 2, 2, 2, 2]);
}

#[tokio::test]
async fn a_statement_takes_so_many_calls_and_no_more() {
    let mut fixture = Fixture::busy().await;
    for key in 0..15 {
        fixture.call(key, Kind::Good);
    }
    fixture.until_queued(15).await;
    let (_, batches) = fixture.finish().await;
    let sizes: Vec<usize> = batches.iter().map(Vec::len).collect();
    assert_eq!(sizes, [1, 10, 5]);
}

#[tokio::test]
async fn when_too_many_wait_further_ones_fail_as_an_outage() {
    let mut fixture = Fixture::busy().await;
    for key in 0..Notes::QUEUE {
        fixture.call(key, Kind::Good);
    }
    fixture.until_queued(Notes::QUEUE).await;
    let request = Request {
        key: 50,
        kind: Kind::Good,
    };
    let refused = fixture.batcher.call(request).await.unwrap_err();
    assert!(
        refused.is_outage() && refused.to_string().contains("notes"),
        "{refused}"
    );
    let (answers, _) = fixture.finish().await;
    assert!(answers.iter().all(|(_, answer)| answer.is_ok()));
}

#[tokio::test]
async fn a_call_that_is_dropped_does_not_disturb_the_others() {
    let mut fixture = Fixture::busy().await;
    let dropped = {
        let batcher = fixture.batcher.clone();
        let request = Request {
            key: 5,
            kind: Kind::Fatal,
        };
        tokio::spawn(async move { batcher.call(request).await })
    };
    fixture.until_queued(1).await;
    fixture.call(7, Kind::Good);
    fixture.until_queued(2).await;
    dropped.abort();
    assert!(dropped.await.unwrap_err().is_cancelled());
    let (answers, batches) = fixture.finish().await;
    assert!(answers.iter().all(|(_, answer)| answer.is_ok()));
    assert_eq!(batches, [vec![100], vec![7]], "what nobody waits for is not asked");
}

#[tokio::test]
async fn a_request_that_the_database_refuses_fails_alone() {
    let mut fixture = Fixture::busy().await;
    for (key, kind) in [(1, Kind::Good), (4, Kind::Bad), (4, Kind::Good), (9, Kind::Good)] {
        fixture.call(key, kind);
        fixture.until(|_, queued| queued > 0).await;
    }
    fixture.until_queued(4).await;
    let (answers, _) = fixture.finish().await;
    let failed: Vec<usize> = answers
        .iter()
        .filter(|(_, answer)| answer.is_err())
        .map(|(key, _)| *key)
        .collect();
    assert_eq!(failed, [4], "one of the two with that key");
}

#[tokio::test]
async fn an_outage_fails_all_that_were_in_the_statement() {
    let mut fixture = Fixture::busy().await;
    for key in [1, 2, 2, 3] {
        fixture.call(key, Kind::Good);
    }
    fixture.until_queued(4).await;
    fixture.noted.away.store(true, Ordering::SeqCst);
    let (answers, batches) = fixture.finish().await;
    assert_eq!(answers.len(), 5);
    assert!(
        answers
            .iter()
            .all(|(_, answer)| answer.as_ref().is_err_and(Error::is_outage))
    );
    assert_eq!(batches.len(), 2);
}

#[tokio::test]
async fn a_panic_fails_those_who_wait_and_the_next_call_succeeds() {
    let mut fixture = Fixture::busy().await;
    fixture.call(1, Kind::Fatal);
    fixture.until_queued(1).await;
    let batcher = fixture.batcher.clone();
    let (answers, _) = fixture.finish().await;
    assert!(answers[0].1.as_ref().is_err_and(Error::is_outage));
    let request = Request {
        key: 2,
        kind: Kind::Good,
    };
    assert_eq!(batcher.call(request).await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_too_long_ends_as_an_outage() {
    let fixture = Fixture::busy().await;
    let request = Request {
        key: 1,
        kind: Kind::Good,
    };
    assert!(fixture.batcher.call(request).await.unwrap_err().is_outage());
}
