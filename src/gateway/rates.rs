//! What clients, services and keys owe to the configured rate limits.
//!
//! A limit keeps a cell for each of its keys while that owes something. The data plane asks and counts; the store's thread, where
//! there is one, tells other replicas what was let through here and learns what all of them owe together. What is owed is
//! found again by the limit's name when limits are configured anew.
//!
//! **Invariant:** a limit never keeps more keys than it was told to. When it is full, keys that come new share one quota: known
//! ones notice nothing, the service stays protected, and who floods a limit with keys gets no more for it. Forgetting a key
//! that owes nothing changes nothing, so those are swept.

use crate::telemetry::metrics::Metrics;
use dashmap::DashMap;
use http::HeaderValue;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;
use vertice_core::limiter::{By, Quota, RateCell, RateLimit, Verdict};
use vertice_core::time::Moment;

/// How often keys that owe nothing are forgotten.
pub const SWEEP: Duration = Duration::from_secs(1);
/// So many locks does a limit have; a sweep holds one of them at a time.
const SHARDS: usize = 64;

/// The rate limits in force.
#[derive(Debug)]
pub struct Rates {
    in_force: Mutex<Vec<Arc<Rate>>>,
    metrics: Arc<Metrics>,
}

/// One rate limit.
#[derive(Debug)]
pub struct Rate {
    /// What was configured.
    pub limit: RateLimit,
    /// What `RateLimit-Policy` says of it.
    pub policy: HeaderValue,
    owed: Arc<Owed>,
}

/// What is owed by whom. Outlives the configuration.
#[derive(Debug)]
struct Owed {
    keys: DashMap<Box<[u8]>, Account>,
    count: AtomicUsize,
    /// Of those that found no place.
    others: Account,
}

#[derive(Debug, Default)]
struct Account {
    cell: RateCell,
    /// Let through since the other replicas were told; only counted where they are.
    untold: AtomicU32,
}

impl Account {
    fn restated(&self, from: &Quota, to: &Quota, now: Moment) -> Self {
        Self { cell: self.cell.restated(from, to, now), untold: AtomicU32::new(self.untold.load(Ordering::Relaxed)) }
    }
}

/// What other replicas do not know yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Whose it is.
    pub key: Box<[u8]>,
    /// How many requests were let through.
    pub requests: u32,
}

impl Rates {
    /// No limits.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { in_force: Mutex::default(), metrics }
    }

    /// Puts these limits in force instead of those before. What is owed to one of the same name and kind stays owed; with another
    /// quota, as many requests as before.
    #[must_use]
    pub fn adopt(&self, limits: &[RateLimit], now: Moment) -> Vec<Arc<Rate>> {
        let mut in_force = self.in_force.lock();
        let owed = |limit: &RateLimit| {
            let same = |rate: &&Arc<Rate>| rate.limit.name == limit.name && rate.limit.by == limit.by;
            in_force.iter().find(same).map_or_else(Arc::default, |rate| rate.owed_to(&limit.quota, now))
        };
        let adopted: Vec<_> = limits.iter().map(|limit| Arc::new(Rate::new(limit.clone(), owed(limit)))).collect();
        for gone in in_force.iter().filter(|rate| limits.iter().all(|limit| limit.name != rate.limit.name)) {
            self.metrics.rate_limit_gone(&gone.limit.name);
        }
        in_force.clone_from(&adopted);
        adopted
    }

    /// Those that replicas count together.
    #[must_use]
    pub fn shared(&self) -> Vec<Arc<Rate>> {
        self.in_force.lock().iter().filter(|rate| rate.limit.is_shared).cloned().collect()
    }

    /// Forgets who owes nothing.
    pub fn sweep(&self, now: Moment) {
        let in_force = self.in_force.lock().clone();
        for rate in in_force {
            rate.owed.sweep(now);
            self.metrics.rate_limit_keys(&rate.limit.name, rate.owed.count.load(Ordering::Relaxed));
        }
    }
}

