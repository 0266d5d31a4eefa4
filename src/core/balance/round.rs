//! One pick: who is chosen, who is asked, and who is passed over.

use super::lineup::{Rota, Zones};
use super::ring;
use super::{NoPick, Pick, Preference, Tried};
use crate::breaker::{Admission, Phase};
use crate::load;
use crate::policy::Algorithm;
use crate::seed;
use crate::table::{Attach, Service, Upstream};
use crate::time::Moment;
use std::ops::Range;
use std::sync::Arc;

/// So often is chosen anew when the choice fell on somebody who cannot take the request; after that, the next in line is asked.
const DRAWS: u64 = 4;
/// So many points of a ring are looked at for an owner who can take the request.
const POINTS: usize = 256;
/// Of more instances than this, a sample is looked at.
const SAMPLE: usize = 64;
/// An instance gets at least this part of its share while it starts slowly.
const SHARE_MIN: f64 = 0.1;

/// How well an instance suits the request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// It sheds (also while a probe is under way), has been tried, or something is held against it.
    Unfit,
    /// It starts slowly, and this request is not one of those it gets.
    NotYet,
    /// Go ahead.
    Good,
    /// Its breaker waits for a probe.
    AwaitsProbe,
}

/// One pick in the making.
pub(super) struct Round<'a, 't, X: Attach> {
    service: &'a Service<X>,
    tried: &'t Tried,
    now: Moment,
    /// Whether ejections and probes are ignored; found out when the first one is met.
    in_panic: std::cell::Cell<Option<bool>>,
    refusal: NoPick,
    passed_over: bool,
}

impl<'a, 't, X: Attach> Round<'a, 't, X> {
    pub(super) const fn new(service: &'a Service<X>, tried: &'t Tried, now: Moment) -> Self {
        let in_panic = std::cell::Cell::new(None);
        Self { service, tried, now, in_panic, refusal: NoPick::Exhausted, passed_over: false }
    }

    /// Why nobody could be asked, or took it.
    pub(super) const fn refusal(&self) -> NoPick {
        self.refusal
    }

