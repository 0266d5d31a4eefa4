//! The real sidecar beside the real gateway (SPEC §9).

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::harness::process::{Process, run};
use crate::harness::scripts::with_health;
use crate::harness::sidecar::{env, program, start};
use crate::harness::{Gateway, PATIENCE, Upstream, eventually, get, net, wait_for};

fn service(health: u16) -> (Upstream, Arc<AtomicU16>) {
    let health = Arc::new(AtomicU16::new(health));
    (Upstream::start(with_health(&health)), health)
}

fn url(gateway: &Gateway) -> String {
    format!("http://{}", gateway.registry)
}

#[test]
fn it_registers_beats_and_deregisters() {
    let gateway = Gateway::builder().env("VERTICE_LEASE__TTL", "3s").start();
    let (upstream, _health) = service(200);
    let mut sidecar = start(&env("real_service", &upstream, &url(&gateway)), gateway.dir());
    eventually("the registration", || gateway.services() == ["real_service"]);
    gateway.data(get("/v2/real_service/x")).expect(200);
    let info = gateway.service("real_service");
    assert_eq!(info["endpoint"], upstream.url());
    assert_eq!(info["instances"][0]["version"], "1.2.3");
    assert_eq!(info["instances"][0]["instance_id"], upstream.addr.to_string());
    let first = info["last_heartbeat"].as_f64().unwrap();
    eventually("heartbeats beyond the lease", || {
        gateway.service("real_service")["last_heartbeat"].as_f64().unwrap() > first + 3.5
    });
    sidecar.terminate();
    assert_eq!(sidecar.exit_within(PATIENCE).code(), Some(0));
    assert_eq!(gateway.services(), Vec::<String>::new());
    let log = sidecar.stdout() + &sidecar.stderr();
    let mut rest = log.as_str();
    for step in [
        "Waiting for service to be ready (max 60s)",
        "Service is READY (responded with 200 OK after 1 attempts)",
        "Starting registration process",
        "Service registered successfully",
        "Starting heartbeat loop (interval: 1s)",
    ] {
        let at = rest.find(step).unwrap_or_else(|| panic!("{step:?} is missing in its place:\n{log}"));
        rest = &rest[at + step.len()..];
    }
}

#[test]
fn its_health_check_tells_whether_it_is_registered() {
    let gateway = Gateway::start();
    let (upstream, _health) = service(200);
    let env = env("real_service", &upstream, &url(&gateway));
    let check = || {
        let mut command = Command::new(program());
        command.arg("healthcheck");
        run(command, &env, PATIENCE)
    };
    assert_eq!(check().code, Some(1));
    let mut sidecar = start(&env, gateway.dir());
    eventually("the registration", || gateway.services() == ["real_service"]);
    let healthy = check();
    assert_eq!((healthy.code, healthy.stderr.as_str()), (Some(0), ""));
    assert_eq!(healthy.stdout, format!("real_service is registered as {}\n", upstream.addr));
    sidecar.terminate();
    assert_eq!(sidecar.exit_within(PATIENCE).code(), Some(0));
    assert_eq!(check().code, Some(1));
}

#[test]
fn killed_it_lapses_and_the_service_works_until_then() {
    let gateway = Gateway::builder().env("VERTICE_LEASE__TTL", "3s").start();
    let (upstream, _health) = service(200);
    let mut sidecar = start(&env("real_service", &upstream, &url(&gateway)), gateway.dir());
    eventually("the registration", || gateway.services() == ["real_service"]);
    sidecar.kill();
    gateway.data(get("/v2/real_service/x")).expect(200);
    eventually("the lease to end", || gateway.services().is_empty());
    gateway.data(get("/v2/real_service/x")).problem(503, "no_route");
    let _again = start(&env("real_service", &upstream, &url(&gateway)), gateway.dir());
    eventually("the registration after a restart", || gateway.data(get("/v2/real_service/x")).status == 200);
}

#[test]
fn it_waits_for_its_service_to_be_ready() {
    let gateway = Gateway::start();
    let (upstream, health) = service(503);
    let _sidecar = start(&env("late_service", &upstream, &url(&gateway)), gateway.dir());
    eventually("some probes", || upstream.count() >= 2);
    assert_eq!(gateway.services(), Vec::<String>::new());
    health.store(200, Ordering::SeqCst);
    eventually("the registration", || gateway.services() == ["late_service"]);
}

#[test]
fn it_registers_anyway_when_the_wait_is_over() {
    let gateway = Gateway::start();
    let (upstream, _health) = service(503);
    let mut env = env("never_ready", &upstream, &url(&gateway));
    env.push(("INITIAL_WAIT_TIMEOUT".into(), "1".into()));
    let _sidecar = start(&env, gateway.dir());
    eventually("the registration", || gateway.services() == ["never_ready"]);
}

