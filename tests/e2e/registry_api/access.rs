//! Who may write: the token, the networks, and nobody who forges where he comes from.

use serde_json::{Value, json};

use super::registration;
use crate::harness::{Gateway, Request, delete, get, post};

fn writes() -> Vec<Request> {
    vec![
        post("/register", &registration("guarded", "http://127.0.0.1:9")),
        post("/heartbeat", &json!({"service_name": "guarded"})),
        delete("/deregister/guarded"),
    ]
}

#[test]
fn with_a_token_set_writes_need_it_and_reads_do_not() {
    let gateway = Gateway::builder().env("VERTICE_REGISTRY__TOKEN", "open-sesame-123").start();
    let good = post("/register", &registration("guarded", "http://127.0.0.1:9"));
    for (name, value) in [
        ("X-Registry-Token", "open-sesame-123"),
        ("X-Registry-API-Key", "open-sesame-123"),
        ("Authorization", "Bearer open-sesame-123"),
    ] {
        gateway.api(good.clone().header(name, value)).expect(201);
    }
    for request in writes() {
        for attempt in [
            request.clone(),
            request.clone().header("X-Registry-Token", "wrong"),
            request.clone().header("X-Registry-Token", ""),
            request.clone().header("X-Registry-Token", "open-sesame-1234"),
            request.clone().header("Authorization", "Basic open-sesame-123"),
            request.clone().header("Authorization", "open-sesame-123"),
        ] {
            for answer in [gateway.api(attempt.clone()), gateway.data(attempt.clone())] {
                assert_eq!(answer.problem(401, "unauthorized")["detail"], "Invalid registry token");
            }
        }
    }
    assert_eq!(gateway.services(), ["guarded"]);
    gateway.api(get("/services/guarded")).expect(200);
    gateway.api(get("/health")).expect(200);
}

#[test]
fn the_predecessors_variable_sets_the_token_and_it_is_shown_nowhere() {
    let gateway = Gateway::builder()
        .env("REGISTRY_AUTH_TOKEN", "hush-hush-hush")
        .env("VERTICE_LOG__LEVEL", "debug")
        .env("VERTICE_LOG__ACCESS", "json")
        .start();
    let [register, _, deregister] = <[Request; 3]>::try_from(writes()).unwrap();
    gateway.api(register.clone()).problem(401, "unauthorized");
    gateway.api(register.header("X-Registry-Token", "hush-hush-hush")).expect(201);
    gateway.api(deregister.header("X-Registry-Token", "hush-hush-hush")).expect(200);
    let mut shown = gateway.process.stdout() + &gateway.process.stderr();
    for path in ["/gateway/status", "/health", "/metrics"] {
        shown.push_str(&gateway.api(get(path)).text());
        shown.push_str(&gateway.data(get(path)).text());
    }
    assert!(!shown.contains("hush-hush-hush"));
}

#[test]
fn without_a_token_one_warning_is_logged_and_a_sent_one_is_ignored() {
    let gateway = Gateway::start();
    let [register, ..] = <[Request; 3]>::try_from(writes()).unwrap();
    gateway.api(register.header("X-Registry-Token", "titanium-registry-token")).expect(201);
    let log = gateway.process.stderr();
    let warnings = log.lines().filter(|line| line.to_lowercase().contains("token")).count();
    assert_eq!(warnings, 1, "{log}");
}

#[test]
fn writes_from_outside_the_allowed_networks_are_403() {
    let gateway = Gateway::builder().env("VERTICE_REGISTRY__ALLOW_FROM", "10.0.0.0/8,127.0.0.9/32").start();
    for request in writes() {
        gateway.api(request.clone()).problem(403, "forbidden");
        gateway.data(request.clone()).problem(403, "forbidden");
        let status = gateway.api(request.from([127, 0, 0, 9])).status;
        assert!(matches!(status, 200 | 201), "{status}");
    }
    gateway.api(get("/services")).expect(200);
    gateway.api(get("/health")).expect(200);
}

#[test]
fn a_write_with_a_forwarded_address_from_an_untrusted_peer_is_403() {
    let gateway = Gateway::start();
    for request in writes() {
        gateway.api(request.clone().header("X-Forwarded-For", "10.0.0.7")).problem(403, "forbidden");
        gateway.api(request.header("Forwarded", "for=10.0.0.7")).problem(403, "forbidden");
    }
    gateway.api(get("/services").header("X-Forwarded-For", "10.0.0.7")).expect(200);
    assert_eq!(gateway.services(), Vec::<String>::new());
}

#[test]
fn behind_a_trusted_proxy_the_client_counts_for_the_networks_and_the_identity() {
    let gateway = Gateway::builder()
        .env("VERTICE_SERVER__TRUSTED_PROXIES", "127.0.0.1/32")
        .env("VERTICE_REGISTRY__ALLOW_FROM", "10.0.0.0/8")
        .start();
    let through = |client: &str, port: u16| {
        let body = registration("proxied", &format!("http://127.0.0.1:{port}"));
        gateway.api(post("/register", &body).header("X-Forwarded-For", client))
    };
    through("10.0.0.1", 1001).expect(201);
    through("10.0.0.2", 1002).expect(201);
    through("10.0.0.1", 1003).expect(201);
    through("192.0.2.1", 1004).problem(403, "forbidden");
    // What stands left of the last untrusted address is the client's own invention.
    through("10.0.0.9, 192.0.2.1", 1005).problem(403, "forbidden");
    let info = gateway.service("proxied");
    let mut endpoints: Vec<&Value> = info["instances"].as_array().unwrap().iter().map(|i| &i["endpoint"]).collect();
    endpoints.sort_by_key(|endpoint| endpoint.to_string());
    assert_eq!(endpoints, ["http://127.0.0.1:1002", "http://127.0.0.1:1003"]);
}
