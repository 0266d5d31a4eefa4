//! How long to wait before trying again.

use crate::seed;
use std::time::Duration;

/// Exponential backoff with jitter: the n-th wait is drawn from the upper half of `first × 2ⁿ`, and never exceeds `max`.
///
/// Half of the interval is fixed, half is random ("equal jitter": Brooker, "Exponential Backoff And Jitter", 2015), so that
/// a crowd which failed together does not come back together, and nobody comes back at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait, before jitter.
    pub first: Duration,
    /// No wait is longer.
    pub max: Duration,
}

impl Backoff {
    /// The wait after `failures` failures in a row (0 counts as 1).
    #[must_use]
    pub fn wait(self, failures: u32, seed: u64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let full = self.first.saturating_mul(1 << doublings).min(self.max);
        full.mul_f64(0.5 + seed::unit(seed::mix(seed)) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn grows_and_stays_in_its_half(failures in 0u32..1000, seed: u64) {
            let backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(60) };
            let wait = backoff.wait(failures, seed);
            let full = Duration::from_secs(1 << failures.saturating_sub(1).min(6)).min(backoff.max);
            prop_assert!(wait >= full / 2 && wait <= full, "{wait:?} of {full:?}");
        }
    }
}
