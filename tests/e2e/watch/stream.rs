//! `Accept: text/event-stream`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Event, Events, beat, in_zone, present_index};
use crate::harness::{Conn, Gateway, Request, delete, eventually, get, post};

#[test]
fn changes_come_in_order_with_their_ids() {
    let gateway = Gateway::start();
    gateway.register_at("old", "http://127.0.0.1:9");
    let start = present_index(&gateway);
    // On either listener.
    for target in [gateway.registry, gateway.gateway] {
        let index = present_index(&gateway);
        let mut events = Events::open(target, "/services", None);
        let first = events.event();
        assert_eq!((first.id(), first.data.is_none(), first.event.as_str()), (index, true, ""));
        gateway.register_at("abc", "http://127.0.0.1:9");
        let added = events.change("abc");
        assert_eq!((added.id(), &added.data.as_ref().unwrap()["index"]), (present_index(&gateway), &json!(added.id())));
        assert!(added.id() > start);
        let id = "127.0.0.1:9";
        beat(&gateway, &json!({"service_name": "abc", "instance_id": id, "status": "unhealthy"}));
        let changed = events.change("abc");
        assert_eq!(changed.data.as_ref().unwrap()["instances"][0]["status"], "unhealthy");
        gateway.api(delete("/deregister/abc")).expect(200);
        let gone = events.change("abc");
        assert_eq!(gone.data, Some(json!({"service_name": "abc", "deleted": true})));
        assert!(added.id() < changed.id() && changed.id() < gone.id());
    }
}

#[test]
fn a_stream_of_one_service_is_about_that_service() {
    let gateway = Gateway::start();
    let mut events = Events::open(gateway.registry, "/services/abc", None);
    events.event();
    for service in ["xyz", "abc", "uvw"] {
        gateway.register_at(service, "http://127.0.0.1:9");
    }
    let added = events.change("abc");
    gateway.api(delete("/deregister/xyz")).expect(200);
    gateway.api(delete("/deregister/abc")).expect(200);
    assert!(events.change("abc").is_deleted());
    let mut again = Events::open(gateway.registry, "/services/abc", Some(added.id()));
    assert_eq!(again.event().id(), added.id());
    assert!(again.change("abc").is_deleted());
    let refused = Request::new("GET", "/services/NO_NAME").header("Accept", "text/event-stream");
    gateway.api(refused).problem(404, "not_found");
}

#[test]
fn a_filter_shows_what_it_accepts_and_says_when_that_ends() {
    let gateway = Gateway::start();
    let mut events = Events::open(gateway.registry, "/services?zone=east", None);
    events.event();
    for (instance, zone) in [("a", "east"), ("b", "west")] {
        gateway.api(post("/register", &in_zone("abc", instance, zone))).expect(201);
        let change = events.change("abc");
        let instances = change.data.as_ref().unwrap()["instances"].as_array().unwrap();
        assert!(instances.len() == 1 && instances[0]["instance_id"] == "a", "{change:?}");
    }
    gateway.api(delete("/deregister/abc?instance_id=a")).expect(200);
    assert!(events.change("abc").is_deleted());
}

#[test]
fn nothing_is_missed_by_who_comes_and_goes_during_a_storm() {
    let gateway = Gateway::start();
    let start = present_index(&gateway);
    let known = std::thread::scope(|scope| {
        scope.spawn(|| storm(&gateway));
        let mut known: BTreeMap<String, Value> = BTreeMap::new();
        let (mut last, mut reads) = (start, 1);
        // The storm's last word.
        while !known.contains_key("calm") {
            let mut events = Events::open(gateway.registry, "/services", Some(last));
            assert_eq!(events.event().id(), last, "it resumes where it was left");
            for _ in 0..reads {
                let event = events.event();
                assert_eq!(event.event, "change", "{event:?}");
                assert!(event.id() > last, "{} after {last}", event.id());
                last = event.id();
                learn(&mut known, &event);
                if known.contains_key("calm") {
                    break;
                }
            }
            reads = reads % 40 + 7;
        }
        known
    });
    assert_eq!(known, truth(&gateway));
}

fn storm(gateway: &Gateway) {
    let mut conn = Conn::open(gateway.registry);
    for round in 0..600_u32 {
        let service = format!("storm-{}", round * 7 % 13);
        let body =
            json!({"service_name": service, "endpoint": format!("http://127.0.0.1:{}", 1000 + round), "instance_id": "i"});
        conn.ask(&post("/register", &body)).expect(201);
        if round % 3 == 0 {
            conn.ask(&delete(&format!("/deregister/storm-{}?all=1", round % 13))).expect(200);
        }
    }
    gateway.register_at("calm", "http://127.0.0.1:9");
}

/// What a client learns from an event: where each service is.
fn learn(known: &mut BTreeMap<String, Value>, event: &Event) {
    let data = event.data.as_ref().unwrap();
    if event.is_deleted() {
        known.remove(event.service());
    } else {
        known.insert(event.service().to_owned(), data["endpoint"].clone());
    }
}

/// The same from `GET /services?detail=1`.
fn truth(gateway: &Gateway) -> BTreeMap<String, Value> {
    let list = gateway.api(get("/services?detail=1")).expect(200).json();
    let entry = |service: &Value| (service["service_name"].as_str().unwrap().to_owned(), service["endpoint"].clone());
    list.as_array().unwrap().iter().map(entry).collect()
}

