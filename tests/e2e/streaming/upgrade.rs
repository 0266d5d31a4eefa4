//! WebSocket and other upgrades.

use crate::harness::http::header;
use crate::harness::scripts::{status, upgrade_echo};
use crate::harness::{Conn, Gateway, PATIENCE, Request, Upstream, eventually, get};

fn handshake() -> Request {
    get("/v2/chat_ws/chat?room=1")
        .header("Connection", "keep-alive, Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Protocol", "chat")
}

#[test]
fn a_websocket_talks_both_ways() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(upgrade_echo());
    gateway.register("chat_ws", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    conn.start(&handshake());
    let head = conn.head();
    assert_eq!(head.status, 101);
    assert_eq!(header(&head.headers, "upgrade"), Some("websocket"));
    assert!(header(&head.headers, "connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")));
    assert_eq!(header(&head.headers, "sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    let seen = upstream.last();
    assert_eq!(seen.target, "/chat?room=1");
    assert_eq!(seen.header("upgrade"), Some("websocket"));
    assert!(seen.header("connection").is_some_and(|value| value.to_lowercase().contains("upgrade")));
    assert_eq!(seen.header("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    assert_eq!(seen.header("sec-websocket-protocol"), Some("chat"));
    // What the service says first arrives without the client having spoken.
    assert_eq!(conn.exactly(5).unwrap(), b"hello");
    for message in [b"\x81\x05hello".to_vec(), vec![0, 255, 13, 10, 13, 10], vec![b'x'; 200_000]] {
        let mut stream = conn.stream();
        let sent = message.clone();
        let sender = std::thread::spawn(move || std::io::Write::write_all(&mut stream, &sent));
        assert_eq!(conn.exactly(message.len()).unwrap(), message);
        sender.join().unwrap().unwrap();
    }
}

#[test]
fn either_side_may_hang_up() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(upgrade_echo());
    gateway.register("chat_ws", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    conn.start(&handshake());
    assert_eq!(conn.head().status, 101);
    assert_eq!(conn.exactly(5).unwrap(), b"hello");
    drop(conn);
    eventually("the service's connection to end", || upstream.open_connections() == 0);

    let brief = Upstream::start(crate::harness::scripts::raw_then_close(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nbye",
    ));
    gateway.register("brief", &brief);
    let mut conn = Conn::open(gateway.gateway);
    conn.start(&get("/v2/brief/x").header("Connection", "Upgrade").header("Upgrade", "websocket"));
    assert_eq!(conn.head().status, 101);
    assert_eq!(conn.exactly(3).unwrap(), b"bye");
    assert!(conn.closes_within(PATIENCE));
}

#[test]
fn a_refused_upgrade_is_an_ordinary_answer() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(status("403 Forbidden", "not you"));
    gateway.register("chat_ws", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    let answer = conn.ask(&handshake()).expect(403);
    assert_eq!((answer.text().as_str(), answer.reason()), ("not you", None));
}

#[test]
fn an_unasked_switch_of_protocols_is_no_answer() {
    let mut gateway = Gateway::start();
    let upstream = Upstream::start(upgrade_echo());
    gateway.register("pushy", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    conn.start(&get("/v2/pushy/x"));
    let answer = conn.try_response("GET");
    assert!(answer.as_ref().map_or(true, |answer| answer.status == 502), "{answer:?}");
    gateway.assert_sound();
}

#[test]
fn an_upgrade_of_an_unknown_service_is_answered() {
    let gateway = Gateway::start();
    gateway.data(handshake()).problem(503, "no_route");
}

#[test]
fn many_websockets_live_side_by_side() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(upgrade_echo());
    gateway.register("chat_ws", &upstream);
    let mut all: Vec<Conn> = (0..30)
        .map(|_| {
            let mut conn = Conn::open(gateway.gateway);
            conn.start(&handshake());
            conn
        })
        .collect();
    for conn in &mut all {
        assert_eq!(conn.head().status, 101);
        assert_eq!(conn.exactly(5).unwrap(), b"hello");
    }
    for (number, conn) in all.iter_mut().enumerate() {
        conn.send(format!("message {number:03}"));
    }
    for (number, conn) in all.iter_mut().enumerate() {
        assert_eq!(conn.exactly(11).unwrap(), format!("message {number:03}").as_bytes());
    }
}