    /// The part of the instances to choose from: all, or by zone.
    ///
    /// As Envoy's zone-aware routing, for gateways that are spread evenly over the zones: our zone's instances take all of
    /// our requests while they are at least one zone's share of what is available, and proportionally fewer below that.
    pub(super) fn rota(&self, preference: &Preference, seed: u64) -> &'a Rota {
        let lineup = &self.service.lineup;
        let Some(Zones { near, far, count }) = &lineup.zones else { return &lineup.whole };
        let (here, there) = (self.capacity(near), self.capacity(far));
        if here + there <= 0.0 {
            return &lineup.whole;
        }
        // A key stays on one side as long as the shares do.
        let draw = seed::unit(seed::mix(preference.key.unwrap_or(seed) ^ 0x7A6F_6E65));
        if draw < here / (here + there) * f64::from(*count) { near } else { far }
    }

    /// Where the algorithm's choice stands.
    pub(super) fn choose(&self, rota: &Rota, preference: &Preference, seed: u64) -> usize {
        let first = rota.range.start;
        match (self.service.policy.balance.algorithm, preference.key, &rota.ring) {
            _ if rota.range.len() == 1 => first,
            (Algorithm::RoundRobin, ..) => self.fitting(seed, |_| first + rota.wheel.advance()),
            (Algorithm::Random, ..) => self.fitting(seed, |seed| first + rota.wheel.draw(seed)),
            (Algorithm::ConsistentHash, Some(key), Some(ring)) => self.owner(ring.owners(key).map(|at| first + at), key, first),
            _ => self.better_of_two(&rota.range, seed),
        }
    }

    /// Asks who stands at `start` and then everybody after, those of `rota` first.
    pub(super) fn ask_from(&mut self, start: usize, rota: &Rota) -> Option<Pick<'a, X>> {
        if let Some(pick) = self.ask(start, true) {
            return Some(pick);
        }
        let whole = 0..self.service.usable.len();
        let others = if rota.range == whole { None } else { self.ask_all(&rota.range, start, true) };
        others.or_else(|| self.ask_all(&whole, start, true)).or_else(|| {
            // Better somebody with something held against him than nobody.
            if self.passed_over { self.ask_all(&whole, start, false) } else { None }
        })
    }

    fn ask_all(&mut self, range: &Range<usize>, start: usize, heed: bool) -> Option<Pick<'a, X>> {
        let count = range.len();
        let offset = start.saturating_sub(range.start);
        (0..count).find_map(|step| self.ask(range.start + (offset + step) % count, heed))
    }

    /// Asks the instance that stands there whether it takes the request; `heed` tells whether it is passed over when something
    /// is held against it.
    pub(super) fn ask(&mut self, at: usize, heed: bool) -> Option<Pick<'a, X>> {
        let upstream = &self.service.usable[at];
        if self.tried.has_spent(upstream) {
            return None;
        }
        if heed && self.is_out(upstream) {
            self.passed_over = true;
            return None;
        }
        match upstream.cells.breaker.admit(&self.service.policy.breaker, self.now) {
            Admission::Shed { until } => {
                self.refusal = sooner(self.refusal, until);
                None
            }
            admission => {
                let address = self.tried.next_address(&upstream.cells, upstream.addresses.len());
                Some(Pick { upstream, address, probe: admission == Admission::Probe })
            }
        }
    }

    /// The first of a few draws that fits, else the last.
    fn fitting(&self, seed: u64, mut draw: impl FnMut(u64) -> usize) -> usize {
        let mut chosen = 0;
        for nth in 0..DRAWS {
            let seed = seed::mix(seed.wrapping_add(nth));
            chosen = draw(seed);
            if self.fit(&self.service.usable[chosen], seed::mix(seed)) >= Fit::Good {
                break;
            }
        }
        chosen
    }

    /// The first owner along the ring that fits, else the first.
    fn owner(&self, mut owners: impl Iterator<Item = usize>, key: u64, otherwise: usize) -> usize {
        let Some(first) = owners.next() else { return otherwise };
        // While an instance starts slowly it gets some of its keys, and more as time goes by; none goes back and forth.
        let fits = |at: &usize| {
            let upstream = &self.service.usable[*at];
            let id = || ring::place(upstream.facts.id.as_str().as_bytes());
            self.fit_by(upstream, || seed::mix(key ^ id())) >= Fit::Good
        };
        if fits(&first) { first } else { owners.take(POINTS).find(fits).unwrap_or(first) }
    }

    /// The better of two random instances; drawn again while both are unfit.
    fn better_of_two(&self, range: &Range<usize>, seed: u64) -> usize {
        let Ok(bound @ 2..) = u32::try_from(range.len()) else { return range.start };
        let mut chosen = range.start;
        for nth in 0..DRAWS {
            let (one, two) = (seed::mix(seed.wrapping_add(nth)), seed::mix(seed.wrapping_add(nth) ^ 0x5851_F42D_4C95_7F2D));
            let first = seed::below(one, bound) as usize;
            let other = seed::below(two, bound - 1) as usize;
            let second = if other >= first { other + 1 } else { other };
            let (first, second) = (range.start + first, range.start + second);
            let (a, b) = (&self.service.usable[first], &self.service.usable[second]);
            let (fit_a, fit_b) = (self.fit(a, one), self.fit(b, two));
            let is_second = if fit_a == fit_b { is_cheaper(b, a, self.now) } else { fit_b > fit_a };
            chosen = if is_second { second } else { first };
            if fit_a.max(fit_b) > Fit::Unfit {
                break;
            }
        }
        chosen
    }

    /// `draw` decides whether an instance that starts slowly gets this request.
    fn fit(&self, upstream: &Upstream<X>, draw: u64) -> Fit {
        self.fit_by(upstream, || seed::mix(draw))
    }

    fn fit_by(&self, upstream: &Upstream<X>, draw: impl FnOnce() -> u64) -> Fit {
        if self.tried.has_spent(upstream) || self.is_out(upstream) {
            return Fit::Unfit;
        }
        match upstream.cells.breaker.load().admit(&self.service.policy.breaker, self.now).0 {
            Admission::Probe => Fit::AwaitsProbe,
            Admission::Flow if self.starts_slowly(upstream, draw) => Fit::NotYet,
            Admission::Flow => Fit::Good,
            Admission::Shed { .. } => Fit::Unfit,
        }
    }

    fn starts_slowly(&self, upstream: &Upstream<X>, draw: impl FnOnce() -> u64) -> bool {
        let window = self.service.policy.balance.slow_start;
        if window.is_zero() || self.now.since(upstream.cells.standing.since()) >= window {
            return false;
        }
        let share = share(self.service, upstream, self.now);
        share < 1.0 && seed::unit(draw()) >= share
    }

    /// Whether it is to be passed over while others are left.
    fn is_out(&self, upstream: &Upstream<X>) -> bool {
        upstream.cells.standing.is_out(self.now) && !self.is_in_panic()
    }

    fn is_in_panic(&self) -> bool {
        self.in_panic.get().unwrap_or_else(|| {
            let in_panic = is_in_panic(self.service, self.now);
            self.in_panic.set(Some(in_panic));
            in_panic
        })
    }

    /// The weight of those who may take requests now.
    fn capacity(&self, rota: &Rota) -> f64 {
        let (mut all, mut available) = (0u32, 0u32);
        for upstream in sample(&self.service.usable[rota.range.clone()]) {
            all += u32::from(upstream.facts.weight);
            if upstream.cells.breaker.load().phase(self.now) != Phase::Open && !self.is_out(upstream) {
                available += u32::from(upstream.facts.weight);
            }
        }
        f64::from(rota.wheel.weight()) * f64::from(available) / f64::from(all.max(1))
    }
}

