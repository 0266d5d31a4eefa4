//! Which instance gets the next attempt.

use crate::breaker::{Admission, BreakerPolicy};
use crate::cell::Cells;
use crate::load;
use crate::policy::Algorithm;
use crate::seed;
use crate::table::{Attach, Service, Upstream};
use crate::time::Moment;
use std::sync::Arc;

/// The attempts that a request has made so far: which instances, and how often each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    entries: [Tries; Tried::MAX],
    len: usize,
}

/// The tries at one instance.
#[derive(Clone, Copy, Debug, Default)]
struct Tries {
    id: usize,
    /// The first of its addresses that was tried. Later ones are counted from here and not from where the instance would be
    /// started with now: a failed address moves that, and counting from there would skip one and try another twice.
    first_address: u32,
    times: u8,
}

impl Tried {
    /// More attempts than this are never made.
    pub const MAX: usize = 8;

    /// How often the instance has been tried.
    #[must_use]
    pub fn times(&self, cells: &Arc<Cells>) -> usize {
        self.at(cells).map_or(0, |tries| tries.times.into())
    }

    /// Notes one more try, at this one of the instance's addresses.
    pub fn note(&mut self, cells: &Arc<Cells>, address: usize) {
        let id = Arc::as_ptr(cells) as usize;
        if let Some(tries) = self.entries[..self.len].iter_mut().find(|tries| tries.id == id) {
            tries.times = tries.times.saturating_add(1);
        } else if self.len < Self::MAX {
            self.entries[self.len] = Tries { id, first_address: u32::try_from(address).unwrap_or(0), times: 1 };
            self.len += 1;
        }
    }

    /// How many attempts were made.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.entries[..self.len].iter().map(|tries| u32::from(tries.times)).sum()
    }

    /// Which of the instance's `count` addresses is next.
    fn next_address(&self, cells: &Arc<Cells>, count: usize) -> usize {
        match self.at(cells) {
            Some(tries) => (tries.first_address as usize + usize::from(tries.times)) % count.max(1),
            None => cells.address.first(count),
        }
    }

    fn at(&self, cells: &Arc<Cells>) -> Option<&Tries> {
        let id = Arc::as_ptr(cells) as usize;
        self.entries[..self.len].iter().find(|tries| tries.id == id)
    }
}

/// The chosen instance.
pub struct Pick<'a, X: Attach> {
    /// Who.
    pub upstream: &'a Arc<Upstream<X>>,
    /// Which of its addresses.
    pub address: usize,
    /// Whether this request is the half-open breaker's probe.
    pub probe: bool,
}

impl<X: Attach> std::fmt::Debug for Pick<'_, X> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pick").field("id", &self.upstream.facts.id).field("address", &self.address).finish()
    }
}

/// Why nobody was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPick {
    /// No instance takes traffic.
    NoInstance,
    /// Every usable instance has an open breaker; the first of them admits a probe at `until`.
    BreakerOpen {
        /// When it is worth coming back.
        until: Moment,
    },
    /// Every usable instance has been tried.
    Exhausted,
}

/// Chooses an instance for an attempt and asks its breaker. `seed` is a fresh random number.
///
/// An instance that is half-open and has no probe under way takes the request if it comes up, whatever its load: otherwise it
/// would never be tried while others are faster. An instance with several addresses may be tried once per address.
///
/// # Errors
/// [`NoPick`] when no instance can take it.
pub fn pick<'a, X: Attach>(service: &'a Service<X>, tried: &Tried, now: Moment, seed: u64) -> Result<Pick<'a, X>, NoPick> {
    let usable = &service.usable;
    if usable.is_empty() {
        return Err(NoPick::NoInstance);
    }
    let start = match service.policy.balance.algorithm {
        Algorithm::P2c => better_of_two(service, tried, now, seed),
        Algorithm::RoundRobin => service.wheel.advance(),
    };
    let mut refusal = NoPick::Exhausted;
    for step in 0..usable.len() {
        let upstream = &usable[(start + step) % usable.len()];
        if is_spent(upstream, tried) {
            continue;
        }
        match upstream.cells.breaker.admit(&service.policy.breaker, now) {
            Admission::Shed { until } => refusal = sooner(refusal, until),
            admission => {
                let address = tried.next_address(&upstream.cells, upstream.addresses.len());
                return Ok(Pick { upstream, address, probe: admission == Admission::Probe });
            }
        }
    }
    Err(refusal)
}

