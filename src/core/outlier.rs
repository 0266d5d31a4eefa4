//! Instances that do worse than the others of their service.
//!
//! A breaker sees failures in a row; what fails every third time, answers 500 to everything or is many times slower than its
//! peers escapes it. So the instances of a service are compared at intervals: each with the *median* of all. Envoy's outlier
//! detection takes mean and deviation; there, two of five that always fail widen the deviation so much that neither stands out.
//! Medians tell what most of them do, whatever the others do. What goes wrong everywhere ejects nobody.

use crate::cell::Cells;
use crate::outcome::{Ending, Verdict};
use crate::seed;
use crate::table::{Attach, Service, Upstream};
use crate::time::Moment;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// When an instance is ejected, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierPolicy {
    /// Whether instances are compared at all.
    pub active: bool,
    /// How often.
    pub interval: Duration,
    /// An instance with fewer answers in an interval is not judged.
    pub requests_min: u32,
    /// With fewer instances that can be judged, none is.
    pub hosts_min: u32,
    /// How many standard deviations below the usual success rate are too many; thousandths.
    pub deviation_milli: u32,
    /// How many times the usual response time is too slow; thousandths, 0 never.
    pub latency_milli: u32,
    /// What is slower by less than this is not ejected for it.
    pub latency_min: Duration,
    /// How long it is ejected the first time.
    pub ejection: Duration,
    /// Each time it is ejected again that doubles, up to this.
    pub ejection_max: Duration,
    /// No more of a service's instances are ejected at once; per cent.
    pub ejected_max_percent: u32,
}

impl Default for OutlierPolicy {
    fn default() -> Self {
        Self {
            active: true,
            interval: Duration::from_secs(10),
            requests_min: 100,
            hosts_min: 3,
            deviation_milli: 1900,
            latency_milli: 5000,
            latency_min: Duration::from_millis(100),
            ejection: Duration::from_secs(30),
            ejection_max: Duration::from_secs(300),
            ejected_max_percent: 50,
        }
    }
}

impl OutlierPolicy {
    /// Whether instances are compared where there are so many of them; what they do need not be counted where not.
    #[must_use]
    pub const fn compares(&self, instances: usize) -> bool {
        self.active && instances >= self.hosts_min as usize
    }
}

/// Success rates are taken to differ by at least this: instances that never fail have no deviation, and one failure of theirs
/// would be an outlier.
const DEVIATION_MIN: f64 = 0.05;
/// A normal distribution's standard deviation is so many times the median distance from its median.
const DEVIATIONS_PER_DISTANCE: f64 = 1.4826;

/// What an instance did since it was last looked at. Two relaxed additions for each attempt.
#[derive(Debug, Default)]
pub struct TallyCell {
    /// Answers in the lower half, errors among them in the upper.
    counts: AtomicU64,
    /// Sum of the response times of the good ones; microseconds.
    micros: AtomicU64,
}

impl TallyCell {
    /// Notes how an attempt ended. Any 5xx is an error here, not only those that open a breaker: where all instances answer
    /// so, nobody stands out. A good answer of which nobody can say how long the instance took for it is not counted.
    pub fn note(&self, ending: Ending, micros: Option<f32>) {
        let is_error = match (ending, ending.verdict()) {
            (_, Verdict::Neutral) => return,
            (Ending::Answered { status }, _) => status >= 500,
            (_, verdict) => verdict == Verdict::Failure,
        };
        match micros {
            _ if is_error => drop(self.counts.fetch_add(1 << 32 | 1, Ordering::Relaxed)),
            Some(micros) => {
                self.counts.fetch_add(1, Ordering::Relaxed);
                self.micros.fetch_add(micros as u64, Ordering::Relaxed);
            }
            None => {}
        }
    }

    /// What was noted since the last time.
    fn take(&self) -> Tally {
        let (counts, micros) = (self.counts.swap(0, Ordering::Relaxed), self.micros.swap(0, Ordering::Relaxed));
        Tally { answers: counts as u32, errors: (counts >> 32) as u32, micros }
    }
}

/// How many of a service's instances something is held against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shed {
    /// Those that are ejected.
    pub ejected: u32,
    /// Those whose probes fail.
    pub failed: u32,
    /// Whether that is ignored, because too few others are left.
    pub panics: bool,
}

impl Shed {
    /// Whether there is anything to tell.
    #[must_use]
    pub const fn is_any(&self) -> bool {
        self.ejected > 0 || self.failed > 0 || self.panics
    }
}

