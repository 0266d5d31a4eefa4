//! `GET /gateway/health-check/{service}` (SPEC §6).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::{Value, json};

use crate::harness::clock::epoch_s;
use crate::harness::scripts::{gated, silent, with_health};
use crate::harness::{Gate, Gateway, Upstream, eventually, get, net, now, post};

fn check(gateway: &Gateway, service: &str) -> Value {
    gateway.data(get(&format!("/gateway/health-check/{service}"))).expect(200).json()
}

fn service_with_health(status: u16) -> (Upstream, Arc<AtomicU16>) {
    let health = Arc::new(AtomicU16::new(status));
    (Upstream::start(with_health(&health)), health)
}

#[test]
fn a_check_asks_once_and_then_the_cache() {
    let gateway = Gateway::start();
    let (upstream, _health) = service_with_health(200);
    gateway.register("checked", &upstream);
    let first = check(&gateway, "checked");
    let expected =
        ["service_name", "service_url", "healthy", "status_code", "response_time_ms", "cached", "cache_layer", "timestamp"];
    assert_eq!(first.as_object().unwrap().keys().map(String::as_str).collect::<BTreeSet<_>>(), expected.into());
    assert_eq!((&first["service_name"], &first["service_url"]), (&json!("checked"), &json!(upstream.url())));
    assert_eq!((&first["healthy"], &first["status_code"]), (&json!(true), &json!(200)));
    assert_eq!((&first["cached"], &first["cache_layer"]), (&json!(false), &Value::Null));
    assert!(first["response_time_ms"].as_f64().is_some_and(|ms| ms >= 0.0));
    assert!(first["timestamp"].as_f64().is_some_and(|seconds| (seconds - epoch_s()).abs() < 60.0), "{first}");
    let second = check(&gateway, "checked");
    assert_eq!((&second["cached"], &second["cache_layer"]), (&json!(true), &json!("local")));
    assert_eq!((&second["healthy"], &second["status_code"]), (&json!(true), &json!(200)));
    assert_eq!(gateway.api(get("/gateway/health-check/checked")).expect(200).json()["cached"], true);
    assert_eq!(upstream.seen().iter().filter(|seen| seen.target == "/health").count(), 1);
    let status = gateway.status();
    assert_eq!((&status["health_cache"]["hits"], &status["health_cache"]["misses"]), (&json!(2), &json!(1)));
    let metrics = gateway.metrics();
    assert_eq!(metrics.only("health_cache_hits_total", &[("cache_layer", "local")]), 2.0);
    assert_eq!(metrics.only("health_cache_misses_total", &[]), 1.0);
    assert_eq!(metrics.only("health_circuit_breaker_state", &[("service_name", "checked")]), 0.0);
    assert_eq!(metrics.sum("health_check_duration_seconds_count", &[("service_name", "checked")]), 1.0);
}

#[test]
fn the_cache_expires() {
    let gateway = Gateway::builder().env("GATEWAY_CACHE_TTL", "1").start();
    let (upstream, health) = service_with_health(200);
    gateway.register("checked", &upstream);
    assert_eq!(check(&gateway, "checked")["healthy"], true);
    health.store(500, Ordering::SeqCst);
    eventually("the cached result to expire", || {
        let result = check(&gateway, "checked");
        result["healthy"] == false && result["status_code"] == 500
    });
}

#[test]
fn the_registered_path_is_asked_and_only_2xx_is_healthy() {
    let gateway = Gateway::builder().env("VERTICE_HEALTH__CACHE_TTL", "0s").start();
    for (code, healthy) in [(200, true), (204, true), (299, true), (302, false), (404, false), (500, false), (503, false)] {
        let upstream = Upstream::start(crate::harness::scripts::status(&format!("{code} X"), ""));
        let service = format!("svc{code}");
        let body = json!({"service_name": service, "endpoint": upstream.url(), "health_endpoint": "/deep/health?full=1"});
        gateway.api(post("/register", &body)).expect(201);
        let result = check(&gateway, &service);
        assert_eq!((&result["healthy"], &result["status_code"]), (&json!(healthy), &json!(code)), "{result}");
        assert_eq!((upstream.last().method, upstream.last().target), ("GET".into(), "/deep/health?full=1".into()));
    }
}