#[test]
fn an_unhealthy_service_gets_no_traffic_until_it_recovers() {
    let gateway = Gateway::start();
    let (upstream, health) = service(200);
    let _sidecar = start(&env("moody_service", &upstream, &url(&gateway)), gateway.dir());
    eventually("the registration", || gateway.data(get("/v2/moody_service/x")).status == 200);
    health.store(500, Ordering::SeqCst);
    eventually("the traffic to stop", || gateway.data(get("/v2/moody_service/x")).reason() == Some("no_instance"));
    assert_eq!(gateway.services(), ["moody_service"]);
    health.store(200, Ordering::SeqCst);
    eventually("the traffic to flow again", || gateway.data(get("/v2/moody_service/x")).status == 200);
}

#[test]
fn it_survives_a_crash_of_the_gateway() {
    let mut gateway = Gateway::builder().address(net::loopback()).env("VERTICE_LEASE__TTL", "4s").start();
    let (upstream, _health) = service(200);
    let mut sidecar = start(&env("steady_service", &upstream, &url(&gateway)), gateway.dir());
    // Visible a moment before it is acknowledged; only then it must survive.
    let registrations =
        |sidecar: &Process| (sidecar.stdout() + &sidecar.stderr()).matches("Service registered successfully").count();
    eventually("the registration", || registrations(&sidecar) == 1);
    gateway.crash_and_restart();
    gateway.data(get("/v2/steady_service/x")).expect(200);
    let first = gateway.service("steady_service")["last_heartbeat"].as_f64().unwrap();
    eventually("heartbeats beyond the lease", || {
        gateway.service("steady_service")["last_heartbeat"].as_f64().unwrap() > first + 4.5
    });
    assert!(sidecar.is_alive());
    assert_eq!(registrations(&sidecar), 1, "a restart of the gateway is no reason to register again");
}

#[test]
fn it_registers_again_when_the_gateway_forgot_it() {
    let mut gateway = Gateway::builder().address(net::loopback()).env("VERTICE_STORE__KIND", "memory").start();
    let (upstream, _health) = service(200);
    let mut sidecar = start(&env("forgotten_service", &upstream, &url(&gateway)), gateway.dir());
    eventually("the registration", || gateway.services() == ["forgotten_service"]);
    gateway.crash_and_restart();
    eventually("the registration again", || gateway.services() == ["forgotten_service"]);
    gateway.data(get("/v2/forgotten_service/x")).expect(200);
    assert!(sidecar.is_alive());
}

#[test]
fn it_comes_before_the_registry_and_waits_for_it() {
    let (upstream, _health) = service(200);
    let loopback = net::loopback();
    let mut gateway = Gateway::builder().address(loopback).start();
    gateway.process.kill();
    let mut sidecar = start(&env("early_service", &upstream, &url(&gateway)), gateway.dir());
    eventually("a failed try", || (sidecar.stdout() + &sidecar.stderr()).contains("Retrying registration in"));
    gateway.start_again();
    eventually("the registration", || gateway.services() == ["early_service"]);
    assert!(sidecar.is_alive());
}

#[test]
fn it_takes_the_next_registry_of_the_list() {
    let gateway = Gateway::start();
    let (upstream, _health) = service(200);
    let registries = format!("http://{},{}", net::closed(), url(&gateway));
    let _sidecar = start(&env("failover_service", &upstream, &registries), gateway.dir());
    eventually("the registration", || gateway.services() == ["failover_service"]);
}

#[test]
fn it_knows_the_token_by_both_names() {
    for variable in ["VERTICE_REGISTRY_TOKEN", "REGISTRY_AUTH_TOKEN"] {
        let gateway = Gateway::builder().env("VERTICE_REGISTRY__TOKEN", "sesame-sesame").start();
        let (upstream, _health) = service(200);
        let mut env = env("secret_service", &upstream, &url(&gateway));
        env.push((variable.into(), "sesame-sesame".into()));
        let sidecar = start(&env, gateway.dir());
        eventually("the registration", || gateway.services() == ["secret_service"]);
        assert!(!(sidecar.stdout() + &sidecar.stderr()).contains("sesame-sesame"));
    }
}

#[test]
fn it_is_small() {
    let gateway = Gateway::start();
    let (upstream, _health) = service(200);
    let sidecar = start(&env("small_service", &upstream, &url(&gateway)), gateway.dir());
    eventually("the registration", || gateway.services() == ["small_service"]);
    let first = gateway.service("small_service")["last_heartbeat"].as_f64().unwrap();
    wait_for("a heartbeat", || (gateway.service("small_service")["last_heartbeat"].as_f64().unwrap() > first).then_some(()));
    // The contract says 5 MB; a build for debugging carries more.
    let limit = if cfg!(debug_assertions) { 12 } else { 5 } * 1_000_000;
    let used = sidecar.resident_bytes();
    assert!(used < limit, "{used} bytes");
}

#[test]
fn without_its_name_it_says_what_is_missing() {
    let finished = crate::harness::process::run(std::process::Command::new(program()), &[], PATIENCE);
    assert_ne!(finished.code, Some(0));
    let told = finished.stdout + &finished.stderr;
    assert!(told.contains("SERVICE_NAME") && told.contains("SERVICE_HOST"), "{told}");
}
