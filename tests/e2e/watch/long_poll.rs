//! `?watch=<index>&wait=<duration>`.

use std::time::Duration;

use serde_json::json;

use super::{beat, in_zone, index_of, present_index, waiting, watch, watchers};
use crate::harness::{Conn, Gateway, delete, get, head, now, post};

#[test]
fn a_change_is_answered_and_a_change_elsewhere_is_not() {
    let gateway = Gateway::start();
    gateway.register_at("abc", "http://127.0.0.1:9");
    let index = present_index(&gateway);
    let mut one = waiting(&gateway, "/services/abc", index);
    let mut all = waiting(&gateway, "/services", index);
    gateway.register_at("xyz", "http://127.0.0.1:9");
    let answer = all.response("GET").expect(200);
    assert_eq!(answer.json(), json!(["abc", "xyz"]));
    assert!(index_of(&answer) > index);
    // Whoever was concerned has been woken before the one who watches everything.
    assert_eq!(watchers(&gateway, "long_poll"), 1.0);
    gateway.register_at("abc", "http://127.0.0.1:10");
    let answer = one.response("GET").expect(200);
    assert_eq!(answer.json()["instances"].as_array().unwrap().len(), 2);
    assert_eq!(answer.json()["index"], index_of(&answer));
    assert!(index_of(&answer) > index);
    assert_eq!(watchers(&gateway, "long_poll"), 0.0);
}

#[test]
fn everything_that_is_visible_counts_as_a_change() {
    let gateway = Gateway::start();
    let id = "127.0.0.1:9";
    gateway.register_at("abc", "http://127.0.0.1:9");
    type Change = Box<dyn Fn(&Gateway)>;
    let heartbeat = |extra: serde_json::Value| -> Change {
        Box::new(move |gateway| {
            let mut body = json!({"service_name": "abc", "instance_id": id});
            body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            beat(gateway, &body);
        })
    };
    let changes: [(&str, Change); 4] = [
        ("status", heartbeat(json!({"status": "degraded"}))),
        ("metadata", heartbeat(json!({"metadata": {"a": "b"}}))),
        ("another instance", Box::new(|gateway| gateway.register_at("abc", "http://127.0.0.1:10"))),
        ("a registration anew", Box::new(|gateway| gateway.register_at("abc", "http://127.0.0.1:9"))),
    ];
    for (what, change) in changes {
        let index = present_index(&gateway);
        let mut conn = waiting(&gateway, "/services/abc", index);
        beat(&gateway, &json!({"service_name": "abc", "instance_id": id}));
        assert_eq!(present_index(&gateway), index, "a heartbeat without news is no change");
        change(&gateway);
        assert!(index_of(&conn.response("GET").expect(200)) > index, "{what}");
    }
}

#[test]
fn without_a_change_the_wait_ends_with_the_state_as_it_is() {
    let gateway = Gateway::start();
    gateway.register_at("abc", "http://127.0.0.1:9");
    let index = present_index(&gateway);
    for path in ["/services", "/services/abc", "/services/absent"] {
        let started = now();
        let answer = gateway.api(watch(path, index, "200ms"));
        assert!(started.elapsed() >= Duration::from_millis(200), "{path} did not wait");
        assert_eq!((answer.status, index_of(&answer)), (if path.ends_with("absent") { 404 } else { 200 }, index), "{path}");
    }
    // The index goes on, though this service did not change.
    gateway.register_at("xyz", "http://127.0.0.1:9");
    assert!(index_of(&gateway.api(watch("/services/abc", index, "50ms")).expect(200)) > index);
}

#[test]
fn a_missed_change_and_a_foreign_index_are_answered_at_once() {
    let gateway = Gateway::start();
    let first = present_index(&gateway);
    gateway.register_at("abc", "http://127.0.0.1:9");
    gateway.register_at("gone", "http://127.0.0.1:9");
    let before = present_index(&gateway);
    gateway.api(delete("/deregister/gone")).expect(200);
    let present = present_index(&gateway);
    for index in [0, 7, first - 1, first, present + 1, u64::MAX] {
        // It would not answer before the client's patience ends.
        gateway.api(watch("/services", index, "10m")).expect(200);
        gateway.api(watch("/services/abc", index, "10m")).expect(200);
    }
    for index in [0, first - 1, present + 1, u64::MAX] {
        gateway.api(watch("/services/never", index, "10m")).problem(404, "not_found");
    }
    gateway.api(watch("/services/gone", before, "10m")).problem(404, "not_found");
    gateway.api(watch("/services/NO_NAME", present, "10m")).problem(404, "not_found");
    gateway.api(get("/services/abc?wait=10m")).expect(200);
    gateway.api(watch("/services", present, "0")).expect(200);
}

#[test]
fn an_absent_service_can_be_waited_for_and_its_end_too() {
    let gateway = Gateway::start();
    let absent = gateway.api(get("/services/abc"));
    absent.problem(404, "not_found");
    let mut conn = waiting(&gateway, "/services/abc", index_of(&absent));
    gateway.register_at("xyz", "http://127.0.0.1:9");
    gateway.register_at("abc", "http://127.0.0.1:9");
    let there = conn.response("GET").expect(200);
    let mut conn = waiting(&gateway, "/services/abc", index_of(&there));
    gateway.api(delete("/deregister/abc")).expect(200);
    let gone = conn.response("GET");
    gone.problem(404, "not_found");
    assert!(index_of(&gone) > index_of(&there));
    let mut conn = waiting(&gateway, "/services/abc", index_of(&gone));
    gateway.register_at("abc", "http://127.0.0.1:9");
    conn.response("GET").expect(200);
}

