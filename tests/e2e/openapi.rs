//! `/openapi.json` is what the gateway does. Every call of every test is checked against it as well, see
//! [`crate::harness::contract`]; here each call is made on purpose, with each answer that can be provoked.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::harness::scripts::echo;
use crate::harness::{Contract, Gateway, Request, Response, Upstream, delete, eventually, get, head, post};

/// Answers that take a defect, a slow body, too much to do or a limit that is off here.
const NOT_PROVOKED: [u16; 4] = [408, 429, 500, 503];

#[test]
fn every_call_answers_as_described() {
    let gateway = Gateway::builder().env("VERTICE_REGISTRY__TOKEN", "secret").config("").start();
    let upstream = Upstream::start(echo());
    let contract = gateway.contract();
    let mut seen: BTreeMap<String, BTreeSet<u16>> = BTreeMap::new();
    let mut ask = |request: Request| {
        let response = gateway.api(request.clone());
        let path = request.path();
        let listed = contract.operations().map(|(listed, _)| listed).find(|listed| {
            let (method, template) = listed.split_once(' ').unwrap();
            let parent = template.strip_suffix("{name}").unwrap_or(template);
            method == request.method && path.starts_with(parent) && (parent.len() < template.len() || path == parent)
        });
        seen.entry(listed.unwrap_or_default()).or_default().insert(response.status);
        response
    };
    let mut write = |request: Request| ask(request.header("X-Registry-Token", "secret"));

    let body = json!({
        "service_name": "nmap_service", "endpoint": upstream.url(), "health_endpoint": "/h", "metadata": {"a": "b"},
        "instance_id": "one", "ttl": 3600, "weight": 0, "zone": "z", "version": "1", "tags": ["t"], "status": "healthy",
    });
    write(post("/register", &body)).expect(201);
    let nulls = json!({"service_name": "nmap_service", "endpoint": "http://nowhere.invalid", "instance_id": "two",
        "health_endpoint": null, "metadata": null, "ttl": null, "weight": null, "zone": null, "version": null, "tags": null,
        "status": null, "unknown": 1});
    let unresolved = write(post("/register", &nulls)).expect(201).json();
    assert_eq!(unresolved["resolved"], false, "{unresolved}");
    write(post("/heartbeat", &json!({"service_name": "nmap_service", "instance_id": "one", "status": "degraded"}))).expect(200);
    write(post("/heartbeat", &json!({"service_name": "absent"}))).expect(404);
    write(delete("/deregister/nmap_service")).expect(409);
    write(delete("/deregister/nmap_service?instance_id=a%20b")).expect(422);
    write(delete("/deregister/NOT+A+NAME?all&instance_id=a%20b")).expect(422);
    write(delete("/deregister/NOT+A+NAME?all")).expect(200);
    write(Request::new("POST", "/gateway/drain/nmap_service?instance_id=one&for=1s")).expect(200);
    write(Request::new("POST", "/gateway/drain/nmap_service?for=0")).expect(200);
    write(Request::new("POST", "/gateway/drain/absent")).expect(404);
    write(Request::new("POST", "/gateway/drain/nmap_service?for=soon")).expect(422);
    write(Request::new("POST", "/gateway/reload")).expect(200);
    std::fs::write(gateway.dir().join("vertice.toml"), "[lease]\nttl = \"soon\"\n").unwrap();
    write(Request::new("POST", "/gateway/reload")).expect(422);
    for path in ["/register", "/heartbeat"] {
        write(post(path, &json!({"service_name": 1, "status": "?"}))).expect(422);
        write(Request::new("POST", path).json("{")).expect(400);
        write(Request::new("POST", path).header("Content-Type", "text/plain").body("{}")).expect(415);
    }
    for (method, path) in [
        ("POST", "/register"),
        ("POST", "/heartbeat"),
        ("DELETE", "/deregister/abc"),
        ("POST", "/gateway/drain/abc"),
        ("POST", "/gateway/reload"),
    ] {
        ask(Request::new(method, path).json("{}")).expect(401);
        ask(Request::new(method, path).header("X-Forwarded-For", "10.0.0.1").json("{}")).expect(403);
    }

    let index = ask(get("/services")).expect(200).header("x-vertice-index").unwrap().to_owned();
    ask(get("/services?detail=1&tag=t&version=1&zone=z&status=degraded")).expect(200);
    ask(get(&format!("/services?watch={index}&wait=1ms"))).expect(200);
    ask(get("/services?watch=x&wait=1h&status=well&zone=&tag=%01")).expect(422);
    ask(get("/services/nmap_service")).expect(200);
    ask(get(&format!("/services/nmap_service?watch={index}&wait=1ms"))).expect(200);
    ask(get("/services/nmap_service?watch=-1")).expect(422);
    ask(get("/services/absent")).expect(404);
    ask(get("/gateway/health-check/nmap_service")).expect(200);
    ask(get("/gateway/health-check/absent")).expect(404);
    for path in ["/health", "/livez", "/readyz", "/metrics", "/gateway/status", "/openapi.json"] {
        ask(get(path)).expect(200);
        gateway.api(head(path)).expect(200);
    }
    for (listed, _) in contract.operations() {
        let (method, template) = listed.split_once(' ').unwrap();
        let path = template.replace("{name}", "nmap_service");
        ask(Request::new(method, &path).header("Content-Length", "65537")).expect(413);
        ask(Request::new(method, &path).header("Not A Name", "x")).expect(400);
        ask(Request::new(method, &path).header("X", &"x".repeat(70_000))).expect(431);
        ask(Request::new(method, &format!("{path}?{}", "x".repeat(17_000)))).expect(414);
        gateway.api(Request::new("PUT", &path)).expect(405);
    }

    for (listed, operation) in contract.operations() {
        let announced: BTreeSet<u16> = operation["responses"].as_object().unwrap().keys().map(|s| s.parse().unwrap()).collect();
        let missing: Vec<u16> = announced.difference(&seen[&listed]).copied().filter(|s| !NOT_PROVOKED.contains(s)).collect();
        assert!(missing.is_empty(), "{listed} announces {missing:?}, which was not seen");
    }
}

