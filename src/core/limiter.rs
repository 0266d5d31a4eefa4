//! Rate limits: the generic cell rate algorithm (GCRA; ITU-T I.371, annex A) in one word.
//!
//! A cell holds the *theoretical arrival time*: when the last admitted request would have come had they all come exactly at
//! the limit's pace. How far it lies in the future is what is *owed*; a request is admitted while it would owe no more than a
//! burst. So there is nothing to refill and nothing to reset, and a cell that owes nothing is as good as a new one.

use crate::name::ServiceName;
use crate::time::Moment;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// So many bursts can be owed at most, by [`RateCell::owes`]: what other replicas let through is paid back, but what makes no
/// sense must not close a limit for hours.
pub const DEBT_MAX: u32 = 8;

/// How much is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Requests in each `period`.
    requests: u32,
    period: Duration,
    /// Requests that may come at once after a pause.
    burst: u32,
}

impl Quota {
    /// The shortest time between two requests that can be told apart is a nanosecond; a thousand of them keep the error of
    /// rounding below one in a thousand.
    pub const PER_SECOND_MAX: u32 = 1_000_000;
    /// No burst is larger.
    pub const BURST_MAX: u32 = 1_000_000;

    /// `requests` in each `period`, and `burst` at once. None where one of them is 0, or more than can be counted.
    #[must_use]
    pub fn new(requests: u32, period: Duration, burst: u32) -> Option<Self> {
        let quota = Self { requests, period, burst };
        let counts = requests > 0 && (1..=Self::BURST_MAX).contains(&burst) && !period.is_zero();
        let is_slow_enough = counts && quota.interval() >= NANOS_PER_SECOND / u64::from(Self::PER_SECOND_MAX);
        // A year of debt still fits into a moment.
        let is_fast_enough = counts && quota.tolerance() <= 365 * 24 * 3600 * NANOS_PER_SECOND;
        (is_slow_enough && is_fast_enough).then_some(quota)
    }

    /// Requests in each period.
    #[must_use]
    pub const fn requests(&self) -> u32 {
        self.requests
    }

    /// What the requests are counted in.
    #[must_use]
    pub const fn period(&self) -> Duration {
        self.period
    }

    /// Requests that may come at once after a pause.
    #[must_use]
    pub const fn burst(&self) -> u32 {
        self.burst
    }

    /// Nanoseconds that one request owes; rounded up, so that the rate is never exceeded.
    #[must_use]
    pub fn interval(&self) -> u64 {
        let period = u64::try_from(self.period.as_nanos()).unwrap_or(u64::MAX);
        period.div_ceil(u64::from(self.requests.max(1)))
    }

    /// Nanoseconds that may be owed.
    #[must_use]
    pub fn tolerance(&self) -> u64 {
        self.interval().saturating_mul(u64::from(self.burst))
    }
}

/// How a request stands with a limit, after it was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Requests that would be admitted at once now.
    pub remaining: u32,
    /// Until the whole burst is there again.
    pub reset: Duration,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was counted.
    Admitted(Standing),
    /// It was not, and makes sense again after `retry`.
    Refused {
        /// Until one request is admitted.
        retry: Duration,
        /// Until the whole burst is there again.
        reset: Duration,
    },
}

/// Decides about one request: the theoretical arrival time after it, in nanoseconds, where it is admitted.
#[must_use]
pub fn decide(tat: u64, quota: &Quota, now: Moment) -> (Verdict, Option<u64>) {
    let (interval, tolerance) = (quota.interval(), quota.tolerance());
    let owed = tat.saturating_sub(now.nanos());
    let after = owed.saturating_add(interval);
    if after > tolerance {
        let retry = Duration::from_nanos(after - tolerance);
        return (Verdict::Refused { retry, reset: Duration::from_nanos(owed) }, None);
    }
    let remaining = u32::try_from((tolerance - after) / interval).unwrap_or(u32::MAX);
    let standing = Standing { remaining, reset: Duration::from_nanos(after) };
    (Verdict::Admitted(standing), Some(now.nanos().saturating_add(after)))
}

/// A theoretical arrival time behind an atomic: what one client, service or key owes to a limit.
#[derive(Debug, Default)]
pub struct RateCell(AtomicU64);

impl RateCell {
    /// Counts a request, if it is admitted.
    pub fn admit(&self, quota: &Quota, now: Moment) -> Verdict {
        let mut tat = self.0.load(Ordering::Relaxed);
        loop {
            let (verdict, next) = decide(tat, quota, now);
            let Some(next) = next else { return verdict };
            match self.0.compare_exchange_weak(tat, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return verdict,
                Err(current) => tat = current,
            }
        }
    }

