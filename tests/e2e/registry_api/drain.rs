//! Taking instances out of rotation: by the operator, and on the way out.

use std::thread;

use serde_json::{Value, json};

use super::instance;
use crate::harness::scripts::{gated, text};
use crate::harness::{Gate, Gateway, Upstream, delete, eventually, get, post};

fn two(gateway: &Gateway, a: &Upstream, b: &Upstream) {
    for (id, upstream) in [("a:1", a), ("b:1", b)] {
        let body = json!({"service_name": "svc", "endpoint": upstream.url(), "instance_id": id});
        gateway.api(post("/register", &body)).expect(201);
    }
}

fn drain(gateway: &Gateway, params: &str) -> Value {
    gateway.api(post(&format!("/gateway/drain/svc?{params}"), &json!({}))).expect(200).json()
}

/// Everybody who answers in a number of requests.
fn answers(gateway: &Gateway) -> Vec<String> {
    let mut seen: Vec<String> = (0..20).map(|_| gateway.data(get("/v2/svc/x")).expect(200).text()).collect();
    seen.sort();
    seen.dedup();
    seen
}

#[test]
fn a_drained_instance_gets_no_new_requests_and_finishes_the_old_ones() {
    let gateway = Gateway::start();
    let (arrived, finish) = (Gate::new(), Gate::new());
    let (a, b) = (Upstream::start(gated(&arrived, &finish)), Upstream::start(text("b")));
    gateway.api(post("/register", &json!({"service_name": "svc", "endpoint": a.url(), "instance_id": "a:1"}))).expect(201);
    thread::scope(|scope| {
        let old = scope.spawn(|| gateway.data(get("/v2/svc/old")));
        arrived.wait(1);
        two(&gateway, &a, &b);
        let answer = drain(&gateway, "instance_id=a:1&for=5m");
        assert_eq!(answer, json!({"message": "Draining", "service_name": "svc", "instances": ["a:1"], "seconds": 300.0}));
        assert_eq!(answers(&gateway), ["b"]);
        assert_eq!(instance(&gateway, "svc", &a.url())["status"], "draining");
        finish.open();
        old.join().unwrap().expect(200);
    });
    a.set(text("a"));
    let beat = json!({"service_name": "svc", "instance_id": "a:1", "status": "healthy"});
    gateway.api(post("/heartbeat", &beat)).expect(200);
    assert_eq!(answers(&gateway), ["b"], "a heartbeat does not end a drain");
    assert_eq!(drain(&gateway, "instance_id=a:1&for=0")["message"], "Drain ended");
    drain(&gateway, "instance_id=b:1");
    assert_eq!(answers(&gateway), ["a"]);
}

#[test]
fn a_drain_ends_by_itself_and_a_whole_service_can_be_drained() {
    let gateway = Gateway::start();
    let (a, b) = (Upstream::start(text("a")), Upstream::start(text("b")));
    two(&gateway, &a, &b);
    assert_eq!(drain(&gateway, "for=1s")["instances"], json!(["a:1", "b:1"]));
    gateway.data(get("/v2/svc/x")).problem(503, "no_instance");
    eventually("the drain is over", || gateway.data(get("/v2/svc/x")).status == 200);
    assert!(gateway.instances("svc").iter().all(|instance| instance["status"] == "healthy"));
}

#[test]
fn a_deregistration_with_a_drain_takes_no_requests_and_goes_later() {
    let mut gateway = Gateway::start();
    let (a, b) = (Upstream::start(text("a")), Upstream::start(text("b")));
    two(&gateway, &a, &b);
    gateway.api(delete("/deregister/svc?instance_id=a:1&drain=1s")).expect(200);
    assert_eq!(answers(&gateway), ["b"]);
    eventually("the instance is gone", || gateway.instances("svc").len() == 1);
    gateway.api(delete("/deregister/svc?instance_id=b:1&drain=10m")).expect(200);
    gateway.data(get("/v2/svc/x")).problem(503, "no_instance");
    gateway.crash_and_restart();
    assert!(gateway.services().is_empty(), "who was leaving does not come back with a restart");
}

#[test]
fn draining_is_the_operators_and_says_what_is_wrong() {
    let gateway = Gateway::builder().env("REGISTRY_AUTH_TOKEN", "secret").start();
    let b = Upstream::start(text("b"));
    let register = json!({"service_name": "svc", "endpoint": b.url(), "instance_id": "b:1"});
    gateway.api(post("/register", &register).header("X-Registry-Token", "secret")).expect(201);
    let call = |target: &str| post(target, &json!({})).header("X-Registry-Token", "secret");
    gateway.api(post("/gateway/drain/svc", &json!({}))).problem(401, "unauthorized");
    gateway.data(call("/gateway/drain/svc")).problem(404, "not_found");
    gateway.api(get("/gateway/drain/svc")).problem(405, "method_not_allowed");
    for absurd in ["for=soon", "for=-1", "for=25h", "for=", "instance_id=a%20b"] {
        let problem = gateway.api(call(&format!("/gateway/drain/svc?{absurd}"))).problem(422, "unprocessable");
        assert_eq!(problem["errors"][0]["field"], absurd.split('=').next().unwrap());
    }
    for unknown in ["/gateway/drain/other", "/gateway/drain/svc?instance_id=c:1", "/gateway/drain/NO"] {
        gateway.api(call(unknown)).problem(404, "not_found");
    }
    let problem = gateway.api(call("/gateway/drain/svc?instance_id=c:1")).problem(404, "not_found");
    assert_eq!(problem["detail"], "Service 'svc' has no instance 'c:1'; it has b:1.");
    gateway.api(delete("/deregister/svc?drain=25h").header("X-Registry-Token", "secret")).problem(422, "unprocessable");
    assert_eq!(answers(&gateway), ["b"]);
}