#[test]
fn who_was_away_too_long_starts_over_and_may_leave_in_between() {
    let gateway = Gateway::builder().env("VERTICE_LIMITS__WATCH_HISTORY", "8").start();
    let long_ago = present_index(&gateway);
    for no in 0..20 {
        gateway.register_at(&format!("svc-{no:02}"), "http://127.0.0.1:9");
    }
    for unknown in [long_ago, 5, u64::MAX] {
        let mut events = Events::open(gateway.registry, "/services", Some(unknown));
        let (first, reset) = (events.event(), events.event());
        assert_eq!((reset.event.as_str(), &reset.data), ("reset", &Some(json!({}))));
        assert!(first.data.is_none() && reset.id() <= long_ago);
        let mut last = reset.id();
        for no in 0..20 {
            let change = events.change(&format!("svc-{no:02}"));
            assert!(change.id() > last, "in the order of changes");
            last = change.id();
        }
        gateway.register_at("svc-03", "http://127.0.0.1:9");
        events.change("svc-03");
        gateway.api(delete("/deregister/svc-03")).expect(200);
        assert!(events.change("svc-03").is_deleted());
        // The order of the next round.
        gateway.register_at("svc-03", "http://127.0.0.1:9");
        for no in 4..20 {
            gateway.register_at(&format!("svc-{no:02}"), "http://127.0.0.1:9");
        }
    }
    // Whoever leaves in the middle, or right after the reset, knows everything in the end.
    for leave_after in [0, 1, 5, 15] {
        let mut known = BTreeMap::new();
        let mut events = Events::open(gateway.registry, "/services", Some(7));
        let mut last = events.event().id();
        for _ in 0..=leave_after {
            let event = events.event();
            last = event.id();
            if event.event == "change" {
                learn(&mut known, &event);
            }
        }
        let mut events = Events::open(gateway.registry, "/services", Some(last));
        events.event();
        let end = present_index(&gateway);
        while last != end {
            let event = events.event();
            last = event.id();
            match event.event.as_str() {
                "reset" => known.clear(),
                _ => learn(&mut known, &event),
            }
        }
        assert_eq!(known, truth(&gateway), "left after {leave_after}");
    }
    // A service that is not there starts over, too, and is told of later.
    let mut events = Events::open(gateway.registry, "/services/absent", Some(long_ago));
    events.event();
    assert_eq!(events.event().event, "reset");
    gateway.register_at("absent", "http://127.0.0.1:9");
    events.change("absent");
}

#[test]
fn a_service_that_is_there_is_told_after_a_reset() {
    let gateway = Gateway::start();
    gateway.register_at("abc", "http://127.0.0.1:9");
    let mut events = Events::open(gateway.registry, "/services/abc", Some(1));
    events.event();
    assert_eq!(events.event().event, "reset");
    events.change("abc");
    gateway.api(delete("/deregister/abc")).expect(200);
    assert!(events.change("abc").is_deleted());
}

#[test]
fn an_idle_stream_gives_a_sign_of_life_and_the_index() {
    let gateway = Gateway::start();
    let mut events = Events::open(gateway.registry, "/services/abc", None);
    let start = events.event().id();
    gateway.register_at("xyz", "http://127.0.0.1:9");
    let sign = events.event();
    assert!(sign.comment && sign.data.is_none() && sign.event.is_empty(), "{sign:?}");
    // What is no news for this client moves on the index from which it may resume.
    assert!(sign.id() > start && sign.id() == present_index(&gateway));
}

#[test]
fn the_query_resumes_where_headers_cannot_and_garbage_is_refused() {
    let gateway = Gateway::start();
    let start = present_index(&gateway);
    gateway.register_at("abc", "http://127.0.0.1:9");
    let mut events = Events::open(gateway.registry, &format!("/services?last_event_id={start}"), None);
    assert_eq!(events.event().id(), start);
    events.change("abc");
    let stream = |path: &str| get(path).header("Accept", "text/event-stream");
    for garbage in ["abc", "-1", "1 2", "0x1"] {
        let problem = gateway.api(stream("/services").header("Last-Event-ID", garbage)).problem(422, "unprocessable");
        assert_eq!(problem["errors"][0]["field"], "Last-Event-ID", "{garbage}");
    }
    let problem = gateway.api(stream("/services?last_event_id=x")).problem(422, "unprocessable");
    assert_eq!(problem["errors"][0]["field"], "last_event_id");
    let problem = gateway.api(stream("/services?watch=1")).problem(422, "unprocessable");
    assert_eq!(problem["errors"][0]["field"], "watch");
}

#[test]
fn old_clients_get_no_chunks_and_head_no_stream() {
    let gateway = Gateway::start();
    let mut conn = Conn::open(gateway.registry);
    conn.start(&get("/services").http10().header("Accept", "text/event-stream").header("Connection", "keep-alive"));
    let head = conn.head();
    let field = |name: &str| crate::harness::http::header(&head.headers, name);
    assert_eq!((head.status, field("transfer-encoding"), field("connection")), (200, None, Some("close")));
    assert!(conn.until(b"\n\n").unwrap().starts_with(b"id: "));
    gateway.register_at("abc", "http://127.0.0.1:9");
    assert!(conn.until(b"\n\n").unwrap().starts_with(b"event: change\n"));
    let mut conn = Conn::open(gateway.registry);
    let answer = conn.ask(&Request::new("HEAD", "/services").header("Accept", "text/event-stream")).expect(200);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    conn.ask(&get("/services")).expect(200);
    eventually("the stream of the HEAD to be over", || super::watchers(&gateway, "stream") <= 1.0);
}
