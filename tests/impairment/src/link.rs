//! One direction of a link.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::{HEADER_BYTES, Impairment};

/// What has become of a link's datagrams so far. Bytes include [`HEADER_BYTES`] for each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that were given to it.
    pub offered: u64,
    /// Their bytes.
    pub offered_bytes: u64,
    /// Those that arrived, the second of two alike included.
    pub delivered: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Those that were lost on the way.
    pub lost: u64,
    /// Those that found the queue full.
    pub overflowed: u64,
}

/// One direction of a link.
#[derive(Debug)]
pub struct Link {
    impairment: Impairment,
    rng: StdRng,
    is_bad: bool,
    /// What waits for the bottleneck, the first one is on the wire; with the time that each takes beyond it.
    queue: VecDeque<Departure>,
    queued_bytes: u64,
    /// When the first one of the queue is through.
    free: Option<Instant>,
    under_way: BTreeMap<(Instant, u64), Vec<u8>>,
    /// How many were put under way: those of one instant arrive in order.
    order: u64,
    counts: Counts,
}

#[derive(Debug)]
struct Departure {
    datagram: Vec<u8>,
    delay: Duration,
    second: Option<Duration>,
}

impl Link {
    /// A link on which nothing is under way.
    pub fn new(impairment: Impairment, seed: u64) -> Self {
        Self {
            impairment,
            rng: StdRng::seed_from_u64(seed),
            is_bad: false,
            queue: VecDeque::new(),
            queued_bytes: 0,
            free: None,
            under_way: BTreeMap::new(),
            order: 0,
            counts: Counts::default(),
        }
    }

    /// Begins anew; what is under way still arrives.
    pub fn restart(&mut self, impairment: Impairment, seed: u64) {
        self.impairment = impairment;
        self.rng = StdRng::seed_from_u64(seed);
        self.is_bad = false;
    }

    /// Changes what becomes of datagrams from now on. What waits in the queue leaves at the new rate; what is past it is not changed.
    pub fn change(&mut self, now: Instant, impairment: Impairment) {
        self.advance(now);
        self.impairment = impairment;
        if impairment.capacity.is_none() {
            while self.queue.front().is_some() {
                self.depart(now);
            }
            self.free = None;
        }
    }

    /// What it does at present.
    pub fn impairment(&self) -> Impairment {
        self.impairment
    }

    /// What has become of its datagrams.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes a datagram.
    pub fn send(&mut self, now: Instant, datagram: Vec<u8>) {
        self.advance(now);
        let Impairment {
            capacity, queue, delay, ..
        } = self.impairment;
        // All draws are made for every datagram, so that a run does not depend on what was lost before.
        let is_lost = self.draws_loss();
        let (more, second) = self.draws_delay();
        let bytes = wire_bytes(&datagram);
        self.counts.offered += 1;
        self.counts.offered_bytes += bytes;
        if is_lost {
            self.counts.lost += 1;
            return;
        }
        let departure = Departure {
            datagram,
            delay: delay + more,
            second,
        };
        let Some(capacity) = capacity else {
            self.put_under_way(now, departure);
            return;
        };
        if time_to_send(self.queued_bytes + bytes, capacity) > queue && !self.queue.is_empty() {
            self.counts.overflowed += 1;
            return;
        }
        self.queued_bytes += bytes;
        self.queue.push_back(departure);
        if self.free.is_none() {
            self.free = Some(now + time_to_send(bytes, capacity));
        }
    }

    /// When something may arrive next, or the bottleneck has to be looked after.
    pub fn next_arrival(&self) -> Option<Instant> {
        let first = self.under_way.keys().next().map(|(at, _)| *at);
        [first, self.free].into_iter().flatten().min()
    }

    /// The next datagram that has arrived.
    pub fn receive(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.advance(now);
        let key = *self.under_way.keys().next().filter(|(at, _)| *at <= now)?;
        let datagram = self.under_way.remove(&key)?;
        self.counts.delivered += 1;
        self.counts.delivered_bytes += wire_bytes(&datagram);
        Some(datagram)
    }

    fn draws_loss(&mut self) -> bool {
        let is_lost = self.rng.random_bool(self.impairment.loss);
        let Some(burst) = self.impairment.burst else {
            return is_lost;
        };
        self.is_bad ^= self.rng.random_bool(burst.turns(self.is_bad));
        is_lost || self.is_bad
    }

