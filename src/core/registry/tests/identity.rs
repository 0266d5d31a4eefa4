//! Who replaces whom, whom a heartbeat renews, and whom a deregistration removes.

use super::*;

#[test]
fn without_an_id_the_registrants_address_is_the_identity() {
    let mut rig = Rig::new();
    let reply = rig.register(registration("10.9.0.1", "http://10.0.0.1:80")).unwrap();
    assert_eq!(reply, Reply::Registered { id: id("10.9.0.1"), ttl: TTL, resolved: true });
    assert_eq!(rig.listed(), ["10.9.0.1@http://10.0.0.1"]);
    assert_eq!(rig.upstream("10.9.0.1").facts.origin, Origin::RegisteredByAddress);
}

#[test]
fn the_same_registrant_replaces_and_another_adds() {
    let mut rig = Rig::new();
    rig.register(registration("10.9.0.1", "http://10.0.0.1:80")).unwrap();
    rig.register(registration("10.9.0.1", "http://10.0.0.1:81")).unwrap();
    assert_eq!(rig.listed(), ["10.9.0.1@http://10.0.0.1:81"]);
    rig.register(registration("10.9.0.2", "http://10.0.0.2:80")).unwrap();
    assert_eq!(rig.listed(), ["10.9.0.1@http://10.0.0.1:81", "10.9.0.2@http://10.0.0.2"]);
    assert_eq!(rig.registry.instance_count(), 2);
}

#[test]
fn an_ipv4_registrant_is_the_same_through_a_dual_stack_listener() {
    let mut rig = Rig::new();
    rig.register(registration("10.9.0.1", "http://10.0.0.1:80")).unwrap();
    rig.register(registration("::ffff:10.9.0.1", "http://10.0.0.1:81")).unwrap();
    assert_eq!(rig.listed(), ["10.9.0.1@http://10.0.0.1:81"]);
}

#[test]
fn an_ipv6_registrant_has_an_identity_too() {
    let mut rig = Rig::new();
    rig.register(registration("fd00::1", "http://[fd00::1]:80")).unwrap();
    assert_eq!(rig.listed(), ["fd00::1@http://[fd00::1]"]);
    rig.renew(heartbeat(Some("fd00::1"), "fd00::1")).unwrap();
}

#[test]
fn ids_tell_instances_of_one_registrant_apart() {
    let mut rig = Rig::new();
    rig.register(with_id("a", "http://10.0.0.1:80")).unwrap();
    rig.register(with_id("b", "http://10.0.0.1:81")).unwrap();
    rig.register(registration("10.9.0.1", "http://10.0.0.1:82")).unwrap();
    assert_eq!(rig.listed(), ["10.9.0.1@http://10.0.0.1:82", "a@http://10.0.0.1", "b@http://10.0.0.1:81"]);
    rig.register(with_id("a", "http://10.0.0.1:83")).unwrap();
    assert_eq!(rig.listed(), ["10.9.0.1@http://10.0.0.1:82", "a@http://10.0.0.1:83", "b@http://10.0.0.1:81"]);
}

#[test]
fn the_same_endpoint_replaces_whatever_the_identity() {
    let mut rig = Rig::new();
    rig.register(with_id("a", "http://10.0.0.1:80")).unwrap();
    rig.register(with_id("b", "http://10.0.0.1")).unwrap();
    assert_eq!(rig.listed(), ["b@http://10.0.0.1"]);
    rig.register(registration("10.9.0.7", "http://10.0.0.1/")).unwrap();
    assert_eq!(rig.listed(), ["10.9.0.7@http://10.0.0.1"]);
}

#[test]
fn one_registration_can_replace_two() {
    let mut rig = Rig::new();
    rig.register(with_id("a", "http://10.0.0.1:80")).unwrap();
    rig.register(with_id("b", "http://10.0.0.2:80")).unwrap();
    rig.register(with_id("a", "http://10.0.0.2:80")).unwrap();
    assert_eq!(rig.listed(), ["a@http://10.0.0.2"]);
    assert_eq!(rig.registry.instance_count(), 1);
}