#[test]
fn a_draining_gateway_answers_as_described() {
    let gateway = Gateway::builder().env("VERTICE_SHUTDOWN__DELAY", "20s").start();
    gateway.api(get("/health")).expect(200);
    gateway.process.terminate();
    eventually("draining", || gateway.api(get("/readyz")).status == 503);
    gateway.api(get("/health")).expect(503);
}

#[test]
fn each_listener_describes_what_it_has() {
    let gateway = Gateway::builder().env("VERTICE_GATEWAY__REGISTRY_API", "false").start();
    let listed = |response: Response| {
        let contract = Contract::new(response.expect(200).json());
        contract.operations().map(|(listed, _)| listed).collect::<BTreeSet<_>>()
    };
    let (data, registry) = (listed(gateway.data(get("/openapi.json"))), listed(gateway.api(get("/openapi.json"))));
    assert!(registry.contains("POST /register") && !data.contains("POST /register"), "{data:?}");
    assert!(data.contains("GET /gateway/status") && data.is_subset(&registry), "{data:?}");
    assert!(registry.contains("POST /gateway/drain/{name}") && !data.contains("POST /gateway/drain/{name}"), "{data:?}");
    let length = gateway.api(get("/openapi.json")).body.len().to_string();
    let without_body = gateway.api(head("/openapi.json")).expect(200);
    assert_eq!(without_body.header("content-length"), Some(length.as_str()));
    assert!(without_body.body.is_empty());
}

#[test]
fn the_version_is_the_programs_and_limits_are_told() {
    let gateway = Gateway::start();
    let document = gateway.contract().document().clone();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], gateway.status()["version"]);
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["Ttl"], json!({"type": "integer", "minimum": 5, "maximum": 3600}));
    assert_eq!(schemas["Metadata"]["maxProperties"], 32);
    assert_eq!(schemas["ServiceName"]["pattern"], "^[a-z0-9][a-z0-9_-]{2,63}$");
    let reasons = schemas["Reason"]["enum"].as_array().unwrap();
    assert!(reasons.contains(&json!("breaker_open")) && reasons.contains(&json!("unprocessable")), "{reasons:?}");
}

/// The judge must be able to say no.
#[test]
fn an_answer_that_is_not_described_is_noticed() {
    let gateway = Gateway::start();
    let contract = gateway.contract();
    let request = get("/services/absent");
    let honest = gateway.api(request.clone()).expect(404);
    assert_eq!(contract.check(&request, &honest), Ok(()));
    let check = |change: &dyn Fn(&mut Response)| {
        let mut changed = honest.clone();
        change(&mut changed);
        contract.check(&request, &changed)
    };
    let with_body = |member: &str, value: Value| {
        let mut body = honest.json();
        body[member] = value;
        check(&|response| response.body = body.to_string().into_bytes())
    };
    assert!(check(&|response| response.status = 418).is_err());
    assert!(check(&|response| response.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("x-vertice-reason"))).is_err());
    assert!(check(&|response| response.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("content-type"))).is_err());
    assert!(with_body("reason", json!("conflict")).is_err());
    assert!(with_body("status", json!("404")).is_err());
    assert!(with_body("request_id", json!("other")).is_ok());
    let mut unlisted = request.clone();
    unlisted.method = "PUT".to_owned();
    assert!(contract.check(&unlisted, &honest).is_err());
}
