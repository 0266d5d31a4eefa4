//! Malformed and ambiguous requests: refused, never guessed at, and never two requests where one was sent.

use std::time::Duration;

use crate::harness::scripts::echo;
use crate::harness::{Conn, Gateway, PATIENCE, Request, Upstream, get};

fn echo_service() -> (Gateway, Upstream) {
    let gateway = Gateway::start();
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    (gateway, upstream)
}

#[test]
fn malformed_heads_are_400() {
    let (mut gateway, upstream) = echo_service();
    for head in [
        "GET /v2/echo/x HTTP/1.1\nHost: x\n\n",
        "GET /v2/echo/x HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
        "GET /v2/echo/x HTTP/1.1\r\n\r\n",
        "GET /v2/echo/x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET /v2/echo/x HTTP/1.1\r\nHost : x\r\n\r\n",
        "GET /v2/echo/x HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
        "GET /v2/echo/x HTTP/1.1\r\nHost: x\r\nX: a\r\n\tfolded\r\n\r\n",
        "GET /v2/echo/x HTTP/1.1\r\n Leading: x\r\nHost: x\r\n\r\n",
        "GET /v2/echo/x HTTP/1.1\r\nHost: x\r\nNo colon here\r\n\r\n",
        "GET /v2/echo/x HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
        "GET /v2/echo/x HTTP/1.1\r\nHost: x\r\nX\u{7f}: a\r\n\r\n",
        "GET /v2/echo/x HTTP/1.1\r\nHost: x\r\n: empty name\r\n\r\n",
        "GET  /v2/echo/x HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /v2/echo/x\r\nHost: x\r\n\r\n",
        "GET /v2/echo/x HTTP/9.9\r\nHost: x\r\n\r\n",
        "GET /v2/echo/x HTTQ/1.1\r\nHost: x\r\n\r\n",
        "GET v2/echo/x HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /v2/echo/\u{1}x HTTP/1.1\r\nHost: x\r\n\r\n",
        "G\u{1}T /v2/echo/x HTTP/1.1\r\nHost: x\r\n\r\n",
        "nonsense\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\r\n\r\n",
        "POST /v2/echo/x HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n",
        "POST /v2/echo/x HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "POST /v2/echo/x HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello",
        "POST /v2/echo/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5 5\r\n\r\nhello",
        "POST /v2/echo/x HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\nhello",
        "POST /v2/echo/x HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\nhello",
        "POST /v2/echo/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "POST /v2/echo/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 6\r\n\r\nhello!",
        "POST /v2/echo/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST /v2/echo/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST /v2/echo/x HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let mut conn = Conn::open(gateway.gateway);
        conn.send(head);
        let answer = conn.try_response("GET").unwrap_or_else(|error| panic!("{error} to {head:?}"));
        assert!(matches!(answer.status, 400 | 501 | 505), "{} to {head:?}: {}", answer.status, answer.text());
        if answer.status == 400 {
            answer.problem(400, "bad_request");
        }
        assert!(conn.closes_within(PATIENCE), "still open after {head:?}");
    }
    assert_eq!(upstream.count(), 0);
    gateway.data(get("/v2/echo/x")).expect(200);
    gateway.assert_sound();
}

/// Sends `bytes` and gives what the service saw, once everything has been answered.
fn smuggle(bytes: &str) -> (Vec<u16>, Vec<String>) {
    let (gateway, upstream) = echo_service();
    let mut conn = Conn::open(gateway.gateway);
    conn.send(bytes);
    conn.finish();
    let mut statuses = Vec::new();
    while let Ok(answer) = conn.try_response("POST") {
        statuses.push(answer.status);
    }
    (statuses, upstream.seen().into_iter().map(|seen| seen.target).collect())
}

