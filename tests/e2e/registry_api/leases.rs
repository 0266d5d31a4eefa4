//! Leases over the wire: they end on time, and not before.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::scripts::text;
use crate::harness::{Gateway, Upstream, eventually, get, now, post, wait_for};

/// How long after its deadline an instance may still be there.
const TOLERANCE: Duration = Duration::from_millis(100);

/// Watches until `present` turns false. Gives the start of the last look that found it, the end of the first that did
/// not, and the longest pause between two looks: on a busy machine the gateway was paused like this too.
fn watch(mut present: impl FnMut() -> bool) -> (Instant, Instant, Duration) {
    let (mut last, mut pause) = (now(), Duration::ZERO);
    loop {
        let start = now();
        pause = pause.max(start.duration_since(last));
        if !present() {
            return (last, now(), pause.max(start.elapsed()));
        }
        last = start;
        assert!(last.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_lease_ends_between_its_deadline_and_100_ms_later() {
    let ttl = Duration::from_secs(2);
    let gateway = Gateway::builder().env("VERTICE_LEASE__TTL", "2s").start();
    let upstream = Upstream::start(text("here"));
    let earliest = now() + ttl;
    gateway.register("brief", &upstream);
    let latest = now() + ttl;
    let (last_seen, first_gone, pause) = watch(|| !gateway.services().is_empty());
    assert!(first_gone >= earliest, "gone {:?} too early", earliest - first_gone);
    let overdue = last_seen.saturating_duration_since(latest);
    assert!(overdue <= TOLERANCE + pause, "still there {overdue:?} after its deadline (pauses up to {pause:?})");
    gateway.data(get("/v2/brief/x")).problem(503, "no_route");
    gateway.api(get("/services/brief")).problem(404, "not_found");
    gateway.api(post("/heartbeat", &json!({"service_name": "brief"}))).problem(404, "not_found");
}

#[test]
fn routing_ends_with_the_lease() {
    let gateway = Gateway::builder().env("VERTICE_LEASE__TTL", "1s").start();
    let upstream = Upstream::start(text("here"));
    let earliest = now() + Duration::from_secs(1);
    gateway.register("brief", &upstream);
    let latest = now() + Duration::from_secs(1);
    let (last_seen, first_gone, pause) = watch(|| gateway.data(get("/v2/brief/x")).status == 200);
    assert!(first_gone >= earliest);
    assert!(last_seen.saturating_duration_since(latest) <= TOLERANCE + pause);
}

#[test]
fn heartbeats_keep_it_alive_and_refresh_the_time() {
    let gateway = Gateway::builder().env("VERTICE_LEASE__TTL", "2s").start();
    let upstream = Upstream::start(text("here"));
    gateway.register("alive", &upstream);
    let start = now();
    while start.elapsed() < Duration::from_secs(5) {
        gateway.api(post("/heartbeat", &json!({"service_name": "alive"}))).expect(200);
        gateway.data(get("/v2/alive/x")).expect(200);
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn the_remaining_time_counts_down_and_is_refreshed() {
    let gateway = Gateway::start();
    let body = json!({"service_name": "counted", "endpoint": "http://127.0.0.1:9", "ttl": 60});
    gateway.api(post("/register", &body)).expect(201);
    let remaining = |info: &Value| info["ttl_remaining"].as_u64().unwrap();
    let first = remaining(&gateway.service("counted"));
    assert!((50..=60).contains(&first), "{first}");
    let low = wait_for("the time to go down", || {
        let left = remaining(&gateway.service("counted"));
        (left + 2 <= first).then_some(left)
    });
    gateway.api(post("/heartbeat", &json!({"service_name": "counted"}))).expect(200);
    assert!(remaining(&gateway.service("counted")) > low);
}

#[test]
fn a_register_renews_the_lease_and_may_change_its_length() {
    let gateway = Gateway::builder().env("VERTICE_LEASE__TTL", "1s").start();
    let body = json!({"service_name": "longer", "endpoint": "http://127.0.0.1:9", "instance_id": "l:1"});
    assert_eq!(gateway.api(post("/register", &body)).expect(201).json()["ttl"], 1);
    let longer = json!({"service_name": "longer", "endpoint": "http://127.0.0.1:9", "instance_id": "l:1", "ttl": 3600});
    assert_eq!(gateway.api(post("/register", &longer)).expect(201).json()["ttl"], 3600);
    gateway.register_at("brief", "http://127.0.0.1:9");
    eventually("the short lease to end", || !gateway.services().contains(&"brief".to_owned()));
    assert_eq!(gateway.services(), ["longer"]);
    assert!(gateway.service("longer")["ttl_remaining"].as_u64().is_some_and(|left| left > 3500));
}

#[test]
fn one_instance_lapses_and_its_sibling_stays() {
    let gateway = Gateway::builder().env("VERTICE_LEASE__TTL", "1s").start();
    let (dying, living) = (Upstream::start(text("dying")), Upstream::start(text("living")));
    gateway.register("pair", &dying);
    gateway.register("pair", &living);
    let id = living.addr.to_string();
    eventually("one to lapse", || {
        gateway.api(post("/heartbeat", &json!({"service_name": "pair", "instance_id": id}))).expect(200);
        gateway.service("pair")["instances"].as_array().unwrap().len() == 1
    });
    for _ in 0..5 {
        assert_eq!(gateway.data(get("/v2/pair/x")).expect(200).text(), "living");
    }
}