    /// Gives back what one admitted request owed: another limit refused it.
    pub fn give_back(&self, quota: &Quota) {
        let interval = quota.interval();
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tat| Some(tat.saturating_sub(interval)));
    }

    /// What is owed.
    #[must_use]
    pub fn owed(&self, now: Moment) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed).saturating_sub(now.nanos()))
    }

    /// A cell that owes as many requests to the quota `to` as this one does to `from`, but no more than a burst: what was owed at
    /// a slow pace would close a fast limit for hours.
    #[must_use]
    pub fn restated(&self, from: &Quota, to: &Quota, now: Moment) -> Self {
        let requests = self.owed(now).as_nanos().div_ceil(from.interval().into());
        let owed = requests.saturating_mul(to.interval().into()).min(to.tolerance().into());
        let owed = u64::try_from(owed).unwrap_or(u64::MAX);
        Self(AtomicU64::new(now.nanos().saturating_add(owed)))
    }

    /// All replicas together owe at least this much, up to [`DEBT_MAX`] bursts.
    pub fn owes(&self, owed: Duration, quota: &Quota, now: Moment) {
        let most = quota.tolerance().saturating_mul(DEBT_MAX.into());
        let owed = u64::try_from(owed.as_nanos()).unwrap_or(u64::MAX).min(most);
        self.0.fetch_max(now.nanos().saturating_add(owed), Ordering::Relaxed);
    }
}

/// What requests are told apart by: each has a quota of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// The service.
    Service,
    /// The configured route; requests under `/v2/` are one more.
    Route,
    /// The client's address; of IPv6 the first 64 bits, which is what one subscriber has.
    Client,
    /// The value of a header field, by its name in lower case. Requests without one are told apart by the client's address.
    Header(Arc<str>),
}

/// A configured rate limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Its name, in metrics, headers and the store. No two have the same.
    pub name: Arc<str>,
    /// How much is allowed.
    pub quota: Quota,
    /// What has a quota of its own.
    pub by: By,
    /// The services it holds for; empty for all.
    pub services: Vec<ServiceName>,
    /// The routes it holds for, [`RateLimit::V2`] for requests under `/v2/`; empty for all.
    pub routes: Vec<Arc<str>>,
    /// Whether all replicas count together.
    pub is_shared: bool,
    /// How many quotas are kept apart; those beyond share one.
    pub keys_max: usize,
}

impl RateLimit {
    /// What requests under `/v2/` have for a route.
    pub const V2: &str = "v2";

    /// Whether it holds for a request to `service` on `route`.
    #[must_use]
    pub fn holds_for(&self, service: &ServiceName, route: &str) -> bool {
        let is_service = self.services.is_empty() || self.services.contains(service);
        is_service && (self.routes.is_empty() || self.routes.iter().any(|name| **name == *route))
    }
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn quota(requests: u32, period_ms: u64, burst: u32) -> Quota {
        Quota::new(requests, Duration::from_millis(period_ms), burst).unwrap()
    }

    #[test]
    fn what_is_owed_to_a_slow_limit_does_not_close_a_fast_one() {
        let (a_day, hundred) = (quota(10, 24 * 3600 * 1000, 10), quota(100, 1000, 100));
        let cell = RateCell::default();
        (0..4).for_each(|_| assert!(admits(&cell, &a_day, 0)));
        let now = Moment::from_millis(1);
        let fast = cell.restated(&a_day, &hundred, now);
        assert_eq!(fast.owed(now), Duration::from_millis(40), "four requests are four requests");
        let back = fast.restated(&hundred, &a_day, now);
        assert_eq!(back.owed(now), a_day.period * 4 / 10);
        assert_eq!(
            cell.restated(&a_day, &quota(1, 1000, 2), now).owed(now),
            Duration::from_secs(2),
            "and no more than a burst"
        );
        assert_eq!(RateCell::default().restated(&a_day, &hundred, now).owed(now), Duration::ZERO);
    }

    fn admits(cell: &RateCell, quota: &Quota, nanos: u64) -> bool {
        matches!(cell.admit(quota, Moment::from_nanos(nanos)), Verdict::Admitted(_))
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let (cell, quota) = (RateCell::default(), quota(10, 1000, 3));
        let at = |ms| cell.admit(&quota, Moment::from_millis(ms));
        let admitted = |remaining, reset_ms| Verdict::Admitted(Standing { remaining, reset: Duration::from_millis(reset_ms) });
        assert_eq!(at(0), admitted(2, 100));
        assert_eq!(at(0), admitted(1, 200));
        assert_eq!(at(0), admitted(0, 300));
        let refused =
            |retry, reset| Verdict::Refused { retry: Duration::from_millis(retry), reset: Duration::from_millis(reset) };
        assert_eq!(at(0), refused(100, 300));
        assert_eq!(at(60), refused(40, 240));
        assert_eq!(at(100), admitted(0, 300));
        assert_eq!(at(100), refused(100, 300));
        assert_eq!(at(10_000), admitted(2, 100), "a pause is worth no more than a burst");
    }

    #[test]
    fn what_cannot_be_counted_is_no_quota() {
        let second = Duration::from_secs(1);
        assert!(Quota::new(0, second, 1).is_none() && Quota::new(1, second, 0).is_none());
        assert!(Quota::new(1, Duration::ZERO, 1).is_none());
        assert!(Quota::new(Quota::PER_SECOND_MAX, second, 1).is_some());
        assert!(Quota::new(Quota::PER_SECOND_MAX * 2, second, 1).is_none());
        assert!(Quota::new(1, 24 * 3600 * second, Quota::BURST_MAX).is_none(), "nobody lives to see that debt paid");
    }