impl Rate {
    fn new(limit: RateLimit, owed: Arc<Owed>) -> Self {
        let seconds = limit.quota.period().as_secs_f64().ceil();
        let policy = format!("\"{}\";q={};w={seconds}", limit.name, limit.quota.requests());
        // A label has no character that needs escaping, nor one that a field cannot hold.
        let policy = HeaderValue::from_str(&policy).unwrap_or_else(|_| HeaderValue::from_static(""));
        Self { limit, policy, owed }
    }

    /// What is owed, in terms of `quota`. Who still counts by another quota counts apart: what a request owes is not the same.
    fn owed_to(&self, quota: &Quota, now: Moment) -> Arc<Owed> {
        if self.limit.quota == *quota {
            return self.owed.clone();
        }
        let restated = Owed::default();
        for entry in &self.owed.keys {
            restated.keys.insert(entry.key().clone(), entry.restated(&self.limit.quota, quota, now));
        }
        let others = self.owed.others.restated(&self.limit.quota, quota, now);
        Arc::new(Owed { count: AtomicUsize::new(restated.keys.len()), others, ..restated })
    }

    /// Counts a request of `key`, if it is admitted.
    pub fn admit(&self, key: &[u8], now: Moment, metrics: &Metrics) -> Verdict {
        let (verdict, has_place) = self.owed.with(key, self.limit.keys_max, |account| {
            let verdict = account.cell.admit(&self.limit.quota, now);
            if self.limit.is_shared && matches!(verdict, Verdict::Admitted(_)) {
                account.untold.fetch_add(1, Ordering::Relaxed);
            }
            verdict
        });
        if !has_place {
            metrics.limit_hit("rate_limit_keys");
        }
        if matches!(verdict, Verdict::Refused { .. }) {
            metrics.rate_limited(&self.limit.name);
        }
        verdict
    }

    /// An admitted request of `key` did not go ahead after all.
    pub fn give_back(&self, key: &[u8]) {
        let give_back = |account: &Account| {
            account.cell.give_back(&self.limit.quota);
            let one_less = |untold: u32| untold.checked_sub(1);
            let _ = account.untold.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        };
        // Whom nobody remembers owes nothing.
        if let Some(account) = self.owed.keys.get(key) {
            give_back(&account);
        }
    }

    /// What other replicas have not been told, of `most` keys; those count as told. No more than is still owed: what came in over
    /// a long time without them is mostly paid.
    #[must_use]
    pub fn take_news(&self, most: usize, now: Moment) -> Vec<News> {
        let interval = u128::from(self.limit.quota.interval());
        let news = |key: &[u8], account: &Account| {
            let requests = account.untold.swap(0, Ordering::Relaxed);
            let owed = account.cell.owed(now).as_nanos().div_ceil(interval);
            News { key: key.into(), requests: requests.min(u32::try_from(owed).unwrap_or(u32::MAX)) }
        };
        let fresh = self.owed.keys.iter().filter(|entry| entry.untold.load(Ordering::Relaxed) > 0);
        fresh.take(most).map(|entry| news(entry.key(), entry.value())).collect()
    }

    /// The replicas could not be told.
    pub fn keep_news(&self, news: &[News]) {
        for News { key, requests } in news {
            if let Some(account) = self.owed.keys.get(key) {
                account.untold.fetch_add(*requests, Ordering::Relaxed);
            }
        }
    }

    /// All replicas together owe this much, what was told by this one included.
    pub fn learn(&self, key: &[u8], owed: Duration, now: Moment) {
        if let Some(account) = self.owed.keys.get(key) {
            let untold = u64::from(account.untold.load(Ordering::Relaxed)).saturating_mul(self.limit.quota.interval());
            account.cell.owes(owed.saturating_add(Duration::from_nanos(untold)), &self.limit.quota, now);
        }
    }

