//! Request bodies: how large, how slow, and that the instance is not blamed for either.

use std::time::Duration;

use crate::harness::http::one_chunk;
use crate::harness::scripts::{echo, script};
use crate::harness::{After, Conn, Gate, Gateway, PATIENCE, Request, Upstream, eventually, now};

fn hits(gateway: &Gateway, limit: &str) -> f64 {
    gateway.metrics().sum("vertice_limit_hits_total", &[("limit", limit)])
}

/// 1000 bytes a second, on average over each second.
fn paced() -> Gateway {
    Gateway::builder()
        .env("VERTICE_LIMITS__BODY_RATE", "1000")
        .env("VERTICE_LIMITS__BODY_RATE_WINDOW", "1s")
        .env("VERTICE_BREAKER__FAILURES", "1")
        .start()
}

/// Sends `piece` now and then until the gateway closes the connection.
fn trickle(conn: &mut Conn, piece: &[u8]) {
    let start = now();
    while conn.try_send(piece).is_ok() && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
        if conn.has_news() {
            break;
        }
    }
}

#[test]
fn a_body_that_trickles_is_408_and_nobody_s_fault() {
    let gateway = paced();
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    let framings: [(&str, Vec<u8>); 2] =
        [("Content-Length: 1000000", b"y".to_vec()), ("Transfer-Encoding: chunked", one_chunk(b"y"))];
    for (number, (framing, piece)) in framings.into_iter().enumerate() {
        let mut conn = Conn::open(gateway.gateway);
        conn.send(format!("POST /v2/echo/x HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n"));
        trickle(&mut conn, &piece);
        conn.response("POST").problem(408, "request_timeout");
        assert!(conn.closes_within(PATIENCE));
        assert_eq!(hits(&gateway, "body_rate"), (number + 1) as f64);
    }
    assert_eq!(gateway.breaker("echo"), "closed");
    eventually("nothing in flight", || gateway.instances("echo")[0]["in_flight"] == 0);
}

#[test]
fn a_body_that_is_slow_but_fast_enough_arrives() {
    let gateway = paced();
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    conn.send("POST /v2/echo/x HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n");
    for _ in 0..20 {
        conn.send([b'z'; 1000]);
        std::thread::sleep(Duration::from_millis(100));
    }
    conn.response("POST").expect(200);
    conn.ask(&Request::new("POST", "/v2/echo/x").body("and another")).expect(200);
}

#[test]
fn a_service_that_reads_slowly_is_not_the_client_s_pace() {
    const LENGTH: usize = 24 * 1024 * 1024;
    let gateway = paced();
    let (gate, reading) = (Gate::new(), Gate::new());
    let upstream = Upstream::start({
        let (gate, reading) = (gate.clone(), reading.clone());
        script(move |exchange| {
            reading.open();
            gate.wait(1);
            let (length, _) = exchange.swallow_body()?;
            exchange.answer("200 OK", &[], length.to_string().as_bytes())?;
            Ok(After::KeepAlive)
        })
    });
    gateway.register("slow", &upstream);
    let sending = std::thread::spawn({
        let address = gateway.gateway;
        move || Request::new("POST", "/v2/slow/x").body(vec![b'x'; LENGTH]).send(address)
    });
    reading.wait(1);
    // Longer than the window: nothing must happen in this time.
    std::thread::sleep(Duration::from_millis(2500));
    gate.open();
    assert_eq!(sending.join().unwrap().expect(200).text(), LENGTH.to_string());
    assert_eq!(hits(&gateway, "body_rate"), 0.0);
}

#[test]
fn a_body_that_stops_is_counted() {
    let gateway = Gateway::builder().env("VERTICE_LIMITS__BODY_STALL", "300ms").env("VERTICE_BREAKER__FAILURES", "1").start();
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    conn.send("POST /v2/echo/x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf");
    conn.response("POST").problem(408, "request_timeout");
    assert!(conn.closes_within(PATIENCE));
    assert_eq!(hits(&gateway, "body_stall"), 1.0);
    assert_eq!(gateway.breaker("echo"), "closed");
}

const OWN_LIMITS: &str = "
[limits]
body_bytes = 1000
[services.large]
body_bytes = 5000
[services.free]
body_bytes = 0
[[routes]]
name = \"small\"
prefix = \"/small\"
service = \"free\"
body_bytes = 10
[[routes]]
name = \"open\"
prefix = \"/open\"
service = \"large\"
body_bytes = 0
[[routes]]
name = \"same\"
prefix = \"/same\"
service = \"large\"
";

#[test]
fn services_and_routes_have_their_own_sizes() {
    let gateway = Gateway::builder().config(OWN_LIMITS).start();
    let upstream = Upstream::start(echo());
    ["usual", "large", "free"].into_iter().for_each(|service| gateway.register(service, &upstream));
    for (target, fits, too_large) in [
        ("/v2/usual/x", 1000, Some(1001)),
        ("/v2/large/x", 5000, Some(5001)),
        ("/v2/free/x", 50_000, None),
        ("/small/x", 10, Some(11)),
        ("/open/x", 50_000, None),
        ("/same/x", 5000, Some(5001)),
    ] {
        let sized = |length: usize| Request::new("POST", target).body(vec![b'x'; length]);
        let chunked = |length: usize| Request::new("POST", target).chunked(&[&vec![b'x'; length - 1], b"x"]);
        gateway.data(sized(fits)).expect(200);
        gateway.data(chunked(fits)).expect(200);
        if let Some(length) = too_large {
            gateway.data(sized(length)).problem(413, "body_too_large");
            gateway.data(chunked(length)).problem(413, "body_too_large");
        }
    }
    assert_eq!(hits(&gateway, "body_bytes"), 8.0);
    let most = upstream.seen().iter().filter(|seen| seen.target == "/x").map(|seen| seen.body.len()).max();
    assert!(most <= Some(50_000));
    assert_eq!(gateway.breaker("large"), "closed");
}

#[test]
fn a_body_that_is_too_large_is_not_asked_for() {
    let gateway = Gateway::builder().env("VERTICE_LIMITS__BODY_BYTES", "1000").start();
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    conn.send("POST /v2/echo/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n");
    let answer = conn.response("POST");
    answer.problem(413, "body_too_large");
    assert!(answer.interim.is_empty(), "{:?}", answer.interim);
    assert!(conn.closes_within(PATIENCE));
    assert_eq!(upstream.count(), 0);
}

#[test]
fn no_more_of_a_chunked_body_is_passed_on_than_may_be() {
    let gateway = Gateway::builder().env("VERTICE_LIMITS__BODY_BYTES", "100KiB").start();
    let (passed, seen) = std::sync::mpsc::sync_channel(8);
    let upstream = Upstream::start(script(move |exchange| {
        let mut length = 0;
        while let Ok(Some(piece)) = exchange.read_piece() {
            length += piece.len();
        }
        passed.send(length).ok();
        Ok(After::Close)
    }));
    gateway.register("svc", &upstream);
    let piece = one_chunk(&[b'x'; 10 * 1024]);
    let mut conn = Conn::open(gateway.gateway);
    conn.send("POST /v2/svc/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..100 {
        if conn.try_send(&piece).is_err() {
            break;
        }
    }
    conn.response("POST").problem(413, "body_too_large");
    let length = seen.recv_timeout(PATIENCE).unwrap();
    assert!(length <= 100 * 1024, "{length} bytes were passed on");
    assert_eq!(gateway.breaker("svc"), "closed");
}
