//! End-to-end headers pass both ways; those of one connection do not.

use crate::harness::scripts::{echo, raw};
use crate::harness::{Conn, Gateway, Request, Upstream, get};

fn echo_service() -> (Gateway, Upstream) {
    let gateway = Gateway::start();
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    (gateway, upstream)
}

#[test]
fn request_headers_arrive_with_repetitions_in_order() {
    let (gateway, upstream) = echo_service();
    let sent = [
        ("Authorization", "Bearer abc.def"),
        ("Cookie", "a=1; b=2"),
        ("Cookie", "c=3"),
        ("Accept", "text/html"),
        ("Accept-Encoding", "gzip, br"),
        ("X-Custom", "one"),
        ("X-Custom", "two"),
        ("x-lower", "kept"),
        ("If-None-Match", "\"v1\""),
        ("Range", "bytes=0-9"),
        ("Origin", "https://app.test"),
        ("Content-Type", "application/x-weird; a=\"b;c\""),
        ("User-Agent", "test/1.0 (x; y)"),
        ("Referer", "https://app.test/a?b"),
        ("X-API-Key", "k"),
        ("X-Registry-Token", "t"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tracestate", "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"),
        ("baggage", "k=v"),
        ("X-Latin", "caf\u{e9}"),
        ("X-Empty", ""),
    ];
    let request = sent.iter().fold(get("/v2/echo/x"), |request, (name, value)| request.header(name, value));
    gateway.data(request).expect(200);
    let seen = upstream.last();
    for (name, _) in sent {
        let expected: Vec<_> = sent.iter().filter(|(other, _)| *other == name).map(|(_, value)| *value).collect();
        let got = seen.headers_all(name);
        assert!(got == expected || got.join("; ") == expected.join("; "), "{name}: {got:?}, sent {expected:?}");
    }
}

#[test]
fn response_headers_pass_with_repetitions_in_order() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(raw(
        "HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Path=/; HttpOnly\r\nSet-Cookie: b=2; Secure\r\nSet-Cookie: c=3\r\n\
         X-Custom: one\r\nX-Custom: two\r\nServer: mine/1.0\r\nContent-Type: text/html; charset=latin-1\r\n\
         Cache-Control: no-store\r\nETag: W/\"x\"\r\nLocation: /elsewhere?x=1\r\nVary: Accept, Origin\r\n\
         Content-Encoding: gzip\r\nAccess-Control-Allow-Origin: *\r\nWWW-Authenticate: Basic realm=\"x\"\r\n\
         Via: 1.1 other\r\nX-Request-Cost: 5\r\nX-Empty:\r\nContent-Length: 5\r\n\r\n\x1f\u{8}abc",
    ));
    gateway.register("headed", &upstream);
    let answer = gateway.data(get("/v2/headed/x")).expect(200);
    assert_eq!(answer.headers_all("set-cookie"), ["a=1; Path=/; HttpOnly", "b=2; Secure", "c=3"]);
    assert_eq!(answer.headers_all("x-custom"), ["one", "two"]);
    for (name, value) in [
        ("server", "mine/1.0"),
        ("content-type", "text/html; charset=latin-1"),
        ("cache-control", "no-store"),
        ("etag", "W/\"x\""),
        ("location", "/elsewhere?x=1"),
        ("vary", "Accept, Origin"),
        ("content-encoding", "gzip"),
        ("access-control-allow-origin", "*"),
        ("www-authenticate", "Basic realm=\"x\""),
        ("x-request-cost", "5"),
        ("x-empty", ""),
        ("content-length", "5"),
    ] {
        assert_eq!(answer.headers_all(name), [value], "{name}");
    }
    assert_eq!(answer.body, b"\x1f\x08abc");
}

#[test]
fn headers_of_one_connection_end_there() {
    let (gateway, upstream) = echo_service();
    let request = get("/v2/echo/x")
        .header("Connection", "close, X-Hop, keep-alive")
        .header("X-Hop", "secret")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Connection", "keep-alive")
        .header("Proxy-Authorization", "Basic x")
        .header("TE", "trailers, deflate")
        .header("X-Stays", "yes");
    gateway.data(request).expect(200);
    let seen = upstream.last();
    for name in ["x-hop", "keep-alive", "proxy-connection", "proxy-authorization"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert!(!seen.header("te").unwrap_or_default().contains("deflate"), "{}", seen.head);
    assert!(!seen.header("connection").unwrap_or_default().to_lowercase().contains("x-hop"), "{}", seen.head);
    assert_eq!(seen.header("x-stays"), Some("yes"));
}

#[test]
fn connection_headers_of_an_answer_end_here() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(raw(
        "HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: secret\r\nKeep-Alive: timeout=5, max=3\r\nX-Stays: yes\r\n\
         Content-Length: 2\r\n\r\nok",
    ));
    gateway.register("hops", &upstream);
    let answer = gateway.data(get("/v2/hops/x")).expect(200);
    for name in ["x-hop", "keep-alive"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    assert_eq!(answer.header("x-stays"), Some("yes"));
}

#[test]
fn nominating_an_end_to_end_header_does_not_break_the_message() {
    let (gateway, upstream) = echo_service();
    let request = Request::new("POST", "/v2/echo/x").header("Connection", "Content-Length, Host").body("12345");
    let answer = gateway.data(request);
    match answer.status {
        200 => assert_eq!(upstream.last().body, b"12345"),
        400 => drop(answer.problem(400, "bad_request")),
        status => panic!("{status}: {}", answer.text()),
    }
}

#[test]
fn a_service_that_wants_to_close_does_not_close_the_client() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(crate::harness::scripts::raw_then_close(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    ));
    gateway.register("closer", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    for _ in 0..4 {
        assert_eq!(conn.ask(&get("/v2/closer/x")).expect(200).text(), "ok");
    }
    assert_eq!(upstream.connections(), 4);
}

#[test]
fn connections_to_a_service_are_reused() {
    let (gateway, upstream) = echo_service();
    for round in 0..10 {
        gateway.data(get(&format!("/v2/echo/{round}"))).expect(200);
    }
    assert!(upstream.connections() <= 3, "{} connections for 10 requests", upstream.connections());
}

#[test]
fn a_client_that_wants_to_close_is_closed() {
    let (gateway, _upstream) = echo_service();
    for target in ["/v2/echo/x", "/health", "/v2/nobody/x"] {
        let mut conn = Conn::open(gateway.gateway);
        conn.ask(&get(target).header("Connection", "close"));
        assert!(conn.closes_within(crate::harness::PATIENCE), "{target}");
    }
}
