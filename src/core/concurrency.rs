//! How many requests a service may be working on at once: a fixed limit, or one that is found out.
//!
//! A service that gets more than it can do answers everything late; one that gets as much as it can do answers that much in
//! time. Where that is shows in the response times: while more requests at once are also more answers per second, they stay
//! what they are without load; from then on further requests only wait. So the limit follows the *gradient*, response time
//! without load over response time now (Netflix' `concurrency-limits`, `Gradient2Limit`; Envoy's adaptive concurrency filter).
//! From both we differ in how the time without load is known: a running average of all times, as Netflix has it, creeps up in
//! a long overload and lets the limit grow without end, and Envoy throttles everybody to 3 requests now and then to measure it.
//! Here it moves up only by times that were measured while few requests were under way, which is so now and then, or comes to
//! be so: when a service has become slower for good, its limit falls until few are under way, and the next windows tell.
//!
//! Times are to the first byte of good answers, and of a window the median counts, so that neither long downloads nor a few
//! slow requests move it. Nobody waits in a queue here: what is over the limit is shed at once.

use crate::priority::Priority;
use crate::time::Moment;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// What the operator decided about a service's concurrency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concurrency {
    /// No more requests at once, if bounded.
    pub max: Option<u32>,
    /// Whether the limit is found out, up to `max`.
    pub is_adaptive: bool,
    /// What an adaptive limit never falls below, and starts with.
    pub min: u32,
}

impl Concurrency {
    /// An adaptive limit without a `max` never grows beyond this.
    pub const MAX: u32 = 100_000;

    /// Whether there is a limit at all.
    #[must_use]
    pub const fn is_bounded(&self) -> bool {
        self.max.is_some() || self.is_adaptive
    }

    fn fixed(&self) -> u32 {
        self.max.unwrap_or(u32::MAX)
    }

    fn ceiling(&self) -> u32 {
        self.max.unwrap_or(Self::MAX).clamp(1, Self::MAX)
    }

    fn floor(&self) -> u32 {
        self.min.clamp(1, self.ceiling())
    }
}

impl Default for Concurrency {
    fn default() -> Self {
        Self { max: None, is_adaptive: false, min: 10 }
    }
}

/// Requests under way, counted against a limit.
#[derive(Debug, Default)]
pub struct Slots(AtomicU32);

