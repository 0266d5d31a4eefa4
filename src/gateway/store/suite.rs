//! What every [`Store`] must do, whatever it is made of.

use std::collections::BTreeMap;

use super::{Change, Store};

/// A change that writes `value` under `key`.
pub(crate) fn put(key: &str, value: &[u8]) -> Change {
    Change { key: key.into(), value: Some(value.to_vec()) }
}

/// A change that deletes `key`.
pub(crate) fn delete(key: &str) -> Change {
    Change { key: key.into(), value: None }
}

/// Everything in the store, by key.
pub(crate) fn contents(store: &mut dyn Store) -> BTreeMap<String, Vec<u8>> {
    let records = store.load().unwrap();
    let count = records.len();
    let by_key: BTreeMap<_, _> = records.into_iter().map(|(k, v)| (String::from_utf8(k).unwrap(), v)).collect();
    assert_eq!(by_key.len(), count, "a key was returned twice");
    by_key
}

/// Runs the whole suite, each part on its own empty store.
pub(crate) fn run(empty: impl Fn() -> Box<dyn Store>) {
    starts_empty(&mut *empty());
    keeps_the_last_value(&mut *empty());
    deletes(&mut *empty());
    keeps_any_bytes(&mut *empty());
    keeps_large_values(&mut *empty());
    keeps_many_records(&mut *empty());
}

/// Runs the durable part: `reopen` opens one and the same store each time it is called.
pub(crate) fn run_durable(reopen: impl Fn() -> Box<dyn Store>) {
    let mut store = reopen();
    assert!(store.is_durable());
    store.write(&[put("a", b"1"), put("b", b"2")]).unwrap();
    store.sync().unwrap();
    store.write(&[put("a", b"3"), delete("b"), put("c", b"")]).unwrap();
    let before = contents(&mut *store);
    drop(store);
    for _ in 0..3 {
        assert_eq!(contents(&mut *reopen()), before);
    }
    reopen().write(&[delete("a"), delete("c")]).unwrap();
    assert!(contents(&mut *reopen()).is_empty());
}

fn starts_empty(store: &mut dyn Store) {
    assert!(contents(store).is_empty());
    store.sync().unwrap();
    store.write(&[]).unwrap();
    assert!(contents(store).is_empty());
}

fn keeps_the_last_value(store: &mut dyn Store) {
    store.write(&[put("a", b"1"), put("b", b"1")]).unwrap();
    store.write(&[put("a", b"longer than before")]).unwrap();
    store.write(&[put("b", b"2"), put("b", b"3")]).unwrap();
    let expected = [("a", &b"longer than before"[..]), ("b", b"3")];
    assert_eq!(contents(store), expected.map(|(k, v)| (k.into(), v.into())).into());
}

fn deletes(store: &mut dyn Store) {
    store.write(&[put("a", b"1"), put("b", b"2"), put("c", b"3")]).unwrap();
    store.write(&[delete("a"), delete("never there")]).unwrap();
    store.write(&[put("b", b"4"), delete("b")]).unwrap();
    store.write(&[delete("c"), put("c", b"5")]).unwrap();
    assert_eq!(contents(store), [("c".into(), b"5".to_vec())].into());
}

fn keeps_any_bytes(store: &mut dyn Store) {
    let all: Vec<u8> = (0..=255).collect();
    let change = |key: &[u8], value: &[u8]| Change { key: key.to_vec(), value: Some(value.to_vec()) };
    store.write(&[change(&all, b""), change(b"", &all), change(b"\0", b"\0")]).unwrap();
    let mut records = store.load().unwrap();
    records.sort();
    assert_eq!(records, [(vec![], all.clone()), (vec![0], vec![0]), (all, vec![]),]);
}

fn keeps_large_values(store: &mut dyn Store) {
    let large: Vec<u8> = (0..3_000_000_u32).map(|i| (i / 7) as u8).collect();
    store.write(&[put("large", &large), put("small", b"s")]).unwrap();
    store.sync().unwrap();
    store.write(&[put("larger key ".repeat(500).as_str(), b"v")]).unwrap();
    let kept = contents(store);
    assert_eq!(kept.len(), 3);
    assert!(kept["large"] == large, "a large value changed");
}

fn keeps_many_records(store: &mut dyn Store) {
    let value = |i: u32| format!("{{\"n\":{i},\"pad\":\"{}\"}}", "x".repeat(200)).into_bytes();
    let records: Vec<_> = (0..100_000).map(|i| put(&format!("k{i}"), &value(i))).collect();
    for batch in records.chunks(1_000) {
        store.write(batch).unwrap();
    }
    store.sync().unwrap();
    let kept = contents(store);
    assert_eq!(kept.len(), 100_000);
    assert!((0..100_000).all(|i| kept[&format!("k{i}")] == value(i)));
}
