//! Register, heartbeat, deregister: the shapes of the answers and what they do.

use serde_json::json;

use crate::harness::scripts::{echo, text};
use crate::harness::{Gateway, Request, Upstream, delete, get, post};

#[test]
fn register_answers_the_agreed_bytes_and_is_routable_at_once() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(text("here"));
    let body = json!({"service_name": "osint_service", "endpoint": upstream.url(), "instance_id": "osint:8049"});
    let answer = gateway.api(post("/register", &body)).expect(201);
    assert_eq!(
        answer.text(),
        r#"{"message":"Service registered successfully","service_name":"osint_service","instance_id":"osint:8049","ttl":60,"durable":true}"#
    );
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let routed = gateway.data(get("/v2/osint_service/x")).expect(200);
    assert_eq!(routed.text(), "here");
}

#[test]
fn heartbeat_and_deregister_answer_the_agreed_bytes() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(text("here"));
    gateway.register("osint_service", &upstream);
    let beat = gateway.api(post("/heartbeat", &json!({"service_name": "osint_service"}))).expect(200);
    assert_eq!(beat.text(), r#"{"message":"Heartbeat received","service_name":"osint_service"}"#);
    for round in ["registered", "already gone"] {
        let gone = gateway.api(delete("/deregister/osint_service")).expect(200);
        assert_eq!(gone.text(), r#"{"message":"Service deregistered","service_name":"osint_service"}"#, "{round}");
    }
    gateway.data(get("/v2/osint_service/x")).problem(503, "no_route");
    assert_eq!(gateway.services(), Vec::<String>::new());
}

#[test]
fn a_heartbeat_for_nobody_is_404_so_that_the_sidecar_registers_again() {
    let gateway = Gateway::start();
    let answer = gateway.api(post("/heartbeat", &json!({"service_name": "ghost_service"})));
    let problem = answer.problem(404, "not_found");
    assert_eq!(problem["detail"], "Service 'ghost_service' not registered");
    let upstream = Upstream::start(text("here"));
    gateway.register("real_service", &upstream);
    let wrong = json!({"service_name": "real_service", "instance_id": "somebody:1"});
    let problem = gateway.api(post("/heartbeat", &wrong)).problem(404, "not_found");
    assert_eq!(problem["detail"], "Service 'real_service' not registered");
}

#[test]
fn the_whole_api_is_on_the_data_port_too() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(text("here"));
    let body = json!({"service_name": "both_ports", "endpoint": upstream.url()});
    gateway.data(post("/register", &body)).expect(201);
    gateway.data(post("/heartbeat", &json!({"service_name": "both_ports"}))).expect(200);
    assert_eq!(gateway.data(get("/services")).expect(200).text(), r#"["both_ports"]"#);
    assert_eq!(gateway.data(get("/services/both_ports")).expect(200).json()["endpoint"], upstream.url());
    gateway.data(delete("/deregister/both_ports")).expect(200);
    assert_eq!(gateway.services(), Vec::<String>::new());
}

#[test]
fn unknown_fields_are_ignored() {
    let gateway = Gateway::start();
    let body = json!({
        "service_name": "tomorrow", "endpoint": "http://127.0.0.1:9", "from_the_future": {"deep": [1, null]}, "x": 1.5e3
    });
    gateway.api(post("/register", &body)).expect(201);
    gateway.api(post("/heartbeat", &json!({"service_name": "tomorrow", "surplus": true}))).expect(200);
}

#[test]
fn hyphens_and_limits_of_names_are_accepted() {
    let gateway = Gateway::start();
    for name in ["a-b", "0ab", "a_b-c_9", &"x".repeat(64)] {
        gateway.api(post("/register", &json!({"service_name": name, "endpoint": "http://127.0.0.1:9"}))).expect(201);
        gateway.api(get(&format!("/services/{name}"))).expect(200);
    }
}

#[test]
fn a_content_type_with_parameters_and_any_case_is_json() {
    let gateway = Gateway::start();
    for kind in ["application/json; charset=utf-8", "Application/JSON", "application/json;charset=UTF-8"] {
        let body = json!({"service_name": "typed", "endpoint": "http://127.0.0.1:9"}).to_string();
        gateway.api(Request::new("POST", "/register").header("Content-Type", kind).body(body)).expect(201);
    }
}

#[test]
fn a_chunked_registration_is_read() {
    let gateway = Gateway::start();
    let body = json!({"service_name": "chunked", "endpoint": "http://127.0.0.1:9"}).to_string();
    let (one, two) = body.as_bytes().split_at(11);
    let request = Request::new("POST", "/register").header("Content-Type", "application/json").chunked(&[one, two]);
    gateway.api(request).expect(201);
}

#[test]
fn unhealthy_instances_are_listed_and_get_no_traffic() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(echo());
    for status in ["starting", "unhealthy", "draining"] {
        let body = json!({
            "service_name": "moody", "endpoint": upstream.url(), "instance_id": "m:1", "status": status,
            "metadata": {"status": "healthy"}
        });
        gateway.api(post("/register", &body)).expect(201);
        assert_eq!(gateway.service("moody")["instances"][0]["status"], status);
        let answer = gateway.data(get("/v2/moody/x"));
        answer.problem(503, "no_instance");
        assert!(answer.header("retry-after").is_some());
    }
    for (status, routed) in [("healthy", 200), ("unhealthy", 503), ("degraded", 200)] {
        let beat = json!({"service_name": "moody", "instance_id": "m:1", "status": status});
        gateway.api(post("/heartbeat", &beat)).expect(200);
        gateway.data(get("/v2/moody/x")).expect(routed);
    }
    assert_eq!(upstream.count(), 2);
}

#[test]
fn a_status_in_the_metadata_is_for_display_only() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(echo());
    let body = json!({"service_name": "display", "endpoint": upstream.url(), "metadata": {"status": "unhealthy"}});
    gateway.api(post("/register", &body)).expect(201);
    gateway.data(get("/v2/display/x")).expect(200);
}

#[test]
fn a_path_prefix_of_the_endpoint_is_prepended() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(echo());
    gateway.register_at("plain_prefix", &format!("{}/api/v1", upstream.url()));
    gateway.register_at("slash_prefix", &format!("{}/api/v1/", upstream.url()));
    for service in ["plain_prefix", "slash_prefix"] {
        gateway.data(get(&format!("/v2/{service}/items?q=1"))).expect(200);
        assert_eq!(upstream.last().target, "/api/v1/items?q=1", "{service}");
    }
}

#[test]
fn deregistering_stops_the_traffic_at_once() {
    let gateway = Gateway::start();
    let (one, two) = (Upstream::start(text("one")), Upstream::start(text("two")));
    gateway.register("pair", &one);
    gateway.register("pair", &two);
    let id = one.addr.to_string().replace(':', "%3A");
    gateway.api(delete(&format!("/deregister/pair?instance_id={id}"))).expect(200);
    for _ in 0..10 {
        assert_eq!(gateway.data(get("/v2/pair/x")).expect(200).text(), "two");
    }
    assert_eq!(one.count(), 0);
}
