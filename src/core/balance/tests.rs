use super::lineup::Lineup;
use super::*;
use crate::breaker::Admission;
use crate::endpoint::Endpoint;
use crate::name::{InstanceId, ServiceName};
use crate::outcome::Verdict;
use crate::policy::{Algorithm, Balance, Policy};
use crate::seed;
use crate::status::Status;
use crate::table::{Bare, Facts, Origin};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

fn upstream(id: &str, weight: u16, addresses: usize) -> Arc<Upstream<Bare>> {
    in_zone(id, weight, addresses, None)
}

fn in_zone(id: &str, weight: u16, addresses: usize, zone: Option<&str>) -> Arc<Upstream<Bare>> {
    let facts = Facts {
        service: ServiceName::parse("svc").unwrap(),
        id: InstanceId::parse(id).unwrap(),
        origin: Origin::Registered,
        endpoint: Endpoint::parse("http://10.0.0.1").unwrap(),
        health_endpoint: "/health".into(),
        metadata: BTreeMap::new(),
        weight,
        zone: zone.map(Arc::from),
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
        token: ring::place(id.as_bytes()),
        x: (),
    })
}

fn service(algorithm: Algorithm, usable: Vec<Arc<Upstream<Bare>>>) -> Service<Bare> {
    balanced(Balance { algorithm, ..Balance::default() }, usable)
}

fn balanced(balance: Balance, instances: Vec<Arc<Upstream<Bare>>>) -> Service<Bare> {
    let (usable, lineup) = Lineup::arrange(&instances, &balance, None);
    Service {
        name: ServiceName::parse("svc").unwrap(),
        policy: Arc::new(Policy { balance, ..Policy::default() }),
        instances: instances.into(),
        usable,
        lineup,
        cells: Arc::default(),
        is_fallback: false,
        changed_at: 0,
        x: (),
    }
}

/// A pick of a request that prefers nobody.
fn pick<'a>(service: &'a Service<Bare>, tried: &Tried, now: Moment, seed: u64) -> Result<Pick<'a, Bare>, NoPick> {
    super::pick(service, tried, &Preference::default(), now, seed)
}

