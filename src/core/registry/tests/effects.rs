//! What the shell is told to do, in which order; names and their answers.

use super::*;

#[test]
fn a_registration_is_persisted_then_told() {
    let mut rig = Rig::new();
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    assert_eq!(rig.told(), ["persist a", "registered a"]);
    rig.register(with_id("a", "http://10.0.0.2")).unwrap();
    assert_eq!(rig.told(), ["persist a", "replaced a"], "the record of the same id is overwritten, not forgotten");
    rig.register(with_id("b", "http://10.0.0.2")).unwrap();
    assert_eq!(rig.told(), ["forget a", "persist b", "replaced b"]);
    assert_eq!(rig.told(), Vec::<String>::new(), "draining empties the list");
}

#[test]
fn what_is_persisted_is_what_was_registered() {
    let mut rig = Rig::new();
    let full = Registration {
        metadata: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        ttl: Some(Duration::from_secs(7)),
        weight: 3,
        zone: Some("z".into()),
        version: Some("1.2".into()),
        tags: vec!["t".to_owned()],
        status: Status::Starting,
        health_endpoint: "/h".into(),
        ..with_id("a", "https://h.example/p")
    };
    rig.register(full).unwrap();
    let drained = rig.registry.drain();
    let [Effect::WantName(_), Effect::Persist(Stored { facts, .. }), _] = &drained[..] else { panic!("{drained:?}") };
    let expected = Facts {
        service: name("svc"),
        id: id("a"),
        origin: Origin::Registered,
        endpoint: endpoint("https://h.example:443/p"),
        health_endpoint: "/h".into(),
        metadata: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        weight: 3,
        zone: Some("z".into()),
        version: Some("1.2".into()),
        tags: vec!["t".to_owned()],
        status: Status::Starting,
        ttl: Duration::from_secs(7),
        resolved: Vec::new(),
        registered_wall_ms: at(0).wall_ms,
        version_no: 1,
    };
    assert_eq!(**facts, expected);
}

#[test]
fn leaving_is_forgotten_then_told() {
    let mut rig = Rig::new();
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    rig.register(with_id("b", "http://10.0.0.2")).unwrap();
    let _ = rig.told();
    rig.deregister(farewell(Some("a"), "10.9.0.1")).unwrap();
    assert_eq!(rig.told(), ["forget a", "deregistered a"]);
    rig.pass_to(60_000);
    assert_eq!(rig.told(), ["forget b", "lapsed b"]);
}

#[test]
fn generations_step_with_every_visible_change_and_only_then() {
    let mut rig = Rig::new();
    let mut last = 0;
    let mut stepped = |rig: &Rig| {
        let stepped = rig.registry.generation() > last;
        assert!(rig.registry.generation() >= last);
        assert_eq!(rig.snapshot.generation(), rig.registry.generation());
        last = rig.registry.generation();
        stepped
    };
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    assert!(stepped(&rig));
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    assert!(stepped(&rig), "registered_at changed");
    rig.renew(heartbeat(Some("a"), "10.9.0.1")).unwrap();
    assert!(!stepped(&rig));
    rig.deregister(farewell(Some("nobody"), "10.9.0.1")).unwrap();
    assert!(!stepped(&rig));
    rig.fallbacks(&[]);
    assert!(!stepped(&rig));
    rig.fallbacks(&[("spare", "http://10.0.0.9")]);
    assert!(stepped(&rig));
    rig.fallbacks(&[("spare", "http://10.0.0.9")]);
    assert!(!stepped(&rig), "the same fallbacks again");
    rig.apply(Command::SetPolicies(Policies::default())).unwrap();
    assert!(!stepped(&rig), "the same policies again");
    rig.pass_to(60_000);
    assert!(stepped(&rig));
}