impl Slots {
    /// Takes one, when fewer are taken than this priority may see of `limit`: how many are taken then.
    pub fn take(&self, limit: u32, priority: Priority) -> Option<u32> {
        let share = priority.share(limit);
        let take = |taken| (taken < share).then_some(taken + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok().map(|before| before + 1)
    }

    /// Gives one back that was taken.
    pub fn give_back(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many are taken.
    #[must_use]
    pub fn taken(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A window lasts so long, and until it has enough samples.
const WINDOW: Duration = Duration::from_millis(100);
const SAMPLES_MIN: u32 = 10;
/// Times may be this much longer than without load before they count as waiting.
const TOLERANCE: f32 = 1.5;
/// How much of the way to where it should be the limit goes in a window.
const SMOOTHING: f32 = 0.2;
/// What the limit is multiplied with in a window while it has never been too high.
const START: f32 = 1.5;
/// How much of a window's time goes into what is known of the time without load.
const LEARN: f32 = 0.125;

/// An adaptive limit: all that is known from one window to the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gradient {
    /// The limit; at least 1.
    limit: f32,
    /// Microseconds that an answer takes without load; 0 before the first window.
    unloaded: f32,
    /// The limit has not been too high yet, and grows fast.
    is_starting: bool,
}

/// What was seen in a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Microseconds to the first byte of an answer, in the median.
    pub micros: f32,
    /// Requests under way at once, at most.
    pub peak: u32,
}

impl Gradient {
    /// Nothing is known yet.
    #[must_use]
    pub fn start(policy: &Concurrency) -> Self {
        Self { limit: policy.floor() as f32, unloaded: 0.0, is_starting: true }
    }

    /// The limit in whole requests.
    #[must_use]
    pub fn limit(self, policy: &Concurrency) -> u32 {
        (self.limit as u32).clamp(policy.floor(), policy.ceiling())
    }

    /// The limit after one more window.
    #[must_use]
    pub fn step(self, policy: &Concurrency, window: Window) -> Self {
        let (floor, ceiling) = (policy.floor() as f32, policy.ceiling() as f32);
        let limit = self.limit.clamp(floor, ceiling);
        let micros = window.micros.max(1.0);
        let is_few = window.peak as f32 <= floor;
        let unloaded = match self.unloaded {
            0.0 => micros,
            known if micros < known || is_few => known + (micros - known) * LEARN,
            known => known,
        };
        let gradient = (TOLERANCE * unloaded / micros).clamp(0.5, 1.0);
        let is_late = gradient < 1.0;
        // Whether requests come near the limit: if not, nothing shows that a higher one would do.
        let is_used = window.peak as f32 * 2.0 >= limit;
        let is_starting = !is_late && (self.is_starting || limit <= floor);
        let aim = limit * gradient + limit.sqrt();
        let next = match aim > limit {
            // Late with few under way: first it has to be known what they take.
            true if !is_used || (is_few && is_late) => limit,
            true if is_starting => limit * START,
            _ => limit + (aim - limit) * SMOOTHING,
        };
        Self { limit: next.clamp(floor, ceiling), unloaded, is_starting }
    }

    fn pack(self) -> u64 {
        // A limit is positive, so its sign is free.
        let limit = if self.is_starting { -self.limit } else { self.limit };
        u64::from(limit.to_bits()) << 32 | u64::from(self.unloaded.to_bits())
    }

    fn unpack(word: u64) -> Self {
        let limit = f32::from_bits((word >> 32) as u32);
        Self { limit: limit.abs(), unloaded: f32::from_bits(word as u32), is_starting: limit.is_sign_negative() }
    }
}

/// A service's requests under way and its limit.
///
/// A fixed limit counts a request until it is over. An adaptive one counts it until its answer begins, because that is what it
/// measures: long downloads would else keep the count above a limit that has fallen, nobody would be admitted, no answer would
/// show that the limit is too low, and so it would stay.
#[derive(Debug, Default)]
pub struct ConcurrencyCell {
    slots: Slots,
    /// Only where the limit is adaptive: the samples take half a kilobyte.
    adaptive: OnceLock<Box<Adaptive>>,
}

#[derive(Debug)]
struct Adaptive {
    /// Requests whose answers have not begun.
    waiting: Slots,
    gradient: AtomicU64,
    window_ends: AtomicU64,
    peak: AtomicU32,
    samples: Samples,
}

impl ConcurrencyCell {
    /// Whether one more request of this priority may go ahead; it is then counted until [`ConcurrencyCell::release`], under the
    /// same policy.
    pub fn admit(&self, policy: &Concurrency, priority: Priority) -> bool {
        if policy.max.is_some_and(|max| self.slots.take(max, priority).is_none()) {
            return false;
        }
        let has_place = !policy.is_adaptive || self.adaptive(policy).admit(policy, priority);
        if !has_place && policy.max.is_some() {
            self.slots.give_back();
        }
        has_place
    }

    /// The answer to an admitted request begins; once for each request at most.
    pub fn answered(&self, policy: &Concurrency) {
        if policy.is_adaptive {
            self.adaptive(policy).waiting.give_back();
        }
    }

    /// An admitted request is over, and whether [`ConcurrencyCell::answered`] was told of its answer.
    pub fn release(&self, policy: &Concurrency, has_answer: bool) {
        if !has_answer {
            self.answered(policy);
        }
        if policy.max.is_some() {
            self.slots.give_back();
        }
    }

    /// A good answer began so long after its request had been sent.
    pub fn observe(&self, policy: &Concurrency, took: Duration, now: Moment) {
        if policy.is_adaptive {
            self.adaptive(policy).observe(policy, took, now);
        }
    }

    /// Requests that count against [`ConcurrencyCell::limit`].
    #[must_use]
    pub fn in_flight(&self, policy: &Concurrency) -> u32 {
        if policy.is_adaptive { self.adaptive(policy).waiting.taken() } else { self.slots.taken() }
    }

    /// How many may be under way now.
    #[must_use]
    pub fn limit(&self, policy: &Concurrency) -> u32 {
        if policy.is_adaptive { self.adaptive(policy).gradient().limit(policy) } else { policy.fixed() }
    }

    fn adaptive(&self, policy: &Concurrency) -> &Adaptive {
        self.adaptive.get_or_init(|| Box::new(Adaptive::start(policy)))
    }
}

impl Adaptive {
    fn start(policy: &Concurrency) -> Self {
        Self {
            waiting: Slots::default(),
            gradient: AtomicU64::new(Gradient::start(policy).pack()),
            window_ends: AtomicU64::new(0),
            peak: AtomicU32::new(0),
            samples: Samples::default(),
        }
    }

    fn gradient(&self) -> Gradient {
        Gradient::unpack(self.gradient.load(Ordering::Relaxed))
    }

    fn admit(&self, policy: &Concurrency, priority: Priority) -> bool {
        let Some(taken) = self.waiting.take(self.gradient().limit(policy), priority) else { return false };
        // A store only when it is news: the happy path is a load.
        if self.peak.load(Ordering::Relaxed) < taken {
            self.peak.fetch_max(taken, Ordering::Relaxed);
        }
        true
    }

    fn observe(&self, policy: &Concurrency, took: Duration, now: Moment) {
        let count = self.samples.add(took);
        let ends = self.window_ends.load(Ordering::Relaxed);
        if count < SAMPLES_MIN || now.nanos() < ends {
            return;
        }
        // One of the threads that notice closes the window.
        let next = now.plus(WINDOW).nanos();
        if self.window_ends.compare_exchange(ends, next, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return;
        }
        let waiting = self.waiting.taken();
        let peak = self.peak.swap(waiting, Ordering::Relaxed).max(waiting);
        if let Some(micros) = self.samples.take_median() {
            let step = |word| Some(Gradient::unpack(word).step(policy, Window { micros, peak }).pack());
            let _ = self.gradient.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        }
    }
}

/// Four buckets for each doubling, from a microsecond to two minutes: no bucket is wider than a quarter.
const BUCKETS: usize = 4 * 27;

/// Times of the present window. A sample that arrives while the window is closed may count in either.
#[derive(Debug)]
struct Samples {
    count: AtomicU32,
    buckets: [AtomicU32; BUCKETS],
}

impl Default for Samples {
    fn default() -> Self {
        Self { count: AtomicU32::new(0), buckets: [const { AtomicU32::new(0) }; BUCKETS] }
    }
}

impl Samples {
    fn add(&self, took: Duration) -> u32 {
        self.buckets[bucket_of(took.as_secs_f32() * 1e6)].fetch_add(1, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The median in microseconds; the window is empty then.
    fn take_median(&self) -> Option<f32> {
        self.count.store(0, Ordering::Relaxed);
        let taken = self.buckets.each_ref().map(|bucket| match bucket.load(Ordering::Relaxed) {
            0 => 0,
            _ => bucket.swap(0, Ordering::Relaxed),
        });
        let total: u32 = taken.iter().sum();
        let mut below = 0;
        let middle = taken.iter().position(|count| {
            below += count;
            below * 2 >= total && *count > 0
        })?;
        Some(middle_of(middle))
    }
}

/// A float's exponent and the first two bits of its fraction.
fn bucket_of(micros: f32) -> usize {
    let bits = micros.max(1.0).to_bits() >> 21;
    (bits.saturating_sub(127 << 2) as usize).min(BUCKETS - 1)
}

fn middle_of(bucket: usize) -> f32 {
    let low = (bucket as u32 + (127 << 2)) << 21;
    f32::from_bits(low | 1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ADAPTIVE: Concurrency = Concurrency { max: None, is_adaptive: true, min: 10 };

    /// A service that works on `workers` requests at once, each for `micros`; what is more waits.
    #[derive(Clone, Copy)]
    struct Model {
        workers: u32,
        micros: f32,
    }

    impl Model {
        /// One window in which clients want `wanted` requests under way.
        fn window(self, gradient: Gradient, policy: &Concurrency, wanted: u32) -> Window {
            let peak = wanted.min(gradient.limit(policy));
            Window { micros: self.micros * (peak as f32 / self.workers as f32).max(1.0), peak }
        }

        fn run(self, mut gradient: Gradient, policy: &Concurrency, wanted: u32, windows: usize) -> Gradient {
            for _ in 0..windows {
                gradient = gradient.step(policy, self.window(gradient, policy, wanted));
            }
            gradient
        }
    }

    #[test]
    fn a_fixed_limit_keeps_something_for_the_important() {
        let (cell, policy) = (ConcurrencyCell::default(), Concurrency { max: Some(10), ..Concurrency::default() });
        let admitted = |priority| (0..100).take_while(|_| cell.admit(&policy, priority)).count();
        assert_eq!([Priority::Low, Priority::Normal, Priority::High, Priority::Critical].map(admitted), [7, 2, 1, 0]);
        (0..10).for_each(|_| cell.release(&policy, false));
        assert_eq!((cell.in_flight(&policy), admitted(Priority::Normal)), (0, 9));
    }

    #[test]
    fn threads_together_never_exceed_the_limit() {
        let (cell, policy) = (ConcurrencyCell::default(), Concurrency { max: Some(3), ..Concurrency::default() });
        let highest = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        if cell.admit(&policy, Priority::Critical) {
                            highest.fetch_max(cell.in_flight(&policy), Ordering::Relaxed);
                            cell.release(&policy, false);
                        }
                    }
                });
            }
        });
        assert!(highest.into_inner() <= 3 && cell.in_flight(&policy) == 0);
    }

    #[test]
    fn an_overloaded_service_gets_what_it_can_do_and_answers_in_twice_its_time() {
        for workers in [10, 20, 100, 400] {
            let model = Model { workers, micros: 20_000.0 };
            let overload = workers * 3;
            let settled = model.run(Gradient::start(&ADAPTIVE), &ADAPTIVE, overload, 300);
            for later in [0, 10, 1_000, 100_000] {
                let gradient = model.run(settled, &ADAPTIVE, overload, later);
                let (limit, window) = (gradient.limit(&ADAPTIVE), model.window(gradient, &ADAPTIVE, overload));
                assert!(limit >= workers, "{workers} workers, {limit} at once after {later} more windows");
                assert!(window.micros <= 2.4 * model.micros, "{workers} workers, {window:?} after {later} more windows");
            }
        }
    }

    #[test]
    fn a_gateway_that_starts_in_the_middle_of_an_overload_finds_the_limit_too() {
        let model = Model { workers: 8, micros: 5_000.0 };
        let gradient = model.run(Gradient::start(&ADAPTIVE), &ADAPTIVE, 100_000, 100);
        assert!((8..=30).contains(&gradient.limit(&ADAPTIVE)), "{gradient:?}");
    }

    #[test]
    fn what_nobody_needs_is_not_found_out() {
        let model = Model { workers: 1_000, micros: 1_000.0 };
        let gradient = model.run(Gradient::start(&ADAPTIVE), &ADAPTIVE, 30, 10_000);
        let limit = gradient.limit(&ADAPTIVE);
        assert!((31..100).contains(&limit), "{limit}");
        let steep = model.run(gradient, &ADAPTIVE, 1_000, 20).limit(&ADAPTIVE);
        assert!(steep >= 1_000, "two seconds of more load, and {steep} at once");
    }

    #[test]
    fn a_service_that_became_slower_for_good_gets_its_limit_back() {
        let fast = Model { workers: 500, micros: 1_000.0 };
        let before = fast.run(Gradient::start(&ADAPTIVE), &ADAPTIVE, 200, 200);
        let slow = Model { micros: 20_000.0, ..fast };
        let after = slow.run(before, &ADAPTIVE, 200, 200);
        assert!(after.limit(&ADAPTIVE) >= 200, "{after:?}");
    }

    #[test]
    fn samples_move_the_limit_once_a_window() {
        let cell = ConcurrencyCell::default();
        let answers = |count: u32, took_ms, at_ms| {
            (0..count).for_each(|_| assert!(cell.admit(&ADAPTIVE, Priority::Critical)));
            for _ in 0..count {
                cell.observe(&ADAPTIVE, Duration::from_millis(took_ms), Moment::from_millis(at_ms));
            }
            (0..count).for_each(|_| cell.release(&ADAPTIVE, false));
            cell.limit(&ADAPTIVE)
        };
        assert_eq!(answers(9, 5, 1_000), 10, "too few to tell");
        assert_eq!(answers(9, 5, 1_000), 15);
        assert_eq!(answers(15, 5, 1_099), 15, "the window is not over");
        assert_eq!(answers(15, 5, 1_100), 22);
        let before = answers(15, 500, 1_200);
        assert!(answers(15, 500, 1_300) < before, "a hundred times as slow");
    }

    #[test]
    fn long_downloads_keep_no_limit_down() {
        let (cell, mut now_ms) = (ConcurrencyCell::default(), 0);
        let mut window = |count: u32, took_ms: u64| {
            now_ms += 100;
            let admitted = (0..count).filter(|_| cell.admit(&ADAPTIVE, Priority::Critical)).count();
            for _ in 0..admitted {
                cell.observe(&ADAPTIVE, Duration::from_millis(took_ms), Moment::from_millis(now_ms));
                cell.answered(&ADAPTIVE);
            }
            admitted
        };
        (0..10).for_each(|_| assert!(window(200, 5) > 0));
        // None of these has been released: they are being downloaded, more than the limit after a second of slowness.
        assert!((0..100).any(|_| window(200, 2_000) < 15), "{}", cell.limit(&ADAPTIVE));
        (0..150).for_each(|_| assert!(window(200, 5) > 0));
        assert_eq!(window(200, 5), 200);
    }

    #[test]
    fn the_lower_of_both_limits_holds_and_nothing_leaks() {
        let (cell, policy) = (ConcurrencyCell::default(), Concurrency { max: Some(15), ..ADAPTIVE });
        let admitted = || (0..100).filter(|_| cell.admit(&policy, Priority::Critical)).count();
        assert_eq!(admitted(), 10, "the adaptive one");
        (0..10).for_each(|_| cell.answered(&policy));
        assert_eq!(admitted(), 5, "the fixed one");
        (0..10).for_each(|_| cell.release(&policy, true));
        (0..5).for_each(|_| cell.release(&policy, false));
        assert_eq!((cell.slots.taken(), cell.in_flight(&policy)), (0, 0));
    }

    #[test]
    fn the_median_is_not_moved_by_a_few() {
        let samples = Samples::default();
        for n in 0..100 {
            samples.add(if n < 60 { Duration::from_millis(10) } else { Duration::from_secs(10_000) });
        }
        let median = samples.take_median().unwrap();
        assert!((8_000.0..12_500.0).contains(&median), "{median}");
        assert_eq!(samples.take_median(), None);
    }

    proptest! {
        #[test]
        fn a_bucket_is_no_wider_than_a_quarter(micros in 1.0f32..1e8) {
            let middle = middle_of(bucket_of(micros));
            prop_assert!((0.85..1.15).contains(&(middle / micros)), "{middle} for {micros}");
        }

        #[test]
        fn the_limit_stays_between_its_bounds_and_survives_packing(
            min in 1u32..200, max in proptest::option::of(1u32..2_000),
            windows in proptest::collection::vec((0.0f32..1e9, 0u32..5_000), 1..100),
        ) {
            let policy = Concurrency { max, is_adaptive: true, min };
            let mut gradient = Gradient::start(&policy);
            for (micros, peak) in windows {
                gradient = gradient.step(&policy, Window { micros, peak });
                let limit = gradient.limit(&policy);
                prop_assert!(limit >= 1 && limit >= min.min(max.unwrap_or(u32::MAX)) && limit <= max.unwrap_or(u32::MAX));
                prop_assert_eq!(Gradient::unpack(gradient.pack()), gradient);
            }
        }

        /// Whatever is under way: who is shed is no more important than anybody who is admitted at that moment.
        #[test]
        fn nobody_is_shed_where_someone_less_important_is_admitted(limit in 1u32..1_000, taken in 0u32..1_000) {
            let admitted = Priority::ALL.map(|(_, priority)| Slots(AtomicU32::new(taken)).take(limit, priority).is_some());
            prop_assert!(admitted.is_sorted(), "{admitted:?} of {limit} with {taken} taken");
            prop_assert_eq!(admitted[3], taken < limit);
        }
    }
}
