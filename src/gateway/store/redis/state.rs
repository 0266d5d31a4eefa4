//! How the store is doing: what its threads tell each other, and what health, status and metrics show.

use super::failure::Failure;
use super::health::{self, HealthLayer, HealthQueue};
use crate::clock;
use crate::random::random;
use crate::telemetry::metrics::Metrics;
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;
use vertice_core::breaker::{Admission, BreakerPolicy, Phase};
use vertice_core::cell::BreakerCell;
use vertice_core::outcome::Verdict;
use vertice_core::record::ReplicaId;
use vertice_core::time::Moment;

/// Three failures in a row open it, for half a minute unless a probe says otherwise, and two successes close it.
pub(super) const POLICY: BreakerPolicy = BreakerPolicy {
    failures: 3,
    successes: 2,
    open: Duration::from_secs(30),
    open_max: Duration::from_secs(30),
    probe_lost: Duration::from_secs(60),
};
/// A replica lives that has said so within this.
const ALIVE: Duration = Duration::from_secs(10);
/// A time that differs by more than this, and more than measuring takes, was set.
const TIME_SET: Duration = Duration::from_millis(100);
/// A measured time replaces one that was measured better when that is this old.
const TIME_HOLDS: Duration = Duration::from_secs(30);

/// A gateway process that shares the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Its identity in this life.
    pub id: ReplicaId,
    /// What people call it.
    pub name: String,
    /// Where it runs.
    pub zone: Option<String>,
    /// What it runs.
    pub version: String,
    /// When it was last heard of.
    pub seen: Moment,
}

impl Replica {
    /// Whether it was heard of lately.
    #[must_use]
    pub fn is_alive(&self, now: Moment) -> bool {
        now.since(self.seen) < ALIVE
    }
}

/// Shared by the store's threads and those who show it.
#[derive(Debug)]
pub struct RedisState {
    breaker: BreakerCell,
    condition: Mutex<Condition>,
    /// Something happened that the other thread may wait for.
    news: Condvar,
    /// Microseconds on the store's clock at [`Moment::ZERO`]; `i64::MIN` before that is known.
    origin: AtomicI64,
    is_following: AtomicBool,
    outbox: AtomicUsize,
    health: HealthLayer,
    health_queue: HealthQueue,
}

#[derive(Debug, Default)]
struct Condition {
    /// Counts the connections; an odd one is in use.
    link: u64,
    /// The connection for which the reader has noted where to start.
    positioned: u64,
    /// Why everything is to be compared again.
    wanted: Option<&'static str>,
    failures: u32,
    opened_wall_ms: Option<u64>,
    last_error: Option<String>,
    /// Why events cannot be read, if that is so.
    deaf: Option<String>,
    address: Option<String>,
    replicas: Vec<Replica>,
    reconciled: Option<Moment>,
    measured: Option<(Moment, Duration)>,
}

impl Default for RedisState {
    fn default() -> Self {
        let (health, health_queue) = health::layer();
        Self {
            health,
            health_queue,
            breaker: BreakerCell::default(),
            condition: Mutex::default(),
            news: Condvar::new(),
            origin: AtomicI64::new(i64::MIN),
            is_following: AtomicBool::new(false),
            outbox: AtomicUsize::new(0),
        }
    }
}