    /// What is added to the delay, and to that of the second one if there are two. Effects that are off draw nothing: turning one on
    /// does not move the others' draws, as long as it comes behind them.
    fn draws_delay(&mut self) -> (Duration, Option<Duration>) {
        let Impairment {
            jitter,
            duplicate,
            reorder,
            hold,
            ..
        } = self.impairment;
        let mut more = jitter.mul_f64(self.rng.random_range(0.0..1.0));
        if reorder > 0.0 && self.rng.random_bool(reorder) {
            more += hold;
        }
        let is_double = duplicate > 0.0 && self.rng.random_bool(duplicate);
        (more, is_double.then_some(hold))
    }

    /// Lets through what the bottleneck has had the time for.
    fn advance(&mut self, now: Instant) {
        while let Some(through) = self.free.filter(|free| *free <= now) {
            self.depart(through);
            self.free = match (self.queue.front(), self.impairment.capacity) {
                (Some(next), Some(capacity)) => Some(through + time_to_send(wire_bytes(&next.datagram), capacity)),
                (Some(_), None) => Some(through),
                (None, _) => None,
            };
        }
    }

    fn depart(&mut self, now: Instant) {
        if let Some(first) = self.queue.pop_front() {
            self.queued_bytes -= wire_bytes(&first.datagram);
            self.put_under_way(now, first);
        }
    }

    fn put_under_way(&mut self, now: Instant, departure: Departure) {
        let arrival = now + departure.delay;
        if let Some(later) = departure.second {
            self.order += 1;
            self.under_way
                .insert((arrival + later, self.order), departure.datagram.clone());
        }
        self.order += 1;
        self.under_way.insert((arrival, self.order), departure.datagram);
    }
}

fn wire_bytes(datagram: &[u8]) -> u64 {
    (datagram.len() + HEADER_BYTES) as u64
}

