//! What Redis does with what two replicas write, and with what is not ours.

use super::server::Server;
use crate::config::RedisSettings;
use crate::registrar::outbox::{Change, Key};
use crate::store::redis::connect::Dialler;
use crate::store::redis::failure::Failure;
use crate::store::redis::predecessor::Shown;
use crate::store::redis::pulse::Description;
use crate::store::redis::record::{self, Kept};
use crate::store::redis::shelf::{Answer, Shelf};
use crate::store::suite::{self, gone, there};
use crate::store::{Store, StoreError, SyncJob};
use std::collections::BTreeMap;
use std::time::Duration;
use vertice_core::name::ServiceName;
use vertice_core::record::{Gone, ReplicaId, Standing, Stored, Why};
use vertice_core::table::Facts;

/// Redis as a store like the others.
struct Shared(Shelf);

impl Store for Shared {
    fn write(&mut self, changes: &BTreeMap<Key, Change>) -> Result<Vec<Key>, StoreError> {
        let changes: Vec<(Key, Change)> = changes.iter().map(|(key, change)| (key.clone(), change.clone())).collect();
        let (mut rest, mut beaten) = (changes.as_slice(), Vec::new());
        while !rest.is_empty() {
            let answers = self.0.write_some(rest, 1)?;
            beaten.extend(
                answers.iter().zip(rest).filter(|(answer, _)| **answer != Answer::Done).map(|(_, (key, _))| key.clone()),
            );
            rest = &rest[answers.len()..];
        }
        Ok(beaten)
    }

    fn begin_sync(&mut self) -> Result<Option<SyncJob>, StoreError> {
        Ok(None)
    }

    fn load(&mut self) -> Result<Vec<Facts>, StoreError> {
        let names: Vec<ServiceName> = self.0.names("vx:names")?.into_iter().collect();
        let mut all = Vec::new();
        for names in names.chunks(50) {
            for (service, index) in names.iter().zip(self.0.indexes(names)?) {
                let ids: Vec<Key> = index.unwrap().standings.into_iter().map(|(id, _)| (service.clone(), id)).collect();
                for ids in ids.chunks(50) {
                    all.extend(self.0.fetch(ids)?.into_iter().flatten());
                }
            }
        }
        let facts = |kept| match kept {
            Kept::Record(record) => Some(Facts::clone(&record.facts)),
            Kept::Gone(_) => None,
        };
        Ok(all.into_iter().filter_map(facts).collect())
    }

    fn is_durable(&self) -> bool {
        true
    }

    fn kind(&self) -> &'static str {
        "redis"
    }
}

#[test]
fn behaves_as_a_store() {
    let server = Server::start();
    suite::run(|| {
        let _: () = server.run(&["FLUSHALL"]);
        Box::new(Shared(server.shelf(5)))
    });
}

#[test]
fn behaves_as_a_durable_store() {
    let server = Server::start();
    suite::run_durable(|| Box::new(Shared(server.shelf(5))));
}

fn one(shelf: &mut Shelf, change: Change) -> Answer {
    shelf.write_some(&[(change.key(), change)], 1).unwrap()[0]
}

fn lapsed(id: &str, version_no: u64, by: u64) -> Change {
    let Change::Gone(gone) = gone(id, version_no) else { unreachable!() };
    Change::Gone(Gone { why: Why::Lapsed, by: ReplicaId::of(by), ..gone })
}

fn key(id: &str) -> Key {
    there(id, 1).key()
}

/// Moves the end of a lease, as somebody who holds it would.
fn renew_until(server: &Server, id: &str, holder: u64, from_now_ms: i64) {
    let (seconds, _): (i64, i64) = server.run(&["TIME"]);
    let until = (seconds * 1000 + from_now_ms).to_string();
    let key = record::record_key(&key(id).0, &key(id).1);
    let _: i64 = server.run(&["HSET", &key, "until", &until, "holder", &record::hex(ReplicaId::of(holder))]);
}