/// For those who show it.
impl RedisState {
    /// Of the breaker.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.breaker.load().phase(clock::mono())
    }

    /// Failures in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.condition.lock().failures
    }

    /// When the breaker opened, in milliseconds since 1970; `None` while it is closed.
    #[must_use]
    pub fn opened_wall_ms(&self) -> Option<u64> {
        self.condition.lock().opened_wall_ms
    }

    /// What went wrong last, if it still matters. Never holds a password.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.condition.lock().last_error.clone()
    }

    /// Why what other replicas do is not heard at once, although there is a connection; `None` while it is.
    #[must_use]
    pub fn trouble_hearing(&self) -> Option<String> {
        self.condition.lock().deaf.clone()
    }

    /// Where the master is; `None` while there is no connection.
    #[must_use]
    pub fn address(&self) -> Option<String> {
        self.condition.lock().address.clone()
    }

    /// The processes that share the store, this one included; as they were known last while it is away.
    #[must_use]
    pub fn replicas(&self) -> Vec<Replica> {
        self.condition.lock().replicas.clone()
    }

    /// Changes that wait to be written.
    #[must_use]
    pub fn outbox(&self) -> usize {
        self.outbox.load(Ordering::Relaxed)
    }

    /// Whether what other replicas do arrives here.
    #[must_use]
    pub fn is_following(&self) -> bool {
        self.is_following.load(Ordering::Acquire)
    }

    /// Whether there is a connection.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.link() != 0
    }

    /// The second layer of the health-check cache.
    #[must_use]
    pub const fn health(&self) -> &HealthLayer {
        &self.health
    }

    /// When everything was last compared with the store.
    #[must_use]
    pub fn reconciled(&self) -> Option<Moment> {
        self.condition.lock().reconciled
    }
}

/// For the store's threads.
impl RedisState {
    /// Microseconds since 1970 on the store's clock; `None` before it is known.
    pub(super) fn store_micros(&self, now: Moment) -> Option<u64> {
        let origin = self.origin.load(Ordering::Relaxed);
        let since = i64::try_from(now.nanos() / 1000).unwrap_or(i64::MAX);
        (origin != i64::MIN).then(|| u64::try_from(origin.saturating_add(since)).unwrap_or(0))
    }

    /// The store told its time in an operation that took from `sent` to `received`. Tells whether it was believed: an answer
    /// that took longer than the last one says less, for a while.
    pub(super) fn measured(&self, micros: u64, sent: Moment, received: Moment) -> bool {
        let took = received.since(sent);
        let mut condition = self.condition.lock();
        let error = self.store_micros(sent.plus(took / 2)).map_or(0, |believed| believed.abs_diff(micros));
        let is_set = Duration::from_micros(error) > took + TIME_SET;
        let is_better = is_set || condition.measured.is_none_or(|(at, best)| took <= best || received.since(at) > TIME_HOLDS);
        if is_better {
            condition.measured = Some((received, took));
            let middle = i64::try_from(sent.plus(took / 2).nanos() / 1000).unwrap_or(i64::MAX);
            let origin = i64::try_from(micros).unwrap_or(i64::MAX).saturating_sub(middle);
            self.origin.store(origin, Ordering::Relaxed);
        }
        is_better
    }

    pub(super) const fn health_queue(&self) -> &HealthQueue {
        &self.health_queue
    }

    /// The number of the connection in use; 0 while there is none.
    pub(super) fn link(&self) -> u64 {
        let link = self.condition.lock().link;
        if link % 2 == 1 { link } else { 0 }
    }

    /// There is a connection.
    pub(super) fn connected(&self, address: &str) {
        let mut condition = self.condition.lock();
        condition.link += 1 + condition.link % 2;
        condition.address = Some(address.to_owned());
        self.news.notify_all();
    }

    /// There is none any more. Tells whether there was one.
    pub(super) fn disconnected(&self) -> bool {
        let mut condition = self.condition.lock();
        let was_connected = condition.link % 2 == 1;
        condition.link += condition.link % 2;
        condition.address = None;
        condition.wanted = None;
        // Another server has another clock.
        condition.measured = None;
        self.is_following.store(false, Ordering::Release);
        self.news.notify_all();
        was_connected
    }

    /// The reader has noted where it starts, and wants everything compared.
    pub(super) fn positioned(&self, link: u64, why: &'static str) {
        let mut condition = self.condition.lock();
        condition.positioned = link;
        condition.wanted.get_or_insert(why);
    }

    /// Whether the reader will miss nothing that is written from now on.
    pub(super) fn is_positioned(&self) -> bool {
        let condition = self.condition.lock();
        condition.positioned == condition.link && condition.link % 2 == 1
    }

    /// Everything is to be compared again.
    pub(super) fn want_reconcile(&self, why: &'static str) {
        self.condition.lock().wanted.get_or_insert(why);
    }