    #[test]
    fn what_is_given_back_can_be_had_again() {
        let (cell, quota) = (RateCell::default(), quota(1, 1000, 1));
        assert!(admits(&cell, &quota, 5) && !admits(&cell, &quota, 5));
        cell.give_back(&quota);
        assert!(admits(&cell, &quota, 5));
    }

    #[test]
    fn what_others_owe_counts_and_is_bounded() {
        let (cell, quota, now) = (RateCell::default(), quota(10, 1000, 10), Moment::from_millis(5));
        cell.owes(Duration::from_millis(900), &quota, now);
        assert!(admits(&cell, &quota, now.nanos()) && !admits(&cell, &quota, now.nanos()));
        cell.owes(Duration::from_millis(1), &quota, now);
        assert_eq!(cell.owed(now), Duration::from_secs(1), "less is no news");
        cell.owes(Duration::MAX, &quota, now);
        assert_eq!(cell.owed(now), Duration::from_secs(u64::from(DEBT_MAX)));
    }

    #[test]
    fn threads_together_get_one_burst() {
        let (cell, quota) = (RateCell::default(), quota(1, 3_600_000, 1000));
        let admitted: usize = std::thread::scope(|scope| {
            let ask = || (0..1000).filter(|_| admits(&cell, &quota, 7)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted, 1000);
    }

    #[test]
    fn a_limit_holds_where_it_was_told_to() {
        let name = |text: &str| ServiceName::parse(text).unwrap();
        let limit = |services: &[&str], routes: &[&str]| RateLimit {
            name: "x".into(),
            quota: quota(1, 1000, 1),
            by: By::Client,
            services: services.iter().map(|text| name(text)).collect(),
            routes: routes.iter().map(|text| (*text).into()).collect(),
            is_shared: false,
            keys_max: 1,
        };
        assert!(limit(&[], &[]).holds_for(&name("svc"), "v2") && limit(&[], &[]).holds_for(&name("svc"), "r"));
        assert!(limit(&["svc"], &[]).holds_for(&name("svc"), "v2") && !limit(&["svc"], &[]).holds_for(&name("other"), "v2"));
        assert!(limit(&[], &["r"]).holds_for(&name("svc"), "r") && !limit(&[], &["r"]).holds_for(&name("svc"), "v2"));
        assert!(!limit(&["svc"], &["r"]).holds_for(&name("other"), "r"));
    }

    proptest! {
        /// Whatever the pattern: in any stretch of time no more than a burst and the rate times that stretch.
        #[test]
        fn never_more_than_a_burst_and_the_rate(
            requests in 1u32..1000, period_ms in 1u64..5000, burst in 1u32..50,
            gaps in proptest::collection::vec(0u64..20_000_000, 1..400),
        ) {
            let quota = Quota::new(requests, Duration::from_millis(period_ms), burst);
            prop_assume!(quota.is_some());
            let quota = quota.unwrap();
            let (cell, mut now, mut admitted) = (RateCell::default(), 0, Vec::new());
            for gap in gaps {
                now += gap;
                if admits(&cell, &quota, now) { admitted.push(now); }
            }
            for (first, start) in admitted.iter().enumerate() {
                for (last, end) in admitted.iter().enumerate().skip(first) {
                    let most = u64::from(burst) + (end - start) / quota.interval();
                    prop_assert!((last - first + 1) as u64 <= most, "{} in {} ns", last - first + 1, end - start);
                }
            }
        }

        /// The other direction: who keeps to the rate is never refused, and whoever waits as told is admitted.
        #[test]
        fn who_keeps_to_the_rate_is_never_refused(requests in 1u32..1000, burst in 1u32..50, start: u32, count in 1u64..200) {
            let quota = quota(requests, 1000, burst);
            let cell = RateCell::default();
            for n in 0..count {
                prop_assert!(admits(&cell, &quota, u64::from(start) + n * quota.interval()));
            }
            let now = Moment::from_nanos(u64::from(start) + count * quota.interval());
            let wait = loop {
                if let Verdict::Refused { retry, .. } = cell.admit(&quota, now) { break retry; }
            };
            let early = now.plus(wait).nanos() - 1;
            prop_assert!(!admits(&cell, &quota, early) && admits(&cell, &quota, early + 1));
        }

        /// A cell knows no past: what it says depends on what is owed now, and it never goes back.
        #[test]
        fn admission_only_adds(tat: u64, now in 0u64..u64::MAX / 4, requests in 1u32..1000, burst in 1u32..50) {
            let quota = quota(requests, 1000, burst);
            let (verdict, next) = decide(tat, &quota, Moment::from_nanos(now));
            match verdict {
                Verdict::Admitted(standing) => {
                    let next = next.unwrap();
                    prop_assert!(next >= tat.saturating_add(1) && next - now <= quota.tolerance());
                    prop_assert!(standing.remaining < burst);
                }
                Verdict::Refused { retry, reset } => {
                    prop_assert!(next.is_none() && !retry.is_zero() && retry <= reset);
                }
            }
        }
    }
}
