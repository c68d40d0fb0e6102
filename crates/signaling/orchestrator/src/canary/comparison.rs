//! Whether canary nodes do clearly worse than stable ones; pure.
//!
//! **The test** is Fisher's exact test, one-sided: if both tracks were alike, and so many failures of this many outcomes in all had come about, how likely
//! is it that so many of them, or more, are the canary's? That is the tail of a hypergeometric distribution (R. A. Fisher, "The Logic of Inductive
//! Inference", 1935). It holds for counts as small as they may be, so it needs no approximation. Canary nodes do worse if that is less likely than
//! [`LEVEL`], and their share of failures is higher by [`MIN_DIFFERENCE`] at least.
//!
//! **It is made again and again**, so the level is not that of one look. Whatever one look has to do with the next, the probability that any of n is a
//! false alarm is at most n times the level (Bonferroni). Every 5 seconds for a day, of joins and of connections, at eight orchestrators: 17,280 · 2 · 8 =
//! 276,480 looks, and at most 0.28% of such days have a false alarm. Looks at almost the same figures are almost one look, so it is far fewer.

use signalbox_protocol::canary::{CanaryVerdict, Compared, Comparison, Outcomes, Tally};

/// How unlikely what is seen must be if both tracks were alike. Higher: a bad version is withdrawn after fewer failures. Lower: chance alone withdraws a
/// good one more rarely.
pub const LEVEL: f64 = 1e-8;

/// By how much more canary nodes must fail, as a share of their outcomes. Higher: small harm is put up with. Lower: with many users, differences that
/// nobody would notice withdraw a version.
pub const MIN_DIFFERENCE: f64 = 0.02;

/// How many outcomes each track must have. The test holds for fewer as well; with these its figures say something to people, too. Higher: a bad version
/// is withdrawn later.
pub const MIN_OUTCOMES: u64 = 10;

/// From this number on logarithms of factorials are Stirling's series, which is exact to 16 digits from there.
const STIRLING: u64 = 16;

/// What follows from the outcomes of both tracks.
pub fn verdict(stable: &Outcomes, canary: &Outcomes) -> CanaryVerdict {
    CanaryVerdict {
        joins: compare(stable.joins, canary.joins),
        connections: compare(stable.connections, canary.connections),
    }
}

/// Compares what was counted on canary nodes with what was on stable ones.
pub fn compare(stable: Tally, canary: Tally) -> Comparison {
    if stable.all() < MIN_OUTCOMES || canary.all() < MIN_OUTCOMES {
        return Comparison {
            result: Compared::TooFew,
            p: None,
        };
    }
    let p = tail(stable, canary);
    let is_worse = p < LEVEL && share_failed(canary) - share_failed(stable) >= MIN_DIFFERENCE;
    Comparison {
        result: if is_worse { Compared::Worse } else { Compared::Alike },
        p: Some(p),
    }
}

/// The share of failures, from 0 to 1.
pub fn share_failed(tally: Tally) -> f64 {
    tally.failed as f64 / tally.all().max(1) as f64
}

/// The probability that the canary has as many of all failures as it has, or more, if each is as likely to be any outcome's.
fn tail(stable: Tally, canary: Tally) -> f64 {
    let (drawn, others) = (canary.all(), stable.all());
    let failed = canary.failed.saturating_add(stable.failed);
    let most = failed.min(drawn);
    // Where the tail is not the smaller part of the distribution, how much of it there is does not matter.
    if share_failed(canary) <= share_failed(stable) {
        return 1.0;
    }
    let all = drawn.saturating_add(others);
    let mut term = (ln_choose(drawn, canary.failed) + ln_choose(others, stable.failed) - ln_choose(all, failed)).exp();
    let mut sum = term;
    for k in canary.failed..most {
        // Of the outcomes of the hypergeometric distribution, k + 1 from k. Beyond the mean, where this is, they only fall.
        let ratio = (failed - k) as f64 * (drawn - k) as f64
            / ((k + 1) as f64 * (others as f64 - failed as f64 + k as f64 + 1.0));
        term *= ratio;
        sum += term;
        if term <= sum * f64::EPSILON {
            break;
        }
    }
    sum.min(1.0)
}

fn ln_choose(n: u64, k: u64) -> f64 {
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n.saturating_sub(k))
}

/// ln n!, by multiplying, or by Stirling's series (NIST Digital Library of Mathematical Functions, 5.11.1).
fn ln_factorial(n: u64) -> f64 {
    if n < STIRLING {
        return (2..=n).map(|factor| factor as f64).product::<f64>().ln();
    }
    let x = n as f64 + 1.0;
    let square = x * x;
    let series = (1.0 / 12.0 - (1.0 / 360.0 - (1.0 / 1260.0 - 1.0 / (1680.0 * square)) / square) / square) / x;
    (x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + series
}

#[cfg(test)]
mod tests;
