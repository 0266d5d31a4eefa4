//! Which registration is whose (SPEC §3, Instances). Callers differ by their loopback address.

use serde_json::json;

use super::{endpoints, instance, register_from};
use crate::harness::scripts::text;
use crate::harness::{Gateway, Upstream, delete, eventually, get, post};

const A: [u8; 4] = [127, 0, 0, 11];
const B: [u8; 4] = [127, 0, 0, 12];
const C: [u8; 4] = [127, 0, 0, 13];

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

#[test]
fn the_same_registrant_replaces_and_another_one_adds() {
    let gateway = Gateway::start();
    let (old, new, other) = (Upstream::start(text("old")), Upstream::start(text("new")), Upstream::start(text("other")));
    register_from(&gateway, A, "svc", &old.url());
    assert_eq!(gateway.data(get("/v2/svc/x")).expect(200).text(), "old");
    register_from(&gateway, A, "svc", &new.url());
    assert_eq!(endpoints(&gateway, "svc"), [new.url()]);
    for _ in 0..5 {
        assert_eq!(gateway.data(get("/v2/svc/x")).expect(200).text(), "new");
    }
    register_from(&gateway, B, "svc", &other.url());
    assert_eq!(endpoints(&gateway, "svc").len(), 2);
    register_from(&gateway, A, "svc_two", &old.url());
    assert_eq!(endpoints(&gateway, "svc").len(), 2);
}

#[test]
fn with_ids_one_registrant_has_many_instances() {
    let gateway = Gateway::start();
    for port in [1001, 1002] {
        let body = json!({"service_name": "svc", "endpoint": url(port), "instance_id": format!("host:{port}")});
        gateway.api(post("/register", &body)).expect(201);
    }
    assert_eq!(endpoints(&gateway, "svc"), [url(1001), url(1002)]);
    let moved = json!({"service_name": "svc", "endpoint": url(1003), "instance_id": "host:1001"});
    gateway.api(post("/register", &moved)).expect(201);
    assert_eq!(endpoints(&gateway, "svc"), [url(1002), url(1003)]);
}

#[test]
fn the_same_endpoint_is_the_same_instance_whatever_the_identity() {
    let gateway = Gateway::start();
    register_from(&gateway, A, "svc", &url(1001));
    register_from(&gateway, B, "svc", &url(1001));
    assert_eq!(endpoints(&gateway, "svc"), [url(1001)]);
    let body = json!({"service_name": "svc", "endpoint": url(1001), "instance_id": "named:1"});
    gateway.api(post("/register", &body).from(C)).expect(201);
    assert_eq!(endpoints(&gateway, "svc"), [url(1001)]);
    assert_eq!(instance(&gateway, "svc", &url(1001))["instance_id"], "named:1");
}

/// Sends a heartbeat without an id from `source` until it shows, and tells which endpoints it renewed.
fn renewed_by(gateway: &Gateway, source: [u8; 4], service: &str) -> Vec<String> {
    let times = || {
        endpoints(gateway, service)
            .into_iter()
            .map(|endpoint| (instance(gateway, service, &endpoint)["last_heartbeat"].as_f64().unwrap(), endpoint))
            .collect::<Vec<_>>()
    };
    let before = times();
    let mut renewed = Vec::new();
    eventually("the heartbeat to show", || {
        gateway.api(post("/heartbeat", &json!({"service_name": service})).from(source)).expect(200);
        let changed = before.iter().zip(times()).filter(|(old, new)| new.0 > old.0);
        renewed = changed.map(|(_, new)| new.1).collect();
        !renewed.is_empty()
    });
    renewed
}

#[test]
fn a_heartbeat_renews_the_callers_own_else_the_only_else_all_without_an_id() {
    let gateway = Gateway::start();
    register_from(&gateway, A, "svc", &url(1001));
    assert_eq!(renewed_by(&gateway, C, "svc"), [url(1001)], "the only instance");
    register_from(&gateway, B, "svc", &url(1002));
    assert_eq!(renewed_by(&gateway, A, "svc"), [url(1001)], "the caller's own");
    let named = json!({"service_name": "svc", "endpoint": url(1003), "instance_id": "named:3"});
    gateway.api(post("/register", &named).from(C)).expect(201);
    assert_eq!(renewed_by(&gateway, [127, 0, 0, 14], "svc"), [url(1001), url(1002)], "all without an id");
}

#[test]
fn a_heartbeat_without_id_where_all_have_ids_is_404() {
    let gateway = Gateway::start();
    for port in [1001, 1002] {
        let body = json!({"service_name": "svc", "endpoint": url(port), "instance_id": format!("n:{port}")});
        gateway.api(post("/register", &body).from(A)).expect(201);
    }
    let answer = gateway.api(post("/heartbeat", &json!({"service_name": "svc"})).from(B));
    assert_eq!(answer.problem(404, "not_found")["detail"], "Service 'svc' not registered");
}

#[test]
fn deregister_removes_the_callers_own_else_the_only_else_asks() {
    let gateway = Gateway::start();
    register_from(&gateway, A, "svc", &url(1001));
    register_from(&gateway, B, "svc", &url(1002));
    let problem = gateway.api(delete("/deregister/svc").from(C)).problem(409, "conflict");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("instance_id") && detail.contains("all=1"), "{detail}");
    assert_eq!(endpoints(&gateway, "svc").len(), 2);
    gateway.api(delete("/deregister/svc").from(A)).expect(200);
    assert_eq!(endpoints(&gateway, "svc"), [url(1002)]);
    gateway.api(delete("/deregister/svc").from(C)).expect(200);
    assert_eq!(gateway.services(), Vec::<String>::new());
}

#[test]
fn deregister_takes_an_id_or_all() {
    let gateway = Gateway::start();
    for port in [1001, 1002, 1003] {
        let body = json!({"service_name": "svc", "endpoint": url(port), "instance_id": format!("[::1]:{port}")});
        gateway.api(post("/register", &body)).expect(201);
    }
    gateway.api(delete("/deregister/svc?instance_id=%5B::1%5D:1001")).expect(200);
    assert_eq!(endpoints(&gateway, "svc"), [url(1002), url(1003)]);
    gateway.api(delete("/deregister/svc?instance_id=nobody")).expect(200);
    assert_eq!(endpoints(&gateway, "svc").len(), 2);
    gateway.api(delete("/deregister/svc?all=1")).expect(200);
    assert_eq!(gateway.services(), Vec::<String>::new());
}
