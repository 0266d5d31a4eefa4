//! When a failed attempt may be followed by another one.
//!
//! Two questions. May the request be sent again at all, given what the first instance may have done with it (RFC 9110 §9.2.2)?
//! And may the service bear it: when everything fails, retries would multiply the load of whatever is left, so they are paid
//! from a budget that grows with the requests (the idea of Finagle's `RetryBudget`).

use crate::time::Moment;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How much a service's retries may add to its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Retries per hundred requests.
    pub percent: u32,
    /// Retries per second that are always there, so that a service with few requests can retry, too.
    pub min_per_second: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { percent: 20, min_per_second: 10 }
    }
}

/// What was saved fades with this time constant: a budget holds what about ten seconds of traffic have earned. So a burst of
/// failures at once (an instance with hundreds of requests in flight dies) can be retried, but not an hour's savings.
const FADE: Duration = Duration::from_secs(10);

/// Savings are stamped in ticks of so many milliseconds, so that a word has room for years: in milliseconds it has for 25 days, and
/// who first retries after a month would find a month's savings.
const TICK_MS: u64 = 32;

fn ticks(now: Moment) -> u32 {
    (now.millis() / TICK_MS) as u32
}

/// The savings of a budget at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Savings {
    retries: f32,
    /// In ticks.
    stamp: u32,
}

impl Savings {
    /// What is there at `now`, when `requests` have come since the stamp, evenly. Earnings are integrated under the fading:
    /// a constant rate r saves r × [`FADE`] at most.
    fn settle(self, budget: Budget, requests: u64, now: u32) -> Self {
        let tau = FADE.as_secs_f32();
        let ticks = now.wrapping_sub(self.stamp);
        // A thread that read the clock a moment earlier than the one which settled last.
        let passed = if ticks > u32::MAX / 2 { 0.0 } else { ticks as f32 * TICK_MS as f32 / 1000.0 };
        let kept = (-passed / tau).exp();
        let earned_by_requests = requests as f32 * budget.percent as f32 / 100.0;
        let faded = if passed > 0.0 { (1.0 - kept) * tau / passed } else { 1.0 };
        let by_time = budget.min_per_second as f32 * tau * (1.0 - kept);
        let stamp = if passed > 0.0 { now } else { self.stamp };
        Self { retries: self.retries * kept + earned_by_requests * faded + by_time, stamp }
    }

    /// What a service has that was never heard of before: the minimum's savings, and an idle one's.
    fn full(budget: Budget, now: u32) -> Self {
        Self { retries: budget.min_per_second as f32 * FADE.as_secs_f32(), stamp: now }
    }

    fn pack(self) -> u64 {
        u64::from(self.retries.to_bits()) << 32 | u64::from(self.stamp)
    }

    fn unpack(word: u64) -> Self {
        Self { retries: f32::from_bits((word >> 32) as u32), stamp: word as u32 }
    }
}

/// A service's budget. A request costs one relaxed addition; the rest is worked out when a retry asks.
#[derive(Debug)]
pub struct BudgetCell {
    requests: AtomicU64,
    savings: AtomicU64,
}

/// No savings are negative, so this word says that none have been worked out yet.
const UNTOUCHED: u64 = u64::MAX;

impl Default for BudgetCell {
    fn default() -> Self {
        Self { requests: AtomicU64::new(0), savings: AtomicU64::new(UNTOUCHED) }
    }
}

impl BudgetCell {
    /// A request came.
    pub fn earn(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one retry, if there is one.
    pub fn take(&self, budget: Budget, now: Moment) -> bool {
        let requests = self.requests.swap(0, Ordering::Relaxed);
        let now = ticks(now);
        let mut has_one = false;
        let settle = |word| {
            let savings = if word == UNTOUCHED { Savings::full(budget, now) } else { Savings::unpack(word) };
            let settled = savings.settle(budget, requests, now);
            has_one = settled.retries >= 1.0;
            let retries = if has_one { settled.retries - 1.0 } else { settled.retries };
            Some(Savings { retries, ..settled }.pack())
        };
        let _ = self.savings.fetch_update(Ordering::AcqRel, Ordering::Acquire, settle);
        has_one
    }

    /// How many retries are left, for people.
    #[must_use]
    pub fn left(&self, budget: Budget, now: Moment) -> u32 {
        let now = ticks(now);
        let word = self.savings.load(Ordering::Acquire);
        let savings = if word == UNTOUCHED { Savings::full(budget, now) } else { Savings::unpack(word) };
        savings.settle(budget, self.requests.load(Ordering::Relaxed), now).retries as u32
    }
}

/// What is known of a failed attempt that decides whether the request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The instance cannot have seen any of the request: no connection, or it said so itself (HTTP/2 `REFUSED_STREAM`).
    pub untouched: bool,
    /// Its method is idempotent (RFC 9110 §9.2.2).
    pub idempotent: bool,
    /// Whatever was sent of its body is still there.
    pub body_kept: bool,
    /// The client has been sent a part of a final answer.
    pub answered: bool,
}

