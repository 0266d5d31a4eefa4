//! Metrics: the agreed names with the right values, and no series that clients can invent (SPEC §2, §11).

use serde_json::json;

use crate::harness::scripts::{status, text};
use crate::harness::{Gateway, Lane, PATIENCE, Request, Upstream, delete, eventually, get, now, post};

#[test]
fn requests_are_counted_by_service_route_method_and_status() {
    let gateway = Gateway::start();
    let (good, bad) = (Upstream::start(text("ok")), Upstream::start(status("404 No", "no")));
    gateway.register("good_service", &good);
    gateway.register("bad_service", &bad);
    for _ in 0..7 {
        gateway.data(get("/v2/good_service/some/path")).expect(200);
    }
    gateway.data(Request::new("POST", "/v2/good_service/x").body("x")).expect(200);
    gateway.data(get("/v2/bad_service/x")).expect(404);
    let count = |labels: &[(&str, &str)]| gateway.metrics().sum("http_requests_total", labels);
    eventually("all to be counted", || {
        count(&[("service", "good_service"), ("route", "v2"), ("method", "GET"), ("status", "200")]) == 7.0
            && count(&[("service", "good_service"), ("route", "v2"), ("method", "POST"), ("status", "200")]) == 1.0
            && count(&[("service", "bad_service"), ("route", "v2"), ("method", "GET"), ("status", "404")]) == 1.0
    });
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum("http_request_duration_seconds_count", &[("service", "good_service")]), 8.0);
    assert_eq!(metrics.types["http_requests_total"], "counter");
    assert_eq!(metrics.types["http_request_duration_seconds"], "histogram");
    let slowest = metrics
        .select("http_request_duration_seconds_bucket", &[("service", "good_service")])
        .filter_map(|sample| sample.labels["le"].parse::<f64>().ok().filter(|le| le.is_finite()))
        .fold(0.0, f64::max);
    assert!(slowest > 1.0, "the buckets end at {slowest} s");
}

#[test]
fn requests_of_the_full_lane_are_counted_by_service() {
    let gateway = Gateway::builder().lane(Lane::Full).start();
    let upstream = Upstream::start(text("ok"));
    gateway.register("slow_lane", &upstream);
    assert_eq!(gateway.metrics().only("vertice_full_lane_requests_total", &[("service", "slow_lane")]), 0.0);
    for _ in 0..3 {
        gateway.data(get("/v2/slow_lane/x")).expect(200);
        gateway.data(get("/livez")).expect(200);
    }
    assert_eq!(gateway.metrics().full_lane("slow_lane"), 3.0);
}

#[test]
fn registry_operations_are_counted() {
    let gateway = Gateway::start();
    let body = json!({"service_name": "counted", "endpoint": "http://127.0.0.1:9"});
    for _ in 0..3 {
        gateway.api(post("/register", &body)).expect(201);
    }
    gateway.api(post("/heartbeat", &json!({"service_name": "counted"}))).expect(200);
    gateway.api(post("/heartbeat", &json!({"service_name": "nobody"}))).expect(404);
    gateway.api(delete("/deregister/counted")).expect(200);
    let metrics = gateway.registry_metrics();
    for (operation, count) in [("register", 3.0), ("heartbeat", 2.0), ("deregister", 1.0)] {
        assert_eq!(metrics.sum("registry_operations_total", &[("operation", operation)]), count, "{operation}");
        assert_eq!(metrics.sum("registry_operation_duration_seconds_count", &[("operation", operation)]), count, "{operation}");
    }
    let good = metrics.sum("registry_operations_total", &[("operation", "heartbeat"), ("status", "success")]);
    assert_eq!(good, 1.0, "{:?}", metrics.select("registry_operations_total", &[]).collect::<Vec<_>>());
}

#[test]
fn active_services_is_the_length_of_the_list() {
    let gateway = Gateway::builder().env("VERTICE_LEASE__TTL", "1s").start();
    let agree = || {
        let listed = gateway.services().len();
        let shown = gateway.registry_metrics().only("registry_active_services", &[]);
        (shown == listed as f64 && gateway.services().len() == listed).then_some(listed)
    };
    assert_eq!(agree(), Some(0));
    let body = json!({"service_name": "lasting", "endpoint": "http://127.0.0.1:9", "ttl": 3600});
    gateway.api(post("/register", &body)).expect(201);
    let draining = json!({"service_name": "draining", "endpoint": "http://127.0.0.1:9", "status": "draining", "ttl": 3600});
    gateway.api(post("/register", &draining)).expect(201);
    for number in 0..5 {
        gateway.register_at("several", &format!("http://127.0.0.1:100{number}"));
    }
    eventually("three services", || agree() == Some(3));
    eventually("the brief one to end", || agree() == Some(2));
    gateway.api(delete("/deregister/lasting")).expect(200);
    eventually("one service", || agree() == Some(1));
    assert!(gateway.registry_metrics().select("registry_active_services", &[]).all(|sample| sample.labels.is_empty()));
}

