//! What every [`Store`] must do, whatever it is made of.

use super::Store;
use crate::registrar::outbox::{Change, Key};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use vertice_core::endpoint::Endpoint;
use vertice_core::name::{InstanceId, ServiceName};
use vertice_core::record::{Gone, ReplicaId, Stored, Why};
use vertice_core::status::Status;
use vertice_core::table::{Facts, Origin};

/// An instance in some version.
pub(crate) fn facts(service: &str, id: &str, version_no: u64) -> Facts {
    Facts {
        service: ServiceName::parse(service).unwrap(),
        id: InstanceId::parse(id).unwrap(),
        origin: Origin::Registered,
        endpoint: Endpoint::parse("http://10.0.0.1:8080/prefix").unwrap(),
        health_endpoint: "/health".into(),
        metadata: BTreeMap::from([("k\"\n".into(), "v\\ é 😀".into())]),
        weight: 100,
        zone: Some("zone-a".into()),
        version: None,
        tags: vec!["tag".into()],
        status: Status::Healthy,
        ttl: Duration::from_secs(60),
        resolved: Vec::new(),
        registered_wall_ms: 1_700_000_000_000,
        version_no,
    }
}

pub(crate) fn put(facts: Facts) -> Change {
    Change::Put(Stored { facts: Arc::new(facts), cells: Arc::default() })
}

/// An instance is there, in this version.
pub(crate) fn there(id: &str, version_no: u64) -> Change {
    put(facts("service-a", id, version_no))
}

/// An instance was removed, in this version.
pub(crate) fn gone(id: &str, version_no: u64) -> Change {
    let Facts { service, id, .. } = facts("service-a", id, version_no);
    let (why, by, kept) = (Why::Removed, ReplicaId::of(77), Duration::from_secs(120));
    Change::Gone(Gone { service, id, version_no, why, by, kept, finishing: None })
}

/// Writes the changes; which instances were beaten by something newer.
pub(crate) fn write(store: &mut dyn Store, changes: impl IntoIterator<Item = Change>) -> Vec<String> {
    let changes: BTreeMap<Key, Change> = changes.into_iter().map(|change| (change.key(), change)).collect();
    store.write(&changes).unwrap().into_iter().map(|(_, id)| id.to_string()).collect()
}

/// Everything in the store, by id.
pub(crate) fn contents(store: &mut dyn Store) -> BTreeMap<String, u64> {
    by_id(store).into_iter().map(|(id, facts)| (id, facts.version_no)).collect()
}

fn by_id(store: &mut dyn Store) -> BTreeMap<String, Facts> {
    let all = store.load().unwrap();
    let count = all.len();
    let by_id: BTreeMap<_, _> = all.into_iter().map(|facts| (facts.id.to_string(), facts)).collect();
    assert_eq!(by_id.len(), count, "an instance was returned twice");
    by_id
}

fn expected<const N: usize>(contents: [(&str, u64); N]) -> BTreeMap<String, u64> {
    contents.map(|(id, version_no)| (id.to_owned(), version_no)).into()
}

/// Runs the whole suite, each part on its own empty store.
pub(crate) fn run(empty: impl Fn() -> Box<dyn Store>) {
    starts_empty(&mut *empty());
    keeps_what_is_written(&mut *empty());
    a_late_write_never_beats_a_newer_one(&mut *empty());
    what_is_gone_stays_gone(&mut *empty());
    can_be_repeated(&mut *empty());
    keeps_large_metadata(&mut *empty());
    keeps_many_instances(&mut *empty());
}

/// Runs the durable part: `reopen` opens one and the same store each time it is called.
pub(crate) fn run_durable(reopen: impl Fn() -> Box<dyn Store>) {
    let mut store = reopen();
    assert!(store.is_durable());
    write(&mut *store, [there("a", 1), there("b", 1)]);
    store.sync().unwrap();
    write(&mut *store, [there("a", 2), gone("b", 2), there("c", 1)]);
    drop(store);
    for _ in 0..3 {
        assert_eq!(contents(&mut *reopen()), expected([("a", 2), ("c", 1)]));
    }
    write(&mut *reopen(), [gone("a", 3), gone("c", 3)]);
    assert!(contents(&mut *reopen()).is_empty());
}

fn starts_empty(store: &mut dyn Store) {
    assert!(contents(store).is_empty());
    store.sync().unwrap();
    assert!(write(store, []).is_empty());
    assert!(contents(store).is_empty());
}

fn keeps_what_is_written(store: &mut dyn Store) {
    assert!(write(store, [there("a", 1), there("b", 1)]).is_empty());
    assert!(write(store, [there("a", 2), put(facts("service-b", "10.0.0.1:80", 7))]).is_empty());
    assert_eq!(contents(store), expected([("a", 2), ("b", 1), ("10.0.0.1:80", 7)]));
    assert_eq!(by_id(store)["a"], facts("service-a", "a", 2));
}

fn a_late_write_never_beats_a_newer_one(store: &mut dyn Store) {
    write(store, [there("a", 5), there("b", 5)]);
    assert_eq!(write(store, [there("a", 4), there("b", 6)]), ["a"]);
    assert_eq!(contents(store), expected([("a", 5), ("b", 6)]));
    assert_eq!(write(store, [gone("a", 4)]), ["a"], "not even one that says that it is gone");
    assert_eq!(contents(store), expected([("a", 5), ("b", 6)]));
}

fn what_is_gone_stays_gone(store: &mut dyn Store) {
    write(store, [there("a", 1), there("b", 1)]);
    assert!(write(store, [gone("a", 3), gone("never-there", 3)]).is_empty());
    assert_eq!(contents(store), expected([("b", 1)]));
    assert_eq!(write(store, [there("a", 2)]), ["a"]);
    assert_eq!(write(store, [there("a", 3)]), ["a"], "a grave beats what has its version");
    assert_eq!(contents(store), expected([("b", 1)]));
    assert!(write(store, [there("a", 4)]).is_empty(), "a later registration is a new life");
    assert!(write(store, [gone("unknown", 9)]).is_empty());
    assert_eq!(contents(store), expected([("a", 4), ("b", 1)]));
    assert_eq!(write(store, [there("unknown", 8)]), ["unknown"], "gone before it was heard of");
}

fn can_be_repeated(store: &mut dyn Store) {
    for _ in 0..3 {
        assert!(write(store, [there("a", 2), gone("b", 2)]).is_empty());
        assert_eq!(contents(store), expected([("a", 2)]));
    }
}

fn keeps_large_metadata(store: &mut dyn Store) {
    let metadata: BTreeMap<String, String> = (0..32).map(|n| (format!("{n:064}"), "\u{1F600}\"\\\n".repeat(64))).collect();
    write(store, [put(Facts { metadata: metadata.clone(), ..facts("service-a", "large", 1) }), there("small", 1)]);
    store.sync().unwrap();
    let kept = by_id(store);
    assert_eq!(kept.len(), 2);
    assert!(kept["large"].metadata == metadata, "large metadata changed");
}

fn keeps_many_instances(store: &mut dyn Store) {
    let all: Vec<Change> =
        (0..5_000).map(|n| put(facts(&format!("service-{}", n % 700), &format!("instance-{n}"), n + 1))).collect();
    for batch in all.chunks(1_000) {
        assert!(write(store, batch.to_vec()).is_empty());
    }
    store.sync().unwrap();
    let kept = contents(store);
    assert_eq!(kept.len(), 5_000);
    assert!((0..5_000).all(|n| kept[&format!("instance-{n}")] == n + 1));
}
