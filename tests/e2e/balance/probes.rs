//! Active probes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{instance, register};
use crate::harness::scripts::script;
use crate::harness::{After, Gateway, Upstream, eventually, get, net, post};
use serde_json::json;

const PROBED: &str = "[health]\nactive = true\ninterval = \"100ms\"\n";

/// An instance whose health can be switched; all else it answers with 200, or with 503 while it is broken.
struct Patient {
    upstream: Upstream,
    is_well: Arc<AtomicBool>,
    is_broken: Arc<AtomicBool>,
}

impl Patient {
    fn start() -> Self {
        let (is_well, is_broken) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let (well, broken) = (is_well.clone(), is_broken.clone());
        let upstream = Upstream::start(script(move |exchange| {
            let is_probe = exchange.seen.target == "/healthz";
            let is_good = if is_probe { well.load(Ordering::SeqCst) } else { !broken.load(Ordering::SeqCst) };
            exchange.answer(if is_good { "200 OK" } else { "503 No" }, &[], b"")?;
            Ok(After::KeepAlive)
        }));
        Self { upstream, is_well, is_broken }
    }

    fn register(&self, gateway: &Gateway, service: &str) {
        register(gateway, service, &self.upstream, &json!({"health_endpoint": "/healthz"}));
    }

    fn requests(&self) -> usize {
        self.upstream.seen().iter().filter(|seen| seen.target == "/x").count()
    }

    fn await_verdict(&self, gateway: &Gateway, service: &str, passed: bool) {
        eventually("the probes' verdict", || instance(gateway, service, &self.upstream)["probe_passed"] == passed);
    }
}

#[test]
fn who_fails_gets_no_requests_until_it_passes_again() {
    let gateway = Gateway::builder().config(PROBED).start();
    let (well, ill) = (Patient::start(), Patient::start());
    [&well, &ill].iter().for_each(|patient| patient.register(&gateway, "probed"));
    ill.is_well.store(false, Ordering::SeqCst);
    ill.await_verdict(&gateway, "probed", false);
    let before = ill.requests();
    (0..30).for_each(|_| drop(gateway.data(get("/v2/probed/x")).expect(200)));
    assert_eq!(ill.requests(), before);
    eventually("the metrics to tell", || {
        gateway.metrics().sum("vertice_active_probes_failing", &[("service", "probed")]) == 1.0
    });
    assert!(gateway.metrics().sum("vertice_active_probes_total", &[("service", "probed"), ("result", "failed")]) >= 3.0);
    ill.is_well.store(true, Ordering::SeqCst);
    ill.await_verdict(&gateway, "probed", true);
    eventually("it to get requests", || {
        gateway.data(get("/v2/probed/x")).expect(200);
        ill.requests() > before
    });
}

#[test]
fn when_too_few_are_left_probes_are_ignored() {
    let gateway = Gateway::builder().config(PROBED).start();
    let patients = [Patient::start(), Patient::start(), Patient::start()];
    for patient in &patients {
        patient.register(&gateway, "probed");
        patient.is_well.store(false, Ordering::SeqCst);
    }
    patients.iter().for_each(|patient| patient.await_verdict(&gateway, "probed", false));
    eventually("all to get requests", || {
        gateway.data(get("/v2/probed/x")).expect(200);
        patients.iter().all(|patient| patient.requests() > 0)
    });
    eventually("the metrics to tell", || gateway.metrics().sum("vertice_balance_panic", &[("service", "probed")]) == 1.0);
    let status = gateway.status();
    let service = status["services"].as_array().unwrap().iter().find(|service| service["service_name"] == "probed").unwrap();
    assert_eq!(service["panic"], true);
    // A reported status is never ignored.
    let id = patients[0].upstream.addr.to_string();
    let unwell = json!({"service_name": "probed", "instance_id": id, "status": "unhealthy"});
    gateway.api(crate::harness::post("/heartbeat", &unwell)).expect(200);
    let before = patients[0].requests();
    (0..20).for_each(|_| drop(gateway.data(get("/v2/probed/x")).expect(200)));
    assert_eq!(patients[0].requests(), before);
}

#[test]
fn a_passed_probe_has_an_open_breaker_tried_at_once() {
    let gateway = Gateway::builder().config(PROBED).start();
    let patient = Patient::start();
    patient.register(&gateway, "broken");
    patient.is_broken.store(true, Ordering::SeqCst);
    patient.is_well.store(false, Ordering::SeqCst);
    patient.await_verdict(&gateway, "broken", false);
    eventually("the breaker to open", || {
        gateway.data(get("/v2/broken/x"));
        gateway.breaker("broken") == "open"
    });
    patient.is_broken.store(false, Ordering::SeqCst);
    patient.is_well.store(true, Ordering::SeqCst);
    // It would be open for half a minute.
    eventually("the breaker to close", || {
        gateway.data(get("/v2/broken/x"));
        gateway.breaker("broken") == "closed"
    });
}

#[test]
fn probes_are_off_unless_asked_for_and_may_be_one_service_s() {
    let gateway = Gateway::builder().config("[services.probed.health]\nactive = true\ninterval = \"100ms\"\n").start();
    let (plain, probed) = (Patient::start(), Patient::start());
    plain.register(&gateway, "plain");
    probed.register(&gateway, "probed");
    eventually("probes", || probed.upstream.count() > 5);
    assert_eq!(plain.upstream.count(), 0);
    assert_eq!(instance(&gateway, "plain", &plain.upstream)["probe_passed"], serde_json::Value::Null);
}

#[test]
fn who_cannot_be_reached_fails() {
    let gateway = Gateway::builder().config(PROBED).start();
    let well = Patient::start();
    well.register(&gateway, "probed");
    gateway.register_at("probed", &format!("http://{}", net::closed()));
    eventually("it to fail", || {
        gateway.instances("probed").iter().filter(|instance| instance["probe_passed"] == false).count() == 1
    });
    (0..20).for_each(|_| drop(gateway.data(get("/v2/probed/x")).expect(200)));
    assert_eq!(gateway.metrics().sum("vertice_upstream_retries_total", &[("service", "probed")]), 0.0);
}

#[test]
fn whoever_waits_for_a_place_gets_its_turn() {
    // Far more than are probed at once, and none of them answers: each is due again before the last ones had a place.
    let config = "[health]\nactive = true\ninterval = \"100ms\"\ntimeout = \"200ms\"\nfailures = 1\n";
    let gateway = Gateway::builder().config(config).start();
    let silent = std::net::TcpListener::bind((net::loopback(), 0)).unwrap();
    let address = silent.local_addr().unwrap();
    for n in 0..300 {
        let endpoint = format!("http://{address}/{n}");
        let body = json!({"service_name": "crowd", "endpoint": endpoint, "instance_id": format!("i{n}")});
        gateway.api(post("/register", &body)).expect(201);
    }
    eventually("all to have been probed", || {
        gateway.instances("crowd").iter().filter(|instance| instance["probe_passed"] == false).count() == 300
    });
}
