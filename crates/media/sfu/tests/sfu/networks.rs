//! The networks that viewers are put behind: what the scenarios' tests assert about and their benchmark prints.

use std::time::Duration;

use crate::sfu::link::{Burst, Impairment};
use crate::sfu::scenario::{Phase, Run, run, run_following};

/// Half of a round trip of 50 ms.
const NEAR: Impairment = Impairment {
    delay: Duration::from_millis(25),
    ..Impairment::NONE
};

/// Half of a round trip of 100 ms.
const FAR: Impairment = Impairment {
    delay: Duration::from_millis(50),
    ..Impairment::NONE
};

/// When the capacity of [`capacity_step`] falls.
pub const DROP: Duration = Duration::from_secs(12);

/// When it is back.
pub const RECOVERY: Duration = Duration::from_secs(24);

/// 3 Mbps, then [`LOW_BPS`], then 3 Mbps, with a queue of 300 ms.
pub fn capacity_step(seed: u64) -> Run {
    run("capacity 3 Mbps, 400 kbps, 3 Mbps", seed, &capacity_steps())
}

/// The same, for a publisher that sends only what it is asked for. Layers are turned off after 5 seconds.
pub fn capacity_step_following(seed: u64) -> Run {
    run_following("the same, only what is asked for is sent", seed, &capacity_steps())
}

fn capacity_steps() -> [Phase; 3] {
    let phase = |seconds, bps| {
        let down = Impairment {
            capacity: Some(bps),
            ..NEAR
        };
        Phase::new(seconds, down, NEAR)
    };
    [phase(12, 3_000_000), phase(12, LOW_BPS), phase(16, 3_000_000)]
}

/// What the viewer's link carries while there is little.
pub const LOW_BPS: u64 = 400_000;

/// 5% of what goes either way is lost, and a round trip takes 100 ms.
pub fn random_loss(seed: u64) -> Run {
    let lossy = Impairment { loss: 0.05, ..FAR };
    run(
        "5% loss, 100 ms",
        seed,
        &[Phase::new(2, FAR, FAR), Phase::new(30, lossy, lossy)],
    )
}

/// A fifth of what goes to the viewer is lost, five in a row.
pub fn burst_loss(seed: u64) -> Run {
    let burst = Burst {
        share: 0.2,
        length: 5.0,
    };
    let bursts = Impairment {
        burst: Some(burst),
        ..FAR
    };
    run(
        "20% loss in bursts, 100 ms",
        seed,
        &[Phase::new(2, FAR, FAR), Phase::new(20, bursts, FAR)],
    )
}

/// 5% of what comes from the publisher is lost.
pub fn publisher_loss(seed: u64) -> Run {
    let lossy = Phase {
        publisher: Impairment { loss: 0.05, ..NEAR },
        ..Phase::new(20, NEAR, NEAR)
    };
    run("5% loss at the publisher", seed, &[Phase::new(2, NEAR, NEAR), lossy])
}

/// 5% is held back, and 5% comes twice, on every way.
pub fn reordering(seed: u64) -> Run {
    let mixed = Impairment {
        duplicate: 0.05,
        reorder: 0.05,
        ..NEAR
    };
    let phase = Phase {
        publisher: mixed,
        ..Phase::new(15, mixed, mixed)
    };
    run("5% reordered, 5% twice", seed, &[phase])
}
