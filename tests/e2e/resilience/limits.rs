//! Limits on heads and bodies, and on how many clients there may be.

use crate::harness::scripts::echo;
use crate::harness::{Conn, Gateway, PATIENCE, Request, Upstream, eventually, get};

fn echo_service() -> (Gateway, Upstream) {
    let gateway = Gateway::start();
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    (gateway, upstream)
}

#[test]
fn a_target_over_16_kib_is_414() {
    let (gateway, upstream) = echo_service();
    let target = |length: usize| format!("/v2/echo/{}", "x".repeat(length - "/v2/echo/".len()));
    gateway.data(get(&target(16 * 1024))).expect(200);
    gateway.data(get(&target(16 * 1024 + 1))).problem(414, "uri_too_long");
    gateway.data(get(&target(60 * 1024))).problem(414, "uri_too_long");
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_head_over_64_kib_is_431() {
    let (gateway, upstream) = echo_service();
    gateway.data(get("/v2/echo/x").header("X-Big", &"x".repeat(60 * 1024))).expect(200);
    for length in [64 * 1024, 100 * 1024, 1024 * 1024] {
        let answer = get("/v2/echo/x").header("X-Big", &"x".repeat(length)).send(gateway.gateway);
        answer.problem(431, "headers_too_large");
    }
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_head_without_an_end_is_431_and_not_memory() {
    let (mut gateway, _upstream) = echo_service();
    let mut conn = Conn::open(gateway.gateway);
    conn.send("GET /v2/echo/x HTTP/1.1\r\nHost: x\r\n");
    let line = format!("X-Line: {}\r\n", "y".repeat(1000));
    for _ in 0..200 {
        if conn.try_send(&line).is_err() {
            break;
        }
    }
    conn.response("GET").problem(431, "headers_too_large");
    assert!(conn.closes_within(PATIENCE));
    gateway.assert_sound();
}

#[test]
fn more_than_128_fields_are_431() {
    let (gateway, upstream) = echo_service();
    // With `Host`, which the client adds.
    let with = |fields: usize| (1..fields).fold(get("/v2/echo/x"), |request, n| request.header(&format!("X-{n}"), "v"));
    gateway.data(with(128)).expect(200);
    gateway.data(with(129)).problem(431, "headers_too_large");
    gateway.data(with(1000)).problem(431, "headers_too_large");
    assert_eq!(upstream.count(), 1);
}

#[test]
fn limits_hold_on_the_registry_too() {
    let gateway = Gateway::start();
    gateway.api(get(&format!("/services/{}", "x".repeat(20_000)))).problem(414, "uri_too_long");
    gateway.api(get("/services").header("X-Big", &"x".repeat(70_000))).problem(431, "headers_too_large");
}

#[test]
fn a_body_limit_is_off_unless_set() {
    let gateway = Gateway::builder().env("VERTICE_LIMITS__BODY_BYTES", "10KiB").start();
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    gateway.data(Request::new("POST", "/v2/echo/x").body(vec![b'x'; 10 * 1024])).expect(200);
    gateway.data(Request::new("POST", "/v2/echo/x").body(vec![b'x'; 10 * 1024 + 1])).problem(413, "body_too_large");
    let chunk = [b'x'; 6 * 1024];
    gateway.data(Request::new("POST", "/v2/echo/x").chunked(&[&chunk, &chunk])).problem(413, "body_too_large");
}

#[test]
fn limits_that_are_hit_are_counted() {
    let (gateway, _upstream) = echo_service();
    gateway.data(get(&format!("/v2/echo/{}", "x".repeat(17_000)))).problem(414, "uri_too_long");
    gateway.data(get("/v2/echo/x").header("X-Big", &"x".repeat(70_000))).problem(431, "headers_too_large");
    let metrics = gateway.metrics();
    assert_eq!(metrics.only("vertice_gateway_answers_total", &[("reason", "uri_too_long")]), 1.0);
    assert_eq!(metrics.only("vertice_gateway_answers_total", &[("reason", "headers_too_large")]), 1.0);
}

#[test]
fn clients_over_the_limit_are_turned_away_and_the_others_served() {
    let gateway = Gateway::builder().env("VERTICE_LIMITS__CONNECTIONS", "20").start();
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    let mut held: Vec<Conn> = (0..15)
        .map(|_| {
            let mut conn = Conn::open(gateway.gateway);
            conn.ask(&get("/v2/echo/x")).expect(200);
            conn
        })
        .collect();
    let crowd: Vec<Conn> = (0..30).map(|_| Conn::open(gateway.gateway)).collect();
    let mut turned_away = 0;
    for mut conn in crowd {
        conn.try_send(get("/v2/echo/x").bytes("x")).ok();
        match conn.try_response("GET") {
            Ok(answer) if answer.status == 503 => {
                answer.problem(503, "overloaded");
                turned_away += 1;
            }
            Ok(answer) => drop(answer.expect(200)),
            Err(_) => turned_away += 1,
        }
    }
    assert!(turned_away > 0);
    held[0].ask(&get("/v2/echo/x")).expect(200);
    drop(held);
    eventually("room again", || get("/v2/echo/x").try_send(gateway.gateway).is_ok_and(|answer| answer.status == 200));
}