#[test]
fn a_length_beside_chunks_never_makes_two_requests_of_one() {
    for heads in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Content-Length: 4\r\nTransfer-Encoding:\tchunked",
        "Content-Length: 4\r\nTransfer-Encoding: Chunked",
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Content-Length: 4\r\ntransfer-encoding: chunked, chunked",
    ] {
        let inner = "GET /v2/echo/smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
        let chunk = format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len());
        let (statuses, targets) = smuggle(&format!("POST /v2/echo/outer HTTP/1.1\r\nHost: x\r\n{heads}\r\n\r\n{chunk}"));
        assert!(!targets.contains(&"/smuggled".to_owned()), "{heads:?}: {statuses:?} {targets:?}");
        assert!(statuses.len() <= 1, "{heads:?}: {statuses:?}");
    }
}

#[test]
fn repeated_equal_lengths_are_one_length_or_refused() {
    let (statuses, targets) =
        smuggle("POST /v2/echo/outer HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello");
    assert!(statuses == [200] || statuses == [400], "{statuses:?}");
    assert!(targets.len() <= 1);
}

#[test]
fn broken_chunks_end_the_request_and_the_connection() {
    for body in [
        "zz\r\nhello\r\n0\r\n\r\n",
        "-1\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5;\nhello\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\nGET /v2/echo/smuggled HTTP/1.1\r\n\r\n",
    ] {
        let request = format!("POST /v2/echo/outer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let (statuses, targets) = smuggle(&request);
        assert!(
            statuses.iter().all(|status| *status == 400 || *status == 200) && statuses.len() <= 1,
            "{body:?}: {statuses:?}"
        );
        assert!(!targets.contains(&"/smuggled".to_owned()), "{body:?}: {targets:?}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (gateway, _upstream) = echo_service();
    let mut conn = Conn::open(gateway.gateway);
    let one = |n: u32| format!("GET /v2/echo/{n} HTTP/1.1\r\nHost: x\r\n\r\n");
    let body = "POST /v2/echo/body HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
    let chunked = "POST /v2/echo/chunks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nworld\r\n0\r\n\r\n";
    conn.send(format!("{}{}{body}{}{chunked}{}GET /health HTTP/1.1\r\nHost: x\r\n\r\n", one(1), one(2), one(3), one(4)));
    for (target, body) in [("/1", ""), ("/2", ""), ("/body", "hello"), ("/3", ""), ("/chunks", "world"), ("/4", "")] {
        let echoed = conn.response("GET").expect(200).json();
        assert_eq!((echoed["target"].as_str(), echoed["body"].as_str()), (Some(target), Some(body)));
    }
    assert_eq!(conn.response("GET").expect(200).json()["status"], "healthy");
}

#[test]
fn a_request_may_arrive_byte_by_byte() {
    let (gateway, upstream) = echo_service();
    let mut conn = Conn::open(gateway.gateway);
    let bytes = Request::new("POST", "/v2/echo/slow").header("X-Custom", "v").body("hello").bytes("x");
    for _ in 0..2 {
        for byte in &bytes {
            conn.send([*byte]);
            std::thread::sleep(Duration::from_micros(300));
        }
        conn.response("POST").expect(200);
        assert_eq!(upstream.last().body, b"hello");
    }
}

#[test]
fn empty_lines_before_a_request_are_skipped() {
    let (gateway, upstream) = echo_service();
    let mut conn = Conn::open(gateway.gateway);
    conn.send("\r\nGET /v2/echo/a HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = conn.response("GET");
    // RFC 9112 §2.2 says SHOULD.
    assert!(matches!(answer.status, 200 | 400), "{}", answer.status);
    assert_eq!(upstream.count(), usize::from(answer.status == 200));
}

#[test]
fn connect_is_not_for_us() {
    let (mut gateway, upstream) = echo_service();
    let mut conn = Conn::open(gateway.gateway);
    conn.send("CONNECT example.test:443 HTTP/1.1\r\nHost: example.test:443\r\n\r\n");
    let status = conn.response("CONNECT").status;
    assert!((400..=501).contains(&status), "{status}");
    assert_eq!(upstream.count(), 0);
    gateway.assert_sound();
}