/// Whether an instance is left that `tried` has not spent, its breaker aside.
#[must_use]
pub fn has_other<X: Attach>(service: &Service<X>, tried: &Tried) -> bool {
    service.usable.iter().any(|upstream| !is_spent(upstream, tried))
}

fn is_spent<X: Attach>(upstream: &Upstream<X>, tried: &Tried) -> bool {
    tried.times(&upstream.cells) >= upstream.addresses.len()
}

fn sooner(refusal: NoPick, until: Moment) -> NoPick {
    match refusal {
        NoPick::BreakerOpen { until: other } if other < until => refusal,
        _ => NoPick::BreakerOpen { until },
    }
}

/// The index of the better of two random instances. Those that shed or are spent lose against any other.
fn better_of_two<X: Attach>(service: &Service<X>, tried: &Tried, now: Moment, seed: u64) -> usize {
    let count = service.usable.len();
    let Ok(bound @ 2..) = u32::try_from(count) else { return 0 };
    let first = seed::below(seed::mix(seed), bound) as usize;
    let other = seed::below(seed::mix(seed ^ 0x5851_F42D_4C95_7F2D), bound - 1) as usize;
    let second = if other >= first { other + 1 } else { other };
    let (a, b) = (&service.usable[first], &service.usable[second]);
    let rank = |upstream| rank(upstream, &service.policy.breaker, tried, now);
    match (rank(a), rank(b)) {
        (x, y) if x != y => {
            if x > y {
                first
            } else {
                second
            }
        }
        _ => {
            if is_cheaper(b, a, now) {
                second
            } else {
                first
            }
        }
    }
}

/// 2: waits for a probe; 1: flows; 0: sheds (also while a probe is under way) or is spent.
fn rank<X: Attach>(upstream: &Upstream<X>, policy: &BreakerPolicy, tried: &Tried, now: Moment) -> u8 {
    if is_spent(upstream, tried) {
        return 0;
    }
    match upstream.cells.breaker.load().admit(policy, now).0 {
        Admission::Probe => 2,
        Admission::Flow => 1,
        Admission::Shed { .. } => 0,
    }
}

