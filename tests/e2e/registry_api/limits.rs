//! Limits that an operator sets on what may be registered.

use serde_json::json;

use super::{refused_fields, registration};
use crate::harness::{Gateway, post};

#[test]
fn endpoints_can_be_limited_to_networks() {
    let gateway = Gateway::builder().env("VERTICE_REGISTRY__ENDPOINT_ALLOW", "10.0.0.0/8,127.0.0.0/8").start();
    for endpoint in ["http://192.0.2.1:80", "http://[2001:db8::1]:80", "http://11.0.0.1"] {
        assert_eq!(refused_fields(&gateway, &registration("limited", endpoint)), ["endpoint"], "{endpoint}");
    }
    for endpoint in ["http://10.1.2.3:80", "http://127.0.0.1:9"] {
        gateway.api(post("/register", &registration("limited", endpoint))).expect(201);
    }
}

#[test]
fn a_full_registry_refuses_the_new_and_keeps_the_old() {
    let gateway =
        Gateway::builder().env("VERTICE_LIMITS__SERVICES", "3").env("VERTICE_LIMITS__INSTANCES_PER_SERVICE", "2").start();
    let register = |service: &str, port: u16| {
        let endpoint = format!("http://127.0.0.1:{port}");
        let body = json!({"service_name": service, "endpoint": endpoint, "instance_id": format!("i:{port}")});
        gateway.api(post("/register", &body))
    };
    for service in ["one", "two", "three"] {
        register(service, 1001).expect(201);
    }
    register("one", 1002).expect(201);
    for (service, port) in [("four", 1001), ("one", 1003)] {
        let answer = register(service, port);
        assert!(answer.status >= 400 && answer.reason().is_some(), "{service}: {} {}", answer.status, answer.text());
    }
    register("one", 1002).expect(201);
    assert_eq!(gateway.services(), ["one", "three", "two"]);
    gateway.api(post("/heartbeat", &json!({"service_name": "two"}))).expect(200);
}
