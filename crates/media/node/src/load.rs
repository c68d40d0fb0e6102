//! How busy the node is, between one look and the next.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use signalbox_protocol::node::NodeLoad;

use crate::node::Node;

/// Turns counters that only grow into rates.
pub struct LoadMeter {
    last: Reading,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    /// Packets sent so far.
    sent: u64,
    /// Processor time that the process has used so far.
    cpu: Duration,
}

impl LoadMeter {
    /// Rates count from now on.
    pub fn new(node: &Node) -> Self {
        Self {
            last: Reading::now(node.total().socket.sent),
        }
    }

    /// The load at this moment; the rates are means since the last call.
    pub fn load(&mut self, node: &Node) -> NodeLoad {
        let total = node.total();
        let now = Reading::now(total.socket.sent);
        let (packets_per_second, cpu_percent) = now.rates_since(self.last);
        self.last = now;
        NodeLoad {
            rooms: u32::try_from(node.rooms.len()).unwrap_or(u32::MAX),
            participants: u32::try_from(total.core.participants).unwrap_or(u32::MAX),
            packets_per_second,
            cpu_percent,
        }
    }
}

impl Reading {
    fn now(sent: u64) -> Self {
        Self {
            at: Instant::now(),
            sent,
            // Should the clock be unreadable the node looks idle; its participants and packets are told all the same.
            cpu: clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(Duration::ZERO, Duration::from),
        }
    }

    /// Packets per second, and processor time in percent of one core.
    fn rates_since(self, last: Self) -> (u64, u32) {
        let elapsed = self.at.duration_since(last.at).as_secs_f64().max(0.001);
        let sent = self.sent.saturating_sub(last.sent) as f64;
        let cpu = self.cpu.saturating_sub(last.cpu).as_secs_f64();
        ((sent / elapsed) as u64, (cpu / elapsed * 100.0).round() as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_busy_cores_are_200_percent() {
        let start = Reading {
            at: Instant::now(),
            sent: 1_000,
            cpu: Duration::from_secs(7),
        };
        let later = Reading {
            at: start.at + Duration::from_millis(500),
            sent: 1_600,
            cpu: Duration::from_secs(8),
        };
        assert_eq!(later.rates_since(start), (1_200, 200));
        assert_eq!(later.rates_since(later), (0, 0));
    }

    #[test]
    fn the_process_is_seen_to_work() {
        let start = Reading::now(0);
        let mut sum = 0_u64;
        let busy = loop {
            sum = sum.wrapping_mul(31).wrapping_add(1);
            let now = Reading::now(0);
            if now.at.duration_since(start.at) >= Duration::from_millis(50) {
                break now;
            }
        };
        std::hint::black_box(sum);
        assert!(busy.rates_since(start).1 > 0);
    }
}