fn is_cheaper<X: Attach>(a: &Upstream<X>, b: &Upstream<X>, now: Moment) -> bool {
    let (known_a, known_b) = (a.cells.load.ewma().expected(now), b.cells.load.ewma().expected(now));
    let stand_in = known_a.or(known_b).unwrap_or(1.0);
    let cost = |upstream: &Upstream<X>, known: Option<f32>| {
        load::cost(upstream.cells.load.in_flight(), known.unwrap_or(stand_in), upstream.facts.weight)
    };
    cost(a, known_a) < cost(b, known_b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Endpoint;
    use crate::name::{InstanceId, ServiceName};
    use crate::outcome::Verdict;
    use crate::policy::{Balance, Policy};
    use crate::status::Status;
    use crate::table::{Bare, Facts, Origin, Wheel};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::net::SocketAddr;
    use std::time::Duration;

    fn upstream(id: &str, weight: u16, addresses: usize) -> Arc<Upstream<Bare>> {
        let facts = Facts {
            service: ServiceName::parse("svc").unwrap(),
            id: InstanceId::parse(id).unwrap(),
            origin: Origin::Registered,
            endpoint: Endpoint::parse("http://10.0.0.1").unwrap(),
            health_endpoint: "/health".into(),
            metadata: BTreeMap::new(),
            weight,
            zone: None,
            version: None,
            tags: Vec::new(),
            status: Status::Healthy,
            ttl: Duration::from_secs(60),
            resolved: Vec::new(),
            registered_wall_ms: 0,
            version_no: 0,
        };
        let addresses = (0..addresses).map(|n| SocketAddr::from(([10, 0, 0, n as u8], 80))).collect();
        Arc::new(Upstream {
            facts: Arc::new(facts),
            addresses,
            cells: Arc::default(),
            is_draining: false,
            is_leaving: false,
            x: (),
        })
    }

    fn service(algorithm: Algorithm, usable: Vec<Arc<Upstream<Bare>>>) -> Service<Bare> {
        let wheel = Wheel::new(usable.iter().map(|u| u.facts.weight), Arc::default());
        Service {
            name: ServiceName::parse("svc").unwrap(),
            policy: Arc::new(Policy { balance: Balance { algorithm }, ..Policy::default() }),
            instances: usable.clone().into(),
            usable: usable.into(),
            wheel,
            cells: Arc::default(),
            is_fallback: false,
            changed_at: 0,
            x: (),
        }
    }

    fn open(upstream: &Upstream<Bare>, now: Moment) {
        for _ in 0..3 {
            upstream.cells.breaker.record(Verdict::Failure, &Policy::default().breaker, now, 0);
        }
    }

    fn id<X: Attach>(pick: &Pick<'_, X>) -> String {
        pick.upstream.facts.id.to_string()
    }

    #[test]
    fn nobody_to_pick() {
        let none = service(Algorithm::P2c, vec![]);
        assert_eq!(pick(&none, &Tried::default(), Moment::ZERO, 1).unwrap_err(), NoPick::NoInstance);
        let one = service(Algorithm::P2c, vec![upstream("a", 100, 1)]);
        let mut tried = Tried::default();
        tried.note(&one.usable[0].cells, 0);
        assert_eq!(pick(&one, &tried, Moment::ZERO, 1).unwrap_err(), NoPick::Exhausted);
        open(&one.usable[0], Moment::ZERO);
        let refusal = pick(&one, &Tried::default(), Moment::ZERO, 1).unwrap_err();
        assert!(matches!(refusal, NoPick::BreakerOpen { until } if until >= Moment::from_millis(30_000)));
    }

    #[test]
    fn an_open_instance_is_passed_over_and_a_half_open_one_gets_one_probe() {
        let pair = service(Algorithm::P2c, vec![upstream("a", 100, 1), upstream("b", 100, 1)]);
        open(&pair.usable[0], Moment::ZERO);
        for seed in 0..100 {
            assert_eq!(id(&pick(&pair, &Tried::default(), Moment::ZERO, seed).unwrap()), "b");
        }
        let later = Moment::from_millis(40_000);
        let probes = (0..100).filter(|&seed| pick(&pair, &Tried::default(), later, seed).unwrap().probe).count();
        assert_eq!(probes, 1);
    }

    #[test]
    fn an_instance_with_a_probe_under_way_does_not_decide_who_else_is_picked() {
        let three = service(Algorithm::P2c, ["a", "b", "c"].map(|id| upstream(id, 100, 1)).to_vec());
        open(&three.usable[0], Moment::ZERO);
        let later = Moment::from_millis(40_000);
        let probe = three.usable[0].cells.breaker.admit(&three.policy.breaker, later);
        assert_eq!(probe, Admission::Probe);
        let picked = |seed| id(&pick(&three, &Tried::default(), later, seed).unwrap());
        let share = (0..1000).filter(|&seed| picked(seed) == "b").count();
        assert!((400..600).contains(&share), "b got {share} of 1000, c the rest");
    }

    #[test]
    fn every_address_of_an_instance_is_tried_in_turn() {
        let one = service(Algorithm::P2c, vec![upstream("a", 100, 3)]);
        let mut tried = Tried::default();
        let mut order = Vec::new();
        while let Ok(pick) = pick(&one, &tried, Moment::ZERO, 7) {
            order.push(pick.address);
            tried.note(&pick.upstream.cells, pick.address);
        }
        assert_eq!(order, [0, 1, 2]);
        one.usable[0].cells.address.failed(0, 3);
        assert_eq!(pick(&one, &Tried::default(), Moment::ZERO, 7).unwrap().address, 1);
    }

    #[test]
    fn an_address_that_failed_is_not_tried_again_while_another_is_left() {
        for count in 2..=4 {
            let one = service(Algorithm::P2c, vec![upstream("a", 100, count)]);
            let mut tried = Tried::default();
            let mut order = Vec::new();
            while let Ok(pick) = pick(&one, &tried, Moment::ZERO, 7) {
                order.push(pick.address);
                tried.note(&pick.upstream.cells, pick.address);
                // What an attempt does when no connection can be made, before the next pick.
                pick.upstream.cells.address.failed(pick.address, count);
            }
            assert_eq!(order, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_less_loaded_and_the_faster_win() {
        let pair = service(Algorithm::P2c, vec![upstream("a", 100, 1), upstream("b", 100, 1)]);
        let busy: Vec<_> = (0..3).map(|_| crate::cell::InFlight::start(pair.usable[0].cells.clone())).collect();
        assert_eq!(id(&pick(&pair, &Tried::default(), Moment::ZERO, 1).unwrap()), "b");
        drop(busy);
        pair.usable[0].cells.load.observe(100.0, Moment::ZERO);
        pair.usable[1].cells.load.observe(900.0, Moment::ZERO);
        assert_eq!(id(&pick(&pair, &Tried::default(), Moment::ZERO, 1).unwrap()), "a");
        // A slow instance is not forgotten: what is known of it holds for five seconds.
        let picked_b = |at_ms| {
            let now = Moment::from_millis(at_ms);
            pair.usable[0].cells.load.observe(100.0, now);
            (0..100).filter(|&seed| id(&pick(&pair, &Tried::default(), now, seed).unwrap()) == "b").count()
        };
        assert_eq!(picked_b(5_000), 0);
        assert!((30..70).contains(&picked_b(5_001)));
    }

    #[test]
    fn a_new_instance_is_not_flooded_before_its_first_answer() {
        let pair = service(Algorithm::P2c, vec![upstream("old", 100, 1), upstream("new", 100, 1)]);
        pair.usable[0].cells.load.observe(500.0, Moment::ZERO);
        let mut flights = Vec::new();
        for seed in 0..100 {
            let pick = pick(&pair, &Tried::default(), Moment::ZERO, seed).unwrap();
            flights.push(crate::cell::InFlight::start(pick.upstream.cells.clone()));
        }
        assert_eq!(pair.usable[1].cells.load.in_flight(), 50);
    }

    #[test]
    fn p2c_reaches_everybody() {
        let many = service(Algorithm::P2c, (0..10).map(|n| upstream(&n.to_string(), 100, 1)).collect());
        let mut hits = BTreeMap::new();
        for seed in 0..10_000 {
            *hits.entry(id(&pick(&many, &Tried::default(), Moment::ZERO, seed).unwrap())).or_insert(0) += 1;
        }
        assert_eq!(hits.len(), 10);
        assert!(hits.values().all(|&n| (800..1200).contains(&n)), "{hits:?}");
    }

    proptest! {
        #[test]
        fn turns_follow_the_weights_exactly(weights in proptest::collection::vec(1u16..50, 1..8)) {
            let usable = weights.iter().enumerate().map(|(n, &w)| upstream(&n.to_string(), w, 1)).collect();
            let wheel = service(Algorithm::RoundRobin, usable);
            let total: usize = weights.iter().map(|&w| usize::from(w)).sum();
            let mut hits = vec![0; weights.len()];
            for _ in 0..total * 3 {
                let index: usize = id(&pick(&wheel, &Tried::default(), Moment::ZERO, 0).unwrap()).parse().unwrap();
                hits[index] += 1;
            }
            let expected: Vec<usize> = weights.iter().map(|&w| usize::from(w) * 3).collect();
            prop_assert_eq!(hits, expected);
        }

        #[test]
        fn whoever_is_picked_was_not_spent_and_somebody_is_while_any_is_left(
            open_mask in 0u8..64, tried_mask in 0u8..64, seed: u64, round_robin: bool,
        ) {
            let algorithm = if round_robin { Algorithm::RoundRobin } else { Algorithm::P2c };
            let service = service(algorithm, (0..6).map(|n| upstream(&n.to_string(), 10, 1)).collect());
            let mut tried = Tried::default();
            for (n, upstream) in service.usable.iter().enumerate() {
                if open_mask >> n & 1 == 1 { open(upstream, Moment::ZERO); }
                if tried_mask >> n & 1 == 1 { tried.note(&upstream.cells, 0); }
            }
            let left = !(open_mask | tried_mask) & 63;
            match pick(&service, &tried, Moment::ZERO, seed) {
                Ok(pick) => {
                    let n: u8 = id(&pick).parse().unwrap();
                    prop_assert_eq!(left >> n & 1, 1);
                }
                Err(_) => prop_assert_eq!(left, 0),
            }
        }
    }
}