impl Failed {
    /// Whether sending it once more means the same to the client as having sent it once.
    #[must_use]
    pub const fn may_repeat(self) -> bool {
        !self.answered && self.body_kept && (self.untouched || self.idempotent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BUDGET: Budget = Budget { percent: 20, min_per_second: 10 };

    fn at(ms: u64) -> Moment {
        Moment::from_millis(ms)
    }

    fn take_all(cell: &BudgetCell, now: Moment) -> u32 {
        (0..100_000).take_while(|_| cell.take(BUDGET, now)).count() as u32
    }

    #[test]
    fn what_may_be_sent_again() {
        let get = Failed { untouched: false, idempotent: true, body_kept: true, answered: false };
        let post = Failed { idempotent: false, ..get };
        assert!(get.may_repeat() && !post.may_repeat());
        assert!(Failed { untouched: true, ..post }.may_repeat());
        for never in [Failed { answered: true, ..get }, Failed { body_kept: false, untouched: true, ..get }] {
            assert!(!never.may_repeat(), "{never:?}");
        }
    }

    #[test]
    fn a_service_nobody_asked_for_long_has_ten_seconds_of_the_minimum() {
        let cell = BudgetCell::default();
        assert_eq!(cell.left(BUDGET, at(5)), 100);
        assert_eq!(take_all(&cell, at(5)), 100);
        assert_eq!(take_all(&cell, at(1_005)), 9, "a second earns ten, a little less for the fading");
        assert_eq!(take_all(&cell, at(3_600_000)), 100);
    }

    #[test]
    fn a_fifth_of_the_requests_may_be_retried_for_ever_and_a_burst_of_ten_seconds_at_once() {
        let cell = BudgetCell::default();
        let mut retried = 0;
        for second in 0..60 {
            (0..1000).for_each(|_| cell.earn());
            retried = take_all(&cell, at(second * 1000));
        }
        assert!((190..=215).contains(&retried), "{retried} of 1000 and the minimum's ten");
        (0..60).for_each(|second| {
            (0..1000).for_each(|_| cell.earn());
            // Somebody looks now and then, or all would be taken for evenly spread over the minute.
            cell.take(BUDGET, at(60_000 + second * 1000));
        });
        let burst = take_all(&cell, at(120_000));
        assert!((1_700..=2_100).contains(&burst), "{burst}");
    }

    #[test]
    fn a_month_without_a_retry_is_no_month_of_savings() {
        const DAY_MS: u64 = 24 * 3600 * 1000;
        for days in [1, 24, 25, 30, 49, 50, 51, 200] {
            let cell = BudgetCell::default();
            assert!(cell.take(BUDGET, at(1)));
            (0..1_000_000).for_each(|_| cell.earn());
            let left = cell.left(BUDGET, at(days * DAY_MS + 2_000));
            assert!((95..=130).contains(&left), "{left} after {days} days with a few requests a second");
        }
    }

    #[test]
    fn nothing_saved_is_nothing_given() {
        let (none, cell) = (Budget { percent: 0, min_per_second: 0 }, BudgetCell::default());
        (0..1000).for_each(|_| cell.earn());
        assert!(!cell.take(none, at(1000)));
    }

    proptest! {
        /// However requests and retries are interleaved: never more retries than the percentage, the minimum and the ten
        /// seconds that are there at the start allow.
        #[test]
        fn retries_never_outgrow_the_budget(steps in proptest::collection::vec((0u64..500, 0u64..2_000, 0u32..200), 1..60)) {
            let cell = BudgetCell::default();
            let (mut now, mut requests, mut taken) = (1_000_000, 0u64, 0u64);
            let start = now;
            for (ms, earned, wanted) in steps {
                now += ms;
                (0..earned).for_each(|_| cell.earn());
                requests += earned;
                taken += u64::from((0..wanted).take_while(|_| cell.take(BUDGET, at(now))).count() as u32);
                let most = requests as f64 * 0.2 + 100.0 + (now - start) as f64 / 1000.0 * 10.0;
                prop_assert!(taken as f64 <= most * 1.01 + 1.0, "{taken} of {most}");
            }
        }
    }
}