    /// Why everything is to be compared, if it is; asked once.
    pub(super) fn take_wanted(&self) -> Option<&'static str> {
        self.condition.lock().wanted.take()
    }

    /// Events cannot be read, or can.
    pub(super) fn deaf(&self, failure: Option<&Failure>) {
        let mut condition = self.condition.lock();
        if condition.deaf.is_some() != failure.is_some() {
            match failure {
                Some(failure) => tracing::warn!(error = %failure, "events of Redis cannot be read"),
                None => tracing::info!("events of Redis are read again"),
            }
        }
        condition.deaf = failure.map(|failure| failure.text.chars().take(300).collect());
    }

    pub(super) fn reconciled_now(&self) {
        self.condition.lock().reconciled = Some(clock::mono());
    }

    pub(super) fn follow(&self) {
        self.is_following.store(true, Ordering::Release);
    }

    /// Waits until there is another connection than `known`, or for a while.
    pub(super) fn wait_for_link(&self, known: u64, wait: Duration) -> u64 {
        let current = |condition: &Condition| if condition.link % 2 == 1 { condition.link } else { 0 };
        let mut condition = self.condition.lock();
        if current(&condition) == known {
            self.news.wait_for(&mut condition, wait);
        }
        current(&condition)
    }

    /// Whether an operation may be tried.
    pub(super) fn admits(&self) -> bool {
        !matches!(self.breaker.admit(&POLICY, clock::mono()), Admission::Shed { .. })
    }

    /// An active probe passed.
    pub(super) fn try_now(&self) {
        self.breaker.try_now();
    }

    pub(super) fn succeeded(&self, metrics: &Metrics) {
        self.record(Verdict::Success, metrics);
        let mut condition = self.condition.lock();
        condition.failures = 0;
        condition.last_error = None;
    }

    pub(super) fn failed(&self, failure: &Failure, metrics: &Metrics) {
        metrics.redis_failures.with_label_values(&[failure.word]).inc();
        {
            let mut condition = self.condition.lock();
            condition.failures = condition.failures.saturating_add(1);
            condition.last_error = Some(failure.text.chars().take(300).collect());
        }
        self.record(Verdict::Failure, metrics);
    }

    fn record(&self, verdict: Verdict, metrics: &Metrics) {
        let now = clock::mono();
        let change = self.breaker.record(verdict, &POLICY, now, random());
        let phase = self.breaker.load().phase(now);
        metrics.redis_breaker.set(phase.as_number().into());
        metrics.store_breaker_open.set(i64::from(phase == Phase::Open));
        let mut condition = self.condition.lock();
        match phase {
            Phase::Closed => condition.opened_wall_ms = None,
            Phase::Open | Phase::HalfOpen => {
                condition.opened_wall_ms.get_or_insert_with(clock::wall_ms);
            }
        }
        if let Some(change) = change {
            let (from, to) = (change.from.as_str(), change.to.as_str());
            let error = condition.last_error.clone().unwrap_or_default();
            tracing::warn!(from, to, error, "the store's circuit breaker changed");
        }
    }

    /// Who shares the store.
    pub(super) fn replicas_are(&self, replicas: Vec<Replica>) {
        self.condition.lock().replicas = replicas;
    }

    /// Whether that replica lives, as far as is known.
    pub(super) fn is_alive(&self, id: ReplicaId, now: Moment) -> bool {
        self.condition.lock().replicas.iter().any(|replica| replica.id == id && replica.is_alive(now))
    }

    /// Whether others than `me` lived when that was last known: as of the last that was heard of this one.
    pub(super) fn has_others(&self, me: ReplicaId) -> bool {
        let condition = self.condition.lock();
        let last = condition.replicas.iter().map(|replica| replica.seen).max().unwrap_or_default();
        condition.replicas.iter().any(|replica| replica.id != me && replica.is_alive(last))
    }

    pub(super) fn outbox_is(&self, length: usize, metrics: &Metrics) {
        self.outbox.store(length, Ordering::Relaxed);
        metrics.store_pending.set(i64::try_from(length).unwrap_or(i64::MAX));
    }
}
