//! Watchers that leave, do not read, or are too many; and the gateway that leaves.

use std::net::TcpStream;

use serde_json::json;
use socket2::{Domain, Socket, Type};

use super::{Events, beat, index_of, present_index, waiting, watch, watchers};
use crate::harness::{Conn, Gateway, PATIENCE, eventually, get, post};

#[test]
fn whoever_leaves_is_noticed() {
    let gateway = Gateway::start();
    let index = present_index(&gateway);
    let leave: [fn(Conn); 3] = [
        drop,
        |conn| conn.reset(),
        |conn| {
            conn.finish();
            // Whoever closes the sending side counts as gone, as with a service's answer: the gateway closes, too.
            let mut conn = conn;
            assert!(conn.closes_within(PATIENCE) || conn.rest().1);
        },
    ];
    for leave in leave {
        let poll = waiting(&gateway, "/services/abc", index);
        let stream = Events::open(gateway.registry, "/services", None).conn;
        assert_eq!(watchers(&gateway, "stream"), 1.0);
        leave(poll);
        leave(stream);
        eventually("the watchers to be forgotten", || watchers(&gateway, "long_poll") + watchers(&gateway, "stream") == 0.0);
    }
}

#[test]
fn a_half_closed_client_gets_what_is_ready() {
    let gateway = Gateway::start();
    let mut conn = Conn::open(gateway.registry);
    conn.start(&watch("/services", 1, "10m"));
    conn.finish();
    conn.response("GET").expect(200);
}

#[test]
fn who_does_not_read_is_cut_and_the_others_go_on() {
    let gateway = Gateway::builder().env("VERTICE_LIMITS__WRITE_STALL", "300ms").start();
    register_big(&gateway);
    let deaf = deaf_client(&gateway);
    let mut turn = 0;
    eventually("the one who does not read to be cut", || {
        change_big(&gateway, &mut turn);
        gateway.registry_metrics().only("vertice_watchers_cut_total", &[]) == 1.0
    });
    assert_eq!(watchers(&gateway, "stream"), 0.0);
    drop(deaf);
    let mut events = Events::open(gateway.registry, "/services", None);
    events.event();
    beat(&gateway, &json!({"service_name": "big", "instance_id": "i1", "status": "degraded"}));
    events.change("big");
    assert!(gateway.registry_metrics().only("vertice_watch_events_total", &[("event", "change")]) >= 2.0);
}

#[test]
fn who_does_not_read_does_not_hold_up_the_end() {
    let mut gateway = Gateway::builder().env("VERTICE_SHUTDOWN__GRACE", "10m").start();
    register_big(&gateway);
    let deaf = deaf_client(&gateway);
    let events = || gateway.registry_metrics().sum("vertice_watch_events_total", &[("event", "change")]);
    let (mut turn, mut before) = (0, -1.0);
    eventually("the stream to be stuck", || {
        (0..50).for_each(|_| change_big(&gateway, &mut turn));
        let now = events();
        std::mem::replace(&mut before, now) == now
    });
    gateway.process.terminate();
    assert_eq!(gateway.process.exit_within(PATIENCE).code(), Some(0));
    drop(deaf);
}

/// A service whose events are so large that they soon fill any buffer.
fn register_big(gateway: &Gateway) {
    let metadata: serde_json::Map<_, _> = (0..32).map(|key| (format!("k{key}"), "x".repeat(512).into())).collect();
    for no in 0..40 {
        let body = json!({"service_name": "big", "endpoint": format!("http://127.0.0.1:{}", 100 + no),
            "instance_id": format!("i{no}"), "metadata": metadata});
        gateway.api(post("/register", &body)).expect(201);
    }
}

fn change_big(gateway: &Gateway, turn: &mut u32) {
    *turn += 1;
    let status = if turn.is_multiple_of(2) { "healthy" } else { "degraded" };
    beat(gateway, &json!({"service_name": "big", "instance_id": "i0", "status": status}));
}

/// Asks for a stream and never reads it.
fn deaf_client(gateway: &Gateway) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&gateway.registry.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    std::io::Write::write_all(&mut stream, &get("/services").header("Accept", "text/event-stream").bytes("x")).unwrap();
    eventually("the stream to begin", || watchers(gateway, "stream") == 1.0);
    stream
}

#[test]
fn a_drain_ends_every_watch() {
    let mut gateway = Gateway::start();
    gateway.register_at("abc", "http://127.0.0.1:9");
    let index = present_index(&gateway);
    let mut polls = [waiting(&gateway, "/services", index), waiting(&gateway, "/services/abc", index)];
    let mut stream = Events::open(gateway.registry, "/services", None);
    stream.event();
    gateway.process.terminate();
    for poll in &mut polls {
        let answer = poll.response("GET").expect(200);
        assert_eq!((index_of(&answer), answer.header("connection")), (index, Some("close")));
    }
    assert!(stream.next().is_none(), "a clean end");
    assert_eq!(gateway.process.exit_within(PATIENCE).code(), Some(0));
}

#[test]
fn while_draining_no_stream_begins_and_no_poll_waits() {
    let gateway = Gateway::builder().env("VERTICE_SHUTDOWN__DELAY", "60s").start();
    let index = present_index(&gateway);
    gateway.process.terminate();
    eventually("the drain", || gateway.api(get("/readyz")).status == 503);
    gateway.api(watch("/services", index, "10m")).expect(200);
    gateway.api(get("/services").header("Accept", "text/event-stream")).problem(503, "draining");
}

#[test]
fn there_is_room_for_so_many() {
    let gateway = Gateway::builder().env("VERTICE_LIMITS__WATCHERS", "2").start();
    let index = present_index(&gateway);
    let poll = waiting(&gateway, "/services/abc", index);
    let mut stream = Events::open(gateway.registry, "/services", None);
    stream.event();
    for request in [watch("/services", index, "10m"), get("/services/abc").header("Accept", "text/event-stream")] {
        let refused = gateway.api(request);
        refused.problem(503, "overloaded");
        assert!(refused.header("retry-after").is_some());
    }
    assert_eq!(gateway.registry_metrics().only("vertice_limit_hits_total", &[("limit", "watchers")]), 2.0);
    gateway.api(get("/services")).expect(200);
    drop(poll);
    eventually("room again", || watchers(&gateway, "long_poll") == 0.0);
    gateway.api(watch("/services", index, "1ms")).expect(200);
    drop(stream);
}

#[test]
fn a_lapse_is_news_like_any_other() {
    let gateway = Gateway::builder().env("VERTICE_LEASE__TTL", "1s").start();
    gateway.register_at("abc", "http://127.0.0.1:9");
    let mut stream = Events::open(gateway.registry, "/services", None);
    let mut poll = Conn::open(gateway.registry);
    poll.start(&watch("/services/abc", stream.event().id(), "10m"));
    assert!(stream.change("abc").is_deleted());
    poll.response("GET").problem(404, "not_found");
    eventually("nobody to watch", || watchers(&gateway, "long_poll") == 0.0);
}
