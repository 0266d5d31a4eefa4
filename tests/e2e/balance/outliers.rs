//! Instances that do worse than the others.

use serde_json::json;

use super::{instance, numbered};
use crate::harness::scripts::{script, status, text};
use crate::harness::{After, Conn, Gateway, Upstream, eventually, get, post};

/// Quick to judge.
const QUICK: &str = "[balance]\nalgorithm = \"round_robin\"\n[outlier]\ninterval = \"500ms\"\nrequests_min = 10\n\
    ejection = \"1h\"\nejection_max = \"1h\"\n";

fn is_ejected(gateway: &Gateway, service: &str, upstream: &Upstream) -> bool {
    instance(gateway, service, upstream)["ejected_seconds"].as_f64().unwrap() > 0.0
}

/// Sends requests until something is so.
#[track_caller]
fn ask_until(gateway: &Gateway, service: &str, what: &str, mut is_so: impl FnMut() -> bool) {
    let mut conn = Conn::open(gateway.gateway);
    eventually(what, || {
        (0..60).for_each(|_| drop(conn.ask(&get(&format!("/v2/{service}/x")))));
        is_so()
    });
}

#[test]
fn one_that_always_answers_500_is_ejected_and_nobody_else() {
    let gateway = Gateway::builder().config(QUICK).start();
    let (good, bad) = (numbered(2), Upstream::start(status("500 Oops", "mine")));
    good.iter().chain([&bad]).for_each(|upstream| gateway.register("mixed", upstream));
    ask_until(&gateway, "mixed", "the bad one to be ejected", || is_ejected(&gateway, "mixed", &bad));
    assert!(!good.iter().any(|upstream| is_ejected(&gateway, "mixed", upstream)));
    assert_eq!(instance(&gateway, "mixed", &bad)["breaker"], "closed", "a 500 opens no breaker");
    let before = bad.count();
    (0..30).for_each(|_| drop(gateway.data(get("/v2/mixed/x")).expect(200)));
    assert_eq!(bad.count(), before);
    eventually("the metrics to tell", || {
        let metrics = gateway.metrics();
        metrics.sum("vertice_outlier_ejections_total", &[("service", "mixed"), ("cause", "success_rate")]) == 1.0
            && metrics.sum("vertice_outlier_ejected", &[("service", "mixed")]) == 1.0
            && metrics.sum("vertice_balance_panic", &[("service", "mixed")]) == 0.0
    });
    // A new registration is a new start.
    bad.set(text("well again"));
    gateway.register("mixed", &bad);
    assert!(!is_ejected(&gateway, "mixed", &bad));
    eventually("the metrics to tell", || gateway.metrics().sum("vertice_outlier_ejected", &[("service", "mixed")]) == 0.0);
}

#[test]
fn one_that_is_many_times_slower_is_ejected() {
    let gateway = Gateway::builder().config(QUICK).env("VERTICE_OUTLIER__REQUESTS_MIN", "3").start();
    let slow = Upstream::start(script(|exchange| {
        std::thread::sleep(std::time::Duration::from_millis(700));
        exchange.answer("200 OK", &[], b"slow")?;
        Ok(After::KeepAlive)
    }));
    let good = numbered(2);
    good.iter().chain([&slow]).for_each(|upstream| gateway.register("mixed", upstream));
    let asking: Vec<_> = (0..12)
        .map(|_| {
            let address = gateway.gateway;
            std::thread::spawn(move || {
                let mut conn = Conn::open(address);
                (0..6).for_each(|_| drop(conn.ask(&get("/v2/mixed/x"))));
            })
        })
        .collect();
    asking.into_iter().for_each(|thread| thread.join().unwrap());
    ask_until(&gateway, "mixed", "the slow one to be ejected", || is_ejected(&gateway, "mixed", &slow));
    assert_eq!(gateway.metrics().sum("vertice_outlier_ejections_total", &[("cause", "latency")]), 1.0);
}

#[test]
fn where_all_fail_nobody_is_ejected() {
    let gateway = Gateway::builder().config(QUICK).start();
    let all: Vec<Upstream> = (0..3).map(|_| Upstream::start(status("500 Oops", "mine"))).collect();
    all.iter().for_each(|upstream| gateway.register("all", upstream));
    // Well beyond two reviews.
    let mut conn = Conn::open(gateway.gateway);
    let started = crate::harness::now();
    while started.elapsed() < std::time::Duration::from_millis(1600) {
        conn.ask(&get("/v2/all/x")).expect(500);
    }
    assert!(all.iter().all(|upstream| upstream.count() > 30 && !is_ejected(&gateway, "all", upstream)));
}

#[test]
fn it_can_be_switched_off_for_a_service() {
    let gateway = Gateway::builder().config(&format!("{QUICK}[services.mixed.outlier]\nactive = false\n")).start();
    let (good, bad) = (numbered(2), Upstream::start(status("500 Oops", "mine")));
    for service in ["mixed", "judged"] {
        good.iter().chain([&bad]).for_each(|upstream| gateway.register(service, upstream));
    }
    let mut conn = Conn::open(gateway.gateway);
    ask_until(&gateway, "judged", "the bad one to be ejected from the other service", || {
        (0..60).for_each(|_| drop(conn.ask(&get("/v2/mixed/x"))));
        is_ejected(&gateway, "judged", &bad)
    });
    assert!(!is_ejected(&gateway, "mixed", &bad));
}

#[test]
fn who_is_ejected_when_it_is_switched_off_comes_back() {
    let gateway = Gateway::builder().config(QUICK).start();
    let (good, bad) = (numbered(2), Upstream::start(status("500 Oops", "mine")));
    good.iter().chain([&bad]).for_each(|upstream| gateway.register("mixed", upstream));
    ask_until(&gateway, "mixed", "the bad one to be ejected", || is_ejected(&gateway, "mixed", &bad));
    std::fs::write(gateway.dir().join("vertice.toml"), "[outlier]\nactive = false\n").unwrap();
    gateway.api(post("/gateway/reload", &json!({}))).expect(200);
    eventually("the bad one to be back", || !is_ejected(&gateway, "mixed", &bad));
    eventually("the metrics to tell", || gateway.metrics().sum("vertice_outlier_ejected", &[("service", "mixed")]) == 0.0);
}