#[test]
fn scheme_port_and_prefix_make_another_endpoint_and_services_are_apart() {
    let mut rig = Rig::new();
    for (n, url) in ["http://h:80", "https://h:80", "http://h:81", "http://h:80/p"].iter().enumerate() {
        rig.register(with_id(&n.to_string(), url)).unwrap();
    }
    let other = Registration { service: name("other"), ..with_id("0", "http://h:80") };
    rig.register(other).unwrap();
    assert_eq!(rig.registry.instance_count(), 5);
    assert_eq!(rig.registry.service_count(), 2);
}

#[test]
fn a_heartbeat_with_an_id_renews_that_one_or_nobody() {
    let mut rig = Rig::new();
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    assert_eq!(rig.renew(heartbeat(Some("a"), "10.9.9.9")), Ok(Reply::Renewed(1)));
    assert_eq!(rig.renew(heartbeat(Some("b"), "10.9.0.1")), Err(Refused::NotRegistered));
    let elsewhere = Renewal { service: name("other"), ..heartbeat(Some("a"), "10.9.0.1") };
    assert_eq!(rig.renew(elsewhere), Err(Refused::NotRegistered));
}

/// Which instances a heartbeat at 30 s kept alive beyond 60 s.
fn renewed_by(rig: &mut Rig, renewal: Renewal) -> Vec<String> {
    rig.now = at(30_000);
    rig.renew(renewal).unwrap();
    rig.pass_to(60_000);
    rig.usable()
}

#[test]
fn a_heartbeat_without_an_id_renews_first_the_callers_own() {
    let mut rig = Rig::new();
    rig.register(registration("10.9.0.1", "http://10.0.0.1")).unwrap();
    rig.register(registration("10.9.0.2", "http://10.0.0.2")).unwrap();
    assert_eq!(renewed_by(&mut rig, heartbeat(None, "10.9.0.2")), ["10.9.0.2"]);
}

#[test]
fn else_the_only_instance_however_it_registered() {
    for first in [with_id("a", "http://10.0.0.1"), registration("10.9.0.1", "http://10.0.0.1")] {
        let mut rig = Rig::new();
        rig.register(first).unwrap();
        assert_eq!(renewed_by(&mut rig, heartbeat(None, "10.9.9.9")).len(), 1);
    }
}

#[test]
fn else_all_that_came_without_an_id() {
    let mut rig = Rig::new();
    rig.register(registration("10.9.0.1", "http://10.0.0.1")).unwrap();
    rig.register(registration("10.9.0.2", "http://10.0.0.2")).unwrap();
    rig.register(with_id("named", "http://10.0.0.3")).unwrap();
    assert_eq!(renewed_by(&mut rig, heartbeat(None, "10.9.9.9")), ["10.9.0.1", "10.9.0.2"]);
}

#[test]
fn else_it_is_not_registered() {
    let mut rig = Rig::new();
    assert_eq!(rig.renew(heartbeat(None, "10.9.0.1")), Err(Refused::NotRegistered));
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    rig.register(with_id("b", "http://10.0.0.2")).unwrap();
    assert_eq!(rig.renew(heartbeat(None, "10.9.0.1")), Err(Refused::NotRegistered));
    assert_eq!(rig.pass_to(60_000), 2, "a refused heartbeat renews nobody");
}

#[test]
fn an_id_that_looks_like_an_address_is_nobodys_own_registration() {
    let mut rig = Rig::new();
    rig.register(with_id("10.9.0.1", "http://10.0.0.1")).unwrap();
    rig.register(with_id("b", "http://10.0.0.2")).unwrap();
    assert_eq!(rig.renew(heartbeat(None, "10.9.0.1")), Err(Refused::NotRegistered));
    assert_eq!(rig.deregister(farewell(None, "10.9.0.1")), Err(Refused::Ambiguous { instances: 2 }));
}

#[test]
fn a_deregistration_with_an_id_removes_that_one_and_is_idempotent() {
    let mut rig = Rig::new();
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    rig.register(with_id("b", "http://10.0.0.2")).unwrap();
    assert_eq!(rig.deregister(farewell(Some("a"), "10.9.9.9")), Ok(Reply::Deregistered(1)));
    assert_eq!(rig.deregister(farewell(Some("a"), "10.9.9.9")), Ok(Reply::Deregistered(0)));
    assert_eq!(rig.listed(), ["b@http://10.0.0.2"]);
}