#[test]
fn the_agreed_families_are_there_and_each_on_its_port_only() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(text("ok"));
    gateway.register("svc", &upstream);
    gateway.data(get("/v2/svc/x")).expect(200);
    gateway.data(get("/gateway/health-check/svc")).expect(200);
    gateway.data(get("/gateway/health-check/svc")).expect(200);
    let (data, registry) = (gateway.metrics(), gateway.registry_metrics());
    for family in [
        "registry_operations_total",
        "registry_active_services",
        "registry_operation_duration_seconds",
        "registry_circuit_breaker_open",
        "registry_propagation_seconds",
    ] {
        assert!(registry.declares(family), "{family} is missing on the registry's port");
        assert!(!data.declares(family), "{family} is on both ports");
    }
    for family in [
        "http_requests_total",
        "http_request_duration_seconds",
        "health_cache_hits_total",
        "health_cache_misses_total",
        "health_circuit_breaker_state",
        "health_check_duration_seconds",
    ] {
        assert!(data.declares(family), "{family} is missing on the data port");
        assert!(!registry.declares(family), "{family} is on both ports");
    }
    for family in ["process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds", "vertice_panics_total"] {
        assert!(data.has(family) && registry.has(family), "{family}");
    }
    for metrics in [&data, &registry] {
        assert!(metrics.samples.iter().all(|sample| sample.labels.values().all(|value| !value.contains("127.0.0.1"))));
    }
    let answer = gateway.data(get("/metrics"));
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4")));
}

#[test]
fn clients_cannot_invent_series() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(text("ok"));
    gateway.register("svc", &upstream);
    let ask = |number: usize| {
        gateway.data(get(&format!("/v2/unknown_{number}/x"))).expect(503);
        gateway.data(Request::new(&format!("METHOD{number}"), "/v2/svc/x")).expect(200);
        gateway.data(get(&format!("/nowhere/{number}"))).expect(404);
        gateway.data(get(&format!("/gateway/health-check/unknown_{number}"))).expect(404);
        gateway.api(post("/heartbeat", &json!({"service_name": format!("unknown_{number}")}))).expect(404);
        gateway.api(get(&format!("/services/unknown_{number}"))).expect(404);
    };
    let series = || gateway.metrics().samples.len() + gateway.registry_metrics().samples.len();
    (0..3).for_each(ask);
    let mut before = 0;
    eventually("the number of series to settle", || before == std::mem::replace(&mut before, series()));
    (3..250).for_each(ask);
    let after = series();
    assert!(after <= before + 2, "{before} series grew to {after}");
    let unknown = gateway.metrics().sum("vertice_gateway_answers_total", &[("reason", "no_route")]);
    assert_eq!(unknown, 250.0);
}

#[test]
fn the_series_of_a_service_go_with_it() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(text("ok"));
    for number in 0..20 {
        let service = format!("passing_{number}");
        gateway.register(&service, &upstream);
        gateway.data(get(&format!("/v2/{service}/x"))).expect(200);
        gateway.api(delete(&format!("/deregister/{service}"))).expect(200);
    }
    let mut left = Vec::new();
    let start = now();
    while start.elapsed() < PATIENCE / 2 {
        left = gateway.metrics().samples;
        left.retain(|sample| sample.labels.get("service").is_some_and(|name| name.starts_with("passing_")));
        if left.is_empty() {
            return;
        }
    }
    panic!("series of services that are gone: {left:?}");
}

#[test]
fn breakers_and_snapshots_show() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(status("503 No", "no"));
    gateway.register("svc", &upstream);
    for _ in 0..3 {
        gateway.data(get("/v2/svc/x")).expect(503);
    }
    eventually("the transition", || {
        gateway.metrics().sum("vertice_breaker_transitions_total", &[("service", "svc"), ("to", "open")]) == 1.0
    });
    let before = gateway.metrics().only("vertice_snapshot_generation", &[]);
    gateway.register("other", &upstream);
    assert!(gateway.metrics().only("vertice_snapshot_generation", &[]) > before);
    assert!(gateway.registry_metrics().sum("registry_propagation_seconds_count", &[("scope", "local")]) >= 2.0);
}
