//! `Host`, `X-Forwarded-*`, `Forwarded`, `X-Request-ID`: what the service learns about the request's way.

use crate::harness::scripts::{echo, raw};
use crate::harness::upstream::Seen;
use crate::harness::{Gateway, Request, Upstream, delete, get};

/// What the service saw of `request`.
fn seen_by_service(gateway: &Gateway, request: Request) -> Seen {
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    gateway.data(request).expect(200);
    // The next call must not find this service, which ends with this one.
    gateway.api(delete("/deregister/echo?all=1")).expect(200);
    upstream.last()
}

#[test]
fn the_service_is_called_by_its_own_name() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    gateway.data(get("/v2/echo/x").host("api.example.test:8000")).expect(200);
    let seen = upstream.last();
    assert_eq!(seen.headers_all("host"), [upstream.addr.to_string()]);
    assert_eq!(seen.header("x-forwarded-host"), Some("api.example.test:8000"));
}

#[test]
fn the_clients_host_is_kept_where_configured() {
    let gateway = Gateway::builder().config("[services.echo]\npreserve_host = true\n").start();
    let seen = seen_by_service(&gateway, get("/v2/echo/x").host("api.example.test"));
    assert_eq!(seen.headers_all("host"), ["api.example.test"]);
}

#[test]
fn the_client_is_named_and_cannot_name_itself() {
    let gateway = Gateway::start();
    let plain = seen_by_service(&gateway, get("/v2/echo/x"));
    let forged = get("/v2/echo/x")
        .header("X-Forwarded-For", "203.0.113.9")
        .header("X-Forwarded-For", "203.0.113.10")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "evil.test")
        .header("X_Forwarded_For", "203.0.113.11")
        .header("x-forwarded_host", "evil.test")
        .header("Forwarded", "for=203.0.113.9;proto=https;host=evil.test");
    for seen in [plain, seen_by_service(&gateway, forged)] {
        assert_eq!(seen.headers_all("x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(seen.headers_all("x-forwarded-proto"), ["http"]);
        assert_eq!(seen.headers_all("x-forwarded-host"), [gateway.gateway.to_string()]);
        assert!(!seen.head.contains("203.0.113") && !seen.head.contains("evil.test"), "{}", seen.head);
        assert!(seen.headers_all("forwarded").iter().all(|value| value.contains("127.0.0.1")), "{}", seen.head);
    }
}

#[test]
fn what_a_trusted_proxy_says_is_kept_and_the_proxy_appended() {
    let gateway = Gateway::builder().env("VERTICE_SERVER__TRUSTED_PROXIES", "127.0.0.0/8").start();
    let request = get("/v2/echo/x")
        .header("X-Forwarded-For", "203.0.113.9")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "shop.test")
        .header("Forwarded", "for=203.0.113.9;proto=https");
    let seen = seen_by_service(&gateway, request);
    assert_eq!(seen.headers_all("x-forwarded-for").join(", "), "203.0.113.9, 127.0.0.1");
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.header("x-forwarded-host"), Some("shop.test"));
    let forwarded = seen.headers_all("forwarded").join(", ");
    assert!(forwarded.starts_with("for=203.0.113.9;proto=https"), "{forwarded}");
}

#[test]
fn a_proxy_outside_the_trusted_networks_is_a_client_like_any_other() {
    let gateway = Gateway::builder().env("VERTICE_SERVER__TRUSTED_PROXIES", "10.0.0.0/8").start();
    let seen = seen_by_service(&gateway, get("/v2/echo/x").header("X-Forwarded-For", "203.0.113.9").from([127, 0, 0, 44]));
    assert_eq!(seen.headers_all("x-forwarded-for"), ["127.0.0.44"]);
}

#[test]
fn a_request_id_is_kept_or_made_and_told_to_both_sides() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    let kept = gateway.data(get("/v2/echo/x").header("X-Request-ID", "req-1.2_3")).expect(200);
    assert_eq!(upstream.last().headers_all("x-request-id"), ["req-1.2_3"]);
    assert_eq!(kept.header("x-request-id"), Some("req-1.2_3"));
    let mut made = Vec::new();
    for request in [
        get("/v2/echo/x"),
        get("/v2/echo/x"),
        get("/v2/echo/x").header("X-Request-ID", ""),
        get("/v2/echo/x").header("X-Request-ID", "with space"),
        get("/v2/echo/x").header("X-Request-ID", "quote\"inside"),
        get("/v2/echo/x").header("X-Request-ID", &"x".repeat(2000)),
    ] {
        let answer = gateway.data(request).expect(200);
        let seen = upstream.last();
        let [id] = seen.headers_all("x-request-id")[..] else { panic!("not one id: {}", seen.head) };
        assert!((8..=128).contains(&id.len()) && !id.contains([' ', '"']), "{id}");
        assert_eq!(answer.header("x-request-id"), Some(id));
        made.push(id.to_owned());
    }
    made.sort();
    made.dedup();
    assert_eq!(made.len(), 6);
}

#[test]
fn the_gateways_own_answers_carry_the_request_id() {
    let gateway = Gateway::start();
    let answer = gateway.data(get("/v2/nobody/x").header("X-Request-ID", "find-me"));
    assert_eq!(answer.problem(503, "no_route")["request_id"], "find-me");
    let made = gateway.data(get("/v2/nobody/x"));
    let problem = made.problem(503, "no_route");
    assert!(problem["request_id"].as_str().is_some_and(|id| id.len() >= 8), "{problem}");
}

#[test]
fn a_service_cannot_pose_as_the_gateway() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(raw("HTTP/1.1 200 OK\r\nX-Request-ID: theirs\r\nContent-Length: 2\r\n\r\nok"));
    gateway.register("poser", &upstream);
    let answer = gateway.data(get("/v2/poser/x").header("X-Request-ID", "ours")).expect(200);
    assert!(!answer.headers_all("x-request-id").is_empty());
}