#[test]
fn a_dead_service_is_200_and_unhealthy_and_an_unknown_one_404() {
    let gateway = Gateway::start();
    gateway.register_at("dead", &format!("http://{}", net::closed()));
    let result = check(&gateway, "dead");
    assert_eq!((&result["healthy"], &result["status_code"]), (&json!(false), &json!(503)), "{result}");
    gateway.data(get("/gateway/health-check/nobody")).problem(404, "not_found");
}

#[test]
fn a_service_that_keeps_silent_is_unhealthy_in_time() {
    let gateway = Gateway::builder().env("VERTICE_HEALTH__TIMEOUT", "300ms").start();
    let upstream = Upstream::start(silent());
    gateway.register("silent", &upstream);
    let start = now();
    let result = check(&gateway, "silent");
    assert_eq!((&result["healthy"], &result["status_code"]), (&json!(false), &json!(503)));
    assert!(start.elapsed().as_secs() < 5);
}

#[test]
fn concurrent_checks_share_one_probe() {
    let gateway = Arc::new(Gateway::start());
    let (arrived, gate) = (Gate::new(), Gate::new());
    let upstream = Upstream::start(gated(&arrived, &gate));
    gateway.register("shared", &upstream);
    let checks: Vec<_> = (0..12)
        .map(|_| {
            let gateway = gateway.clone();
            std::thread::spawn(move || check(&gateway, "shared"))
        })
        .collect();
    arrived.wait(1);
    // All are under way once the gateway has as many requests in flight; the metrics request is one more.
    eventually("all checks to wait", || gateway.metrics().sum("vertice_connections", &[]) >= 12.0);
    gate.open();
    assert!(checks.into_iter().all(|check| check.join().unwrap()["healthy"] == true));
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_breaker_spares_a_service_that_never_answers() {
    let gateway = Gateway::builder().env("VERTICE_HEALTH__CACHE_TTL", "0s").env("VERTICE_HEALTH__TIMEOUT", "200ms").start();
    let upstream = Upstream::start(silent());
    gateway.register("silent", &upstream);
    eventually("the breaker of the checks to open", || {
        assert_eq!(check(&gateway, "silent")["healthy"], false);
        gateway.metrics().sum("health_circuit_breaker_state", &[("service_name", "silent")]) == 1.0
    });
    let asked = upstream.count();
    let start = now();
    for _ in 0..10 {
        let result = check(&gateway, "silent");
        assert_eq!((&result["healthy"], &result["status_code"]), (&json!(false), &json!(503)));
    }
    assert!(start.elapsed().as_millis() < 1500, "{:?}", start.elapsed());
    assert_eq!(upstream.count(), asked);
}

#[test]
fn checks_do_not_change_the_routing() {
    let gateway = Gateway::builder().env("VERTICE_HEALTH__CACHE_TTL", "0s").start();
    let (upstream, health) = service_with_health(500);
    gateway.register("sick", &upstream);
    // Not often enough for the breaker of the checks to open.
    for _ in 0..2 {
        assert_eq!(check(&gateway, "sick")["healthy"], false);
    }
    gateway.data(get("/v2/sick/x")).expect(200);
    health.store(200, Ordering::SeqCst);
    eventually("health", || check(&gateway, "sick")["healthy"] == true);
}

#[test]
fn fallbacks_and_aliases_can_be_checked() {
    let (upstream, _health) = service_with_health(200);
    let gateway = Gateway::builder().env("VISION_URL", &upstream.url()).start();
    gateway.register("ip_intel_service", &upstream);
    for service in ["vision", "ip_intelligence_service", "IP_INTEL_SERVICE_URL"] {
        assert_eq!(check(&gateway, service)["healthy"], true, "{service}");
    }
}
