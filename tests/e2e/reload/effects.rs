//! What changes, what stays, and what is refused.

use serde_json::json;

use super::{ask, gateway, put, write};
use crate::harness::scripts::{gated, slow, status, text};
use crate::harness::{Gate, Gateway, Request, Upstream, eventually, get, net, post};

fn route(name: &str, prefix: &str, service: &str) -> String {
    format!("[[routes]]\nname = \"{name}\"\nprefix = \"{prefix}\"\nservice = \"{service}\"\n")
}

#[test]
fn routes_and_aliases_appear_move_and_vanish() {
    let gateway = gateway("");
    let (one, two) = (Upstream::start(text("one")), Upstream::start(text("two")));
    gateway.register("svc_one", &one);
    gateway.register("svc_two", &two);
    gateway.data(get("/api/x")).problem(404, "not_found");

    let answer = put(&gateway, &route("api", "/api", "svc_one"));
    assert_eq!(answer, json!({"message": "Configuration reloaded", "generation": 2, "restart_needed": []}));
    assert_eq!(gateway.data(get("/api/x")).expect(200).text(), "one");
    put(&gateway, &(route("api", "/api", "svc_two") + "[routing.aliases]\nold_name = \"svc_one\"\n"));
    assert_eq!(gateway.data(get("/api/x")).expect(200).text(), "two");
    assert_eq!(gateway.data(get("/v2/old_name/x")).expect(200).text(), "one");
    put(&gateway, "");
    gateway.data(get("/api/x")).problem(404, "not_found");
    gateway.data(get("/v2/old_name/x")).problem(503, "no_route");
    assert_eq!(ask(&gateway).expect(200).json()["message"], "Nothing to change");
    assert_eq!(gateway.status()["config"]["generation"], 4);
}

#[test]
fn limits_timeouts_and_access_change() {
    let gateway = gateway("");
    let upstream = Upstream::start(slow(std::time::Duration::from_millis(300)));
    gateway.register("svc", &upstream);
    let upload = || gateway.data(Request::new("POST", "/v2/svc/x").body(vec![b'x'; 5000]));
    upload().expect(200);
    put(
        &gateway,
        "[limits]\nbody_bytes = 1000\n[services.svc.timeouts]\nfirst_byte = \"20ms\"\n[registry]\ntoken = \"secret-token-1\"\n",
    );
    upload().problem(413, "body_too_large");
    gateway.data(get("/v2/svc/x")).problem(504, "upstream_timeout");
    let registration = json!({"service_name": "other", "endpoint": "http://127.0.0.1:9"});
    gateway.api(post("/register", &registration)).problem(401, "unauthorized");
    gateway.api(post("/register", &registration).header("X-Registry-Token", "secret-token-1")).expect(201);

    write(&gateway, "[limits]\nservices = 2\nuri_bytes = 300\n");
    ask(&gateway).problem(401, "unauthorized");
    gateway.api(post("/gateway/reload", &json!({})).header("Authorization", "Bearer secret-token-1")).expect(200);
    upload().expect(200);
    gateway
        .api(post("/register", &json!({"service_name": "third", "endpoint": "http://127.0.0.1:9"})))
        .problem(503, "overloaded");
    gateway.data(get(&format!("/v2/svc/{}", "x".repeat(400)))).expect(414);
}

#[test]
fn services_of_the_configuration_appear_move_and_go() {
    let gateway = gateway("");
    let (one, two) = (Upstream::start(text("one")), Upstream::start(text("two")));
    let at = |upstream: &Upstream| format!("[services.fixed_svc]\nurl = \"{}\"\n", upstream.url());
    gateway.data(get("/v2/fixed_svc/x")).problem(503, "no_route");
    put(&gateway, &at(&one));
    assert_eq!(gateway.data(get("/v2/fixed_svc/x")).expect(200).text(), "one");
    put(&gateway, &at(&two));
    assert_eq!(gateway.data(get("/v2/fixed_svc/x")).expect(200).text(), "two");
    put(&gateway, "");
    eventually("it to go", || gateway.data(get("/v2/fixed_svc/x")).status == 503);
}

