//! Keys under our prefixes that we did not write, or that are damaged: skipped, counted, told, never fatal, never deleted.

use super::{Site, eventually_redis_is, key_of, routes};
use crate::harness::resp::Reply;
use crate::harness::{Fleet, Gateway, Redis, eventually, get};

/// One that no version of ours writes.
const ABSURD: usize = 6 << 20;

/// Keys with what is wrong with them.
fn plant(redis: &Redis) -> Vec<String> {
    let huge = "x".repeat(ABSURD);
    let flat = |endpoint: &'static str| ["endpoint", endpoint, "health_endpoint", "/health", "metadata", "{}"];
    let plants: Vec<(&str, String, Vec<&str>)> = vec![
        ("SET", "services:a_string".to_owned(), vec!["not a hash"]),
        ("RPUSH", "services:a_list".to_owned(), vec!["not", "a", "hash"]),
        ("HSET", "services:no_endpoint".to_owned(), vec!["metadata", "{}"]),
        ("HSET", "services:metadata_service".to_owned(), flat("http://169.254.169.254/").to_vec()),
        ("HSET", "services:a_scheme".to_owned(), flat("ftp://10.0.0.1").to_vec()),
        ("HSET", "services:no_expiry".to_owned(), flat("http://127.0.0.1:9").to_vec()),
        ("HSET", "services:Bad Name!".to_owned(), flat("http://127.0.0.1:9").to_vec()),
        ("HSET", "services:a_novel".to_owned(), vec!["endpoint", "http://127.0.0.1:9", "metadata", &huge]),
        ("HSET", key_of("no_json", "x:1"), vec!["v", "00000000000000000007", "holder", "ff", "until", "9", "record", "{no"]),
        ("HSET", key_of("no_version", "x:1"), vec!["record", "{}"]),
        ("HSET", key_of("the_future", "x:1"), vec!["v", "00000000000000000007", "record", r#"{"format":99,"x":[1]}"#]),
        ("HSET", key_of("an_epic", "x:1"), vec!["v", "00000000000000000007", "record", &huge]),
        ("SET", key_of("a_text", "x:1"), vec!["not a hash"]),
        ("SET", "vx:i:an_index".to_owned(), vec!["not a hash"]),
        ("HSET", "vx:i:bad_entries".to_owned(), vec!["x:1", "?", "", "r", "y:1", "r99999999999999999999"]),
        ("SET", "health:steady".to_owned(), vec!["not a hash"]),
        ("XADD", "vx:events".to_owned(), vec!["*", "nonsense", "1"]),
        ("XADD", "vx:events".to_owned(), vec!["*", "n", "not a number", "by", "?", "put", "{no"]),
        ("XADD", "vx:renewals".to_owned(), vec!["*", "by", "ff", "r", "{no"]),
        ("HSET", "vx:replicas".to_owned(), vec!["?", "?", "ff", "{no"]),
    ];
    let mut keys = Vec::new();
    for (command, key, words) in plants {
        let reply = redis.cmd(&[&[command, &key][..], &words].concat());
        assert!(!matches!(reply, Reply::Error(_)), "{command} {key}: {reply:?}");
        keys.push(key);
    }
    let services = ["a_string", "a_list", "no_endpoint", "metadata_service", "a_scheme", "no_expiry", "Bad Name!", "a_novel"];
    let own = ["no_json", "no_version", "the_future", "an_epic", "a_text", "an_index", "bad_entries", ""];
    redis.cmd(&[&["SADD", "services:index"][..], &services, &own].concat());
    redis.cmd(&[&["SADD", "vx:names"][..], &services, &own].concat());
    redis.cmd(&[&b"SADD"[..], b"services:index", b"\xff\xfe\0", "n".repeat(100_000).as_bytes()]);
    for name in ["no_json", "no_version", "the_future", "an_epic", "a_text"] {
        redis.cmd(&["HSET", &format!("vx:i:{name}"), "x:1", "r00000000000000000007"]);
    }
    // What is not a stream or a table of several is compared byte for byte afterwards.
    keys.retain(|key| !key.starts_with("vx:events") && !key.starts_with("vx:re"));
    keys
}

fn dump(redis: &Redis, keys: &[String]) -> Vec<Reply> {
    keys.iter().map(|key| redis.cmd(&["DUMP", key])).collect()
}

#[track_caller]
fn assert_skipped(gateway: &Gateway) {
    eventually("a count of what was skipped", || {
        gateway.registry_metrics().sum("vertice_store_records_skipped_total", &[]) > 0.0
    });
    let log = gateway.process.stderr().to_lowercase();
    assert!(log.contains("left alone"), "{log}");
    assert!(log.len() < 200_000, "{} bytes of log", log.len());
    let known = gateway.services();
    let expected = ["no_expiry", "metadata_service", "steady"];
    // It may be listed; its address is never asked.
    gateway.data(get("/v2/metadata_service/x")).expect(503);
    assert!(known.iter().all(|name| expected.contains(&name.as_str()) || name.starts_with("news_")), "{known:?}");
}

#[test]
fn foreign_and_damaged_keys_are_skipped_by_who_runs_and_by_who_starts() {
    let mut site = Site::start(2);
    let load = site.load(&["steady"]);
    let keys = plant(&site.redis);
    let before = dump(&site.redis, &keys);
    let late = Fleet::start(1, &site.redis.env());
    for number in 0..2 {
        let name = format!("news_{number}");
        site.register_durably(number, &name);
        site.eventually_everywhere(&name);
        eventually("the newcomer to hear it", || routes(&late.gateways[0], &name));
    }
    site.fleet.gateways.iter().chain(&late.gateways).for_each(assert_skipped);
    eventually_redis_is(&late.gateways[0], "healthy");
    assert!(dump(&site.redis, &keys) == before, "something was changed or deleted");
    load.assert_nothing_failed();
    site.assert_sound();
}

#[test]
fn keys_of_the_wrong_type_where_ours_should_be_do_not_stop_the_serving() {
    let mut site = Site::start(2);
    let load = site.load(&["steady"]);
    for key in ["services:index", "vx:events", "vx:names", "vx:replicas", "vx:seq", "vx:renewals"] {
        site.redis.cmd(&["SET", key, "somebody else's"]);
        assert!(routes(site.gateway(0), "steady"));
        site.register(0, "during");
        assert!(site.redis.cmd(&["GET", key]).text() == "somebody else's", "{key} was overwritten");
        site.redis.cmd(&["DEL", key]);
    }
    load.goes_on();
    site.eventually_stored(&["steady", "during"]);
    site.eventually_everywhere("during");
    load.assert_nothing_failed();
    site.assert_sound();
}
