//! What is published: fallbacks, policies, and what is carried over from snapshot to snapshot.

use super::*;
use crate::breaker::{BreakerPolicy, Phase};

fn open_breaker(cells: &Cells) {
    for _ in 0..3 {
        cells.breaker.record(Verdict::Failure, &Policy::default().breaker, Moment::ZERO, 0);
    }
}

fn phase(upstream: &Upstream<Numbered>) -> Phase {
    upstream.cells.breaker.load().phase(Moment::ZERO)
}

fn retries(attempts: u32) -> Arc<Policy> {
    let mut policy = Policy::default();
    policy.retry.attempts = attempts;
    policy.into()
}

#[test]
fn unchanged_instances_are_carried_over_and_changed_ones_made_anew() {
    let mut rig = Rig::new();
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    rig.register(with_id("b", "http://10.0.0.2")).unwrap();
    let (a, b) = (rig.upstream("a"), rig.upstream("b"));
    rig.renew(Renewal { status: Some(Status::Draining), ..heartbeat(Some("b"), "10.9.0.1") }).unwrap();
    assert!(Arc::ptr_eq(&a, &rig.upstream("a")));
    assert!(!Arc::ptr_eq(&b, &rig.upstream("b")));
    assert!(Arc::ptr_eq(&b.cells, &rig.upstream("b").cells), "what is mutable outlives the change");
    assert_eq!(rig.service("svc").unwrap().x, 2, "what hung on the service is passed on at each build");
}

#[test]
fn the_wheel_goes_on_where_it_was() {
    let mut rig = Rig::new();
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    let turn = rig.service("svc").unwrap().lineup.turn().clone();
    rig.register(with_id("b", "http://10.0.0.2")).unwrap();
    assert!(Arc::ptr_eq(&turn, rig.service("svc").unwrap().lineup.turn()));
}

#[test]
fn registering_the_same_endpoint_again_keeps_the_cells_and_tries_an_open_breaker_at_once() {
    let mut rig = Rig::new();
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    let before = rig.upstream("a");
    open_breaker(&before.cells);
    before.cells.load.observe(500.0, Moment::ZERO);
    assert_eq!(phase(&before), Phase::Open);
    rig.register(with_id("b", "http://10.0.0.1")).unwrap();
    let after = rig.upstream("b");
    assert!(Arc::ptr_eq(&before.cells, &after.cells), "the endpoint is the same, whatever its id");
    assert_eq!(phase(&after), Phase::HalfOpen);
    assert!(after.cells.load.ewma().micros().is_some());
}

#[test]
fn registering_does_not_disturb_a_closed_breaker() {
    let mut rig = Rig::new();
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    assert_eq!(phase(&rig.upstream("a")), Phase::Closed);
}

#[test]
fn a_changed_endpoint_starts_with_fresh_cells() {
    let mut rig = Rig::new();
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    let before = rig.upstream("a");
    open_breaker(&before.cells);
    rig.register(with_id("a", "http://10.0.0.2")).unwrap();
    let after = rig.upstream("a");
    assert!(!Arc::ptr_eq(&before.cells, &after.cells));
    assert_eq!(phase(&after), Phase::Closed);
    assert_eq!(phase(&before), Phase::Open, "requests under way to the old endpoint keep its breaker");
}

#[test]
fn instances_of_weight_zero_are_listed_and_take_nothing() {
    let mut rig = Rig::new();
    rig.register(Registration { weight: 0, ..with_id("a", "http://10.0.0.1") }).unwrap();
    assert_eq!((rig.listed().len(), rig.usable().len()), (1, 0));
}

#[test]
fn the_best_instance_is_the_latest_healthy_one_else_the_latest() {
    let mut rig = Rig::new();
    let best = |rig: &Rig| rig.service("svc").unwrap().best().unwrap().facts.id.to_string();
    rig.register(with_id("b", "http://10.0.0.1")).unwrap();
    rig.register(with_id("a", "http://10.0.0.2")).unwrap();
    assert_eq!(best(&rig), "a", "same millisecond: the later registration");
    rig.now = at(5);
    rig.register(with_id("b", "http://10.0.0.1")).unwrap();
    assert_eq!(best(&rig), "b");
    rig.renew(Renewal { status: Some(Status::Unhealthy), ..heartbeat(Some("b"), "10.9.0.1") }).unwrap();
    assert_eq!(best(&rig), "a");
    rig.renew(Renewal { status: Some(Status::Starting), ..heartbeat(Some("a"), "10.9.0.1") }).unwrap();
    assert_eq!(best(&rig), "b", "none is healthy");
}