#[test]
fn a_bad_file_changes_nothing_and_every_mistake_is_named() {
    let good = route("api", "/api", "svc");
    let gateway = gateway(&good);
    let upstream = Upstream::start(text("good"));
    gateway.register("svc", &upstream);
    let reloads = |result: &str| gateway.metrics().sum("vertice_config_reloads_total", &[("result", result)]);
    assert_eq!(gateway.metrics().only("vertice_config_last_reload_success", &[]), 1.0);
    let since = gateway.metrics().only("vertice_config_last_reload_success_timestamp_seconds", &[]);
    assert!((crate::harness::clock::epoch_s() - since).abs() < 600.0, "{since}");
    assert_eq!(gateway.status()["config"]["last_reload"], json!(null));

    write(&gateway, "[timeouts]\nconnect = \"fast\"\n[lease]\ntll = 5\n[registry]\ntoken = \"!\"\n");
    let problem = ask(&gateway).problem(422, "unprocessable");
    let mistakes = problem["errors"].as_array().unwrap().clone();
    assert!(mistakes.len() >= 2, "{problem}");
    assert!(mistakes[0]["field"].as_str().unwrap().ends_with("vertice.toml:2:11: timeouts.connect"), "{problem}");
    assert!(mistakes[1]["message"].as_str().unwrap().contains("did you mean 'lease.ttl'?"), "{problem}");
    gateway.data(get("/api/x")).expect(200);
    let log = gateway.process.stderr();
    assert!(log.contains("timeouts.connect") && log.contains("lease.tll") && log.contains("stays in force"), "{log}");
    assert_eq!(gateway.metrics().only("vertice_config_last_reload_success", &[]), 0.0);
    assert_eq!((reloads("failure"), reloads("success")), (1.0, 0.0));
    let config = gateway.status()["config"].clone();
    assert_eq!((&config["generation"], &config["last_reload"]["success"]), (&json!(1), &json!(false)));
    assert_eq!(config["last_reload"]["errors"].as_array().unwrap().len(), mistakes.len());
    assert!(config["file"].as_str().unwrap().ends_with("vertice.toml"));

    std::fs::remove_file(gateway.dir().join("vertice.toml")).unwrap();
    assert!(ask(&gateway).problem(422, "unprocessable").to_string().contains("failed to read"));
    put(&gateway, &good);
    assert_eq!(gateway.metrics().only("vertice_config_last_reload_success", &[]), 1.0);
    assert_eq!((reloads("failure"), reloads("success")), (2.0, 1.0));
    assert_eq!(gateway.status()["config"]["last_reload"]["errors"], json!([]));
}

#[test]
fn what_waits_for_a_restart_is_named_and_the_rest_takes_effect() {
    let gateway = gateway("[gateway]\nworkers = 1\n");
    let answer = put(&gateway, "[gateway]\nworkers = 2\n[log]\nformat = \"text\"\n[lease]\nttl = 77\n");
    assert_eq!(answer["restart_needed"], json!(["gateway.workers", "log.format"]));
    assert_eq!(gateway.status()["config"]["restart_needed"], answer["restart_needed"]);
    assert_eq!(gateway.status()["cache"]["ttl"], 77.0);
    let registration = json!({"service_name": "svc", "endpoint": "http://127.0.0.1:9"});
    assert_eq!(gateway.api(post("/register", &registration)).expect(201).json()["ttl"], 77);
    let log = gateway.process.stderr();
    assert!(log.contains("gateway.workers has changed") && log.contains("restart to apply it"), "{log}");
    // Taken back, nothing waits any more.
    assert_eq!(put(&gateway, "[gateway]\nworkers = 1\n")["restart_needed"], json!([]));
}

#[test]
fn breakers_averages_leases_and_requests_under_way_stay() {
    let gateway = gateway("");
    let dead = format!("http://{}", net::closed());
    gateway.register_at("dead", &dead);
    let (good, bad) = (Upstream::start(text("good")), Upstream::start(status("503 No", "bad")));
    gateway.register("mixed", &good);
    gateway.register("mixed", &bad);
    for _ in 0..3 {
        gateway.data(get("/v2/dead/x")).problem(502, "upstream_connect");
    }
    eventually("the breaker to open", || gateway.breaker("dead") == "open");
    let _ = gateway.data(get("/v2/mixed/x"));
    eventually("requests to end", || gateway.instances("mixed").iter().all(|instance| instance["in_flight"] == 0));
    let (arrived, finish) = (Gate::new(), Gate::new());
    let held = Upstream::start(gated(&arrived, &finish));
    gateway.register("held", &held);
    let averages = |gateway: &Gateway| gateway.instances("mixed").iter().map(|i| i["ewma_ms"].clone()).collect::<Vec<_>>();
    let ewma = averages(&gateway);
    let renewed = gateway.service("mixed")["last_heartbeat"].clone();
    let address = gateway.gateway;
    let under_way = std::thread::spawn(move || get("/v2/held/x").send(address));
    arrived.wait(1);
    for round in 1..=5 {
        // Every policy is another one each time, so that everything that is made by it is made anew.
        let toml = format!(
            "[timeouts]\nfirst_byte = \"{}s\"\n[breaker]\nfailures = {}\n[limits]\nwrite_stall = \"{round}s\"\n",
            20 + round,
            3 + round
        );
        put(&gateway, &toml);
        assert_eq!(gateway.breaker("dead"), "open");
        assert_eq!(averages(&gateway), ewma);
        assert_eq!(gateway.instances("held")[0]["in_flight"], 1);
        gateway.data(get("/v2/dead/x")).problem(503, "breaker_open");
    }
    assert_eq!(gateway.service("mixed")["last_heartbeat"], renewed);
    finish.open();
    under_way.join().unwrap().expect(200);
    eventually("it to end", || gateway.instances("held")[0]["in_flight"] == 0);
}

#[test]
fn the_log_has_another_level() {
    let gateway = gateway("");
    let lines = || gateway.process.stderr().matches("the configuration was reloaded").count();
    put(&gateway, "[log]\nlevel = \"error\"\n");
    assert_eq!(lines(), 0);
    put(&gateway, "[log]\nlevel = \"info\"\n");
    eventually("the line", || lines() == 1);
}
