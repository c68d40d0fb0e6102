//! A virtual link: seeded loss, delay and reordering, on virtual time.

pub use impairment::{Burst, Counts, Impairment, Link};
