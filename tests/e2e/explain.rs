//! `X-Vertice-Explain: 1`: how a request was decided.

use serde_json::Value;

use crate::harness::scripts::{echo, raw_then_reset, text};
use crate::harness::{Gateway, Request, Response, Upstream, get};

const ASK: (&str, &str) = ("X-Vertice-Explain", "1");

fn explained(answer: &Response) -> Value {
    let field = answer.header("x-vertice-explain").expect("no explanation");
    serde_json::from_str(field).unwrap_or_else(|error| panic!("{error}: {field}"))
}

fn ask(target: &str) -> Request {
    get(target).header(ASK.0, ASK.1)
}

#[test]
fn an_answer_tells_who_could_have_given_it_and_who_was_asked() {
    let gateway = Gateway::builder().config("[balance]\nalgorithm = \"round_robin\"\n").start();
    let (sound, broken) = (Upstream::start(text("sound")), Upstream::start(raw_then_reset("")));
    gateway.register("svc", &sound);
    gateway.register("svc", &broken);
    let answers: Vec<Value> = (0..2).map(|_| explained(&gateway.data(ask("/v2/svc/x")).expect(200))).collect();
    for told in &answers {
        assert_eq!((told["service"].as_str(), told["algorithm"].as_str()), (Some("svc"), Some("round_robin")), "{told}");
        assert!(told["generation"].as_u64() > Some(0) && told["total_us"].as_u64() > Some(0), "{told}");
        let candidates = told["candidates"].as_array().unwrap();
        assert_eq!(candidates.len(), 2, "{told}");
        assert!(candidates.iter().all(|one| one["breaker"] == "closed" && one["usable"] == true), "{told}");
        let last = told["attempts"].as_array().unwrap().last().unwrap().clone();
        assert_eq!((&last["ending"], &last["instance"]), (&Value::from("200"), &told["choice"]), "{told}");
        assert_eq!(last["address"], sound.addr.to_string(), "{told}");
        assert!(last["answered_us"].as_u64() >= last["connected_us"].as_u64(), "{told}");
    }
    let retried = answers.iter().find(|told| told["attempts"].as_array().unwrap().len() == 2);
    let retried = retried.unwrap_or_else(|| panic!("nobody met the broken one: {answers:?}"));
    assert_eq!(retried["attempts"][0]["ending"], "reset");
    assert_eq!(retried["attempts"][0]["address"], broken.addr.to_string());
}

#[test]
fn a_refusal_tells_its_reason() {
    let gateway = Gateway::start();
    let told = explained(&gateway.data(ask("/v2/nobody/x")).expect(503));
    assert_eq!((told["reason"].as_str(), &told["service"], &told["choice"]), (Some("no_route"), &Value::Null, &Value::Null));
}

#[test]
fn the_question_is_nothing_for_services_and_without_it_there_is_no_answer() {
    let gateway = Gateway::builder().env("VERTICE_REGISTRY__TOKEN", "secret").start();
    let upstream = Upstream::start(echo());
    gateway
        .api(
            crate::harness::post(
                "/register",
                &serde_json::json!({"service_name": "svc", "endpoint": format!("http://{}", upstream.addr)}),
            )
            .header("X-Registry-Token", "secret"),
        )
        .expect(201);
    let answer = gateway.data(ask("/v2/svc/x").header("X-Registry-Token", "secret")).expect(200);
    assert_eq!(explained(&answer)["service"], "svc");
    let seen = upstream.seen();
    let seen = seen.last().unwrap();
    assert_eq!((seen.header("x-vertice-explain"), seen.header("x-registry-token")), (None, None));
    assert_eq!(gateway.data(get("/v2/svc/x")).expect(200).header("x-vertice-explain"), None);
    let other = gateway.data(get("/v2/svc/x").header(ASK.0, "0").header("X-Registry-Token", "mine")).expect(200);
    assert_eq!(other.header("x-vertice-explain"), None);
    assert_eq!(upstream.seen().last().unwrap().header("x-registry-token"), Some("mine"), "a field of a service's own");
}

#[test]
fn who_comes_through_a_proxy_needs_a_token() {
    let gateway = Gateway::builder().env("VERTICE_REGISTRY__TOKEN", "secret").start();
    let through = |request: Request| gateway.data(request.header("X-Forwarded-For", "127.0.0.1")).expect(503);
    assert_eq!(through(ask("/v2/nobody/x")).header("x-vertice-explain"), None);
    assert_eq!(through(ask("/v2/nobody/x").header("X-Registry-Token", "wrong")).header("x-vertice-explain"), None);
    assert_eq!(explained(&through(ask("/v2/nobody/x").header("X-Registry-Token", "secret")))["reason"], "no_route");
    assert_eq!(
        explained(&gateway.data(ask("/v2/nobody/x").header("X-Registry-API-Key", "any")).expect(503))["reason"],
        "no_route"
    );
}
