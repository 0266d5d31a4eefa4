//! HTTP/2 clients.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use http::HeaderMap;
use serde_json::Value;

use crate::harness::http2::Http2;
use crate::harness::net::Blackhole;
use crate::harness::scripts::{echo, gated, silent};
use crate::harness::{Conn, Gate, Gateway, PATIENCE, Upstream, eventually, now};

/// A gateway with a listener for HTTP/2 without TLS, and where that is.
fn gateway(settings: &[(&str, &str)]) -> (Gateway, SocketAddr) {
    let builder = Gateway::builder().env("VERTICE_GATEWAY__H2C_LISTEN", "127.0.0.1:0");
    let gateway = settings.iter().fold(builder, |builder, (name, value)| builder.env(name, value)).start();
    let address = gateway.listener("gateway_h2c");
    (gateway, address)
}

#[test]
fn requests_of_one_connection_reach_http_1_services() {
    let (gateway, address) = gateway(&[]);
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    let mut client = Http2::open(address);
    let answer = client.get("/v2/echo/a%2Fb?c=%20");
    assert_eq!((answer.status, answer.header("connection")), (200, None));
    let seen = upstream.last();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/a%2Fb?c=%20"));
    assert_eq!(seen.header("host"), Some(upstream.addr.to_string().as_str()));
    assert_eq!(seen.header("x-forwarded-host"), Some(address.to_string().as_str()));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));

    // Browsers bring each cookie in a field of its own, which services that speak HTTP/1 do not know.
    let crumbs = (0..200).fold(client.request("GET", "/v2/echo/x"), |request, n| request.header("cookie", format!("c{n}={n}")));
    assert_eq!(client.ask(crumbs.body(Vec::new()).unwrap()).unwrap().status, 200);
    let cookies = upstream.last();
    let cookies = cookies.headers_all("cookie");
    assert!(cookies.len() == 1 && cookies[0].starts_with("c0=0; c1=1; c2=2; "), "{cookies:?}");

    // A length is kept; a body without one is sent in chunks, and its trailers are dropped.
    let request = client.request("POST", "/v2/echo/x").header("content-length", 5).body(b"hello".to_vec()).unwrap();
    assert_eq!(client.ask(request).unwrap().status, 200);
    assert_eq!((upstream.last().header("content-length"), upstream.last().body), (Some("5"), b"hello".to_vec()));
    let request = client.request("POST", "/v2/echo/x").header("te", "trailers").body(()).unwrap();
    let (answer, mut body) = client.begin(request, false);
    body.send_data("piece".into(), false).unwrap();
    body.send_trailers(HeaderMap::from_iter([("x-t".parse().unwrap(), "1".parse().unwrap())])).unwrap();
    assert_eq!(client.answer(answer).unwrap().status, 200);
    let seen = upstream.last();
    assert_eq!((seen.header("transfer-encoding"), seen.header("te")), (Some("chunked"), None));
    assert_eq!(seen.body, b"piece");
    assert_eq!(gateway.metrics().sum("vertice_connections", &[]), 2.0, "this one, and the one that asks");
}

#[test]
fn a_request_that_http_1_would_refuse_is_refused_and_the_others_are_not() {
    let (mut gateway, address) = gateway(&[("VERTICE_LIMITS__URI_BYTES", "1KiB"), ("VERTICE_LIMITS__HEAD_FIELDS", "20")]);
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    let mut client = Http2::open(address);
    let long = format!("/v2/echo/{}", "x".repeat(2000));
    let many = (0..30).fold(client.request("GET", "/v2/echo/x"), |request, n| request.header(format!("x-{n}"), "1"));
    for (request, status, reason) in [
        (client.request("GET", &long), 414, Some("uri_too_long")),
        (many, 431, Some("headers_too_large")),
        (client.request("TRACE", "/v2/echo/x"), 400, Some("bad_request")),
        (client.request("OPTIONS", "/v2/echo/x").uri(format!("ftp://{address}/x")), 400, Some("bad_request")),
        // Pingora's own answer has no body.
        (client.request("GET", "/v2/echo/x").header("host", "other"), 400, None),
        (client.request("GET", "/v2/echo/x").header("host", "a").header("host", "a"), 400, None),
    ] {
        let answer = client.ask(request.body(Vec::new()).unwrap()).unwrap();
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(answer.header("x-vertice-reason"), reason);
        if let Some(reason) = reason {
            assert_eq!(serde_json::from_slice::<Value>(&answer.body).unwrap()["reason"], reason);
        }
    }
    // What HTTP/2 itself forbids costs the stream.
    for (name, value) in [("connection", "x-hop"), ("transfer-encoding", "chunked"), ("upgrade", "websocket"), ("te", "gzip")] {
        let mut client = Http2::open(address);
        let request = client.request("GET", "/v2/echo/x").header(name, value).body(Vec::new()).unwrap();
        // The client's library may refuse it before we do; then it never leaves.
        let answer = client.ask(request);
        assert!(answer.as_ref().map_or(true, |answer| answer.status == 400), "{name}: {answer:?}");
    }
    assert_eq!(upstream.count(), 0);
    assert_eq!(client.get("/v2/echo/x").status, 200);
    gateway.assert_sound();
}

#[test]
fn whoever_does_not_begin_or_stops_is_let_go() {
    let (gateway, address) =
        gateway(&[("VERTICE_LIMITS__HEAD_DEADLINE", "400ms"), ("VERTICE_LIMITS__IDLE_KEEPALIVE", "400ms")]);
    let mut silent = Conn::open(address);
    let mut half = Conn::open(address);
    half.send("PRI * HTTP/2.0\r\n");
    let mut old = Conn::open(address);
    old.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    for conn in [&mut silent, &mut half, &mut old] {
        while conn.exactly(1).is_ok() {}
    }
    let mut idle = Http2::open(address);
    assert_eq!(idle.get("/health").status, 200);
    idle.end().unwrap();
    eventually("the connections to end", || gateway.metrics().sum("vertice_connections", &[]) <= 1.0);
}