/// Whether a service's instances are to be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// The interval is not over.
    NotYet,
    /// An interval begins; what was counted before is not of one.
    First,
    /// The interval is over, and the next one begins.
    Now,
}

/// When a service's instances are compared next, and what was last told of them. Written by one task.
#[derive(Debug, Default)]
pub struct ReviewCell {
    due_nanos: AtomicU64,
    ejected: AtomicU32,
    failed: AtomicU32,
    panics: AtomicBool,
}

impl ReviewCell {
    /// Whether they are to be compared at `now`; plans the next time if so. One that is late by more than an interval was not
    /// compared for a while, and begins anew.
    pub fn due(&self, now: Moment, interval: Duration) -> Due {
        let due = Moment::from_nanos(self.due_nanos.load(Ordering::Relaxed));
        if now < due && due <= now.plus(interval) {
            return Due::NotYet;
        }
        self.due_nanos.store(now.plus(interval).nanos(), Ordering::Relaxed);
        let is_late = due == Moment::ZERO || now.since(due) > interval || due > now;
        if is_late { Due::First } else { Due::Now }
    }

    /// What was last told.
    #[must_use]
    pub fn shed(&self) -> Shed {
        Shed {
            ejected: self.ejected.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            panics: self.panics.load(Ordering::Relaxed),
        }
    }

    /// Notes what is told now; gives what was told before.
    pub fn show(&self, shed: Shed) -> Shed {
        let before = self.shed();
        self.ejected.store(shed.ejected, Ordering::Relaxed);
        self.failed.store(shed.failed, Ordering::Relaxed);
        self.panics.store(shed.panics, Ordering::Relaxed);
        before
    }
}

/// What an instance did in an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Attempts that said something about the instance.
    pub answers: u32,
    /// Those of them that failed.
    pub errors: u32,
    /// Sum of the response times of the others; microseconds.
    pub micros: u64,
}

impl Tally {
    fn error_rate(&self) -> f64 {
        f64::from(self.errors.min(self.answers)) / f64::from(self.answers.max(1))
    }

    const fn good(&self) -> u32 {
        self.answers.saturating_sub(self.errors)
    }

    fn mean_micros(&self) -> f64 {
        self.micros as f64 / f64::from(self.good().max(1))
    }
}

/// Why an instance is an outlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It fails more often than the others.
    SuccessRate,
    /// It is slower than the others.
    Latency,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 2] = [Self::SuccessRate, Self::Latency];

    /// The word in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SuccessRate => "success_rate",
            Self::Latency => "latency",
        }
    }
}

/// The outliers among instances with these tallies, the worst first.
#[must_use]
pub fn outliers(policy: &OutlierPolicy, tallies: &[Tally]) -> Vec<(usize, Cause)> {
    let mut found = by_success_rate(policy, tallies);
    for slow in by_latency(policy, tallies) {
        if !found.iter().any(|(at, _)| *at == slow.0) {
            found.push(slow);
        }
    }
    found
}

fn by_success_rate(policy: &OutlierPolicy, tallies: &[Tally]) -> Vec<(usize, Cause)> {
    let rates = judged(policy, tallies, |tally| tally.answers, Tally::error_rate);
    let usual = median(rates.iter().map(|(_, rate)| *rate));
    let distance = median(rates.iter().map(|(_, rate)| (rate - usual).abs()));
    let deviation = (distance * DEVIATIONS_PER_DISTANCE).max(DEVIATION_MIN);
    let factor = f64::from(policy.deviation_milli) / 1000.0;
    worst_first(policy, &rates, Cause::SuccessRate, |at, rate| {
        // Where all fail often, chance alone makes one look worse than another.
        let chance = (usual * (1.0 - usual) / f64::from(tallies[at].answers.max(1))).sqrt();
        let excess = rate - usual - factor * deviation.hypot(chance);
        (excess > 0.0).then_some(excess)
    })
}

fn by_latency(policy: &OutlierPolicy, tallies: &[Tally]) -> Vec<(usize, Cause)> {
    if policy.latency_milli == 0 {
        return Vec::new();
    }
    let means = judged(policy, tallies, Tally::good, Tally::mean_micros);
    let usual = median(means.iter().map(|(_, mean)| *mean));
    let factor = f64::from(policy.latency_milli) / 1000.0;
    let bound = (usual * factor).max(usual + policy.latency_min.as_secs_f64() * 1e6);
    worst_first(policy, &means, Cause::Latency, |_, mean| (mean > bound).then_some(mean))
}