#[test]
fn a_lapse_by_one_replica_never_kills_what_another_one_renewed() {
    let server = Server::start();
    let (mut a, mut b) = (server.shelf(5), server.shelf(6));
    assert_eq!(one(&mut a, there("x", 10)), Answer::Done);
    renew_until(&server, "x", 5, 60_000);
    assert_eq!(one(&mut b, lapsed("x", 10, 6)), Answer::Outdone, "alive");
    assert_eq!(one(&mut a, lapsed("x", 10, 5)), Answer::Done, "its holder decides");
    assert_eq!(one(&mut a, there("x", 10)), Answer::Outdone, "the same version does not come back");
    assert_eq!(one(&mut b, there("x", 11)), Answer::Done, "a newer one does");
    renew_until(&server, "x", 5, -1_000);
    assert_eq!(one(&mut b, lapsed("x", 11, 6)), Answer::Done, "its lease is over for everybody");
}

#[test]
fn after_the_clock_was_set_back_a_lease_ends_when_its_holder_says_and_the_dead_do_not_stay() {
    let server = Server::start();
    let (mut a, mut b) = (server.shelf(5), server.shelf(6));
    let path = |id: &str| record::record_key(&key(id).0, &key(id).1);
    for id in ["renewed", "dead", "written"] {
        one(&mut a, there(id, 10));
        // As it was written an hour ahead.
        renew_until(&server, id, 5, 3_660_000);
    }
    let Some(Kept::Record(record)) = a.fetch(&[key("dead")]).unwrap().remove(0) else { panic!("no record") };
    assert!(record.left > record.facts.ttl + Duration::from_secs(60), "core can tell by it: {:?}", record.left);
    assert_eq!(one(&mut b, lapsed("dead", 10, 6)), Answer::Done, "nobody knows of any later end");
    assert_eq!(one(&mut b, there("written", 10)), Answer::Done);
    let Change::Put(stored) = there("renewed", 10) else { unreachable!() };
    b.renew(&[(key("renewed"), stored)]).unwrap();
    for id in ["renewed", "written"] {
        assert_eq!(server.field(&path(id), "holder"), Some(record::hex(ReplicaId::of(6))), "{id}");
    }
}

#[test]
fn versions_of_a_clock_that_was_years_ahead_still_count_and_absurd_ones_are_damage() {
    let server = Server::start();
    let mut a = server.shelf(5);
    let (seconds, _): (u64, u64) = server.run(&["TIME"]);
    let ahead = ((seconds + 40 * 365 * 86_400) * 1_000_000) << 10;
    assert_eq!(one(&mut a, there("x", ahead)), Answer::Done);
    assert!(matches!(&a.fetch(&[key("x")]).unwrap()[0], Some(Kept::Record(record)) if record.facts.version_no == ahead));
    assert_eq!(one(&mut a, there("x", ahead + 1)), Answer::Done);
    let path = record::record_key(&key("x").0, &key("x").1);
    for absurd in ["99999999999999999999", "18446744073709551615", "17446744073709551615", "~~~~~~~~~~~~~~~~~~~~", "9"] {
        let _: i64 = server.run(&["HSET", &path, "v", absurd]);
        assert_eq!(one(&mut a, there("x", ahead + 2)), Answer::Foreign, "{absurd} is no later registration");
        assert_eq!(one(&mut a, gone("x", ahead + 2)), Answer::Foreign, "{absurd}");
        let Change::Put(stored) = there("x", ahead + 2) else { unreachable!() };
        assert_eq!(a.renew(&[(key("x"), stored)]).unwrap(), [Answer::Foreign], "{absurd}");
        assert_eq!(server.field(&path, "v").as_deref(), Some(absurd), "and is left alone");
    }
}