#[test]
fn a_name_is_wanted_by_its_first_user_and_dropped_by_its_last() {
    let mut rig = Rig::new();
    rig.register(with_id("a", "http://db:80")).unwrap();
    assert_eq!(rig.told(), ["want db", "persist a", "registered a"]);
    rig.register(with_id("b", "http://db:81")).unwrap();
    assert_eq!(rig.told(), ["persist b", "registered b"]);
    rig.deregister(farewell(Some("a"), "10.9.0.1")).unwrap();
    assert_eq!(rig.told(), ["forget a", "deregistered a"]);
    rig.register(with_id("b", "http://cache:81")).unwrap();
    assert_eq!(rig.told(), ["want cache", "drop db", "persist b", "replaced b"]);
    rig.pass_to(60_000);
    assert_eq!(rig.told(), ["drop cache", "forget b", "lapsed b"]);
}

#[test]
fn an_unresolved_instance_is_listed_and_takes_traffic_once_its_name_resolves() {
    let mut rig = Rig::new();
    let reply = rig.register(with_id("a", "http://db:80")).unwrap();
    assert_eq!(reply, Reply::Registered { id: id("a"), ttl: TTL, resolved: false });
    assert_eq!((rig.listed().len(), rig.usable().len()), (1, 0));
    rig.resolve("db", &["10.0.0.1", "10.0.0.2"]);
    assert_eq!(rig.usable(), ["a"]);
    assert_eq!(rig.addresses("a"), ["10.0.0.1:80", "10.0.0.2:80"]);
}

#[test]
fn a_registration_that_brings_its_answer_is_routable_at_once() {
    let mut rig = Rig::new();
    let resolved = Some(vec![address("10.0.0.1")]);
    let reply = rig.register(Registration { resolved, ..with_id("a", "http://db:80") }).unwrap();
    assert!(matches!(reply, Reply::Registered { resolved: true, .. }));
    assert_eq!(rig.addresses("a"), ["10.0.0.1:80"]);
    let reply = rig.register(with_id("b", "http://db:81")).unwrap();
    assert!(matches!(reply, Reply::Registered { resolved: true, .. }), "the answer is known by now");
}

#[test]
fn the_last_good_answer_is_kept() {
    let mut rig = Rig::new();
    rig.register(with_id("a", "http://db:80")).unwrap();
    rig.resolve("db", &["10.0.0.1"]);
    rig.resolve("db", &[]);
    assert_eq!(rig.addresses("a"), ["10.0.0.1:80"]);
    let reply = rig.register(with_id("a", "http://db:81")).unwrap();
    assert!(matches!(reply, Reply::Registered { resolved: true, .. }), "kept over a re-registration of its only user");
    assert_eq!(rig.addresses("a"), ["10.0.0.1:81"]);
    assert!(!rig.told().contains(&"drop db".to_owned()));
}

#[test]
fn an_answer_changes_every_instance_of_the_name_and_no_other() {
    let mut rig = Rig::new();
    rig.register(with_id("a", "http://db:80")).unwrap();
    rig.register(with_id("b", "http://db:81")).unwrap();
    rig.register(with_id("c", "http://cache:80")).unwrap();
    let other = Registration { service: name("other"), ..with_id("d", "http://db:82") };
    rig.register(other).unwrap();
    rig.resolve("db", &["10.0.0.1"]);
    assert_eq!((rig.addresses("a"), rig.addresses("b")), (vec!["10.0.0.1:80".to_owned()], vec!["10.0.0.1:81".to_owned()]));
    assert!(rig.addresses("c").is_empty());
    assert_eq!(rig.service("other").unwrap().usable.len(), 1);
}

#[test]
fn the_same_addresses_in_another_order_are_no_news() {
    let mut rig = Rig::new();
    rig.register(with_id("a", "http://db:80")).unwrap();
    rig.resolve("db", &["10.0.0.1", "10.0.0.2"]);
    let generation = rig.registry.generation();
    open_breaker(&rig.upstream("a").cells);
    rig.resolve("db", &["10.0.0.2", "10.0.0.1"]);
    rig.resolve("db", &["10.0.0.2", "10.0.0.1", "10.0.0.1"]);
    assert_eq!(rig.registry.generation(), generation);
    assert_eq!(phase(&rig, "a"), crate::breaker::Phase::Open, "rotated answers must not keep probing a dead instance");
    rig.resolve("db", &["10.0.0.2"]);
    assert_eq!(rig.addresses("a"), ["10.0.0.2:80"]);
    assert_eq!(phase(&rig, "a"), crate::breaker::Phase::HalfOpen, "a new answer is worth trying at once");
}

