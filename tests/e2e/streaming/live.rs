//! What a service sends early arrives early: chunks, server-sent events, slow uploads.

use std::time::Duration;

use crate::harness::http::{header, one_chunk};
use crate::harness::scripts::{script, two_parts};
use crate::harness::{After, Conn, Gate, Gateway, Lane, PATIENCE, Upstream, eventually, get};

#[test]
fn events_arrive_one_by_one() {
    let gateway = Gateway::start();
    let gate = Gate::new();
    let stepped = gate.clone();
    let upstream = Upstream::start(script(move |exchange| {
        exchange.write(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\
             Transfer-Encoding: chunked\r\n\r\n",
        )?;
        for event in 1..=5 {
            stepped.wait(event);
            exchange.write(one_chunk(format!("data: {event}\n\n").as_bytes()))?;
        }
        exchange.write("0\r\n\r\n")?;
        Ok(After::KeepAlive)
    }));
    gateway.register("events", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    conn.start(&get("/v2/events/stream").header("Accept", "text/event-stream"));
    // The head comes before the first event.
    let head = conn.head();
    assert_eq!((head.status, header(&head.headers, "content-type")), (200, Some("text/event-stream")));
    for event in 1..=5 {
        gate.open();
        assert_eq!(conn.chunk().unwrap(), format!("data: {event}\n\n").as_bytes());
    }
    assert_eq!(conn.chunk().unwrap(), b"");
}

#[test]
fn an_endless_stream_of_an_http_1_0_service_arrives_at_once_too() {
    let gateway = Gateway::start();
    let gate = Gate::new();
    let head = "HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
    let upstream = Upstream::start(two_parts(head, "data: 2\n\n", &gate));
    gateway.register("events", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    conn.start(&get("/v2/events/stream"));
    assert_eq!(conn.head().status, 200);
    conn.until(b"data: 1\n\n").unwrap();
    gate.open();
    conn.until(b"data: 2\n\n").unwrap();
}

#[test]
fn the_first_part_of_a_body_does_not_wait_for_the_second() {
    let gateway = Gateway::start();
    let gate = Gate::new();
    // Large enough not to fit into the buffer in which the start of an answer of known length may wait for more.
    let first = "x".repeat(64 * 1024);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{first}", first.len() + 5);
    let upstream = Upstream::start(two_parts(&head, "other", &gate));
    gateway.register("slow", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    conn.start(&get("/v2/slow/x"));
    assert_eq!(conn.head().status, 200);
    assert_eq!(conn.exactly(60 * 1024).unwrap(), first.as_bytes()[..60 * 1024]);
    gate.open();
    conn.until(b"other").unwrap();
}

#[test]
fn an_upload_reaches_the_service_while_it_is_still_coming() {
    let gateway = Gateway::start();
    let arrived = Gate::new();
    let counting = arrived.clone();
    let upstream = Upstream::start(script(move |exchange| {
        while let Some(piece) = exchange.read_piece()? {
            counting.add(piece.len() as u64);
        }
        exchange.answer("200 OK", &[], b"done")?;
        Ok(After::KeepAlive)
    }));
    gateway.register("slow_up", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    conn.send("POST /v2/slow_up/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for step in 1..=3 {
        conn.send(one_chunk(b"0123456789"));
        arrived.wait(step * 10);
    }
    conn.send("0\r\n\r\n");
    assert_eq!(conn.response("POST").expect(200).text(), "done");
    conn.send("PUT /v2/slow_up/x HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n0123456789");
    arrived.wait(40);
    conn.send("0123456789");
    assert_eq!(conn.response("PUT").expect(200).text(), "done");
}

#[test]
fn an_answer_that_comes_before_the_upload_ends_is_delivered() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(script(|exchange| {
        exchange.write("HTTP/1.1 413 Too Much\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno!")?;
        exchange.hold()
    }));
    gateway.register("early", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    conn.send("POST /v2/early/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nsome of it");
    let answer = conn.response("POST").expect(413);
    assert_eq!((answer.text().as_str(), answer.reason()), ("no!", None));
}

#[test]
fn a_body_that_breaks_off_is_seen_to_break_off() {
    let mut gateway = Gateway::start();
    let length =
        Upstream::start(crate::harness::scripts::raw_then_close("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this"));
    let chunks = Upstream::start(crate::harness::scripts::raw_then_reset(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n",
    ));
    gateway.register("by_length", &length);
    gateway.register("by_chunks", &chunks);
    for service in ["by_length", "by_chunks"] {
        let answer = Conn::open(gateway.gateway).ask(&get(&format!("/v2/{service}/x")));
        assert!(!answer.complete, "{service} looked whole: {answer:?}");
    }
    gateway.assert_sound();
}

#[test]
fn a_client_that_leaves_lets_the_service_go() {
    let gateway = Gateway::start();
    let arrived = Gate::new();
    let open = arrived.clone();
    let upstream = Upstream::start(script(move |exchange| {
        exchange.read_body()?;
        open.open();
        exchange.hold()
    }));
    gateway.register("waiting", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    conn.start(&get("/v2/waiting/x"));
    arrived.wait(1);
    drop(conn);
    eventually("the gateway to give up", || upstream.open_connections() == 0);
}

#[test]
fn a_reset_ends_an_upload_of_which_the_service_takes_nothing() {
    // Otherwise it ends when nothing has moved for too long, as in the full lane.
    let gateway = Gateway::builder().lane(Lane::Express).env("VERTICE_LIMITS__WRITE_STALL", "10m").start();
    let (arrived, over) = (Gate::new(), Gate::new());
    let (open, end) = (arrived.clone(), over.clone());
    let upstream = Upstream::start(script(move |_| {
        open.open();
        end.reached_within(1, 3 * PATIENCE);
        Ok(After::Close)
    }));
    gateway.register("deaf", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    conn.send(format!("POST /v2/deaf/x HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", 1_u64 << 40));
    arrived.wait(1);
    conn.stream().set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    while conn.try_send([7; 65536]).is_ok() {}
    conn.reset();
    eventually("the gateway to give up", || gateway.metrics().sum("vertice_connections", &[]) <= 1.0);
    over.open();
}

#[test]
fn a_half_closed_client_has_left() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(script(|exchange| exchange.hold()));
    gateway.register("patient", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    conn.start(&get("/v2/patient/x"));
    // Pipes do this: `printf … | nc host port`. It cannot be told from a departure, so the service is not kept waiting for it.
    conn.finish();
    assert!(conn.closes_within(PATIENCE));
    eventually("the gateway to give up", || upstream.open_connections() == 0);
}