/// Whether so few of the service's instances are available that ejections and failed probes are ignored.
#[must_use]
pub fn is_in_panic<X: Attach>(service: &Service<X>, now: Moment) -> bool {
    let (mut all, mut available, mut out) = (0, 0, 0);
    for upstream in sample(&service.usable) {
        all += 1;
        if upstream.cells.standing.is_out(now) {
            out += 1;
        } else if upstream.cells.breaker.load().phase(now) == Phase::Closed {
            available += 1;
        }
    }
    out > 0 && available * 100 < service.policy.balance.panic_percent * all
}

/// The part of its share that an instance gets now, 0.1 to 1: less than 1 while it starts slowly. While the whole service is
/// new, everybody has the whole: somebody must take the requests.
#[must_use]
pub fn share<X: Attach>(service: &Service<X>, upstream: &Upstream<X>, now: Moment) -> f64 {
    let window = service.policy.balance.slow_start;
    let age = |upstream: &Upstream<X>| now.since(upstream.cells.standing.since());
    let own = age(upstream);
    if window.is_zero() || own >= window || !service.usable.iter().any(|other| age(other) >= window) {
        return 1.0;
    }
    (own.as_secs_f64() / window.as_secs_f64()).max(SHARE_MIN)
}

/// All of them, or some that are evenly spread.
fn sample<T>(all: &[T]) -> impl Iterator<Item = &T> {
    all.iter().step_by(all.len().div_ceil(SAMPLE).max(1))
}

fn sooner(refusal: NoPick, until: Moment) -> NoPick {
    match refusal {
        NoPick::BreakerOpen { until: other } if other < until => refusal,
        _ => NoPick::BreakerOpen { until },
    }
}

fn is_cheaper<X: Attach>(a: &Arc<Upstream<X>>, b: &Arc<Upstream<X>>, now: Moment) -> bool {
    let (known_a, known_b) = (a.cells.load.ewma().expected(now), b.cells.load.ewma().expected(now));
    let stand_in = known_a.or(known_b).unwrap_or(1.0);
    let cost = |upstream: &Upstream<X>, known: Option<f32>| {
        load::cost(upstream.cells.load.in_flight(), known.unwrap_or(stand_in), upstream.facts.weight)
    };
    cost(a, known_a) < cost(b, known_b)
}
