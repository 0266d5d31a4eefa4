//! Active probes: when an instance is asked, and what its answers mean.

use crate::seed;
use crate::time::Moment;
use std::time::Duration;

/// Whether and how instances are asked for their health in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbePolicy {
    /// Whether they are.
    pub active: bool,
    /// From one probe to the next, before jitter.
    pub interval: Duration,
    /// Failed probes in a row that take an instance out; 1 to 255.
    pub failures: u32,
    /// Passed probes in a row that bring it back; 1 to 255.
    pub successes: u32,
}

impl Default for ProbePolicy {
    fn default() -> Self {
        Self { active: false, interval: Duration::from_secs(10), failures: 3, successes: 2 }
    }
}

impl ProbePolicy {
    /// When the probe after one at `now` is due: after the interval ± 20 %, so that probes do not come in step.
    #[must_use]
    pub fn next(&self, now: Moment, seed: u64) -> Moment {
        now.plus(self.interval.mul_f64(0.8 + 0.4 * seed::unit(seed::mix(seed))))
    }

    /// When the first probe of an instance is due: any time within the interval, so that a start is no burst of probes.
    #[must_use]
    pub fn first(&self, now: Moment, seed: u64) -> Moment {
        now.plus(self.interval.mul_f64(seed::unit(seed::mix(seed))))
    }
}

/// What the probes of an instance have shown so far. Before the first one it is trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probed {
    /// The verdict: `None` before the first probe.
    passed: Option<bool>,
    /// Probes in a row that contradict it.
    against: u8,
}

impl Probed {
    /// The verdict; `None` before the first probe.
    #[must_use]
    pub const fn verdict(self) -> Option<bool> {
        self.passed
    }

    /// Whether it failed.
    #[must_use]
    pub const fn is_failed(self) -> bool {
        matches!(self.passed, Some(false))
    }

    /// What they have shown after one more.
    #[must_use]
    pub fn after(self, passed: bool, policy: &ProbePolicy) -> Self {
        let failed = self.is_failed();
        if passed != failed {
            return Self { passed: Some(!failed), against: 0 };
        }
        let against = self.against.saturating_add(1);
        let enough = if failed { policy.successes } else { policy.failures };
        if u32::from(against) >= enough {
            Self { passed: Some(failed), against: 0 }
        } else {
            Self { passed: Some(!failed), against }
        }
    }

    /// Packs it into a word; [`Probed::unpack`] is its inverse.
    #[must_use]
    pub fn pack(self) -> u32 {
        let verdict = match self.passed {
            None => 0,
            Some(true) => 1,
            Some(false) => 2,
        };
        verdict | u32::from(self.against) << 8
    }

    /// Reads a word written by [`Probed::pack`].
    #[must_use]
    pub const fn unpack(word: u32) -> Self {
        let passed = match word & 3 {
            0 => None,
            1 => Some(true),
            _ => Some(false),
        };
        Self { passed, against: (word >> 8 & 0xff) as u8 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn after(results: &[bool]) -> Probed {
        results.iter().fold(Probed::default(), |probed, &passed| probed.after(passed, &ProbePolicy::default()))
    }

    #[test]
    fn three_failures_in_a_row_take_it_out_and_two_successes_bring_it_back() {
        assert!(!after(&[false, false, true, false, false]).is_failed());
        assert!(after(&[false, false, false]).is_failed());
        assert!(after(&[false, false, false, true, false, true]).is_failed());
        assert!(!after(&[false, false, false, true, true]).is_failed());
        assert_eq!((after(&[]).verdict(), after(&[true]).verdict()), (None, Some(true)));
    }

    proptest! {
        #[test]
        fn packing_loses_nothing(results in proptest::collection::vec(any::<bool>(), 0..40), failures in 1u32..255) {
            let policy = ProbePolicy { failures, ..ProbePolicy::default() };
            results.iter().fold(Probed::default(), |probed, &passed| {
                let next = probed.after(passed, &policy);
                assert_eq!(Probed::unpack(next.pack()), next);
                next
            });
        }

        #[test]
        fn the_next_probe_is_a_fifth_early_or_late_at_most(seed: u64) {
            let policy = ProbePolicy::default();
            prop_assert!((8_000..=12_000).contains(&policy.next(Moment::ZERO, seed).millis()));
            prop_assert!(policy.first(Moment::ZERO, seed).millis() <= 10_000);
        }
    }
}
