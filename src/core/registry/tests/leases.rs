//! When leases end, and what a heartbeat changes besides.

use super::*;

#[test]
fn a_lease_ends_exactly_at_its_deadline() {
    let mut rig = Rig::new();
    rig.now = at(1_000);
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    assert_eq!(rig.registry.next_deadline(), Some(Moment::from_millis(61_000)));
    assert_eq!(rig.pass_to(60_999), 0);
    assert_eq!(rig.usable(), ["a"]);
    assert_eq!(rig.pass_to(61_000), 1);
    assert!(rig.service("svc").is_none());
    assert_eq!(rig.registry.next_deadline(), None);
    assert_eq!((rig.registry.service_count(), rig.registry.instance_count()), (0, 0));
    assert_eq!(rig.renew(heartbeat(Some("a"), "10.9.0.1")), Err(Refused::NotRegistered));
}

#[test]
fn a_heartbeat_starts_the_ttl_anew_and_never_adds_to_it() {
    let mut rig = Rig::new();
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    for _ in 0..5 {
        rig.now = at(30_000);
        rig.renew(heartbeat(Some("a"), "10.9.0.1")).unwrap();
    }
    assert_eq!(rig.registry.next_deadline(), Some(Moment::from_millis(90_000)));
    assert_eq!(rig.registry.leases.len(), 1);
    assert_eq!((rig.pass_to(89_999), rig.pass_to(90_000)), (0, 1));
}

#[test]
fn registering_again_starts_the_lease_anew_with_its_own_ttl() {
    let mut rig = Rig::new();
    let short = || Registration { ttl: Some(Duration::from_secs(5)), ..with_id("a", "http://10.0.0.1") };
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    rig.now = at(10_000);
    let reply = rig.register(short()).unwrap();
    assert!(matches!(reply, Reply::Registered { ttl, .. } if ttl == Duration::from_secs(5)));
    assert_eq!(rig.registry.next_deadline(), Some(Moment::from_millis(15_000)));
    rig.now = at(14_000);
    rig.renew(heartbeat(Some("a"), "10.9.0.1")).unwrap();
    assert_eq!(rig.registry.next_deadline(), Some(Moment::from_millis(19_000)), "renewals last the registered ttl");
    rig.register(with_id("a", "http://10.0.0.2")).unwrap();
    assert_eq!(rig.registry.next_deadline(), Some(Moment::from_millis(74_000)));
    assert_eq!(rig.registry.leases.len(), 1);
}

#[test]
fn each_instance_has_its_own_lease() {
    let mut rig = Rig::new();
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    rig.now = at(20_000);
    rig.register(with_id("b", "http://10.0.0.2")).unwrap();
    rig.register(with_id("c", "http://10.0.0.3")).unwrap();
    assert_eq!(rig.pass_to(60_000), 1);
    assert_eq!(rig.usable(), ["b", "c"]);
    assert_eq!(rig.pass_to(80_000), 2);
}

#[test]
fn the_times_of_a_lease_are_readable_from_the_table() {
    let mut rig = Rig::new();
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    let published = rig.upstream("a");
    rig.now = at(30_000);
    rig.renew(heartbeat(Some("a"), "10.9.0.1")).unwrap();
    assert_eq!(published.cells.lease.deadline(), Moment::from_millis(90_000));
    assert_eq!(published.cells.lease.renewed_wall_ms(), at(30_000).wall_ms);
    assert_eq!(published.facts.registered_wall_ms, at(0).wall_ms, "a heartbeat does not change when it registered");
}

#[test]
fn a_plain_heartbeat_publishes_nothing_and_writes_nothing() {
    let mut rig = Rig::new();
    let metadata = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
    rig.register(Registration { metadata: metadata.clone(), ..with_id("a", "http://10.0.0.1") }).unwrap();
    let _ = rig.told();
    let (generation, before) = (rig.registry.generation(), rig.upstream("a"));
    for (status, metadata) in [(None, None), (Some(Status::Healthy), Some(metadata))] {
        let renewal = Renewal { status, metadata, ..heartbeat(Some("a"), "10.9.0.1") };
        rig.registry.apply(Command::Renew(renewal), at(1)).unwrap();
        assert!(rig.registry.take_changed().is_empty());
    }
    assert_eq!((rig.told(), rig.registry.generation()), (vec![], generation));
    assert!(Arc::ptr_eq(&before, &rig.upstream("a")));
}

