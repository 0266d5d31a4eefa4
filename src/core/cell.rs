//! The mutable state that hangs on an instance and outlives every snapshot.
//!
//! Cells are shared by `Arc` between the registry and all snapshots, so breakers, averages and in-flight counts survive
//! publishes, re-registrations and reloads. All of it is lock-free; a state machine is applied by compare-and-swap and
//! writes nothing when nothing changes.

use crate::breaker::{Admission, Breaker, BreakerPolicy, Phase};
use crate::concurrency::ConcurrencyCell;
use crate::lease::Lease;
use crate::load::Ewma;
use crate::outcome::Verdict;
use crate::outlier::{ReviewCell, TallyCell};
use crate::record::ReplicaId;
use crate::retry::BudgetCell;
use crate::standing::StandingCell;
use crate::time::Moment;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Everything mutable about one instance.
#[derive(Debug, Default)]
pub struct Cells {
    /// Whether it may be sent requests.
    pub breaker: BreakerCell,
    /// How busy and fast it is.
    pub load: LoadCell,
    /// What else is held against it, and since when it takes traffic.
    pub standing: StandingCell,
    /// What it did since it was last compared with the others.
    pub tally: TallyCell,
    /// Which of its addresses to start with.
    pub address: AddressCell,
    /// When its lease ends and when it was last renewed, mirrored here by the registry so that look-ups need no round trip.
    pub lease: LeaseCell,
}

/// Everything mutable about a service as a whole; carried from one of its table entries to the next.
#[derive(Debug, Default)]
pub struct ServiceCells {
    /// How many retries it can bear.
    pub retry_budget: BudgetCell,
    /// How many requests it may be working on.
    pub concurrency: ConcurrencyCell,
    /// When its instances are compared next, and what was last told of them.
    pub review: ReviewCell,
}

impl Cells {
    /// The instance registered, for the first time or anew: worth trying at once, and nothing is held against it.
    pub fn registered(&self, now: Moment) {
        self.breaker.try_now();
        self.standing.starts_over(now);
    }
}

/// A breaker behind an atomic.
#[derive(Debug, Default)]
pub struct BreakerCell(AtomicU64);

/// A change of a breaker's phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The phase before.
    pub from: Phase,
    /// The phase after.
    pub to: Phase,
}

impl BreakerCell {
    /// The state now.
    #[must_use]
    pub fn load(&self) -> Breaker {
        Breaker::unpack(self.0.load(Ordering::Acquire))
    }

    /// Asks whether a request may go ahead.
    pub fn admit(&self, policy: &BreakerPolicy, now: Moment) -> Admission {
        self.change(|breaker| breaker.admit(policy, now)).0
    }

    /// Records how an attempt ended; tells when that changed the phase.
    pub fn record(&self, verdict: Verdict, policy: &BreakerPolicy, now: Moment, seed: u64) -> Option<Transition> {
        let (from, to) = self.change(|breaker| (breaker, breaker.record(verdict, policy, now, seed)));
        transition(from.phase(now), to.phase(now))
    }

    /// Lets the next request try an open breaker at once.
    pub fn try_now(&self) {
        self.change(|breaker| ((), breaker.try_now()));
    }

    fn change<T>(&self, step: impl Fn(Breaker) -> (T, Breaker)) -> (T, Breaker) {
        let mut word = self.0.load(Ordering::Acquire);
        loop {
            let (answer, next) = step(Breaker::unpack(word));
            if next.pack() == word {
                return (answer, next);
            }
            match self.0.compare_exchange_weak(word, next.pack(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return (answer, next),
                Err(current) => word = current,
            }
        }
    }
}

fn transition(from: Phase, to: Phase) -> Option<Transition> {
    (from != to).then_some(Transition { from, to })
}

/// In-flight requests and the response-time average of one instance.
#[derive(Debug, Default)]
pub struct LoadCell {
    in_flight: AtomicU32,
    ewma: AtomicU64,
}

impl LoadCell {
    /// Requests under way.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The average.
    #[must_use]
    pub fn ewma(&self) -> Ewma {
        Ewma::unpack(self.ewma.load(Ordering::Relaxed))
    }

