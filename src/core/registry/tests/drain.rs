//! Out of rotation: by the operator's word, and on the way out.

use super::*;

fn drain(instance: Option<&str>, seconds: Option<u64>) -> Command {
    Command::Drain(Draining { service: name("svc"), id: instance.map(id), span: seconds.map(Duration::from_secs) })
}

fn leave(instance: &str, seconds: u64) -> Deregistration {
    Deregistration { drain: Some(Duration::from_secs(seconds)), ..farewell(Some(instance), "10.9.0.1") }
}

fn two() -> Rig {
    let mut rig = Rig::new();
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    rig.register(with_id("b", "http://10.0.0.2")).unwrap();
    rig.told();
    rig
}

#[test]
fn a_drained_instance_stays_listed_gets_nothing_and_comes_back() {
    let mut rig = two();
    assert_eq!(rig.apply(drain(Some("a"), Some(10))), Ok(Reply::Draining(vec![id("a")])));
    assert_eq!((rig.usable(), rig.listed().len()), (vec!["b".to_owned()], 2));
    assert_eq!(rig.upstream("a").status(), Status::Draining);
    assert_eq!(rig.told(), ["drain a"], "an operator's drain is not stored");
    rig.pass_to(9_999);
    assert_eq!(rig.usable(), ["b"]);
    rig.pass_to(10_000);
    assert_eq!(rig.usable(), ["a", "b"]);
    assert_eq!(rig.told(), ["drained a"]);
}

#[test]
fn no_heartbeat_ends_a_drain_but_a_registration_does() {
    let mut rig = two();
    rig.apply(drain(Some("a"), Some(30))).unwrap();
    rig.renew(Renewal { status: Some(Status::Healthy), ..heartbeat(Some("a"), "10.9.0.1") }).unwrap();
    assert_eq!(rig.usable(), ["b"]);
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    assert_eq!(rig.usable(), ["a", "b"]);
    assert!(rig.registry.drains.is_empty());
}

#[test]
fn a_drain_can_be_prolonged_and_ended() {
    let mut rig = two();
    rig.apply(drain(None, Some(10))).unwrap();
    assert!(rig.usable().is_empty());
    rig.now = at(5_000);
    rig.apply(drain(Some("a"), Some(10))).unwrap();
    rig.pass_to(10_000);
    assert_eq!(rig.usable(), ["b"]);
    rig.apply(drain(None, None)).unwrap();
    assert_eq!(rig.usable(), ["a", "b"]);
    assert_eq!(rig.apply(drain(Some("c"), Some(1))), Err(Refused::NotRegistered));
}

#[test]
fn who_leaves_stands_for_the_service_only_while_nobody_else_does() {
    let mut rig = Rig::new();
    let best = |rig: &Rig| rig.service("svc").unwrap().best().unwrap().clone();
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    rig.register(with_id("b", "http://10.0.0.2")).unwrap();
    rig.renew(Renewal { status: Some(Status::Degraded), ..heartbeat(Some("a"), "10.9.0.1") }).unwrap();
    rig.deregister(leave("b", 10)).unwrap();
    assert!(best(&rig).facts.id.as_str() == "a" && !best(&rig).is_leaving);
    rig.deregister(farewell(Some("a"), "10.9.0.1")).unwrap();
    assert!(best(&rig).facts.id.as_str() == "b" && best(&rig).is_leaving);
}

#[test]
fn who_leaves_is_out_of_the_store_at_once_and_out_of_the_registry_later() {
    let mut rig = two();
    assert_eq!(rig.deregister(leave("a", 10)), Ok(Reply::Deregistered(1)));
    assert_eq!(rig.told(), ["a leaves", "forget a"]);
    rig.renew(Renewal { status: Some(Status::Degraded), ..heartbeat(Some("a"), "10.9.0.1") }).unwrap();
    assert_eq!(rig.told(), ["a is degraded"], "what leaves is not stored again");
    rig.apply(drain(None, None)).unwrap();
    assert_eq!(rig.usable(), ["b"], "ending a drain keeps nobody who is leaving");
    assert_eq!(rig.pass_to(10_000), 0, "leaving is no lapse");
    assert_eq!(rig.listed(), ["b@http://10.0.0.2"]);
    assert_eq!(rig.told(), ["deregistered a"]);
}

#[test]
fn a_second_farewell_without_a_drain_is_final_at_once() {
    let mut rig = two();
    rig.deregister(leave("a", 10)).unwrap();
    rig.deregister(farewell(Some("a"), "10.9.0.1")).unwrap();
    assert_eq!(rig.listed(), ["b@http://10.0.0.2"]);
    assert_eq!(rig.told(), ["a leaves", "forget a", "deregistered a"]);
    assert_eq!(rig.registry.next_deadline(), Some(Moment::from_millis(60_000)));
}
