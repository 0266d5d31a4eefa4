//! HTTP/1.0 on either side.

use crate::harness::http::one_chunk;
use crate::harness::scripts::{echo, raw_then_close, script};
use crate::harness::{After, Conn, Gateway, PATIENCE, Upstream, get};

#[test]
fn a_service_whose_answer_ends_with_the_connection_is_passed_on_whole() {
    let gateway = Gateway::start();
    let old = Upstream::start(raw_then_close("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end"));
    let new = Upstream::start(raw_then_close("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end"));
    gateway.register("old", &old);
    gateway.register("new", &new);
    for service in ["old", "new"] {
        let mut conn = Conn::open(gateway.gateway);
        let answer = conn.ask(&get(&format!("/v2/{service}/x"))).expect(200);
        assert_eq!((answer.version.as_str(), answer.text().as_str()), ("HTTP/1.1", "until the end"));
        assert!(answer.complete, "{service}");
    }
}

#[test]
fn a_client_of_http_1_0_is_served_in_its_own_way() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(script(|exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        exchange.write(one_chunk(b"hello "))?;
        exchange.write(one_chunk(b"world"))?;
        exchange.write("0\r\n\r\n")?;
        Ok(After::KeepAlive)
    }));
    gateway.register("chunky", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    conn.send("GET /v2/chunky/x HTTP/1.0\r\n\r\n");
    let answer = conn.response("GET").expect(200);
    assert_eq!(answer.header("transfer-encoding"), None, "HTTP/1.0 does not know chunks");
    assert!(answer.version.starts_with("HTTP/1."), "{}", answer.version);
    assert_eq!(answer.text(), "hello world");
    assert!(conn.closes_within(PATIENCE));
}

#[test]
fn a_client_of_http_1_0_may_keep_the_connection_if_it_asks() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    let first = conn.ask(&get("/v2/echo/1").http10().header("Connection", "keep-alive")).expect(200);
    let kept = first.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("keep-alive"));
    if kept {
        conn.ask(&get("/v2/echo/2").http10().header("Connection", "keep-alive")).expect(200);
    } else {
        assert!(conn.closes_within(PATIENCE));
    }
}

#[test]
fn errors_and_the_api_answer_http_1_0_too() {
    let gateway = Gateway::start();
    for target in ["/health", "/services", "/nowhere", "/v2/nobody/x"] {
        let mut conn = Conn::open(gateway.gateway);
        conn.send(format!("GET {target} HTTP/1.0\r\n\r\n"));
        let answer = conn.response("GET");
        assert!(matches!(answer.status, 200 | 404 | 503) && !answer.body.is_empty(), "{target}");
        assert_eq!(answer.header("transfer-encoding"), None, "{target}");
        assert!(conn.closes_within(PATIENCE), "{target}");
    }
}
