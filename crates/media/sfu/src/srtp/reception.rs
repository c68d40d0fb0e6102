//! How a stream's packets arrive: what a receiver report tells (RFC 3550 sections 6.4 and A.3, A.8).

use std::time::Instant;

use crate::clock;
use crate::rtcp::Report;

/// One stream's statistics.
#[derive(Debug, Default)]
pub struct Reception {
    first: Option<u64>,
    highest: u64,
    received: u64,
    /// Expected and received at the last report.
    reported: (u64, u64),
    /// The same when it was last rated.
    rated: (u64, u64),
    /// Arrival and RTP timestamp of the newest packet.
    newest: Option<(Instant, u32)>,
    jitter: f64,
    sender_report: Option<(u32, Instant)>,
}

impl Reception {
    /// A packet arrived, which none with its index had before.
    pub fn packet(&mut self, now: Instant, index: u64, timestamp: u32, clock_rate: u32) {
        let first = *self.first.get_or_insert(index);
        self.first = Some(first.min(index));
        self.received += 1;
        if index < self.highest {
            return;
        }
        self.highest = index;
        if let Some((then, before)) = self.newest {
            let passed = now.saturating_duration_since(then).as_secs_f64() * f64::from(clock_rate);
            let difference = passed - f64::from(timestamp.wrapping_sub(before) as i32);
            self.jitter += (difference.abs() - self.jitter) / 16.0;
        }
        self.newest = Some((now, timestamp));
    }

    /// The packets that arrived.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// A sender report arrived.
    pub fn sender_report(&mut self, now: Instant, ntp: u64) {
        self.sender_report = Some((clock::short(ntp), now));
    }

    /// How many packets were to come since the last call, and which share of them was lost.
    pub fn rate(&mut self) -> (u64, f32) {
        let expected = self.first.map_or(0, |first| self.highest - first + 1);
        let (before, received_before) = std::mem::replace(&mut self.rated, (expected, self.received));
        let newly = expected.saturating_sub(before);
        let lost = newly.saturating_sub(self.received - received_before);
        (newly, if newly == 0 { 0.0 } else { lost as f32 / newly as f32 })
    }

    /// The report since the last one; `None`: nothing arrived yet.
    pub fn report(&mut self, now: Instant, ssrc: u32) -> Option<Report> {
        let expected = self.highest - self.first? + 1;
        let (before, received_before) = std::mem::replace(&mut self.reported, (expected, self.received));
        let newly = expected.saturating_sub(before);
        let lost = newly.saturating_sub(self.received - received_before);
        Some(Report {
            ssrc,
            fraction_lost: (lost * 256).checked_div(newly).unwrap_or(0).min(255) as u8,
            lost: expected.saturating_sub(self.received).min(0x007f_ffff) as u32,
            highest: self.highest as u32,
            jitter: self.jitter as u32,
            last_sender_report: self.sender_report.map_or(0, |(ntp, _)| ntp),
            delay: self
                .sender_report
                .map_or(0, |(_, at)| clock::to_short(now.saturating_duration_since(at))),
        })
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn loss_and_jitter_are_told_since_the_last_report() {
        let (start, mut reception) = (Instant::now(), Reception::default());
        assert_eq!(reception.report(start, 9), None);
        for index in (100..200).filter(|index| index % 4 != 0) {
            let now = start + Duration::from_millis(20 * index);
            reception.packet(now, index, (index * 960) as u32, 48_000);
        }
        let now = start + Duration::from_secs(5);
        reception.sender_report(now, 0x1234_5678_9abc_def0);
        let report = reception.report(now + Duration::from_millis(500), 9).unwrap();
        // 101 is the first, 199 the last; 24 of 99 are missing.
        assert_eq!((report.lost, report.fraction_lost), (24, (24 * 256 / 99) as u8));
        assert_eq!((report.highest, report.jitter), (199, 0));
        assert_eq!((report.last_sender_report, report.delay), (0x5678_9abc, 32_768));
        for index in 200..210 {
            // Every other packet comes 10 ms late.
            let late = Duration::from_millis(if index % 2 == 0 { 10 } else { 0 });
            let now = start + Duration::from_millis(20 * index) + late;
            reception.packet(now, index, (index * 960) as u32, 48_000);
        }
        let report = reception.report(now, 9).unwrap();
        assert_eq!((report.lost, report.fraction_lost), (24, 0), "nothing was lost since");
        assert!(
            (100..480).contains(&report.jitter),
            "{} ticks of at most 480",
            report.jitter
        );
    }
}