fn time_to_send(bytes: u64, capacity: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 * 8.0 / capacity.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Burst;

    /// Sends so many datagrams of 1,000 bytes on the wire, one each so often; when each arrived, and its number.
    fn run(impairment: Impairment, seed: u64, count: u32, every: Duration) -> (Link, Vec<(Duration, u32)>) {
        let begin = Instant::now();
        let mut link = Link::new(impairment, seed);
        let mut arrived = Vec::new();
        for number in 0..count {
            let now = begin + every * number;
            collect(&mut link, begin, now, &mut arrived);
            let mut datagram = number.to_be_bytes().to_vec();
            datagram.resize(1_000 - HEADER_BYTES, 0);
            link.send(now, datagram);
        }
        collect(
            &mut link,
            begin,
            begin + every * count + Duration::from_secs(60),
            &mut arrived,
        );
        (link, arrived)
    }

    fn collect(link: &mut Link, begin: Instant, until: Instant, arrived: &mut Vec<(Duration, u32)>) {
        while let Some(at) = link.next_arrival().filter(|at| *at <= until) {
            while let Some(datagram) = link.receive(at) {
                let number = u32::from_be_bytes(datagram[..4].try_into().unwrap());
                arrived.push((at - begin, number));
            }
        }
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_bottleneck_lets_through_its_capacity_and_no_more() {
        let impairment = Impairment {
            capacity: Some(400_000),
            queue: MS * 200,
            ..Impairment::NONE
        };
        // 1 Mbps for 8 seconds.
        let (link, arrived) = run(impairment, 1, 1_000, MS * 8);
        let (first, last) = (arrived[0].0, arrived.last().unwrap().0);
        let rate = (arrived.len() - 1) as f64 * 8_000.0 / (last - first).as_secs_f64();
        assert!((rate - 400_000.0).abs() < 400.0, "{rate}");
        assert!(
            last <= MS * (7_992 + 200 + 5),
            "the queue is no longer than 200 ms: {last:?}"
        );
        let counts = link.counts();
        assert_eq!(counts.offered, counts.delivered + counts.overflowed);
        assert!(counts.overflowed > 500, "{counts:?}");
        assert_eq!(counts.delivered_bytes, counts.delivered * 1_000);
    }

    #[test]
    fn what_fits_through_the_bottleneck_is_not_held_up() {
        let impairment = Impairment {
            capacity: Some(1_000_000),
            ..Impairment::NONE
        };
        let (_, arrived) = run(impairment, 1, 100, MS * 10);
        for (at, number) in arrived {
            assert_eq!(at, MS * 10 * number + MS * 8 + MS * 5);
        }
    }

    #[test]
    fn what_waits_leaves_at_the_new_rate_when_the_capacity_changes() {
        let (now, slow) = (Instant::now(), Some(80_000));
        let impairment = Impairment {
            capacity: slow,
            queue: MS * 1_000,
            ..Impairment::NONE
        };
        let mut link = Link::new(impairment, 1);
        for _ in 0..5 {
            link.send(now, vec![0; 1_000 - HEADER_BYTES]);
        }
        // The first takes 100 ms at the old rate, the others 10 ms each at the new one.
        link.change(
            now,
            Impairment {
                capacity: Some(800_000),
                ..impairment
            },
        );
        let mut arrived = Vec::new();
        while let Some(at) = link.next_arrival() {
            arrived.extend(link.receive(at).map(|_| (at - now).as_millis()));
        }
        assert_eq!(arrived, [105, 115, 125, 135, 145]);
        // And all at once when there is none any more.
        link.change(now + MS * 1_000, impairment);
        link.send(now + MS * 1_000, vec![0; 1_000]);
        link.send(now + MS * 1_000, vec![0; 1_000]);
        link.change(now + MS * 1_001, Impairment::NONE);
        assert_eq!(link.next_arrival(), Some(now + MS * 1_006));
        assert!(link.receive(now + MS * 1_006).is_some() && link.receive(now + MS * 1_006).is_some());
        assert_eq!(link.next_arrival(), None);
    }

    #[test]
    fn loss_is_the_share_that_it_says() {
        let impairment = Impairment {
            loss: 0.05,
            ..Impairment::NONE
        };
        let (link, arrived) = run(impairment, 3, 20_000, MS);
        assert!((900..1_100).contains(&link.counts().lost), "{:?}", link.counts());
        assert_eq!(arrived.len() as u64 + link.counts().lost, 20_000);
    }

    #[test]
    fn bursts_lose_their_share_in_runs_of_their_length() {
        let burst = Burst {
            share: 0.2,
            length: 5.0,
        };
        let impairment = Impairment {
            burst: Some(burst),
            ..Impairment::NONE
        };
        let (link, arrived) = run(impairment, 4, 50_000, MS);
        let share = link.counts().lost as f64 / 50_000.0;
        assert!((0.18..0.22).contains(&share), "{share}");
        let runs = arrived.windows(2).filter(|pair| pair[1].1 != pair[0].1 + 1).count();
        let length = link.counts().lost as f64 / runs as f64;
        assert!((4.5..5.5).contains(&length), "{length}");
    }

    #[test]
    fn the_same_seed_gives_the_same_and_another_one_another() {
        let impairment = Impairment {
            loss: 0.1,
            burst: Some(Burst {
                share: 0.1,
                length: 3.0,
            }),
            jitter: MS * 20,
            capacity: Some(1_000_000),
            duplicate: 0.1,
            reorder: 0.1,
            ..Impairment::NONE
        };
        let arrived = |seed| run(impairment, seed, 2_000, MS * 9).1;
        assert_eq!(arrived(5), arrived(5));
        assert_ne!(arrived(5), arrived(6));
    }

    #[test]
    fn some_arrive_twice_and_some_are_overtaken() {
        let impairment = Impairment {
            duplicate: 0.1,
            ..Impairment::NONE
        };
        let (_, arrived) = run(impairment, 7, 2_000, MS);
        assert!((2_150..2_250).contains(&arrived.len()), "{}", arrived.len());

        let impairment = Impairment {
            reorder: 0.1,
            ..Impairment::NONE
        };
        let (_, arrived) = run(impairment, 8, 2_000, MS);
        assert_eq!(arrived.len(), 2_000);
        let overtaken = arrived.windows(2).filter(|pair| pair[1].1 < pair[0].1).count();
        assert!((120..220).contains(&overtaken), "{overtaken}");
    }
}
