//! Clients that do not take what they asked for.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::scripts::script;
use crate::harness::{After, Conn, Gateway, Upstream, eventually, get};

/// A service that sends as long as it can.
struct Endless {
    upstream: Upstream,
    /// Answers that were broken off.
    broken: Arc<AtomicUsize>,
}

impl Endless {
    fn start(head: &'static str, piece: Vec<u8>) -> Self {
        let broken = Arc::new(AtomicUsize::new(0));
        let upstream = Upstream::start({
            let broken = broken.clone();
            script(move |exchange| {
                exchange.read_body()?;
                exchange.write(head)?;
                while exchange.write(&piece).is_ok() {}
                broken.fetch_add(1, Ordering::SeqCst);
                Ok(After::Close)
            })
        });
        Self { upstream, broken }
    }
}

fn gateway() -> Gateway {
    Gateway::builder().env("VERTICE_LIMITS__WRITE_STALL", "1s").env("VERTICE_BREAKER__FAILURES", "1").start()
}

fn reader(gateway: &Gateway) -> TcpStream {
    let mut conn = Conn::open(gateway.gateway);
    conn.start(&get("/v2/endless/x"));
    assert_eq!(conn.head().status, 200);
    conn.stream()
}

/// The answer has been broken off on both sides, the limit counted, and nobody blamed.
fn is_cut(gateway: &Gateway, endless: &Endless) {
    eventually("the answer to be broken off", || endless.broken.load(Ordering::SeqCst) == 1);
    eventually("the limit to be counted", || {
        gateway.metrics().sum("vertice_limit_hits_total", &[("limit", "write_stall")]) == 1.0
    });
    eventually("nothing in flight", || gateway.instances("endless")[0]["in_flight"] == 0);
    assert_eq!(gateway.breaker("endless"), "closed");
}

const PLAIN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";

#[test]
fn an_answer_that_nobody_takes_is_broken_off() {
    let mut chunk = b"4000\r\n".to_vec();
    chunk.extend([b'x'; 0x4000]);
    chunk.extend(b"\r\n");
    for (head, piece) in [(PLAIN, vec![b'x'; 64 * 1024]), (CHUNKED, chunk), (EVENTS, b"data: tick\n\n".repeat(64))] {
        let (gateway, endless) = (gateway(), Endless::start(head, piece));
        gateway.register("endless", &endless.upstream);
        let _silent = reader(&gateway);
        is_cut(&gateway, &endless);
    }
}

#[test]
fn a_byte_now_and_then_is_not_taking() {
    let (gateway, endless) = (gateway(), Endless::start(PLAIN, vec![b'x'; 64 * 1024]));
    gateway.register("endless", &endless.upstream);
    let mut stream = reader(&gateway);
    let reading = std::thread::spawn(move || {
        let mut byte = [0];
        while stream.read(&mut byte).is_ok_and(|read| read == 1) {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    is_cut(&gateway, &endless);
    drop(gateway);
    drop(endless);
    reading.thread().unpark();
}

#[test]
fn a_slow_reader_gets_everything() {
    const LENGTH: usize = 12 * 1024 * 1024;
    let gateway = gateway();
    let upstream = Upstream::start(script(|exchange| {
        exchange.read_body()?;
        exchange.answer("200 OK", &[], &vec![b'x'; LENGTH])?;
        Ok(After::KeepAlive)
    }));
    gateway.register("large", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    conn.start(&get("/v2/large/x"));
    assert_eq!(conn.head().status, 200);
    // Several times as long as the stall that is allowed.
    for _ in 0..48 {
        conn.exactly(LENGTH / 48).expect("the answer goes on");
        std::thread::sleep(Duration::from_millis(100));
    }
    conn.ask(&get("/health")).expect(200);
    assert_eq!(gateway.metrics().sum("vertice_limit_hits_total", &[("limit", "write_stall")]), 0.0);
}

#[test]
fn who_does_not_read_the_gateway_s_own_answers_is_cut_too() {
    let gateway = gateway();
    let mut stream = Conn::open(gateway.gateway).stream();
    stream.set_nonblocking(true).unwrap();
    let request = get("/openapi.json").bytes("x").repeat(64);
    // One after the other until their answers fill every buffer on the way.
    eventually("the connection to be cut", || {
        !matches!(stream.write(&request), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
            && stream.write(&request).is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock)
    });
}
