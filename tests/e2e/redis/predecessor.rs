//! The predecessor and we read each other's keys.

use std::time::Duration;

use serde_json::{Value, json};

use super::{OFTEN, REPAIRED, Site, id_of, routes};
use crate::harness::clock::{epoch_s, wait_within};
use crate::harness::gateway::Builder;
use crate::harness::resp::Reply;
use crate::harness::scripts::text;
use crate::harness::{Fleet, Redis, Upstream, eventually, post};

/// Writes what the predecessor writes: `HSET`, `EXPIRE`, `SADD`.
fn register_as_predecessor(redis: &Redis, service: &str, upstream: &Upstream, metadata: &str) {
    let (key, now) = (format!("services:{service}"), epoch_s().to_string());
    let fields = ["endpoint", &upstream.url(), "health_endpoint", "/health", "metadata", metadata];
    let times = ["registered_at", &now, "last_heartbeat", &now];
    redis.cmd(&[&["HSET", &key][..], &fields, &times].concat());
    redis.cmd(&["EXPIRE", &key, "60"]);
    redis.cmd(&["SADD", "services:index", service]);
}

#[test]
fn a_predecessors_registrations_are_routable_with_their_metadata() {
    let redis = Redis::start();
    let upstream = Upstream::start(text("here"));
    let python = r#"{'a': 'b', "c": 'it\'s', 'n': None, 't': True, 'i': 3, 'é': '\u00e9'}"#;
    register_as_predecessor(&redis, "python_svc", &upstream, python);
    register_as_predecessor(&redis, "json_svc", &upstream, r#"{"a":"b"}"#);
    register_as_predecessor(&redis, "odd_svc", &upstream, "{'a': __import__('os')");
    register_as_predecessor(&redis, "empty_svc", &upstream, "{}");
    let probes = Upstream::start(text("here"));
    register_as_predecessor(&redis, "evil_svc", &probes, "{}");
    redis.cmd(&["HSET", "services:evil_svc", "health_endpoint", "/x HTTP/1.1\r\nX-Evil: 1\r\n\r\n"]);
    let often = |builder: Builder| builder.env(OFTEN.0, OFTEN.1);
    let mut fleet = Fleet::start_with(2, &redis.env(), often);
    let gateway = &fleet.gateways[0];
    for service in ["python_svc", "json_svc", "empty_svc", "evil_svc"] {
        wait_within(REPAIRED, service, || routes(gateway, service).then_some(()));
    }
    assert!(!routes(gateway, "odd_svc") && gateway.process.stderr().contains("services:odd_svc"), "skipped and told of");
    let metadata = &gateway.service("python_svc")["metadata"];
    for (key, value) in [("a", "b"), ("c", "it's"), ("i", "3"), ("é", "é")] {
        assert_eq!(metadata[key], value, "{metadata}");
    }
    assert!(metadata["t"].as_str().is_some_and(|text| text.eq_ignore_ascii_case("true")), "{metadata}");
    assert_eq!(gateway.service("json_svc")["metadata"], json!({"a": "b"}));
    let left = gateway.service("json_svc")["ttl_remaining"].as_u64().unwrap();
    assert!(left <= 60, "{left}");
    gateway.data(crate::harness::get("/gateway/health-check/evil_svc")).expect(200);
    assert!(probes.seen().iter().all(|seen| seen.header("x-evil").is_none()), "{:?}", probes.last());
    register_as_predecessor(&redis, "late_svc", &upstream, python);
    for gateway in &fleet.gateways {
        wait_within(REPAIRED, "what it registers while we run", || routes(gateway, "late_svc").then_some(()));
    }
    assert!(redis.cmd(&["HGET", "services:late_svc", "metadata"]).text() == python, "not ours to rewrite");
    fleet.gateways.iter_mut().for_each(crate::harness::Gateway::assert_sound);
}

#[test]
fn the_predecessor_reads_what_registers_here() {
    let site = Site::start(2);
    let mut body = super::registration("svc", &site.upstream);
    body["metadata"] = json!({"team": "réd", "quote": "it's \"so\""});
    body["health_endpoint"] = json!("/h");
    body["ttl"] = json!(120);
    assert_eq!(site.gateway(0).api(post("/register", &body)).expect(201).json()["durable"], true);
    // What it is shown follows the record at once, but in a call of its own.
    site.eventually_stored(&["steady", "svc"]);
    let mut index = site.redis.cmd(&["SMEMBERS", "services:index"]).texts().iter().map(ToString::to_string).collect::<Vec<_>>();
    index.sort();
    assert_eq!(index, ["steady", "svc"]);
    let hash = site.redis.cmd(&["HGETALL", "services:svc"]);
    let field = |name: &str| hash.field(name).unwrap_or_else(|| panic!("no {name} in {hash:?}"));
    assert_eq!((field("endpoint"), field("health_endpoint")), (site.upstream.url(), "/h".to_owned()));
    let metadata: Value = serde_json::from_str(&field("metadata")).unwrap();
    assert_eq!(metadata, body["metadata"]);
    for time in ["registered_at", "last_heartbeat"] {
        let seconds: f64 = field(time).parse().unwrap();
        assert!((seconds - epoch_s()).abs() < 60.0 && field(time).contains('.'), "{time}: {seconds}");
    }
    let left = site.redis.cmd(&["TTL", "services:svc"]).number();
    assert!((60..=120).contains(&left), "{left}");
    // The best of several is the one that it sees, and the last one that leaves takes the rest along.
    let other = Upstream::start(text("other"));
    site.gateway(1).register("svc", &other);
    eventually("the newer one", || site.redis.cmd(&["HGET", "services:svc", "endpoint"]) == Reply::Text(other.url()));
    let leave = |id: &str| crate::harness::delete(&format!("/deregister/svc?instance_id={id}"));
    site.eventually_everywhere("svc");
    eventually("both on both", || {
        site.fleet.gateways.iter().all(|gateway| gateway.service("svc")["instances"].as_array().unwrap().len() == 2)
    });
    site.gateway(0).api(leave(&id_of(&other))).expect(200);
    eventually("the older one", || site.redis.cmd(&["HGET", "services:svc", "endpoint"]) == Reply::Text(site.upstream.url()));
    site.gateway(0).api(leave(&id_of(&site.upstream))).expect(200);
    eventually("the end of it", || {
        !site.redis.has("services:svc") && site.redis.cmd(&["SISMEMBER", "services:index", "svc"]).number() == 0
    });
}

#[test]
fn what_a_predecessor_renews_lives_and_what_it_gives_up_lapses() {
    let site = Site::with_settings(Redis::start(), 2, &[OFTEN, ("VERTICE_LEASE__TTL", "6s")]);
    register_as_predecessor(&site.redis, "theirs", &site.upstream, "{}");
    site.redis.cmd(&["EXPIRE", "services:theirs", "6"]);
    site.eventually_everywhere("theirs");
    let load = site.load(&["theirs"]);
    let start = crate::harness::now();
    while start.elapsed() < Duration::from_secs(10) {
        site.redis.cmd(&["HSET", "services:theirs", "last_heartbeat", &epoch_s().to_string()]);
        site.redis.cmd(&["EXPIRE", "services:theirs", "6"]);
        std::thread::sleep(Duration::from_secs(1));
    }
    load.assert_nothing_failed();
    site.redis.cmd(&["DEL", "services:theirs"]);
    site.redis.cmd(&["SREM", "services:index", "theirs"]);
    site.eventually_nowhere("theirs");
    assert!(!site.redis.has("services:theirs"));
}