#[test]
fn a_fallback_is_no_service_to_watch() {
    let gateway = Gateway::builder().env("SPARE_SERVICE_URL", "http://127.0.0.1:9").start();
    let absent = gateway.api(get("/services/spare_service"));
    absent.problem(404, "not_found");
    let mut conn = waiting(&gateway, "/services/spare_service", index_of(&absent));
    gateway.register_at("spare_service", "http://127.0.0.1:10");
    conn.response("GET").expect(200);
}

#[test]
fn the_list_can_be_filtered() {
    let gateway = Gateway::start();
    gateway.api(post("/register", &in_zone("abc", "a", "east"))).expect(201);
    let index = present_index(&gateway);
    let path = |zone: &str| format!("/services?detail=1&zone={zone}&watch={index}&wait=10m");
    let mut conns: Vec<Conn> = ["east", "west", "north"]
        .map(|zone| {
            let mut conn = Conn::open(gateway.registry);
            conn.start(&get(&path(zone)));
            conn
        })
        .into();
    gateway.api(post("/register", &in_zone("abc", "b", "west"))).expect(201);
    let answers: Vec<_> = conns.iter_mut().map(|conn| conn.response("GET").expect(200).json()).collect();
    for (answer, instance) in answers.iter().zip(["a", "b"]) {
        let ids: Vec<_> = answer[0]["instances"].as_array().unwrap().iter().map(|i| i["instance_id"].clone()).collect();
        assert_eq!(ids, [instance]);
    }
    assert_eq!(answers[2], json!([]));
}

#[test]
fn an_index_of_a_former_life_is_answered_at_once() {
    let mut gateway = Gateway::start();
    gateway.register_at("abc", "http://127.0.0.1:9");
    let old = present_index(&gateway);
    gateway.crash_and_restart();
    for path in ["/services", "/services/abc"] {
        assert!(index_of(&gateway.api(watch(path, old, "10m")).expect(200)) > old, "{path}");
    }
}

#[test]
fn nonsense_is_refused_by_name() {
    let gateway = Gateway::start();
    let too_long = "x".repeat(129);
    let cases = [
        ("watch=", "watch"),
        ("watch=-1", "watch"),
        ("watch=abc", "watch"),
        ("watch=1.5", "watch"),
        ("watch=1&wait=", "wait"),
        ("watch=1&wait=-1", "wait"),
        ("watch=1&wait=11m", "wait"),
        ("watch=1&wait=1e99", "wait"),
        ("watch=1&wait=soon", "wait"),
        ("watch=1&wait=%FF", "wait"),
        ("status=fine", "status"),
        ("tag=", "tag"),
        ("tag=%FF", "tag"),
        ("zone=%00", "zone"),
        (&format!("version={too_long}"), "version"),
    ];
    for (query, field) in cases {
        let problem = gateway.api(get(&format!("/services?{query}"))).problem(422, "unprocessable");
        assert_eq!(problem["errors"][0]["field"], field, "{query}: {problem}");
        assert_eq!(problem["errors"].as_array().unwrap().len(), 1, "{query}: {problem}");
    }
    gateway.api(get("/services/abc?watch=x")).problem(422, "unprocessable");
    let both = gateway.api(get("/services?watch=x&wait=y&status=z")).problem(422, "unprocessable");
    assert_eq!(both["errors"].as_array().unwrap().len(), 3, "{both}");
}

#[test]
fn a_head_request_waits_too_and_pipelined_ones_come_in_order() {
    let gateway = Gateway::start();
    let index = present_index(&gateway);
    let mut conn = waiting(&gateway, "/services", index);
    conn.start(&head(&format!("/services?watch={index}&wait=10m")));
    conn.start(&get("/services/abc"));
    gateway.register_at("abc", "http://127.0.0.1:9");
    assert_eq!(conn.response("GET").expect(200).json(), json!(["abc"]));
    let second = conn.response("HEAD").expect(200);
    assert!(index_of(&second) > index && second.body.is_empty());
    assert_eq!(conn.response("GET").expect(200).json()["service_name"], "abc");
}

#[test]
fn waiting_is_not_counted_as_work() {
    let gateway = Gateway::start();
    let index = present_index(&gateway);
    gateway.api(watch("/services", index, "1s")).expect(200);
    let metrics = gateway.registry_metrics();
    let operation = [("operation", "watch")];
    assert_eq!(metrics.only("registry_operations_total", &[("operation", "watch"), ("status", "success")]), 1.0);
    assert_eq!(metrics.only("registry_operation_duration_seconds_count", &operation), 1.0);
    assert!(metrics.only("registry_operation_duration_seconds_sum", &operation) < 1.0);
    let _conn = waiting(&gateway, "/services", index);
    // This question itself is the only one under way.
    assert_eq!(gateway.metrics().only("vertice_requests_in_flight", &[]), 1.0);
}