/// How often each instance is picked by `count` requests without a preference.
fn hits(service: &Service<Bare>, now: Moment, count: u64) -> BTreeMap<String, u64> {
    let mut hits = BTreeMap::new();
    for seed in 0..count {
        *hits.entry(id(&pick(service, &Tried::default(), now, seed).unwrap())).or_insert(0) += 1;
    }
    hits
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
    fn turns_follow_the_weights_exactly(weights in proptest::collection::vec(1u16..50, 1..8), unit in 1u16..20) {
        // What all weights have in common is nobody's business: 100, 100 and 50 take turns as 2, 2 and 1 do.
        let usable = weights.iter().enumerate().map(|(n, &w)| upstream(&n.to_string(), w * unit, 1)).collect();
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

    /// Whoever is picked may be; the verdicts hold while enough are left, and somebody is picked while anybody may be.
    #[test]
    fn the_picked_one_may_take_it_and_somebody_is_picked_while_anybody_may(
        open_mask in 0u8..64, tried_mask in 0u8..64, ejected_mask in 0u8..64, failed_mask in 0u8..64,
        algorithm in 0usize..4, seed: u64, key in proptest::option::of(any::<u64>()), named in 0usize..7,
        zone: bool, slow: bool, zones_mask in 0u8..64,
    ) {
        let balance = Balance {
            algorithm: Algorithm::ALL[algorithm],
            zone: zone.then(|| "here".into()),
            slow_start: if slow { Duration::from_secs(60) } else { Duration::ZERO },
            ..Balance::default()
        };
        let bit = |mask: u8, n: usize| mask >> n & 1 == 1;
        let zone_of = |n| if bit(zones_mask, n) { Some("here") } else { Some("there") };
        let all: Vec<_> = (0..6).map(|n| in_zone(&n.to_string(), 10, 1, zone_of(n))).collect();
        let (mut tried, now) = (Tried::default(), Moment::from_millis(100_000));
        for (n, upstream) in all.iter().enumerate() {
            if bit(open_mask, n) { open(upstream, now); }
            if bit(tried_mask, n) { tried.note(&upstream.cells, 0); }
            if bit(ejected_mask, n) { upstream.cells.standing.eject(now.plus(Duration::from_secs(1))); }
            if bit(failed_mask, n) { fail_probes(upstream, now); }
        }
        let preference = Preference { key, token: all.get(named).map_or(0, |upstream| upstream.token) };
        let service = balanced(balance, all);
        let may = !(open_mask | tried_mask) & 63;
        let out = (ejected_mask | failed_mask) & 63;
        let is_in_panic = out != 0 && ((!(open_mask | out) & 63).count_ones() * 100) < 50 * 6;
        prop_assert_eq!(super::is_in_panic(&service, now), is_in_panic);
        match super::pick(&service, &tried, &preference, now, seed) {
            Ok(pick) => {
                let n: u8 = id(&pick).parse().unwrap();
                prop_assert_eq!(may >> n & 1, 1);
                let better = may & !out;
                prop_assert!(is_in_panic || better == 0 || better >> n & 1 == 1, "{} was passed over for {}", better, n);
            }
            Err(refusal) => {
                prop_assert_eq!(may, 0);
                let expected_open = open_mask & !tried_mask != 0;
                prop_assert_eq!(matches!(refusal, NoPick::BreakerOpen { .. }), expected_open, "{:?}", refusal);
            }
        }
    }

    #[test]
    fn chance_follows_the_weights(weights in proptest::collection::vec(1u16..50, 1..6)) {
        let usable = weights.iter().enumerate().map(|(n, &w)| upstream(&n.to_string(), w, 1)).collect();
        let hits = hits(&service(Algorithm::Random, usable), Moment::ZERO, 10_000);
        let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
        for (n, &weight) in weights.iter().enumerate() {
            let (got, expected) = (hits.get(&n.to_string()).copied().unwrap_or(0) as f64, 10_000.0 * f64::from(weight) / total);
            // Six standard deviations of a binomial.
            prop_assert!((got - expected).abs() < 6.0 * expected.sqrt() + 1.0, "{n}: {got} for {expected}");
        }
    }

    #[test]
    fn a_key_moves_only_when_its_instance_goes_or_sheds(seed: u64, gone in 0usize..6, how in 0u8..4) {
        let all: Vec<_> = (0..6).map(|n| upstream(&n.to_string(), 100, 1)).collect();
        let before = service(Algorithm::ConsistentHash, all.clone());
        let owner = |service: &Service<Bare>, tried: &Tried, key: u64| {
            let preference = Preference { key: Some(seed::mix(key ^ seed)), token: 0 };
            id(&super::pick(service, tried, &preference, Moment::ZERO, key).unwrap())
        };
        let owners: Vec<String> = (0..300).map(|key| owner(&before, &Tried::default(), key)).collect();
        let (mut rest, mut tried) = (all.clone(), Tried::default());
        match how {
            0 => drop(rest.remove(gone)),
            1 => open(&all[gone], Moment::ZERO),
            2 => all[gone].cells.standing.eject(Moment::from_millis(1)),
            _ => tried.note(&all[gone].cells, 0),
        }
        let after = service(Algorithm::ConsistentHash, rest);
        for key in 0..300 {
            let (was, is) = (&owners[key as usize], owner(&after, &tried, key));
            if *was == gone.to_string() {
                prop_assert_ne!(is, gone.to_string());
            } else {
                prop_assert_eq!(&is, was);
            }
        }
    }
}

fn fail_probes(upstream: &Upstream<Bare>, now: Moment) {
    upstream.cells.standing.begin_probes(now);
    for _ in 0..3 {
        upstream.cells.standing.note_probe(false, &Policy::default().probes, now);
    }
}

#[test]
fn keys_reach_everybody_and_a_request_without_one_goes_anywhere() {
    let many = service(Algorithm::ConsistentHash, (0..10).map(|n| upstream(&n.to_string(), 100, 1)).collect());
    let mut owners = BTreeMap::new();
    for key in 0..10_000u64 {
        let preference = Preference { key: Some(seed::mix(key)), token: 0 };
        *owners.entry(id(&super::pick(&many, &Tried::default(), &preference, Moment::ZERO, 1).unwrap())).or_insert(0) += 1;
    }
    assert!(owners.len() == 10 && owners.values().all(|&n| (600..1500).contains(&n)), "{owners:?}");
    assert_eq!(hits(&many, Moment::ZERO, 1_000).len(), 10);
}

#[test]
fn a_client_stays_with_the_instance_its_cookie_names_while_that_is_usable() {
    for algorithm in Algorithm::ALL {
        let all: Vec<_> = (0..4).map(|n| upstream(&n.to_string(), 100, 1)).collect();
        let many = service(algorithm, all.clone());
        let named = |seed| {
            let preference = Preference { key: Some(seed), token: all[2].token };
            id(&super::pick(&many, &Tried::default(), &preference, Moment::ZERO, seed).unwrap())
        };
        assert!((0..100).all(|seed| named(seed) == "2"), "{algorithm:?}");
        all[2].cells.standing.eject(Moment::from_millis(1));
        assert!((0..100).all(|seed| named(seed) != "2"), "{algorithm:?}");
        let unknown = Preference { key: None, token: 12345 };
        assert!(super::pick(&many, &Tried::default(), &unknown, Moment::ZERO, 1).is_ok());
    }
}

fn zoned(near: usize, far: usize) -> Service<Bare> {
    let balance = Balance { zone: Some("here".into()), algorithm: Algorithm::Random, ..Balance::default() };
    let far = (0..far).map(|n| in_zone(&format!("far-{n}"), 100, 1, Some("there")));
    let near = (0..near).map(|n| in_zone(&format!("near-{n}"), 100, 1, Some("here")));
    balanced(balance, far.chain(near).collect())
}

fn near_hits(service: &Service<Bare>) -> u64 {
    let hits = hits(service, Moment::ZERO, 10_000);
    hits.iter().filter(|(id, _)| id.starts_with("near")).map(|(_, count)| count).sum()
}

#[test]
fn zones_are_compared_by_weights_whatever_those_have_in_common() {
    let balance = Balance { zone: Some("here".into()), algorithm: Algorithm::Random, ..Balance::default() };
    let near = [in_zone("near-0", 100, 1, Some("here"))];
    let far = [("far-0", 70), ("far-1", 30)].map(|(id, weight)| in_zone(id, weight, 1, Some("there")));
    assert_eq!(near_hits(&balanced(balance, near.into_iter().chain(far).collect())), 10_000);
}

#[test]
fn our_zone_takes_everything_while_it_has_its_share() {
    assert_eq!(near_hits(&zoned(3, 3)), 10_000);
    assert_eq!(near_hits(&zoned(4, 2)), 10_000);
    assert_eq!(near_hits(&zoned(3, 0)), 10_000);
    assert_eq!(near_hits(&zoned(0, 3)), 0);
    // A third of the capacity for half of the traffic: two thirds of that fit.
    assert!((6_300..7_000).contains(&near_hits(&zoned(1, 2))));
}

#[test]
fn what_our_zone_lacks_goes_to_the_others() {
    let three = zoned(3, 3);
    open(&three.usable[0], Moment::ZERO);
    let near = near_hits(&three);
    assert!((7_700..8_300).contains(&near), "two of five instances, and half of the traffic is ours: {near}");
    three.usable[1].cells.standing.eject(Moment::from_millis(1));
    open(&three.usable[2], Moment::ZERO);
    assert_eq!(near_hits(&three), 0);
}

#[test]
fn a_new_instance_gets_its_share_slowly_and_never_less_than_a_tenth() {
    for algorithm in Algorithm::ALL {
        let balance = Balance { algorithm, slow_start: Duration::from_secs(60), ..Balance::default() };
        let all: Vec<_> = (0..4).map(|n| upstream(&n.to_string(), 100, 1)).collect();
        let start = Moment::from_millis(1_000_000);
        all[0].cells.registered(start);
        let many = balanced(balance, all);
        let at = |seconds| {
            let now = start.plus(Duration::from_secs(seconds));
            let keyed = |seed| Preference { key: Some(seed::mix(seed)), token: 0 };
            let is_new = |seed| id(&super::pick(&many, &Tried::default(), &keyed(seed), now, seed).unwrap()) == "0";
            (0..20_000).filter(|&seed| is_new(seed)).count()
        };
        let (first, half, whole) = (at(0), at(30), at(60));
        // P2C compares it with one other each time, and it yields in nine of ten comparisons.
        assert!((150..900).contains(&first), "{algorithm:?}: {first} of 20000");
        assert!((1_600..4_000).contains(&half), "{algorithm:?}: {half} of 20000");
        assert!((3_500..6_500).contains(&whole), "{algorithm:?}: {whole} of 20000");
    }
}

#[test]
fn while_everybody_is_new_nobody_starts_slowly() {
    let balance = Balance { slow_start: Duration::from_secs(60), ..Balance::default() };
    let all: Vec<_> = (0..2).map(|n| upstream(&n.to_string(), 100, 1)).collect();
    all[0].cells.registered(Moment::from_millis(1_000));
    all[1].cells.registered(Moment::from_millis(30_000));
    let pair = balanced(balance, all);
    let hits = hits(&pair, Moment::from_millis(30_000), 1_000);
    assert!(hits.values().all(|&n| n > 400), "{hits:?}");
}

#[test]
fn who_returns_from_an_ejection_starts_slowly() {
    let balance = Balance { algorithm: Algorithm::Random, slow_start: Duration::from_secs(60), ..Balance::default() };
    let pair = balanced(balance, (0..2).map(|n| upstream(&n.to_string(), 100, 1)).collect());
    let (now, until) = (Moment::from_millis(100_000), Moment::from_millis(130_000));
    pair.usable[0].cells.standing.eject(until);
    assert_eq!(hits(&pair, now, 100)["1"], 100);
    let hits = hits(&pair, until, 10_000);
    assert!((500..1_800).contains(&hits["0"]), "{hits:?}");
}

#[test]
fn a_rebuilt_table_keeps_turn_and_ring() {
    let balance = Balance { algorithm: Algorithm::ConsistentHash, ..Balance::default() };
    let all: Vec<_> = (0..3).map(|n| upstream(&n.to_string(), 100, 1)).collect();
    let (_, first) = Lineup::arrange(&all, &balance, None);
    let (_, second) = Lineup::arrange(&all, &balance, Some(&first));
    let (_, third) = Lineup::arrange(&all[1..], &balance, Some(&second));
    let ring = |lineup: &Lineup| Arc::as_ptr(lineup.whole.ring.as_ref().unwrap());
    assert!(ring(&first) == ring(&second) && ring(&second) != ring(&third));
    assert!(Arc::ptr_eq(first.turn(), third.turn()));
}

#[test]
fn a_candidate_is_described_as_a_pick_sees_it() {
    let pair = service(Algorithm::P2c, vec![upstream("a", 100, 1), upstream("b", 0, 1)]);
    let (a, now) = (&pair.instances[0], Moment::from_millis(5));
    a.cells.standing.eject(Moment::from_millis(15));
    fail_probes(a, now);
    a.cells.load.observe(2_000.0, now);
    let seen = explain(&pair, a, now);
    assert_eq!((seen.ejected_for, seen.probe), (Some(Duration::from_millis(10)), Some(false)));
    assert!(seen.is_out() && seen.is_usable && seen.is_near.is_none());
    assert_eq!(seen.average, Some(Duration::from_millis(2)));
    assert!(!explain(&pair, &pair.instances[1], now).is_usable);
}
