//! WebSocket frames, which pass untouched, and tunnels that are idle.

use std::time::Duration;

use crate::harness::http::header;
use crate::harness::scripts::upgrade_echo;
use crate::harness::{Conn, Gateway, PATIENCE, Request, Upstream, eventually, get, now};

fn handshake() -> Request {
    get("/v2/chat_ws/chat")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("Sec-WebSocket-Version", "13")
}

fn open(gateway: &Gateway) -> Conn {
    let mut conn = Conn::open(gateway.gateway);
    conn.start(&handshake());
    assert_eq!(conn.head().status, 101);
    assert_eq!(conn.exactly(5).unwrap(), b"hello");
    conn
}

/// A frame with that first byte, masked as a client's are when there is a mask.
fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let bit = if mask.is_some() { 0x80 } else { 0 };
    let mut frame = match payload.len() {
        length @ 0..=125 => vec![first, bit | u8::try_from(length).unwrap()],
        length @ 126..=65_535 => {
            let mut head = vec![first, bit | 126];
            head.extend(u16::try_from(length).unwrap().to_be_bytes());
            head
        }
        length => {
            let mut head = vec![first, bit | 127];
            head.extend((length as u64).to_be_bytes());
            head
        }
    };
    frame.extend(mask.into_iter().flatten());
    let key = mask.unwrap_or_default();
    frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]));
    frame
}

#[test]
fn every_kind_of_frame_passes_byte_for_byte() {
    let mut gateway = Gateway::start();
    let upstream = Upstream::start(upgrade_echo());
    gateway.register("chat_ws", &upstream);
    let mut conn = open(&gateway);
    let mask = Some([0x12, 0xab, 0x00, 0xff]);
    let bytes: Vec<u8> = (0..=255).cycle().take(200_000).collect();
    let corpus = [
        frame(0x81, mask, b"text"),
        frame(0x81, None, "unmasked, täxt".as_bytes()),
        frame(0x82, mask, &bytes[..125]),
        frame(0x82, mask, &bytes[..126]),
        frame(0x82, mask, &bytes[..65_535]),
        frame(0x82, mask, &bytes[..65_536]),
        frame(0x82, mask, &bytes),
        // In pieces, with a ping between them.
        [frame(0x01, mask, b"one "), frame(0x89, mask, b"ping"), frame(0x00, mask, b"two "), frame(0x80, mask, b"three")]
            .concat(),
        frame(0x8a, mask, b"an unasked pong"),
        frame(0x89, mask, &bytes[..125]),
        frame(0x89, mask, b""),
        // Reserved bits and opcodes: an extension's business, or the service's to refuse.
        frame(0xf1, mask, b"rsv"),
        frame(0x83, mask, b"opcode 3"),
        frame(0x8f, mask, b"opcode 15"),
        // Not even a frame.
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        frame(0x88, mask, b""),
        frame(0x88, mask, &[&1000_u16.to_be_bytes()[..], b"bye"].concat()),
        frame(0x88, mask, &4999_u16.to_be_bytes()),
    ];
    for (number, sent) in corpus.iter().enumerate() {
        let (mut stream, bytes) = (conn.stream(), sent.clone());
        let sender = std::thread::spawn(move || std::io::Write::write_all(&mut stream, &bytes));
        assert!(conn.exactly(sent.len()).unwrap() == *sent, "frame {number}");
        sender.join().unwrap().unwrap();
    }
    gateway.assert_sound();
}

#[test]
fn an_idle_tunnel_outlives_other_limits_and_ends_at_its_own() {
    let gateway = Gateway::builder()
        .env("VERTICE_TIMEOUTS__FIRST_BYTE", "300ms")
        .env("VERTICE_TIMEOUTS__UPSTREAM_SILENCE", "300ms")
        .env("VERTICE_TIMEOUTS__REQUEST", "1s")
        .env("VERTICE_TIMEOUTS__TUNNEL_IDLE", "2500ms")
        .env("VERTICE_LIMITS__BODY_STALL", "300ms")
        .env("VERTICE_LIMITS__WRITE_STALL", "300ms")
        .env("VERTICE_LIMITS__IDLE_KEEPALIVE", "300ms")
        .start();
    let upstream = Upstream::start(upgrade_echo());
    gateway.register("chat_ws", &upstream);
    let mut conn = open(&gateway);
    std::thread::sleep(Duration::from_millis(1500));
    conn.send("still here");
    assert_eq!(conn.exactly(10).unwrap(), b"still here");
    let start = now();
    assert!(conn.closes_within(PATIENCE));
    assert!(start.elapsed() >= Duration::from_millis(2000), "{:?}", start.elapsed());
    eventually("the service's connection to end", || upstream.open_connections() == 0);
    assert_eq!(gateway.breaker("chat_ws"), "closed");
    let hits = |limit| gateway.metrics().sum("vertice_limit_hits_total", &[("limit", limit)]);
    eventually("the limit to be told", || hits("tunnel_idle") == 1.0);
    assert_eq!(hits("body_stall"), 0.0);
}

#[test]
fn a_side_that_vanishes_takes_the_other_with_it() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(upgrade_echo());
    gateway.register("chat_ws", &upstream);
    let conn = open(&gateway);
    conn.reset();
    eventually("the service's connection to end", || upstream.open_connections() == 0);

    upstream.set(crate::harness::scripts::raw_then_reset(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ));
    let other = Upstream::start(upgrade_echo());
    let before = upstream.count();
    let mut conn = Conn::open(gateway.gateway);
    conn.start(&handshake());
    assert_eq!(conn.head().status, 101);
    // Another instance is no help to a tunnel.
    gateway.register("chat_ws", &other);
    while conn.exactly(1).is_ok() {}
    assert_eq!((upstream.count() - before, other.count()), (1, 0));
    eventually("nothing in flight", || gateway.instances("chat_ws")[0]["in_flight"] == 0);
}

#[test]
fn without_a_descriptor_left_for_another_the_service_is_not_to_blame() {
    let mut gateway = Gateway::builder().open_files(160).env("VERTICE_BREAKER__FAILURES", "1").start();
    let upstream = Upstream::start(upgrade_echo());
    gateway.register("chat_ws", &upstream);
    let mut clients: Vec<Conn> = (0..70).map(|_| Conn::open(gateway.gateway)).collect();
    let mut refused = 0;
    for client in &mut clients {
        client.start(&handshake());
        let head = client.head();
        match head.status {
            101 => {}
            _ => {
                assert_eq!((head.status, header(&head.headers, "x-vertice-reason")), (503, Some("overloaded")));
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "there were descriptors enough: the test shows nothing");
    drop(clients);
    eventually("room again", || get("/health").try_send(gateway.gateway).is_ok_and(|answer| answer.status == 200));
    assert_eq!(gateway.breaker("chat_ws"), "closed");
    gateway.assert_sound();
}

#[test]
fn a_drain_waits_for_a_tunnel_until_its_grace_is_over() {
    let mut gateway = Gateway::builder().env("VERTICE_SHUTDOWN__GRACE", "1500ms").start();
    let upstream = Upstream::start(upgrade_echo());
    gateway.register("chat_ws", &upstream);
    let mut conn = open(&gateway);
    gateway.process.terminate();
    eventually("the listener to close", || std::net::TcpStream::connect(gateway.gateway).is_err());
    conn.send("during the drain");
    assert_eq!(conn.exactly(16).unwrap(), b"during the drain");
    assert!(conn.closes_within(PATIENCE));
    assert!(gateway.process.exit_within(PATIENCE).success());
}