#[test]
fn a_fallback_is_used_only_while_nothing_is_registered() {
    let mut rig = Rig::new();
    rig.fallbacks(&[("svc", "http://10.0.0.9")]);
    assert_eq!(rig.listed(), ["fallback@http://10.0.0.9"]);
    assert!(rig.service("svc").unwrap().is_fallback);
    assert_eq!((rig.registry.instance_count(), rig.registry.service_count(), rig.registry.next_deadline()), (0, 0, None));
    rig.register(Registration { status: Status::Draining, ..with_id("a", "http://10.0.0.1") }).unwrap();
    assert_eq!(rig.listed(), ["a@http://10.0.0.1"], "a registered instance counts even while it takes no traffic");
    assert!(!rig.service("svc").unwrap().is_fallback);
    rig.pass_to(60_000);
    assert_eq!(rig.listed(), ["fallback@http://10.0.0.9"]);
    rig.pass_to(1_000_000_000);
    assert_eq!(rig.usable(), ["fallback"], "a fallback holds no lease");
    rig.fallbacks(&[]);
    assert!(rig.service("svc").is_none());
}

#[test]
fn fallbacks_are_neither_renewed_nor_removed_nor_persisted() {
    let mut rig = Rig::new();
    rig.fallbacks(&[("svc", "http://10.0.0.9")]);
    assert_eq!(rig.renew(heartbeat(Some("fallback"), "10.9.0.1")), Err(Refused::NotRegistered));
    assert_eq!(rig.deregister(farewell(Some("fallback"), "10.9.0.1")), Ok(Reply::Deregistered(0)));
    assert_eq!(rig.told(), Vec::<String>::new());
    assert_eq!(rig.registry.facts().count(), 0);
    assert_eq!(rig.usable(), ["fallback"]);
}

#[test]
fn a_fallbacks_cells_outlive_reloads_and_registrations() {
    let mut rig = Rig::new();
    rig.fallbacks(&[("svc", "http://10.0.0.9")]);
    let before = rig.upstream("fallback");
    rig.fallbacks(&[("svc", "http://10.0.0.9"), ("other", "http://10.0.0.8")]);
    assert!(Arc::ptr_eq(&before, &rig.upstream("fallback")), "nothing about it changed");
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    rig.deregister(farewell(Some("a"), "10.9.0.1")).unwrap();
    assert!(Arc::ptr_eq(&before.cells, &rig.upstream("fallback").cells));
    rig.fallbacks(&[("svc", "http://10.0.0.7")]);
    assert!(!Arc::ptr_eq(&before.cells, &rig.upstream("fallback").cells), "another endpoint");
}

#[test]
fn fallbacks_hold_their_names() {
    let mut rig = Rig::new();
    rig.fallbacks(&[("svc", "http://db:80")]);
    assert_eq!(rig.told(), ["want db"]);
    rig.resolve("db", &["10.0.0.1"]);
    assert_eq!(rig.usable(), ["fallback"]);
    rig.register(with_id("a", "http://db:80")).unwrap();
    assert_eq!(rig.told(), ["persist a", "registered a"]);
    rig.fallbacks(&[("svc", "http://db:81")]);
    assert_eq!(rig.told(), Vec::<String>::new());
    rig.fallbacks(&[]);
    assert_eq!(rig.told(), Vec::<String>::new(), "the registered instance still uses it");
    rig.deregister(farewell(Some("a"), "10.9.0.1")).unwrap();
    assert_eq!(rig.told(), ["drop db", "forget a", "deregistered a"]);
}

#[test]
fn new_policies_reach_every_service_and_what_hangs_on_instances_is_made_anew_once() {
    let mut rig = Rig::new();
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    rig.fallbacks(&[("spare", "http://10.0.0.9")]);
    let before = rig.upstream("a");
    let services = BTreeMap::from([(name("spare"), retries(5))]);
    let policies = Policies { default: retries(7), services };
    rig.apply(Command::SetPolicies(policies)).unwrap();
    assert_eq!(rig.service("svc").unwrap().policy, retries(7));
    assert_eq!(rig.service("spare").unwrap().policy, retries(5));
    let after = rig.upstream("a");
    assert_ne!(before.x, after.x, "it may depend on the policy");
    assert!(Arc::ptr_eq(&before.cells, &after.cells));
    rig.register(with_id("b", "http://10.0.0.2")).unwrap();
    assert!(Arc::ptr_eq(&after, &rig.upstream("a")), "but only once");
}

