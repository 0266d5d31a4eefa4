//! Whether somebody who is waited for sends fast enough.
//!
//! What counts is the time that was spent waiting for the sender: while nobody was ready to take more, it was not too slow.

use std::time::Duration;

/// The window moves in steps of this part of it: who is too slow is found out at most a step late.
const STEPS: usize = 6;

/// How much must come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaceLimit {
    /// Bytes per second, on average over each window.
    pub bytes_per_second: u64,
    /// How much waiting makes a window.
    pub window: Duration,
}

impl PaceLimit {
    fn bytes_per_window(&self) -> u64 {
        let bytes = u128::from(self.bytes_per_second) * self.window.as_millis() / 1000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    fn step(&self) -> Duration {
        (self.window / STEPS as u32).max(Duration::from_nanos(1))
    }
}

/// How fast somebody sent so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Bytes of the latest steps; the present one is at `step % STEPS`.
    bytes: [u64; STEPS],
    /// Steps that are over.
    step: usize,
    /// Waiting within the present step.
    waited: Duration,
}

impl Pace {
    /// Takes in that `bytes` came after `waited`. `false` when that was too slow: in the window that ended last, less came than
    /// must.
    #[must_use]
    pub fn keeps_up(&mut self, limit: &PaceLimit, waited: Duration, bytes: u64) -> bool {
        let step = limit.step();
        self.waited = self.waited.saturating_add(waited);
        // Beyond a whole window, more steps would only find it empty again.
        let mut steps_left = STEPS + 1;
        while self.waited > step && steps_left > 0 {
            self.waited -= step;
            self.step += 1;
            steps_left -= 1;
            let window = self.bytes.iter().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
            if self.step >= STEPS && window < limit.bytes_per_window() {
                return false;
            }
            self.bytes[self.step % STEPS] = 0;
        }
        self.waited = self.waited.min(step);
        let present = &mut self.bytes[self.step % STEPS];
        *present = present.saturating_add(bytes);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: PaceLimit = PaceLimit { bytes_per_second: 100, window: Duration::from_secs(30) };

    /// When one who sends `bytes` each `every` is cut; none within an hour.
    fn cut_after(every: Duration, bytes: u64) -> Option<Duration> {
        let mut pace = Pace::default();
        let mut at = Duration::ZERO;
        while at < Duration::from_secs(3600) {
            at += every;
            if !pace.keeps_up(&LIMIT, every, bytes) {
                return Some(at);
            }
        }
        None
    }

    #[test]
    fn who_sends_too_little_is_found_out_within_a_window_and_a_step() {
        for (every_ms, bytes) in [(1000, 1), (1000, 99), (10, 0), (19_000, 1000), (100, 9)] {
            let cut = cut_after(Duration::from_millis(every_ms), bytes).expect("a cut");
            let in_time = Duration::from_secs(30)..=Duration::from_secs(55);
            assert!(in_time.contains(&cut), "{bytes} bytes each {every_ms} ms: {cut:?}");
        }
    }

    #[test]
    fn who_sends_enough_may_go_on() {
        for (every_ms, bytes) in [(1000, 100), (10, 1), (14_000, 3000), (1, 1)] {
            assert_eq!(cut_after(Duration::from_millis(every_ms), bytes), None, "{bytes} bytes each {every_ms} ms");
        }
    }

    #[test]
    fn a_fast_start_does_not_pay_for_a_slow_rest() {
        let mut pace = Pace::default();
        assert!(pace.keeps_up(&LIMIT, Duration::ZERO, 1_000_000));
        let second = Duration::from_secs(1);
        let held = (0..100).take_while(|_| pace.keeps_up(&LIMIT, second, 1)).count();
        assert!((30..=40).contains(&held), "{held} s");
    }

    #[test]
    fn time_in_which_nobody_waited_does_not_count() {
        let mut pace = Pace::default();
        assert!((0..1_000_000).all(|_| pace.keeps_up(&LIMIT, Duration::ZERO, 1)));
    }

    proptest! {
        #[test]
        fn any_times_and_sizes_are_taken(
            arrivals in prop::collection::vec((any::<u64>(), any::<u64>()), 0..50),
            rate in any::<u64>(),
            window in any::<u64>(),
        ) {
            let limit = PaceLimit { bytes_per_second: rate, window: Duration::from_nanos(window) };
            let mut pace = Pace::default();
            for (waited, bytes) in arrivals {
                if !pace.keeps_up(&limit, Duration::from_nanos(waited), bytes) {
                    break;
                }
            }
        }
    }
}