#[test]
fn a_body_that_stalls_is_408_and_costs_no_breaker() {
    let (gateway, address) = gateway(&[("VERTICE_LIMITS__BODY_STALL", "400ms")]);
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    let mut client = Http2::open(address);
    for _ in 0..4 {
        let request = client.request("POST", "/v2/echo/x").body(()).unwrap();
        let (answer, mut body) = client.begin(request, false);
        body.send_data("half".into(), false).unwrap();
        let answer = client.answer(answer).unwrap();
        assert_eq!((answer.status, answer.header("x-vertice-reason")), (408, Some("request_timeout")));
    }
    assert_eq!(gateway.breaker("echo"), "closed");
    assert_eq!(client.get("/v2/echo/x").status, 200);
}

#[test]
fn a_body_over_its_limit_is_413_for_its_request_only() {
    let (gateway, address) = gateway(&[("VERTICE_LIMITS__BODY_BYTES", "1KiB")]);
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    let mut client = Http2::open(address);
    let request = client.request("POST", "/v2/echo/x").body(vec![b'x'; 5000]).unwrap();
    assert_eq!(client.ask(request).unwrap().status, 413);
    assert_eq!(client.get("/v2/echo/x").status, 200);
}

#[test]
fn a_client_that_only_takes_requests_back_is_closed() {
    let (mut gateway, address) = gateway(&[("VERTICE_LIMITS__H2_RESETS", "5")]);
    let upstream = Upstream::start(silent());
    gateway.register("silent", &upstream);
    let mut client = Http2::open(address);
    for number in 1..100 {
        let request = client.request("GET", "/v2/silent/x").body(()).unwrap();
        let Ok((answer, mut stream)) = client.try_begin(request, true) else { break };
        // Those that are taken back before anybody looked at them are bounded elsewhere.
        let start = now();
        while upstream.count() < number && client.may_begin() && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        stream.send_reset(h2::Reason::CANCEL);
        drop(answer);
    }
    let error = client.end().expect_err("closed for good reason");
    assert_eq!(error.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM), "{error}");
    assert!(gateway.metrics().sum("vertice_limit_hits_total", &[("limit", "h2_resets")]) >= 1.0);
    eventually("nothing in flight", || gateway.instances("silent")[0]["in_flight"] == 0);
    assert_eq!(gateway.breaker("silent"), "closed");
    gateway.assert_sound();
}

#[test]
fn requests_that_are_taken_back_while_a_connection_is_made_are_counted_too() {
    let (mut gateway, address) = gateway(&[
        ("VERTICE_LIMITS__H2_STREAMS", "5"),
        ("VERTICE_LIMITS__H2_RESETS", "5"),
        ("VERTICE_TIMEOUTS__CONNECT", "1m"),
    ]);
    let nobody = Blackhole::new();
    gateway.register_at("far", &format!("http://{}", nobody.addr));
    let mut client = Http2::open(address);
    for number in 1..100 {
        let request = client.request("GET", "/v2/far/x").body(()).unwrap();
        let Ok((answer, mut stream)) = client.try_begin(request, true) else { break };
        let in_flight = || gateway.instances("far")[0]["in_flight"].as_u64();
        let start = now();
        while in_flight() < Some(number) && client.may_begin() && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        stream.send_reset(h2::Reason::CANCEL);
        drop(answer);
    }
    let error = client.end().expect_err("closed for good reason");
    assert_eq!(error.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM), "{error}");
    assert!(gateway.metrics().sum("vertice_limit_hits_total", &[("limit", "h2_resets")]) >= 1.0);
    gateway.assert_sound();
}

#[test]
fn a_request_that_is_taken_back_ends_at_the_service() {
    let (gateway, address) = gateway(&[]);
    let upstream = Upstream::start(silent());
    gateway.register("silent", &upstream);
    let mut client = Http2::open(address);
    let request = client.request("GET", "/v2/silent/x").body(()).unwrap();
    let (answer, mut stream) = client.begin(request, true);
    eventually("the request to arrive", || upstream.count() == 1);
    stream.send_reset(h2::Reason::CANCEL);
    drop(answer);
    eventually("the service's connection to end", || upstream.open_connections() == 0);
    eventually("nothing in flight", || gateway.instances("silent")[0]["in_flight"] == 0);
    assert_eq!(gateway.breaker("silent"), "closed");
}

#[test]
fn a_drain_says_goaway_and_loses_nothing() {
    let (mut gateway, address) = gateway(&[]);
    let (arrived, release) = (Gate::new(), Gate::new());
    let upstream = Upstream::start(gated(&arrived, &release));
    gateway.register("gated", &upstream);
    let mut client = Http2::open(address);
    let request = client.request("GET", "/v2/gated/x").body(()).unwrap();
    let (answer, _stream) = client.begin(request, true);
    arrived.wait(1);
    gateway.process.terminate();
    eventually("the client to be told", || !client.may_begin());
    release.open();
    assert_eq!(client.answer(answer).unwrap().status, 200);
    client.end().unwrap();
    assert!(gateway.process.exit_within(PATIENCE).success());
}

#[test]
fn the_plain_port_speaks_no_http_2() {
    let (mut gateway, _) = gateway(&[]);
    let mut conn = Conn::open(gateway.gateway);
    conn.stream().write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    conn.response("PRI").problem(400, "bad_request");
    gateway.assert_sound();
}