    /// Adds a sample, unless another thread is adding one: it is a hint.
    pub fn observe(&self, micros: f32, now: Moment) {
        let word = self.ewma.load(Ordering::Relaxed);
        let next = Ewma::unpack(word).observe(micros, now).pack();
        let _ = self.ewma.compare_exchange(word, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// Counts one request as in flight for as long as it lives.
#[derive(Debug)]
pub struct InFlight(Arc<Cells>);

impl InFlight {
    /// Starts counting.
    #[must_use]
    pub fn start(cells: Arc<Cells>) -> Self {
        cells.load.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(cells)
    }

    /// The instance's cells.
    #[must_use]
    pub fn cells(&self) -> &Cells {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.load.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Which address of a name with several works.
#[derive(Debug, Default)]
pub struct AddressCell(AtomicU32);

impl AddressCell {
    /// The index of the address to start with, among `count`.
    #[must_use]
    pub fn first(&self, count: usize) -> usize {
        self.0.load(Ordering::Relaxed) as usize % count.max(1)
    }

    /// The address at `index` of `count` did not answer: start with the next one from now on.
    pub fn failed(&self, index: usize, count: usize) {
        let next = u32::try_from((index + 1) % count.max(1)).unwrap_or(0);
        self.0.store(next, Ordering::Relaxed);
    }
}

/// The times of a lease, for display.
#[derive(Debug, Default)]
pub struct LeaseCell {
    deadline_nanos: AtomicU64,
    renewed_wall_ms: AtomicU64,
    is_held: AtomicBool,
    /// The number of the replica that holds it; 0 for this one.
    holder: AtomicU64,
    /// The end of an operator's drain; 0 when there is none.
    drained_until_nanos: AtomicU64,
}

impl LeaseCell {
    /// When it ends unless renewed.
    #[must_use]
    pub fn deadline(&self) -> Moment {
        Moment::from_nanos(self.deadline_nanos.load(Ordering::Relaxed))
    }

    /// Milliseconds since the Unix epoch of the last renewal.
    #[must_use]
    pub fn renewed_wall_ms(&self) -> u64 {
        self.renewed_wall_ms.load(Ordering::Relaxed)
    }

    /// Whether it is over and a hold keeps the instance.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Relaxed)
    }

    /// The replica that holds it, if that is another one.
    #[must_use]
    pub fn holder(&self) -> Option<ReplicaId> {
        match self.holder.load(Ordering::Relaxed) {
            0 => None,
            number => Some(ReplicaId::of(number)),
        }
    }

    /// When an operator's drain is over, if there is one.
    #[must_use]
    pub fn drained_until(&self) -> Option<Moment> {
        match self.drained_until_nanos.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Moment::from_nanos(nanos)),
        }
    }

    pub(crate) fn set_drained_until(&self, until: Option<Moment>) {
        self.drained_until_nanos.store(until.map_or(0, Moment::nanos), Ordering::Relaxed);
    }

    /// It was started or renewed.
    pub(crate) fn set(&self, lease: Lease, wall_ms: u64) {
        self.set_lease(lease);
        self.renewed_wall_ms.store(wall_ms, Ordering::Relaxed);
        self.set_held(false);
    }

    /// It ends at another time or is held by another replica, without a renewal.
    pub(crate) fn set_lease(&self, lease: Lease) {
        self.deadline_nanos.store(lease.deadline().nanos(), Ordering::Relaxed);
        self.holder.store(lease.holder().map_or(0, ReplicaId::number), Ordering::Relaxed);
    }

    pub(crate) fn set_held(&self, is_held: bool) {
        self.is_held.store(is_held, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn half_open_admits_exactly_one_of_many_threads() {
        let policy = BreakerPolicy { open: Duration::ZERO, ..BreakerPolicy::default() };
        for round in 0..200 {
            let cell = BreakerCell::default();
            for _ in 0..3 {
                cell.record(Verdict::Failure, &policy, Moment::ZERO, round);
            }
            let probes = std::thread::scope(|scope| {
                let ask = || cell.admit(&policy, Moment::from_millis(1)) == Admission::Probe;
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
                threads.into_iter().map(|t| t.join().unwrap()).filter(|&probe| probe).count()
            });
            assert_eq!(probes, 1);
        }
    }

    #[test]
    fn a_transition_is_told_once() {
        let (cell, policy) = (BreakerCell::default(), BreakerPolicy::default());
        let told: Vec<_> = (0..5).filter_map(|_| cell.record(Verdict::Failure, &policy, Moment::ZERO, 0)).collect();
        assert_eq!(told, [Transition { from: Phase::Closed, to: Phase::Open }]);
    }

    #[test]
    fn in_flight_is_given_back() {
        let cells = Arc::new(Cells::default());
        let guard = InFlight::start(cells.clone());
        assert_eq!(cells.load.in_flight(), 1);
        drop(guard);
        assert_eq!(cells.load.in_flight(), 0);
    }
}
