//! `GET /services`, `/services/{name}`, `/health`, `/livez`, `/readyz`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{instance, registration};
use crate::harness::clock::epoch_s;
use crate::harness::{Gateway, Request, eventually, get, post};

fn keys(object: &Value) -> BTreeSet<&str> {
    object.as_object().unwrap_or_else(|| panic!("no object: {object}")).keys().map(String::as_str).collect()
}

#[test]
fn the_list_is_a_sorted_array_of_names() {
    let gateway = Gateway::start();
    assert_eq!(gateway.api(get("/services")).expect(200).text(), "[]");
    for name in ["zeta", "alpha_service", "m-1"] {
        gateway.register_at(name, "http://127.0.0.1:9");
    }
    gateway.register_at("zeta", "http://127.0.0.1:10");
    let answer = gateway.api(get("/services")).expect(200);
    assert_eq!(answer.text(), r#"["alpha_service","m-1","zeta"]"#);
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[test]
fn a_service_shows_the_predecessors_fields_and_its_instances() {
    let gateway = Gateway::start();
    let before = epoch_s();
    let full = json!({
        "service_name": "full", "endpoint": "http://127.0.0.1:8047", "health_endpoint": "/healthz",
        "metadata": {"team": "red"}, "instance_id": "full:[::1]:80", "ttl": 30, "weight": 7, "zone": "eu-1",
        "version": "2.1.0", "tags": ["scan"], "status": "degraded"
    });
    let registered = gateway.api(post("/register", &full)).expect(201).json();
    assert_eq!((&registered["ttl"], &registered["instance_id"]), (&json!(30), &json!("full:[::1]:80")));
    let info = gateway.service("full");
    let flat = ["service_name", "endpoint", "health_endpoint", "metadata", "registered_at", "last_heartbeat", "ttl_remaining"];
    assert_eq!(keys(&info), flat.into_iter().chain(["instances", "index"]).collect());
    assert_eq!(info["service_name"], "full");
    assert_eq!(info["endpoint"], "http://127.0.0.1:8047");
    assert_eq!(info["health_endpoint"], "/healthz");
    assert_eq!(info["metadata"], json!({"team": "red"}));
    for time in ["registered_at", "last_heartbeat"] {
        assert!(info[time].is_f64(), "{info}");
        let seconds = info[time].as_f64().unwrap();
        assert!(seconds >= before - 1.0 && seconds <= epoch_s() + 1.0, "{time}: {seconds}");
    }
    assert!(info["ttl_remaining"].as_u64().is_some_and(|ttl| (20..=30).contains(&ttl)), "{info}");
    let entry = &info["instances"][0];
    let expected = [
        "instance_id",
        "endpoint",
        "health_endpoint",
        "metadata",
        "weight",
        "zone",
        "version",
        "status",
        "breaker",
        "registered_at",
        "last_heartbeat",
        "ttl_remaining",
    ];
    assert_eq!(keys(entry), expected.into_iter().collect());
    let given = ["instance_id", "endpoint", "health_endpoint", "metadata", "weight", "zone", "version", "status"];
    for key in given {
        assert_eq!(entry[key], full[key], "{key}");
    }
    assert_eq!(entry["breaker"], "closed");
}

#[test]
fn defaults_are_filled_in() {
    let gateway = Gateway::start();
    gateway.api(post("/register", &registration("bare", "http://127.0.0.1:9"))).expect(201);
    let info = gateway.service("bare");
    assert_eq!(info["health_endpoint"], "/health");
    assert_eq!(info["metadata"], json!({}));
    assert_eq!(info["instances"][0]["status"], "healthy");
    assert_eq!(info["instances"][0]["zone"], Value::Null);
}

#[test]
fn an_unknown_service_is_404_with_the_predecessors_sentence() {
    let gateway = Gateway::start();
    for name in ["nobody_service", "UPPER", "x"] {
        let answer = gateway.api(get(&format!("/services/{name}")));
        assert_eq!(answer.problem(404, "not_found")["detail"], format!("Service '{name}' not found"));
    }
}

#[test]
fn looking_up_twice_works_as_well_as_once() {
    let gateway = Gateway::start();
    gateway.register_at("cached", "http://127.0.0.1:9");
    let first = gateway.service("cached");
    for _ in 0..3 {
        let again = gateway.service("cached");
        assert_eq!(again["endpoint"], first["endpoint"]);
        assert_eq!(again["registered_at"], first["registered_at"]);
    }
}

#[test]
fn the_index_grows_with_each_change_and_stands_in_the_header() {
    let gateway = Gateway::start();
    let index = || {
        let answer = gateway.api(get("/services")).expect(200);
        answer.header("x-vertice-index").expect("no X-Vertice-Index").parse::<u64>().unwrap()
    };
    let empty = index();
    gateway.register_at("first", "http://127.0.0.1:9");
    let one = index();
    assert!(one > empty);
    assert_eq!(gateway.service("first")["index"], one);
    gateway.register_at("second", "http://127.0.0.1:9");
    assert!(index() > one);
}

#[test]
fn the_list_can_be_filtered_and_detailed() {
    let gateway = Gateway::start();
    let base = [("red_one", "eu", "1.0", "scan", "healthy"), ("red_two", "us", "2.0", "scan", "draining")];
    for (name, zone, version, tag, status) in base {
        let body = json!({
            "service_name": name, "endpoint": "http://127.0.0.1:9", "zone": zone, "version": version,
            "tags": [tag, "any"], "status": status
        });
        gateway.api(post("/register", &body)).expect(201);
    }
    let list = |query: &str| gateway.api(get(&format!("/services?{query}"))).expect(200).json();
    assert_eq!(list("zone=eu"), json!(["red_one"]));
    assert_eq!(list("version=2.0"), json!(["red_two"]));
    assert_eq!(list("tag=scan"), json!(["red_one", "red_two"]));
    assert_eq!(list("tag=nothing"), json!([]));
    assert_eq!(list("status=draining"), json!(["red_two"]));
    assert_eq!(list("tag=any&zone=us"), json!(["red_two"]));
    let detailed = list("detail=1&zone=eu");
    assert_eq!(detailed.as_array().map(Vec::len), Some(1), "{detailed}");
    assert_eq!(detailed[0]["service_name"], "red_one");
    assert_eq!(detailed[0]["instances"][0]["zone"], "eu");
}

#[test]
fn the_flat_object_is_the_latest_healthy_instance_else_the_latest() {
    let gateway = Gateway::start();
    let register = |port: u16, status: &str| {
        let body = json!({
            "service_name": "best", "endpoint": format!("http://127.0.0.1:{port}"),
            "instance_id": format!("i{port}"), "status": status
        });
        gateway.api(post("/register", &body)).expect(201);
    };
    register(1001, "healthy");
    register(1002, "unhealthy");
    assert_eq!(gateway.service("best")["endpoint"], "http://127.0.0.1:1001");
    register(1003, "healthy");
    assert_eq!(gateway.service("best")["endpoint"], "http://127.0.0.1:1003");
    for port in [1001, 1003] {
        let beat = json!({"service_name": "best", "instance_id": format!("i{port}"), "status": "unhealthy"});
        gateway.api(post("/heartbeat", &beat)).expect(200);
    }
    assert_eq!(gateway.service("best")["endpoint"], "http://127.0.0.1:1003");
}

#[test]
fn register_resets_the_time_and_a_heartbeat_replaces_the_metadata() {
    let gateway = Gateway::start();
    let endpoint = "http://127.0.0.1:9";
    let body = json!({"service_name": "meta", "endpoint": endpoint, "instance_id": "m:1", "metadata": {"a": "1", "b": "2"}});
    gateway.api(post("/register", &body)).expect(201);
    let first = instance(&gateway, "meta", endpoint);
    let beat = json!({"service_name": "meta", "instance_id": "m:1", "metadata": {"c": "3"}});
    eventually("the heartbeat's time to show", || {
        gateway.api(post("/heartbeat", &beat)).expect(200);
        let now = instance(&gateway, "meta", endpoint);
        now["last_heartbeat"].as_f64() > first["last_heartbeat"].as_f64()
    });
    let beaten = instance(&gateway, "meta", endpoint);
    assert_eq!(beaten["metadata"], json!({"c": "3"}));
    assert_eq!(beaten["registered_at"], first["registered_at"]);
    gateway.api(post("/heartbeat", &json!({"service_name": "meta", "instance_id": "m:1"}))).expect(200);
    assert_eq!(instance(&gateway, "meta", endpoint)["metadata"], json!({"c": "3"}));
    gateway.api(post("/register", &body)).expect(201);
    let again = instance(&gateway, "meta", endpoint);
    assert!(again["registered_at"].as_f64() > first["registered_at"].as_f64());
    assert_eq!(again["metadata"], json!({"a": "1", "b": "2"}));
}

#[test]
fn health_says_what_the_predecessor_said_and_more() {
    let gateway = Gateway::start();
    gateway.register_at("one", "http://127.0.0.1:9");
    for health in [gateway.api(get("/health")).expect(200).json(), gateway.data(get("/health")).expect(200).json()] {
        assert_eq!(health["status"], "healthy", "{health}");
        assert_eq!(health["redis"], "disabled");
        assert_eq!(health["circuit_breaker"], "closed");
        assert_eq!(health["active_services"], 1);
        assert!(health["uptime_seconds"].as_f64().is_some_and(|seconds| (0.0..3600.0).contains(&seconds)));
        assert!(["redis", "store", "dns", "leases"].iter().all(|part| health["components"].get(part).is_some()), "{health}");
    }
}

#[test]
fn livez_and_readyz_answer_on_both_ports() {
    let gateway = Gateway::start();
    for path in ["/livez", "/readyz"] {
        gateway.api(get(path)).expect(200);
        gateway.data(get(path)).expect(200);
    }
}

#[test]
fn other_methods_are_405_and_other_paths_404() {
    let gateway = Gateway::start();
    let calls = [
        ("GET", "/register", "POST"),
        ("PUT", "/register", "POST"),
        ("GET", "/heartbeat", "POST"),
        ("POST", "/deregister/abc", "DELETE"),
        ("POST", "/services", "GET"),
        ("DELETE", "/services/abc", "GET"),
        ("POST", "/health", "GET"),
        ("POST", "/gateway/status", "GET"),
    ];
    for (method, path, allowed) in calls {
        let answer = gateway.api(Request::new(method, path).body(""));
        answer.problem(405, "method_not_allowed");
        let allow = answer.header("allow").unwrap_or_default();
        assert!(allow.contains(allowed), "{method} {path}: Allow: {allow:?}");
    }
    for path in ["/", "/nothing", "/registers", "/services/a/b", "/register/x"] {
        gateway.api(get(path)).problem(404, "not_found");
    }
}
