//! Each limit, what a client is told that runs into it, and how it is counted (SPEC §4).

use crate::harness::scripts::echo;
use crate::harness::{Conn, Gateway, PATIENCE, Upstream, eventually, get};

struct Case {
    /// `vertice_limit_hits_total{limit}`
    limit: &'static str,
    status: u16,
    reason: &'static str,
    /// What the client sends; then it waits.
    bytes: Vec<u8>,
}

fn case(limit: &'static str, status: u16, reason: &'static str, bytes: impl Into<Vec<u8>>) -> Case {
    Case { limit, status, reason, bytes: bytes.into() }
}

fn cases() -> Vec<Case> {
    let head = |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
    let post = |framing: &str, body: &str| format!("POST /v2/echo/x HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n{body}");
    vec![
        case("head_deadline", 408, "request_timeout", "GET /v2/echo/x HTTP/1.1\r\nHost"),
        case("uri_bytes", 414, "uri_too_long", head(&format!("/{}", "x".repeat(300)), "")),
        case("head_size", 431, "headers_too_large", head("/", &format!("X-Large: {}\r\n", "x".repeat(3000)))),
        case("head_size", 431, "headers_too_large", head("/", &"X-Many: x\r\n".repeat(9))),
        case("body_stall", 408, "request_timeout", post("Content-Length: 9", "half")),
        case("body_stall", 408, "request_timeout", post("Transfer-Encoding: chunked", "4\r\nha")),
        case("body_bytes", 413, "body_too_large", post("Content-Length: 5001", "x")),
        case("body_bytes", 413, "body_too_large", post("Transfer-Encoding: chunked", &format!("1400\r\n{}", "x".repeat(5120)))),
    ]
}

#[test]
fn each_limit_has_its_answer() {
    let gateway = Gateway::builder()
        .config(
            "[limits]\nhead_deadline = \"400ms\"\nhead_bytes = \"2KiB\"\nhead_fields = 8\nuri_bytes = 256\nbody_bytes = 5000\n\
             body_stall = \"400ms\"\nconnections = 16\n",
        )
        .start();
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    let hits = |limit: &str| gateway.metrics().sum("vertice_limit_hits_total", &[("limit", limit)]);
    let answers = |reason: &str| gateway.metrics().sum("vertice_gateway_answers_total", &[("reason", reason)]);
    for Case { limit, status, reason, bytes } in cases() {
        let before = (hits(limit), answers(reason));
        let mut conn = Conn::open(gateway.gateway);
        conn.send(&bytes);
        let answer = conn.response("POST");
        answer.problem(status, reason);
        assert!(conn.closes_within(PATIENCE), "{limit}: the connection stays open");
        eventually("it to be counted", || (hits(limit), answers(reason)) == (before.0 + 1.0, before.1 + 1.0));
    }

    let mut held = Vec::new();
    let (mut one_more, answer) = loop {
        let mut conn = Conn::open(gateway.gateway);
        conn.try_send(get("/health").bytes("x")).ok();
        let answer = conn.response("GET");
        if answer.status != 200 {
            break (conn, answer);
        }
        held.push(conn);
        assert!(held.len() <= 15, "the limit is 16, and one of them is the registry's");
    };
    answer.problem(503, "overloaded");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(one_more.closes_within(PATIENCE));
    assert_eq!(gateway.registry_metrics().sum("vertice_limit_hits_total", &[("limit", "connections")]), 1.0);
    drop(held);
    eventually("room again", || get("/v2/echo/x").try_send(gateway.gateway).is_ok_and(|answer| answer.status == 200));
    assert_eq!(gateway.breaker("echo"), "closed");
}