#[test]
fn a_hidden_fallback_comes_back_under_the_policy_of_the_day() {
    let mut rig = Rig::new();
    rig.fallbacks(&[("svc", "http://10.0.0.9")]);
    let before = rig.upstream("fallback");
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    rig.apply(Command::SetPolicies(Policies { default: retries(7), ..Policies::default() })).unwrap();
    rig.deregister(farewell(Some("a"), "10.9.0.1")).unwrap();
    let after = rig.upstream("fallback");
    assert_ne!(before.x, after.x);
    assert_eq!(rig.service("svc").unwrap().policy, retries(7));
}

#[test]
fn the_service_breaker_is_open_when_all_usable_instances_shed() {
    let mut rig = Rig::new();
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    rig.register(with_id("b", "http://10.0.0.2")).unwrap();
    open_breaker(&rig.upstream("a").cells);
    let service = rig.service("svc").unwrap();
    assert_eq!(service.phase(Moment::ZERO), Phase::Closed);
    open_breaker(&rig.upstream("b").cells);
    let service = rig.service("svc").unwrap();
    assert_eq!(service.phase(Moment::ZERO), Phase::Open);
    let later = Moment::ZERO.plus(BreakerPolicy::default().open * 2);
    assert_eq!(service.phase(later), Phase::HalfOpen);
}

#[test]
fn an_older_snapshot_stays_as_it_was() {
    let mut rig = Rig::new();
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    let older = std::mem::replace(&mut rig.snapshot, Snapshot::empty(7));
    rig.snapshot = older.with(older.generation(), Vec::new());
    rig.deregister(farewell(Some("a"), "10.9.0.1")).unwrap();
    rig.register(Registration { service: name("other"), ..with_id("b", "http://10.0.0.1") }).unwrap();
    assert_eq!((older.len(), older.iter().count()), (1, 1));
    assert!(older.get("svc").is_some() && older.get("other").is_none());
    assert_eq!((rig.snapshot.len(), rig.snapshot.iter().count()), (1, 1));
}

#[test]
fn whoever_comes_back_into_rotation_starts_anew() {
    let mut rig = Rig::new();
    let since = |rig: &Rig| rig.upstream("a").cells.standing.since();
    let report = |rig: &mut Rig, at_ms: u64, status: Status| {
        rig.now = at(at_ms);
        rig.renew(Renewal { status: Some(status), ..heartbeat(Some("a"), "10.9.0.1") }).unwrap();
    };
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    assert_eq!(since(&rig), rig.now.mono);
    rig.now = at(500);
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    let registered = since(&rig);
    assert_eq!(registered, Moment::from_millis(500));
    report(&mut rig, 1_000, Status::Degraded);
    assert_eq!(since(&rig), registered, "it had traffic all the time");
    report(&mut rig, 2_000, Status::Starting);
    report(&mut rig, 3_000, Status::Healthy);
    assert_eq!(since(&rig), Moment::from_millis(3_000));
    let drain = |seconds| Draining { service: name("svc"), id: None, span: Some(Duration::from_secs(seconds)) };
    rig.apply(Command::Drain(drain(5))).unwrap();
    rig.pass_to(8_000);
    assert_eq!(since(&rig), Moment::from_millis(8_000));
}

#[test]
fn what_is_counted_for_a_service_outlives_its_instances_and_policies() {
    let mut rig = Rig::new();
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    let before = rig.service("svc").unwrap().cells.clone();
    rig.register(with_id("b", "http://10.0.0.2")).unwrap();
    rig.deregister(farewell(Some("a"), "10.9.0.1")).unwrap();
    let policy = Policy { allow_half_close: true, ..Policy::default() };
    rig.apply(Command::SetPolicies(Policies { default: policy.into(), ..Policies::default() })).unwrap();
    assert!(rig.service("svc").unwrap().policy.allow_half_close);
    assert!(Arc::ptr_eq(&before, &rig.service("svc").unwrap().cells));
}