#[test]
fn without_an_id_it_removes_the_callers_own_else_the_only_one_else_it_is_ambiguous() {
    let mut rig = Rig::new();
    rig.register(registration("10.9.0.1", "http://10.0.0.1")).unwrap();
    rig.register(registration("10.9.0.2", "http://10.0.0.2")).unwrap();
    rig.register(with_id("named", "http://10.0.0.3")).unwrap();
    assert_eq!(rig.deregister(farewell(None, "10.9.9.9")), Err(Refused::Ambiguous { instances: 3 }));
    assert_eq!(rig.usable().len(), 3);
    assert_eq!(rig.deregister(farewell(None, "10.9.0.2")), Ok(Reply::Deregistered(1)));
    assert_eq!(rig.usable(), ["10.9.0.1", "named"]);
    rig.deregister(farewell(Some("named"), "10.9.9.9")).unwrap();
    assert_eq!(rig.deregister(farewell(None, "10.9.9.9")), Ok(Reply::Deregistered(1)));
    assert!(rig.service("svc").is_none());
    assert_eq!(rig.deregister(farewell(None, "10.9.9.9")), Ok(Reply::Deregistered(0)));
}

#[test]
fn all_removes_all_of_that_service_only() {
    let mut rig = Rig::new();
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    rig.register(with_id("b", "http://10.0.0.2")).unwrap();
    rig.register(Registration { service: name("other"), ..with_id("a", "http://10.0.0.1") }).unwrap();
    let all = Deregistration { all: true, ..farewell(None, "10.9.9.9") };
    assert_eq!(rig.deregister(all), Ok(Reply::Deregistered(2)));
    assert!(rig.service("svc").is_none());
    assert!(rig.service("other").is_some());
}

#[test]
fn limits_are_never_exceeded_and_a_refusal_changes_nothing() {
    let mut rig = Rig::with_limits(Limits { services: 2, instances: 3, per_service: 2 });
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    rig.register(with_id("b", "http://10.0.0.2")).unwrap();
    let _ = rig.told();
    let generation = rig.registry.generation();
    let full = Err(Refused::Full("instances of one service"));
    assert_eq!(rig.register(with_id("c", "http://10.0.0.3")), full);
    assert_eq!((rig.told(), rig.registry.generation()), (vec![], generation));

    rig.register(with_id("c", "http://10.0.0.2")).expect("at the limit, replacing is still possible");
    let other = |service: &str, n: u8| Registration { service: name(service), ..with_id("x", &format!("http://10.0.1.{n}")) };
    rig.register(other("other", 1)).unwrap();
    assert_eq!(rig.register(other("third", 2)), Err(Refused::Full("services")));
    let second = Registration { id: Some(id("y")), ..other("other", 3) };
    assert_eq!(rig.register(second), Err(Refused::Full("instances")));
    rig.deregister(farewell(Some("a"), "10.9.9.9")).unwrap();
    rig.register(Registration { id: Some(id("y")), ..other("other", 3) }).expect("room was made");
    assert_eq!((rig.registry.service_count(), rig.registry.instance_count()), (2, 3));
}

#[test]
fn a_refused_address_changes_nothing() {
    let mut rig = Rig::new();
    let own = vec!["127.0.0.1:8000".parse().unwrap()];
    rig.apply(Command::SetGuard(Guard { own, allow: Vec::new() })).unwrap();
    rig.register(with_id("a", "http://127.0.0.1:8001")).unwrap();
    let _ = rig.told();
    for bad in ["http://127.0.0.1:8000", "http://169.254.169.254", "http://0.0.0.0:80", "http://[::ffff:7f00:1]:8000"] {
        let refused = rig.register(with_id("a", bad));
        assert!(matches!(refused, Err(Refused::Address(_))), "{bad}: {refused:?}");
    }
    assert_eq!(rig.told(), Vec::<String>::new());
    assert_eq!(rig.listed(), ["a@http://127.0.0.1:8001"]);
}