    /// What `by` tells apart, in words that may be kept elsewhere: values of header fields may be secrets and are hashed.
    #[must_use]
    pub fn spell(&self, key: &[u8]) -> String {
        match (&self.limit.by, key) {
            (By::Service | By::Route, name) => String::from_utf8_lossy(name).into_owned(),
            (_, &[CLIENT, a, b, c, d]) => std::net::Ipv4Addr::new(a, b, c, d).to_string(),
            (_, [CLIENT, network @ ..]) => format!("{}/64", hex(network)),
            (_, value) => hex(&digest(value)[..16]),
        }
    }
}

/// What a key that is a client's address begins with.
pub const CLIENT: u8 = b'c';
/// What a key that is a field's value begins with.
pub const VALUE: u8 = b'v';

/// For values that are too long to be kept.
#[must_use]
pub fn digest(value: &[u8]) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    Sha256::digest(value).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Default for Owed {
    fn default() -> Self {
        Self { keys: DashMap::with_shard_amount(SHARDS), count: AtomicUsize::new(0), others: Account::default() }
    }
}

impl Owed {
    /// Looks at the account of `key`, which is opened where there is room; tells whether it has one.
    fn with<T>(&self, key: &[u8], most: usize, look: impl FnOnce(&Account) -> T) -> (T, bool) {
        if let Some(account) = self.keys.get(key) {
            return (look(&account), true);
        }
        let take = |count| (count < most).then_some(count + 1);
        if self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            return (look(&self.others), false);
        }
        match self.keys.entry(key.into()) {
            dashmap::Entry::Occupied(entry) => {
                self.count.fetch_sub(1, Ordering::Relaxed);
                (look(entry.get()), true)
            }
            dashmap::Entry::Vacant(entry) => (look(&entry.insert(Account::default())), true),
        }
    }

    fn sweep(&self, now: Moment) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut forgotten = 0;
        self.keys.retain(|_, account| {
            let is_owing = !account.cell.owed(now).is_zero();
            forgotten += usize::from(!is_owing);
            is_owing
        });
        self.count.fetch_sub(forgotten, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(name: &str, burst: u32, keys_max: usize) -> RateLimit {
        RateLimit {
            name: name.into(),
            quota: Quota::new(10, Duration::from_secs(1), burst).unwrap(),
            by: By::Client,
            services: Vec::new(),
            routes: Vec::new(),
            is_shared: true,
            keys_max,
        }
    }

    struct Rig {
        rates: Rates,
        metrics: Arc<Metrics>,
    }

    impl Rig {
        fn new() -> Self {
            let metrics = Arc::new(Metrics::new().unwrap());
            Self { rates: Rates::new(metrics.clone()), metrics }
        }

        fn admitted(&self, rate: &Rate, key: &[u8], at_ms: u64) -> usize {
            let now = Moment::from_millis(at_ms);
            (0..1_000).take_while(|_| matches!(rate.admit(key, now, &self.metrics), Verdict::Admitted(_))).count()
        }
    }

    #[test]
    fn each_key_has_its_quota_and_those_beyond_the_limit_one_together() {
        let rig = Rig::new();
        let rate = rig.rates.adopt(&[limit("a", 3, 2)], Moment::ZERO).remove(0);
        assert_eq!([b"c1", b"c2"].map(|key| rig.admitted(&rate, key, 0)), [3, 3]);
        assert_eq!([b"c3", b"c4"].map(|key| rig.admitted(&rate, key, 0)), [3, 0]);
        assert_eq!(rig.admitted(&rate, b"c1", 100), 1, "the first are as they were");
        rig.rates.sweep(Moment::from_millis(10_000));
        assert_eq!([b"c3", b"c4"].map(|key| rig.admitted(&rate, key, 10_000)), [3, 3], "there is room again");
        assert_eq!(rate.owed.count.load(Ordering::Relaxed), rate.owed.keys.len());
    }

    #[test]
    fn who_owes_is_not_swept() {
        let rig = Rig::new();
        let rate = rig.rates.adopt(&[limit("a", 3, 10)], Moment::ZERO).remove(0);
        assert_eq!(rig.admitted(&rate, b"c1", 0), 3);
        rig.rates.sweep(Moment::from_millis(299));
        assert_eq!(rig.admitted(&rate, b"c1", 299), 2);
    }

    #[test]
    fn what_is_owed_survives_another_configuration_of_the_same_limit() {
        let rig = Rig::new();
        let before = rig.rates.adopt(&[limit("a", 3, 10), limit("b", 3, 10)], Moment::ZERO);
        assert_eq!([0, 1].map(|at: usize| rig.admitted(&before[at], b"c1", 0)), [3, 3]);
        let by_service = RateLimit { by: By::Service, ..limit("b", 3, 10) };
        let after = rig.rates.adopt(&[by_service, limit("a", 5, 10)], Moment::ZERO);
        assert_eq!(rig.admitted(&after[1], b"c1", 0), 2, "three of five are used up");
        assert_eq!(rig.admitted(&after[0], b"c1", 0), 3, "another kind of key is another limit");
    }

    #[test]
    fn a_limit_that_is_made_wider_lets_those_through_at_once_who_had_used_it_up() {
        let rig = Rig::new();
        let with = |quota: Option<Quota>| [RateLimit { quota: quota.unwrap(), ..limit("a", 1, 10) }];
        let a_day = with(Quota::new(1_000, Duration::from_secs(24 * 3600), 1_000));
        let before = rig.rates.adopt(&a_day, Moment::ZERO);
        assert_eq!(rig.admitted(&before[0], b"c1", 0), 1_000);
        let after = rig.rates.adopt(&with(Quota::new(100, Duration::from_secs(1), 100)), Moment::from_millis(1));
        assert_eq!(rig.admitted(&after[0], b"c1", 101), 10, "it owes a burst and not a day");
        assert_eq!(rig.admitted(&after[0], b"c1", 2_000), 100);
        assert_eq!(rig.admitted(&before[0], b"c1", 2_000), 0, "a request that began before counts by the rules of before");
    }

    #[test]
    fn replicas_that_tell_each_other_admit_together_what_one_would() {
        let rigs = [Rig::new(), Rig::new()];
        let rates = rigs.each_ref().map(|rig| rig.rates.adopt(&[limit("a", 10, 10)], Moment::ZERO).remove(0));
        // What the store does with news: the theoretical arrival time of all, in milliseconds.
        let mut owed_until = 0;
        let mut admitted = 0;
        for at_ms in (0..20_000).step_by(100) {
            let now = Moment::from_millis(at_ms);
            for (rig, rate) in rigs.iter().zip(&rates) {
                admitted += rig.admitted(rate, b"c1", at_ms);
                for news in rate.take_news(10, now) {
                    owed_until = owed_until.max(at_ms) + u64::from(news.requests) * 100;
                    rate.learn(&news.key, Duration::from_millis(owed_until - at_ms), now);
                }
            }
        }
        // One burst, twenty seconds of ten, and what a replica that does not know yet lets through once: a burst.
        assert!((210..=220).contains(&admitted), "{admitted}");
    }

    #[test]
    fn after_an_hour_without_the_others_only_what_is_still_owed_is_told() {
        let rig = Rig::new();
        let rate = rig.rates.adopt(&[limit("a", 5, 10)], Moment::ZERO).remove(0);
        for second in 0..100 {
            assert_eq!(rig.admitted(&rate, b"c1", second * 1000), 5);
        }
        let now = Moment::from_millis(99_000);
        let news = rate.take_news(10, now);
        assert_eq!(news, [News { key: (*b"c1").into(), requests: 5 }]);
        rate.keep_news(&news);
        assert_eq!(rate.take_news(10, now), news);
        assert_eq!(rate.take_news(10, now), []);
    }

    #[test]
    fn keys_are_spelled_without_secrets() {
        let rate = Rate::new(limit("a", 1, 1), Arc::default());
        assert_eq!(rate.spell(&[CLIENT, 127, 0, 0, 1]), "127.0.0.1");
        assert_eq!(rate.spell(&[CLIENT, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 1]), "20010db800000001/64");
        let spelled = rate.spell(b"vsecret");
        assert!(spelled.len() == 32 && !spelled.contains("secret"));
    }
}