#[test]
fn a_reported_status_takes_traffic_away_and_gives_it_back() {
    let mut rig = Rig::new();
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    let _ = rig.told();
    for status in Status::ALL {
        rig.renew(Renewal { status: Some(status), ..heartbeat(Some("a"), "10.9.0.1") }).unwrap();
        assert_eq!(rig.listed(), ["a@http://10.0.0.1"], "{status}: listed whatever it says");
        assert_eq!(rig.usable().len(), usize::from(matches!(status, Status::Healthy | Status::Degraded)), "{status}");
    }
    assert_eq!(rig.told()[..2], ["persist a", "a is starting"]);
    rig.renew(heartbeat(Some("a"), "10.9.0.1")).unwrap();
    assert_eq!(rig.upstream("a").facts.status, Status::Draining, "a heartbeat without a status leaves it");
}

#[test]
fn metadata_in_a_heartbeat_replaces_and_a_status_alone_leaves_it() {
    let mut rig = Rig::new();
    let map = |key: &str| BTreeMap::from([(key.to_owned(), "1".to_owned())]);
    rig.register(Registration { metadata: map("old"), ..with_id("a", "http://10.0.0.1") }).unwrap();
    let (generation, version) = (rig.registry.generation(), rig.upstream("a").facts.version_no);
    rig.renew(Renewal { metadata: Some(map("new")), ..heartbeat(Some("a"), "10.9.0.1") }).unwrap();
    assert_eq!(rig.upstream("a").facts.metadata, map("new"));
    assert!(rig.upstream("a").facts.version_no > version);
    assert!(rig.registry.generation() > generation);
    rig.renew(Renewal { status: Some(Status::Degraded), ..heartbeat(Some("a"), "10.9.0.1") }).unwrap();
    assert_eq!(rig.upstream("a").facts.metadata, map("new"));
    rig.renew(Renewal { metadata: Some(BTreeMap::new()), ..heartbeat(Some("a"), "10.9.0.1") }).unwrap();
    assert!(rig.upstream("a").facts.metadata.is_empty());
}

#[test]
fn restored_leases_are_fresh_and_later_changes_beat_them() {
    let mut rig = Rig::new();
    rig.now = at(500);
    let reply = Registration { ttl: Some(Duration::from_secs(10)), ..registration("10.9.0.1", "http://10.0.0.1") };
    rig.register(reply).unwrap();
    let stored = Facts { version_no: 41, ..(*rig.upstream("10.9.0.1").facts).clone() };

    let mut next = Rig::new();
    next.now = at(7_000);
    next.apply(Command::Restore(Box::new(stored.clone()))).unwrap();
    assert_eq!(next.told(), ["restored 10.9.0.1"], "what comes from the store is not written back");
    assert_eq!(*next.upstream("10.9.0.1").facts, stored);
    assert_eq!(next.registry.next_deadline(), Some(Moment::from_millis(17_000)));
    assert_eq!(next.renew(heartbeat(None, "10.9.0.1")), Ok(Reply::Renewed(1)), "still the registrant's own");
    next.register(registration("10.9.0.1", "http://10.0.0.2")).unwrap();
    assert_eq!(next.upstream("10.9.0.1").facts.version_no, 42);
    next.apply(Command::Restore(Box::new(stored))).unwrap();
    assert_eq!(next.listed(), ["10.9.0.1@http://10.0.0.2"], "the store never beats what is registered");
}

#[test]
fn restoring_one_endpoint_under_two_ids_keeps_the_later_whatever_the_order() {
    let facts = |instance: &str, version_no| {
        let mut rig = Rig::new();
        rig.register(with_id(instance, "http://10.0.0.1")).unwrap();
        Facts { version_no, ..(*rig.upstream(instance).facts).clone() }
    };
    for order in [[("old", 3), ("new", 8)], [("new", 8), ("old", 3)]] {
        let mut rig = Rig::new();
        for (instance, version_no) in order {
            rig.apply(Command::Restore(Box::new(facts(instance, version_no)))).unwrap();
        }
        assert_eq!(rig.listed(), ["new@http://10.0.0.1"]);
        assert!(rig.told().contains(&"forget old".to_owned()));
    }
}

#[test]
fn restoring_beyond_a_limit_is_refused_and_says_so() {
    let mut rig = Rig::new();
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    let facts = (*rig.upstream("a").facts).clone();
    let mut none = Rig::with_limits(Limits { instances: 0, ..ROOMY });
    assert_eq!(none.apply(Command::Restore(Box::new(facts))), Err(Refused::Full("instances")));
    assert_eq!(none.told(), Vec::<String>::new());
}
