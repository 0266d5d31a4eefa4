//! The breaker over Redis, where operators look for it.

use serde_json::Value;

use super::{Site, eventually_breaker_is};
use crate::harness::{Gateway, eventually};

/// `/gateway/status`, `/health` and the metrics must say the same.
#[track_caller]
fn assert_says(gateway: &Gateway, state: &str) {
    eventually(&format!("everything to say {state}"), || {
        let metrics = gateway.registry_metrics();
        let (status, health) = (gateway.status(), gateway.health());
        let number = if state == "closed" { 0.0 } else { 1.0 };
        metrics.only("redis_circuit_breaker_state", &[]) == number
            && metrics.only("registry_circuit_breaker_open", &[]) == number
            && status["circuit_breaker"]["open"] == (state == "open")
            && health["circuit_breaker"] == state
    });
}

#[test]
fn the_breaker_opens_heals_by_itself_and_is_seen_everywhere() {
    let mut site = Site::start(2);
    assert_says(site.gateway(0), "closed");
    let operations = site.gateway(0).registry_metrics().sum("redis_operation_duration_seconds_count", &[]);
    assert!(operations > 0.0);
    site.redis.kill();
    eventually_breaker_is(site.gateway(0), "open");
    assert_says(site.gateway(0), "open");
    let status = site.gateway(0).status();
    let breaker = &status["circuit_breaker"];
    assert!(breaker["failures"].as_u64().is_some_and(|failures| failures >= 3), "{breaker}");
    assert!(breaker["threshold"] == 3 && breaker["opened_at"] != Value::Null, "{breaker}");
    assert_eq!(status["store"]["healthy"], false, "{status}");
    let failures = site.gateway(0).registry_metrics();
    assert!(failures.sum("redis_failures_total", &[]) >= 3.0);
    assert!(failures.select("redis_failures_total", &[]).all(|sample| sample.labels.contains_key("error_type")));
    // Nobody asks anything of the gateways: they look for themselves.
    site.redis.start_again();
    for gateway in &site.fleet.gateways {
        eventually_breaker_is(gateway, "closed");
        assert_says(gateway, "closed");
    }
    site.assert_sound();
}

#[test]
fn replicas_see_each_other_and_that_one_of_them_is_silent() {
    let mut site = Site::start(3);
    let seen = |gateway: &Gateway, name: &str| {
        let replicas = gateway.status()["replicas"].clone();
        let found = replicas.as_array().unwrap().iter().find(|replica| replica["replica_id"] == name).cloned();
        found.map(|replica| (replica["seen_seconds_ago"].as_f64().unwrap(), replica["local"] == true))
    };
    for name in ["replica-1", "replica-2", "replica-3"] {
        eventually(name, || site.fleet.gateways.iter().all(|gateway| seen(gateway, name).is_some()));
    }
    assert_eq!(seen(site.gateway(1), "replica-2"), Some((0.0, true)));
    site.fleet.gateways[2].process.kill();
    eventually("one to be silent", || {
        let [second, third] = ["replica-2", "replica-3"].map(|name| seen(site.gateway(0), name).map_or(60.0, |(ago, _)| ago));
        third > 6.0 && second < 5.0
    });
}