#[test]
fn answers_for_unused_names_are_not_kept() {
    let mut rig = Rig::new();
    rig.resolve("db", &["10.0.0.1"]);
    let reply = rig.register(with_id("a", "http://db:80")).unwrap();
    assert!(matches!(reply, Reply::Registered { resolved: false, .. }));
    rig.resolve("db", &["10.0.0.1"]);
    rig.deregister(farewell(Some("a"), "10.9.0.1")).unwrap();
    let reply = rig.register(with_id("a", "http://db:80")).unwrap();
    assert!(matches!(reply, Reply::Registered { resolved: false, .. }));
}

#[test]
fn refused_addresses_of_a_name_are_left_out() {
    let mut rig = Rig::new();
    let own = vec!["127.0.0.1:8000".parse().unwrap()];
    rig.apply(Command::SetGuard(Guard { own, allow: Vec::new() })).unwrap();
    rig.register(with_id("a", "http://sly:8000")).unwrap();
    rig.resolve("sly", &["169.254.169.254", "127.0.0.1"]);
    assert!(rig.usable().is_empty(), "metadata address and own listener");
    rig.resolve("sly", &["169.254.169.254", "127.0.0.1", "10.0.0.1"]);
    assert_eq!(rig.addresses("a"), ["10.0.0.1:8000"]);
    rig.register(with_id("b", "http://sly:8001")).unwrap();
    assert_eq!(rig.addresses("b"), ["127.0.0.1:8001", "10.0.0.1:8001"], "the port alone never matches, nor the address");
}

#[test]
fn a_new_guard_judges_what_is_already_registered() {
    let mut rig = Rig::new();
    rig.register(with_id("a", "http://10.0.0.1:80")).unwrap();
    rig.register(with_id("b", "http://db:80")).unwrap();
    rig.resolve("db", &["10.0.0.2", "192.168.0.1"]);
    rig.fallbacks(&[("spare", "http://172.16.0.1:80")]);
    let allow = vec![crate::endpoint::Network { address: address("192.168.0.0"), prefix_len: 16 }];
    rig.apply(Command::SetGuard(Guard { own: Vec::new(), allow })).unwrap();
    assert_eq!(rig.usable(), ["b"]);
    assert_eq!(rig.addresses("b"), ["192.168.0.1:80"]);
    assert_eq!(rig.listed().len(), 2, "refused instances stay listed");
    assert_eq!(rig.service("spare").unwrap().usable.len(), 1, "the operator's fallbacks are not confined");
    rig.apply(Command::SetGuard(Guard::default())).unwrap();
    assert_eq!(rig.usable(), ["a", "b"]);
}

fn open_breaker(cells: &Cells) {
    for _ in 0..3 {
        cells.breaker.record(Verdict::Failure, &Policy::default().breaker, Moment::ZERO, 0);
    }
}

fn phase(rig: &Rig, instance: &str) -> crate::breaker::Phase {
    rig.upstream(instance).cells.breaker.load().phase(rig.now.mono)
}

#[test]
fn each_change_of_a_batch_has_a_generation_of_its_own() {
    let mut rig = Rig::new();
    rig.registry = Registry::new(ROOMY, TTL).starting_at(1000);
    let at_first = rig.registry.generation();
    for (service, endpoint) in [("abc", "http://10.0.0.1"), ("xyz", "http://10.0.0.2"), ("abc", "http://10.0.0.3")] {
        let registration = Registration { service: name(service), ..with_id("i", endpoint) };
        rig.registry.apply(Command::Register(Box::new(registration)), rig.now).unwrap();
    }
    rig.publish();
    let changed_at = |rig: &Rig, service: &str| rig.service(service).unwrap().changed_at;
    let (abc, xyz) = (changed_at(&rig, "abc"), changed_at(&rig, "xyz"));
    assert!(at_first < xyz && xyz < abc && abc == rig.snapshot.generation(), "{at_first} {xyz} {abc}");
    rig.deregister(Deregistration { service: name("xyz"), ..farewell(Some("i"), "10.9.0.1") }).unwrap();
    assert_eq!(changed_at(&rig, "abc"), abc, "a change elsewhere is none here");
}
