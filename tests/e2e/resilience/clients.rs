//! Slow, idle and vanishing clients.

use std::time::Duration;

use crate::harness::scripts::{echo, text};
use crate::harness::{Conn, Gateway, PATIENCE, Upstream, eventually, get, now};

#[test]
fn a_head_that_takes_too_long_is_408() {
    let gateway = Gateway::builder().env("VERTICE_LIMITS__HEAD_DEADLINE", "500ms").start();
    for address in [gateway.gateway, gateway.registry] {
        let mut conn = Conn::open(address);
        conn.send("GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ");
        let start = now();
        conn.response("GET").problem(408, "request_timeout");
        assert!(start.elapsed() < Duration::from_secs(5));
        assert!(conn.closes_within(PATIENCE));
    }
}

#[test]
fn a_byte_now_and_then_does_not_extend_the_time() {
    let gateway = Gateway::builder().env("VERTICE_LIMITS__HEAD_DEADLINE", "700ms").start();
    let mut conn = Conn::open(gateway.gateway);
    conn.send("GET /health HTTP/1.1\r\nHost: x\r\n");
    let start = now();
    // Slower and slower until the gateway has had enough.
    while conn.try_send("X-Slow: y\r\n").is_ok() && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let waited = start.elapsed();
    assert!(waited < Duration::from_secs(5), "{waited:?}");
}

#[test]
fn a_second_request_has_the_same_deadline() {
    let gateway = Gateway::builder().env("VERTICE_LIMITS__HEAD_DEADLINE", "500ms").start();
    let mut conn = Conn::open(gateway.gateway);
    conn.ask(&get("/health")).expect(200);
    conn.send("GET /hea");
    conn.response("GET").problem(408, "request_timeout");
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let gateway =
        Gateway::builder().env("VERTICE_LIMITS__IDLE_KEEPALIVE", "400ms").env("VERTICE_LIMITS__HEAD_DEADLINE", "400ms").start();
    let upstream = Upstream::start(text("ok"));
    gateway.register("svc", &upstream);
    for target in ["/health", "/v2/svc/x", "/v2/nobody/x"] {
        let mut conn = Conn::open(gateway.gateway);
        conn.ask(&get(target));
        assert!(conn.closes_within(PATIENCE), "after {target}");
    }
}

#[test]
fn an_idle_connection_within_its_time_is_kept() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(text("ok"));
    gateway.register("svc", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    conn.ask(&get("/v2/svc/x")).expect(200);
    assert!(!conn.closes_within(Duration::from_millis(700)));
    conn.ask(&get("/v2/svc/x")).expect(200);
}

#[test]
fn slow_clients_do_not_hold_up_others() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    let _slow: Vec<Conn> = (0..200)
        .map(|number| {
            let mut conn = Conn::open(gateway.gateway);
            conn.send(if number % 2 == 0 { "GET /v2/echo/x HT" } else { "" });
            conn
        })
        .collect();
    let start = now();
    for _ in 0..20 {
        gateway.data(get("/v2/echo/x")).expect(200);
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn clients_that_come_and_go_leave_nothing_behind() {
    let mut gateway = Gateway::start();
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    for number in 0..100 {
        let mut conn = Conn::open(gateway.gateway);
        match number % 4 {
            0 => {}
            1 => conn.send("GET /v2/ec"),
            2 => conn.start(&get("/v2/echo/x")),
            _ => conn.send("POST /v2/echo/x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf"),
        }
        if number % 8 < 4 { conn.reset() } else { drop(conn) }
    }
    eventually("nothing in flight", || {
        gateway.instances("echo")[0]["in_flight"] == 0
            && gateway.metrics().sum("vertice_requests_in_flight", &[]) <= 1.0
            && gateway.metrics().sum("vertice_connections", &[]) <= 2.0
    });
    assert_eq!(gateway.breaker("echo"), "closed");
    gateway.assert_sound();
}