/// The figure in the middle; of two there, the better one, which is the lower: of two halves, the better one decides.
fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    let middle = figures.len().saturating_sub(1) / 2;
    if figures.is_empty() { 0.0 } else { *figures.select_nth_unstable_by(middle, f64::total_cmp).1 }
}

/// The figures of the instances with enough requests, each with its place.
fn judged(
    policy: &OutlierPolicy,
    tallies: &[Tally],
    requests: impl Fn(&Tally) -> u32,
    figure: impl Fn(&Tally) -> f64,
) -> Vec<(usize, f64)> {
    let enough = |(_, tally): &(usize, &Tally)| requests(tally) >= policy.requests_min.max(1);
    tallies.iter().enumerate().filter(enough).map(|(at, tally)| (at, figure(tally))).collect()
}

/// Those with an excess, the largest first.
fn worst_first(
    policy: &OutlierPolicy,
    figures: &[(usize, f64)],
    cause: Cause,
    excess: impl Fn(usize, f64) -> Option<f64>,
) -> Vec<(usize, Cause)> {
    if figures.len() < (policy.hosts_min as usize).max(2) {
        return Vec::new();
    }
    let mut found: Vec<(usize, f64)> = figures.iter().filter_map(|&(at, figure)| Some((at, excess(at, figure)?))).collect();
    found.sort_by(|a, b| b.1.total_cmp(&a.1));
    found.into_iter().map(|(at, _)| (at, cause)).collect()
}

/// An instance that has just been ejected.
pub struct Ejection<X: Attach> {
    /// Who.
    pub upstream: Arc<Upstream<X>>,
    /// Why.
    pub cause: Cause,
    /// For how long.
    pub span: Duration,
}

impl<X: Attach> std::fmt::Debug for Ejection<X> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ejection").field("id", &self.upstream.facts.id).field("cause", &self.cause).finish_non_exhaustive()
    }
}

/// Forgets what the service's instances did so far: it was not counted over one interval.
pub fn start<X: Attach>(service: &Service<X>) {
    for upstream in &service.usable {
        let _ = upstream.cells.tally.take();
    }
}

/// Looks at what the service's instances did since the last time, and ejects those that did worse than the others, as far as
/// the policy allows. `seed` draws the jitter.
pub fn review<X: Attach>(service: &Service<X>, now: Moment, seed: u64) -> Vec<Ejection<X>> {
    let (policy, usable) = (&service.policy.outlier, &service.usable);
    let tallies: Vec<Tally> = usable.iter().map(|upstream| upstream.cells.tally.take()).collect();
    let ejected = usable.iter().filter(|upstream| upstream.cells.standing.ejected_until(now).is_some()).count();
    let allowed = (usable.len() * policy.ejected_max_percent as usize / 100).saturating_sub(ejected);
    let outliers = outliers(policy, &tallies);
    for (upstream, tally) in usable.iter().zip(&tallies) {
        let is_outlier = || outliers.iter().any(|(at, _)| Arc::ptr_eq(&usable[*at], upstream));
        if upstream.cells.standing.ejections() > 0 && tally.answers >= policy.requests_min && !is_outlier() {
            upstream.cells.standing.forgive();
        }
    }
    let is_in = |(at, _): &&(usize, Cause)| usable[*at].cells.standing.ejected_until(now).is_none();
    let chosen = outliers.iter().filter(is_in).take(allowed);
    chosen.map(|&(at, cause)| eject(&usable[at], cause, policy, now, seed::mix(seed ^ at as u64))).collect()
}

fn eject<X: Attach>(upstream: &Arc<Upstream<X>>, cause: Cause, policy: &OutlierPolicy, now: Moment, seed: u64) -> Ejection<X> {
    let span = span(policy, &upstream.cells, seed);
    upstream.cells.standing.eject(now.plus(span));
    Ejection { upstream: upstream.clone(), cause, span }
}

/// Doubles with each ejection that was not forgiven; up to 10 % longer, so that who left together does not return together.
fn span(policy: &OutlierPolicy, cells: &Cells, seed: u64) -> Duration {
    let full = policy.ejection.saturating_mul(1 << cells.standing.ejections().min(20));
    full.min(policy.ejection_max.max(policy.ejection)).mul_f64(1.0 + 0.1 * seed::unit(seed))
}

#[cfg(test)]
mod tests;