#[test]
fn every_write_is_one_event_with_the_next_number_and_what_changes_nothing_is_none() {
    let server = Server::start();
    let mut a = server.shelf(5);
    let changes = [there("x", 10), there("x", 10), there("x", 9), gone("x", 12), gone("x", 12), there("x", 11), there("x", 13)];
    let answers: Vec<Answer> = changes.into_iter().map(|change| one(&mut a, change)).collect();
    let (done, outdone) = (Answer::Done, Answer::Outdone);
    assert_eq!(answers, [done, done, outdone, done, done, outdone, done]);
    let events: Vec<(String, BTreeMap<String, String>)> = server.run(&["XRANGE", "vx:events", "-", "+"]);
    let numbers: Vec<&str> = events.iter().map(|(_, fields)| fields["n"].as_str()).collect();
    assert_eq!(numbers, ["1", "2", "3"]);
    assert_eq!(a.note().unwrap().seq, 3);
    let put = record::Event::put(ReplicaId::of(5), &events[2].1["put"], Duration::ZERO, u64::MAX).unwrap();
    assert!(matches!(put.kept, Kept::Record(record) if *record.facts == suite::facts("service-a", "x", 13)));
    let grave = record::Event::gone(ReplicaId::of(5), &events[1].1["gone"], Duration::ZERO, u64::MAX).unwrap();
    assert!(matches!(grave.kept, Kept::Gone(gone) if gone.version_no == 12 && gone.kept == Duration::from_secs(120)));
}

#[test]
fn a_renewal_finds_what_the_store_lacks_or_knows_better() {
    let server = Server::start();
    let mut a = server.shelf(5);
    one(&mut a, there("same", 10));
    one(&mut a, there("newer", 11));
    one(&mut a, gone("gone", 10));
    let stored = |id: &str| {
        let Change::Put(stored) = there(id, 10) else { unreachable!() };
        (key(id), stored)
    };
    let _: i64 = server.run(&["SADD", "services:service-a:i:foreign", "x"]);
    let renewals: Vec<(Key, Stored)> = ["same", "newer", "gone", "absent", "foreign"].map(stored).into();
    let answers = a.renew(&renewals).unwrap();
    assert_eq!(answers, [Answer::Done, Answer::Outdone, Answer::Outdone, Answer::Absent, Answer::Foreign]);
    let told: Vec<(String, BTreeMap<String, String>)> = server.run(&["XRANGE", "vx:renewals", "-", "+"]);
    assert_eq!(told.len(), 1);
    let renewals = record::read_renewals(&told[0].1["r"], Duration::ZERO, u64::MAX).unwrap();
    let ids: Vec<&str> = renewals.iter().map(|renewal| renewal.as_ref().unwrap().id.as_str()).collect();
    assert_eq!(ids, ["same", "foreign"], "only of what was renewed, wherever it is kept");
}

#[test]
fn scripts_are_loaded_again_when_redis_has_forgotten_them() {
    let server = Server::start();
    let mut a = server.shelf(5);
    assert_eq!(one(&mut a, there("x", 1)), Answer::Done);
    let _: () = server.run(&["SCRIPT", "FLUSH"]);
    assert_eq!(one(&mut a, there("x", 2)), Answer::Done);
}

#[test]
fn indexes_and_time_are_read_back() {
    let server = Server::start();
    let mut a = server.shelf(5);
    one(&mut a, there("x", 10));
    one(&mut a, gone("y", 11));
    let service = key("x").0;
    let entry = format!("g{}:1", record::version(3));
    let _: i64 = server.run(&["HSET", "vx:i:service-a", "ended", &entry, "future", &format!("r{}", u64::MAX), "odd", "z"]);
    let mut index = a.indexes(std::slice::from_ref(&service)).unwrap().remove(0).unwrap();
    index.standings.sort_by_key(|(id, _)| id.to_string());
    assert_eq!(index.standings, [(key("x").1, Standing::Record(10)), (key("y").1, Standing::Gone(11))]);
    assert_eq!(index.stale, [("ended".to_owned(), entry)]);
    a.tidy(&service, &index.stale).unwrap();
    assert_eq!(server.field("vx:i:service-a", "ended"), None);
    assert!(server.field("vx:i:service-a", "odd").is_some(), "what is not understood is left alone");
    let _: i64 = server.run(&["DEL", &record::record_key(&service, &key("x").1)]);
    let index = a.indexes(std::slice::from_ref(&service)).unwrap().remove(0).unwrap();
    let evicted = ("x".to_owned(), format!("r{}", record::version(10)));
    assert_eq!((index.standings.len(), &index.stale), (1, &vec![evicted]), "a record that was evicted is missing");
    a.tidy(&service, &index.stale).unwrap();
    assert_eq!(server.field("vx:i:service-a", "x"), None);
    let pulse = a.beat(Some(&description())).unwrap();
    assert_eq!(pulse.replicas.iter().map(|replica| replica.name.as_str()).collect::<Vec<_>>(), ["a"]);
    let again = server.shelf(6).beat(Some(&description())).unwrap();
    assert_eq!((again.replicas.len(), &again.epoch), (2, &pulse.epoch));
    assert_eq!(server.shelf(6).beat(None).unwrap().replicas.len(), 1, "it took its leave");
    let _: () = server.run(&["FLUSHALL"]);
    assert_ne!(a.beat(Some(&description())).unwrap().epoch, pulse.epoch);
}

