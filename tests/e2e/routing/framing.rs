//! Where one message ends and the next one begins: bodies nobody reads, trailers, empty bodies, many connections.

use crate::harness::http::one_chunk;
use crate::harness::scripts::{echo, gated, raw};
use crate::harness::{Conn, Gate, Gateway, Request, Upstream, get, head};

const MIB: usize = 1024 * 1024;

fn echo_service() -> (Gateway, Upstream) {
    let gateway = Gateway::start();
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    (gateway, upstream)
}

#[test]
fn no_body_stays_no_body_and_an_empty_one_stays_empty() {
    let (gateway, upstream) = echo_service();
    gateway.data(get("/v2/echo/x")).expect(200);
    let seen = upstream.last();
    assert_eq!((seen.header("content-length"), seen.header("transfer-encoding")), (None, None));
    gateway.data(Request::new("POST", "/v2/echo/x").body("")).expect(200);
    assert_eq!(upstream.last().header("content-length"), Some("0"));
    gateway.data(Request::new("POST", "/v2/echo/x").chunked(&[])).expect(200);
    assert!(upstream.last().body.is_empty());
}

#[test]
fn a_body_that_nobody_wants_does_not_spoil_the_next_request() {
    let (gateway, _upstream) = echo_service();
    for refused in [
        Request::new("POST", "/v2/nobody/x").body("GET /v2/echo/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"),
        Request::new("POST", "/v2/nobody/x").chunked(&[b"GET /v2/echo/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"]),
        Request::new("POST", "/nowhere").body("GET /v2/echo/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"),
        Request::new("GET", "/health").body("GET /v2/echo/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"),
    ] {
        let mut conn = Conn::open(gateway.gateway);
        let answer = conn.ask(&refused);
        assert!(matches!(answer.status, 200 | 404 | 503), "{}", answer.status);
        conn.start(&get("/v2/echo/next"));
        // A connection that was closed after the refusal is fine, another answer than that to the next request is not.
        if let Ok(next) = conn.try_response("GET") {
            assert_eq!(next.json()["target"], "/next", "after {refused:?}");
        }
    }
}

#[test]
fn the_answer_to_a_large_body_that_nobody_wants_arrives() {
    let (gateway, _upstream) = echo_service();
    for target in ["/v2/nobody/x", "/nowhere", "/register"] {
        let mut conn = Conn::open(gateway.gateway);
        conn.send(format!(
            "POST {target} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            8 * MIB
        ));
        let mut stream = conn.stream();
        let sender = std::thread::spawn(move || {
            let block = vec![b' '; 64 * 1024];
            (0..128).all(|_| std::io::Write::write_all(&mut stream, &block).is_ok())
        });
        let answer = conn.response("POST");
        assert!(matches!(answer.status, 404 | 413 | 503), "{target}: {}", answer.status);
        sender.join().unwrap();
    }
}

#[test]
fn trailers_are_dropped_and_nothing_else() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(raw(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
    ));
    gateway.register("trailing", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    for _ in 0..3 {
        conn.send("POST /v2/trailing/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n");
        conn.send(one_chunk(b"upload"));
        conn.send("0\r\nX-Sum: 1\r\n\r\n");
        let answer = conn.response("POST").expect(200);
        assert_eq!((answer.text().as_str(), answer.complete), ("hello", true));
        assert_eq!(upstream.last().body, b"upload");
    }
}

#[test]
fn an_answer_with_both_framings_is_read_as_chunks_or_refused() {
    let mut gateway = Gateway::start();
    let upstream = Upstream::start(raw(
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ));
    gateway.register("double", &upstream);
    for _ in 0..4 {
        let answer = gateway.data(get("/v2/double/x"));
        assert!(answer.status == 502 || answer.text() == "hello", "{} {:?}", answer.status, answer.text());
    }
    gateway.assert_sound();
}

#[test]
fn head_works_wherever_get_does() {
    let gateway = Gateway::start();
    let mut conn = Conn::open(gateway.gateway);
    for target in ["/health", "/livez", "/readyz", "/metrics", "/services", "/gateway/status"] {
        let answer = conn.ask(&head(target)).expect(200);
        assert!(answer.body.is_empty());
        conn.ask(&get(target)).expect(200);
    }
    conn.ask(&head("/services/nobody")).expect(404);
    conn.ask(&head("/v2/nobody/x")).expect(503);
    conn.ask(&get("/health")).expect(200);
}

#[test]
fn a_hundred_requests_at_once_are_served_at_once() {
    let gateway = Gateway::start();
    let (arrived, gate) = (Gate::new(), Gate::new());
    let upstream = Upstream::start(gated(&arrived, &gate));
    gateway.register("busy", &upstream);
    let mut all: Vec<Conn> = (0..100)
        .map(|number| {
            let mut conn = Conn::open(gateway.gateway);
            conn.start(&get(&format!("/v2/busy/{number}")));
            conn
        })
        .collect();
    arrived.wait(100);
    gate.open();
    for conn in &mut all {
        conn.response("GET").expect(200);
    }
}

#[test]
fn a_protocol_nobody_speaks_is_an_ordinary_request() {
    let (gateway, upstream) = echo_service();
    let mut conn = Conn::open(gateway.gateway);
    let upgrade = get("/v2/echo/h2c")
        .header("Connection", "Upgrade, HTTP2-Settings")
        .header("Upgrade", "h2c")
        .header("HTTP2-Settings", "AAMAAABkAAQAoAAAAAIAAAAA");
    assert_eq!(conn.ask(&upgrade).expect(200).json()["target"], "/h2c");
    conn.start(&get("/v2/echo/next"));
    if let Ok(next) = conn.try_response("GET") {
        assert_eq!(next.json()["target"], "/next");
    }
    assert_eq!(upstream.seen()[0].target, "/h2c");
    let mut conn = Conn::open(gateway.gateway);
    conn.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0");
    if let Ok(answer) = conn.try_response("GET") {
        assert!(answer.status >= 400, "{}", answer.status);
    }
}
