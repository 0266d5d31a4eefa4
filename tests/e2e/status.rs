//! `GET /gateway/status`: what is in force (SPEC §12).

use serde_json::{Value, json};

use crate::harness::scripts::{gated, text};
use crate::harness::{Gate, Gateway, Request, Upstream, eventually, get, post};

#[test]
fn it_shows_what_is_in_force() {
    let gateway =
        Gateway::builder().env("REPLICA_ID", "replica-7").env("ZONE", "eu-1").env("VERTICE_LEASE__TTL", "90s").start();
    let upstream = Upstream::start(text("ok"));
    gateway.register("shown_service", &upstream);
    for _ in 0..5 {
        gateway.data(get("/v2/shown_service/x")).expect(200);
    }
    // A request is over a moment after its answer has arrived.
    eventually("the requests to end", || gateway.status()["services"][0]["instances"][0]["in_flight"] == 0);
    for status in [gateway.status(), gateway.api(get("/gateway/status")).expect(200).json()] {
        assert_eq!(status["gateway"], "operational");
        assert!(status["version"].as_str().is_some_and(|version| !version.is_empty()));
        assert!(status["build"].is_string());
        assert!(status["uptime_seconds"].as_f64().is_some_and(|seconds| (0.0..3600.0).contains(&seconds)));
        assert_eq!(status["circuit_breaker"], json!({"open": false, "failures": 0, "threshold": 3, "opened_at": null}));
        for cache in ["cache", "service_discovery_cache"] {
            assert_eq!(status[cache]["services"], json!(["shown_service"]), "{cache}");
            assert_eq!(status[cache]["size"], 1);
            assert_eq!(status[cache]["ttl"].as_f64(), Some(90.0));
            assert!(status[cache].get("max_size").is_some());
        }
        for key in ["size", "max_size", "ttl", "hits", "misses", "hit_rate"] {
            assert!(status["health_cache"][key].is_number(), "{key}: {}", status["health_cache"]);
        }
        assert_eq!(status["replicas"][0]["replica_id"], "replica-7");
        assert_eq!(status["store"]["kind"], "embedded");
        assert_eq!(status["store"]["healthy"], true);
        assert!(status["snapshot"]["generation"].as_u64().is_some_and(|generation| generation > 0));
        let instance = &status["services"][0]["instances"][0];
        assert_eq!(status["services"][0]["service_name"], "shown_service");
        assert_eq!(instance["endpoint"], upstream.url());
        assert_eq!(instance["addresses"], json!([upstream.addr.to_string()]));
        assert_eq!((&instance["breaker"], &instance["status"]), (&json!("closed"), &json!("healthy")));
        assert_eq!(instance["in_flight"], 0);
        assert!(instance["ewma_ms"].as_f64().is_some_and(|ms| ms > 0.0 && ms < 10_000.0), "{instance}");
    }
}

#[test]
fn requests_under_way_are_shown() {
    let gateway = Gateway::start();
    let (arrived, gate) = (Gate::new(), Gate::new());
    let upstream = Upstream::start(gated(&arrived, &gate));
    gateway.register("busy", &upstream);
    let address = gateway.gateway;
    let requests: Vec<_> = (0..3).map(|_| std::thread::spawn(move || get("/v2/busy/x").send(address).status)).collect();
    arrived.wait(3);
    assert_eq!(gateway.instances("busy")[0]["in_flight"], 3);
    gate.open();
    assert!(requests.into_iter().all(|request| request.join().unwrap() == 200));
    eventually("nothing in flight", || gateway.instances("busy")[0]["in_flight"] == 0);
}

#[test]
fn only_routable_services_count_as_cached() {
    let gateway = Gateway::start();
    gateway.register_at("awake", "http://127.0.0.1:9");
    let body = json!({"service_name": "asleep", "endpoint": "http://127.0.0.1:9", "status": "draining"});
    gateway.api(post("/register", &body)).expect(201);
    let status = gateway.status();
    let names: Vec<&Value> = status["services"].as_array().unwrap().iter().map(|entry| &entry["service_name"]).collect();
    assert_eq!(names, ["asleep", "awake"]);
    assert_eq!(gateway.services(), ["asleep", "awake"]);
    assert!(status["cache"]["services"].as_array().unwrap().contains(&json!("awake")));
}

#[test]
fn nothing_under_gateway_can_be_changed_from_the_data_port() {
    let gateway = Gateway::start();
    gateway.register_at("kept", "http://127.0.0.1:9");
    for target in ["/gateway/canary/kept", "/gateway/drain/kept", "/gateway/reload", "/gateway/anything"] {
        for method in ["POST", "PUT", "DELETE"] {
            gateway.data(Request::new(method, target).json("{}")).problem(404, "not_found");
        }
    }
    assert_eq!(gateway.services(), ["kept"]);
}