#[test]
fn a_list_of_replicas_with_absurd_entries_is_read_at_once_and_nobody_lives_in_the_future() {
    let server = Server::start();
    let mut a = server.shelf(5);
    a.beat(Some(&description())).unwrap();
    let (seconds, _): (u64, u64) = server.run(&["TIME"]);
    let ahead = format!(r#"{{"replica_id":"dead","zone":null,"version":"1","at_ms":{}}}"#, (seconds + 3_600) * 1_000);
    let _: i64 = server.run(&["HSET", "vx:replicas", &record::hex(ReplicaId::of(6)), &ahead]);
    let _: i64 = server.run(&["HSET", "vx:replicas", "stranger", &"x".repeat(3_000_000), "nothing", "5"]);
    let pulse = a.beat(Some(&description())).unwrap();
    assert_eq!(pulse.replicas.len(), 2);
    assert_eq!(server.metrics.store_skipped.with_label_values(&["damaged"]).get(), 2);
    let entry = server.field("vx:replicas", &record::hex(ReplicaId::of(6))).unwrap();
    let at_ms: u64 = entry.split_once("\"at_ms\":").unwrap().1.trim_end_matches('}').parse().unwrap();
    assert!((seconds * 1_000..(seconds + 600) * 1_000).contains(&at_ms), "it ages from now on: {entry}");
    assert_eq!(server.run::<usize>(&["HSTRLEN", "vx:replicas", "stranger"]), 3_000_000, "and what is not ours is left alone");
}

fn description() -> Description {
    Description { replica_id: "a".to_owned(), zone: None, version: "1" }
}

#[test]
fn the_feed_keeps_fewer_of_large_events() {
    let server = Server::start();
    let mut a = server.shelf(5);
    let large = |n: u64| {
        let mut facts = suite::facts("service-a", "x", n);
        facts.metadata.insert("large".to_owned(), "x".repeat(140_000));
        suite::put(facts)
    };
    for n in 1..=700 {
        one(&mut a, large(n));
    }
    let length: usize = server.run(&["XLEN", "vx:events"]);
    assert!((450..600).contains(&length), "{length} of 140 kB each");
    for n in 701..=1_000 {
        one(&mut a, there("x", n));
    }
    let length: usize = server.run(&["XLEN", "vx:events"]);
    assert!(length > 750, "{length}: of small ones many more are kept");
    let _: () = server.run(&["SET", "vx:epoch", &"x".repeat(1_000)]);
    assert_eq!(a.beat(Some(&description())).unwrap().epoch, "foreign");
}

#[test]
fn a_large_index_is_read_in_parts() {
    let server = Server::start();
    let mut a = server.shelf(5);
    let fill = "for n = 1, 25000 do redis.call('HSET', KEYS[1], 'i' .. n, 'g' .. ARGV[1] .. ':' .. ARGV[2]) end";
    let (version, end) = (record::version(7), u64::MAX.to_string());
    let _: () = server.run(&["EVAL", fill, "1", "vx:i:service-a", &version, &end]);
    let _: () = server.run(&["EVAL", fill, "1", "vx:i:service-b", &version, &end]);
    one(&mut a, there("x", 10));
    let _: i64 = server.run(&["HSET", "vx:i:service-c", "odd", &"x".repeat(100_000), "missing", &format!("r{version}")]);
    let names = ["service-a", "service-b", "service-c", "service-d"].map(|name| ServiceName::parse(name).unwrap());
    let indexes: Vec<_> = a.indexes(&names).unwrap().into_iter().map(Option::unwrap).collect();
    let found = |n: usize| indexes[n].standings.iter().map(|(id, _)| id.as_str()).collect::<std::collections::BTreeSet<_>>();
    assert_eq!([0, 1, 2, 3].map(|n| found(n).len()), [25_001, 25_000, 0, 0]);
    assert!(found(0).contains("x"));
    assert_eq!(indexes[2].stale.len(), 1);
}

#[test]
fn foreign_and_damaged_keys_are_skipped_told_and_left_alone() {
    let server = Server::start();
    let mut a = server.shelf(5);
    for id in ["type", "text", "format", "version", "ahead", "large", "fields", "other", "empty"] {
        one(&mut a, there(id, 10));
    }
    let path = |id: &str| record::record_key(&key(id).0, &key(id).1);
    let json = server.field(&path("type"), "record").unwrap();
    let version = record::version(10);
    let _: i64 = server.run(&["DEL", &path("type"), &path("empty")]);
    let _: i64 = server.run(&["LPUSH", &path("type"), "x"]);
    let _: i64 = server.run(&["HSET", &path("text"), "record", "not JSON"]);
    let _: i64 = server.run(&["HSET", &path("format"), "record", &json.replace("\"format\":1", "\"format\":99")]);
    let _: i64 = server.run(&["HSET", &path("version"), "v", "ten"]);
    let _: i64 = server.run(&["HSET", &path("ahead"), "v", &u64::MAX.to_string()]);
    let _: i64 = server.run(&["HSET", &path("large"), "record", &"x".repeat(300 * 1024)]);
    for n in 0..70 {
        let _: i64 = server.run(&["HSET", &path("fields"), &format!("f{n}"), "x"]);
    }
    let _: i64 = server.run(&["HSET", &path("other"), "record", &json.replace("\"type\"", "\"else\"")]);
    let _: i64 = server.run(&["HSET", &path("empty"), "v", &version]);
    let ids = ["type", "text", "format", "version", "ahead", "large", "fields", "other", "empty"];
    for _ in 0..2 {
        let found = a.fetch(&ids.map(key)).unwrap();
        assert!(found.iter().all(Option::is_none), "{found:?}");
    }
    assert_eq!(one(&mut a, there("type", 11)), Answer::Foreign);
    assert_eq!(server.run::<String>(&["TYPE", &path("type")]), "list");
    assert_eq!(server.field(&path("text"), "record").as_deref(), Some("not JSON"));
    let skipped = |reason| server.metrics.store_skipped.with_label_values(&[reason]).get();
    assert_eq!((skipped("format"), skipped("future"), skipped("large"), skipped("foreign")), (2, 2, 4, 3));
    assert_eq!(skipped("damaged"), 8);
    // Everything that all writes share may be foreign, too.
    for key in ["vx:events", "vx:seq", "vx:names", "vx:i:service-a", "services:index", "vx:mirrors"] {
        let _: () = server.run(&["FLUSHALL"]);
        let _: i64 = server.run(&["PFADD", key, "x"]);
        let _: i64 = server.run(&["DEL", key]);
        let _: i64 = server.run(&["ZADD", key, "1", "x"]);
        let answer = one(&mut a, there("x", 1));
        assert!(matches!(answer, Answer::Foreign | Answer::Done), "{key}: {answer:?}");
        assert_eq!(server.run::<String>(&["TYPE", key]), "zset");
        assert!(a.names(key).unwrap().is_empty());
        a.indexes(&[crate::store::suite::facts("service-a", "x", 1).service]).unwrap();
    }
}

#[test]
fn a_feed_that_cannot_be_used_costs_the_feed_and_no_record() {
    let server = Server::start();
    let mut a = server.shelf(5);
    let last = "18446744073709551615-18446744073709551615";
    let spoiled: [&[&str]; 5] = [
        &["SET", "vx:seq", "many"],
        &["SET", "vx:seq", "9223372036854775807"],
        &["SET", "vx:seq", "99999999999999999999999999"],
        &["SET", "vx:events", "x"],
        &["XADD", "vx:events", last, "a", "b"],
    ];
    for (no, spoil) in spoiled.into_iter().enumerate() {
        let _: () = server.run(&["FLUSHALL"]);
        let _: redis::Value = server.run(spoil);
        assert_eq!(one(&mut a, there("x", 1)), Answer::Done, "{spoil:?}");
        assert!(matches!(&a.fetch(&[key("x")]).unwrap()[0], Some(Kept::Record(_))), "{spoil:?}");
        assert_eq!(one(&mut a, gone("x", 2)), Answer::Done, "{spoil:?}");
        assert!(matches!(&a.fetch(&[key("x")]).unwrap()[0], Some(Kept::Gone(_))), "{spoil:?}");
        assert_eq!(server.metrics.store_skipped.with_label_values(&["foreign"]).get(), 2 * (no as u64 + 1));
        a.note().unwrap();
    }
    let _: () = server.run(&["FLUSHALL"]);
    let _: () = server.run(&["CONFIG", "SET", "maxmemory", "1"]);
    let (x, y) = (there("x", 1), gone("y", 1));
    for change in [x, y] {
        let refused = a.write_some(&[(change.key(), change)], 1).unwrap_err();
        assert_eq!(refused.word, "oom", "a full Redis is another matter");
    }
}

/// What the predecessor is shown of the instance `x` in this version.
fn shown(version_no: u64, endpoint: &str) -> [Shown; 1] {
    let values = [endpoint, "/health", "{}", "1700000000.000", "1700000001.000"].map(str::to_owned);
    let (service, id) = key("x");
    [Shown { service, id, version_no, values, left: Duration::from_secs(60) }]
}

#[test]
fn the_predecessor_is_shown_the_best_instance_and_its_own_record_is_left_alone() {
    let server = Server::start();
    let mut a = server.shelf(5);
    let service = key("x").0;
    let endpoint = suite::facts("service-a", "x", 1).endpoint.to_string();
    one(&mut a, there("x", 1));
    a.mirror(&shown(1, &endpoint)).unwrap();
    let mut fields: Vec<String> = server.run(&["HKEYS", "services:service-a"]);
    fields.sort();
    assert_eq!(fields, ["endpoint", "health_endpoint", "last_heartbeat", "metadata", "registered_at"]);
    assert!(server.run::<bool>(&["SISMEMBER", "services:index", "service-a"]));
    assert!((1..=60_000).contains(&server.run::<i64>(&["PTTL", "services:service-a"])));
    a.mirror(&shown(1, "http://other:1")).unwrap();
    assert_eq!(server.field("services:service-a", "endpoint").as_deref(), Some("http://other:1"), "ours may change");
    // The predecessor registers.
    let _: i64 = server.run(&["HSET", "services:service-a", "endpoint", "http://theirs:1", "metadata", "{'a': 1}"]);
    a.mirror(&shown(1, &endpoint)).unwrap();
    assert_eq!(server.field("services:service-a", "endpoint").as_deref(), Some("http://theirs:1"));
    let flat = a.flats(std::slice::from_ref(&service)).unwrap().remove(0).unwrap();
    assert_eq!((flat.id().unwrap().as_str(), flat.metadata["a"].as_str()), ("theirs:1", "1"));
    let theirs = (service.clone(), flat.id().unwrap());
    let found = a.fetch(&[theirs]).unwrap().remove(0);
    assert!(matches!(found, Some(Kept::Record(record)) if record.holder == ReplicaId::PREDECESSOR));
    // What it shows goes only with the instance that it shows.
    one(&mut a, gone("x", 5));
    assert_eq!(server.field("services:service-a", "endpoint").as_deref(), Some("http://theirs:1"));
    let _: i64 = server.run(&["DEL", "services:service-a", "vx:mirrors"]);
    one(&mut a, there("x", 6));
    a.mirror(&shown(6, &endpoint)).unwrap();
    one(&mut a, gone("x", 7));
    assert!(!server.run::<bool>(&["EXISTS", "services:service-a"]));
    assert!(!server.run::<bool>(&["SISMEMBER", "services:index", "service-a"]));
    // It expires with the lease, and so before the grave is dug.
    one(&mut a, there("x", 8));
    a.mirror(&shown(8, &endpoint)).unwrap();
    let _: i64 = server.run(&["DEL", "services:service-a"]);
    one(&mut a, gone("x", 9));
    assert!(!server.run::<bool>(&["SISMEMBER", "services:index", "service-a"]));
    assert!(!server.run::<bool>(&["HEXISTS", "vx:mirrors", "service-a"]));
    // A replica that is behind shows nothing.
    a.mirror(&shown(8, &endpoint)).unwrap();
    one(&mut a, there("x", 10));
    a.mirror(&shown(8, &endpoint)).unwrap();
    assert!(!server.run::<bool>(&["EXISTS", "services:service-a"]));
    a.mirror(&shown(10, &endpoint)).unwrap();
    assert!(server.run::<bool>(&["EXISTS", "services:service-a"]));
}

/// Why no connection can be had, however busy the machine is.
fn refusal(settings: &RedisSettings) -> Failure {
    let mut dialler = Dialler::new(settings).unwrap();
    (0..20).map(|_| dialler.dial(|| true).unwrap_err()).find(|failure| failure.word != "timeout").unwrap()
}

#[test]
fn what_the_server_refuses_has_a_word() {
    let server = Server::start();
    let mut a = server.shelf(5);
    let failure = |shelf: &mut Shelf| {
        let change = there("x", 1);
        shelf.write_some(&[(change.key(), change)], 1).unwrap_err().word
    };
    let _: () = server.run(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(failure(&mut a), "oom");
    let _: () = server.run(&["CONFIG", "SET", "maxmemory", "0"]);
    let _: () = server.run(&["REPLICAOF", "127.0.0.1", "1"]);
    assert_eq!(failure(&mut a), "readonly");
    assert_eq!(a.link.check_role().unwrap_err().word, "readonly");
    let refused = refusal(&server.settings(5).redis);
    assert_eq!(refused.word, "readonly", "{refused}");
    let _: () = server.run(&["REPLICAOF", "NO", "ONE"]);
    let _: () = server.run(&["CONFIG", "SET", "requirepass", "geheim"]);
    let refused = refusal(&server.settings(5).redis);
    assert_eq!(refused.word, "auth", "{refused}");
    let mut settings = server.settings(5);
    settings.redis.password = Some(crate::config::Secret::new("wrong-geheim"));
    let refused = refusal(&settings.redis);
    assert!(refused.word == "auth" && !refused.text.contains("geheim"), "{refused}");
    settings.redis.password = Some(crate::config::Secret::new("geheim"));
    let mut dialler = Dialler::new(&settings.redis).unwrap();
    assert!((0..20).any(|_| dialler.dial(|| true).is_ok()));
}

#[test]
fn sentinels_are_asked_in_turn_who_the_master_is() {
    let (mut master, elsewhere) = (Server::start(), Server::start());
    let mut sentinel = Server::sentinel(&master);
    let mut settings = elsewhere.settings(5).redis;
    settings.sentinels = vec!["127.0.0.1:1".to_owned(), format!("127.0.0.1:{}", sentinel.port())];
    let mut dialler = Dialler::new(&settings).unwrap();
    let link = (0..20).find_map(|_| dialler.dial(|| true).ok()).unwrap();
    assert_eq!(link.address, format!("127.0.0.1:{}", master.port()), "not where the settings would lead without Sentinels");
    // They say that the master is another one now.
    let _: () = sentinel.run(&["SENTINEL", "REMOVE", "mymaster"]);
    let _: () = sentinel.run(&["SENTINEL", "MONITOR", "mymaster", "127.0.0.1", &elsewhere.port().to_string(), "1"]);
    let mut moved = None;
    super::server::eventually("noticed", || {
        dialler.ask_sentinels();
        moved = dialler.check_answer(&link).err();
        moved.is_some()
    });
    assert_eq!(moved.unwrap().word, "sentinel");
    settings.master = "other".to_owned();
    let unknown = refusal(&settings);
    assert!(unknown.word == "sentinel" && unknown.text.contains("other"), "{unknown}");
    sentinel.kill();
    assert_eq!(refusal(&settings).word, "sentinel");
    master.kill();
}
