//! Some hundred clients that do as slowhttptest does (slow heads, slow bodies, slow reading, many ranges), beside one that
//! wants to be served. `bench/load/slow` does the same with the real tool and thousands of connections.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::harness::scripts::script;
use crate::harness::{After, Conn, Gateway, PATIENCE, Upstream, get, now};

const ATTACKERS: usize = 300;

/// How long each attack lasts.
const ATTACK: Duration = Duration::from_secs(4);

struct Attack {
    name: &'static str,
    /// Sent at once.
    opening: String,
    /// Sent by each connection a few times a second.
    drip: &'static str,
}

fn attacks() -> [Attack; 4] {
    let ranges: String = (0..60).map(|at| format!("{at}-,")).collect();
    [
        Attack { name: "slow heads", opening: "GET /v2/svc/x HTTP/1.1\r\nHost: x\r\n".to_owned(), drip: "X-A: b\r\n" },
        Attack {
            name: "slow bodies",
            opening: "POST /v2/svc/x HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n".to_owned(),
            drip: "y",
        },
        Attack { name: "slow reading", opening: "GET /v2/svc/large HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), drip: "" },
        Attack {
            name: "ranges",
            opening: format!("GET /v2/svc/large HTTP/1.1\r\nHost: x\r\nRange: bytes=0-{ranges}5-\r\n\r\n"),
            drip: "",
        },
    ]
}

#[test]
fn others_are_served_while_hundreds_are_slow() {
    let mut gateway = Gateway::builder()
        .env("VERTICE_LIMITS__HEAD_DEADLINE", "1s")
        .env("VERTICE_LIMITS__BODY_STALL", "1s")
        .env("VERTICE_LIMITS__BODY_RATE_WINDOW", "1s")
        .env("VERTICE_LIMITS__WRITE_STALL", "1s")
        .env("VERTICE_BREAKER__FAILURES", "1")
        // The service's queue holds 128 connections, and the kernel tries again after a second.
        .env("VERTICE_TIMEOUTS__CONNECT", "20s")
        .start();
    let upstream = Upstream::start(script(|exchange| {
        exchange.read_body()?;
        let length = if exchange.seen.target == "/large" { 1024 * 1024 } else { 10 };
        exchange.answer("200 OK", &[], &vec![b'x'; length])?;
        Ok(After::KeepAlive)
    }));
    gateway.register("svc", &upstream);
    for attack in attacks() {
        let over = Arc::new(AtomicBool::new(false));
        let conns: Vec<TcpStream> = (0..ATTACKERS).map(|_| Conn::open(gateway.gateway).stream()).collect();
        let attacking = std::thread::spawn({
            let (over, opening, drip) = (over.clone(), attack.opening.clone(), attack.drip);
            move || drip_on(conns, &opening, drip, &over)
        });
        let (mut served, start) = (0, now());
        while start.elapsed() < ATTACK {
            let asked = now();
            gateway.data(get("/v2/svc/x")).expect(200);
            assert!(asked.elapsed() < Duration::from_secs(5), "{}: {:?} for an answer", attack.name, asked.elapsed());
            served += 1;
        }
        over.store(true, Ordering::SeqCst);
        attacking.join().unwrap();
        assert!(served >= 20, "{}: {served} requests in {ATTACK:?}", attack.name);
    }
    assert_eq!(gateway.breaker("svc"), "closed");
    let start = now();
    while gateway.metrics().sum("vertice_connections", &[]) > 2.0 {
        assert!(start.elapsed() < PATIENCE, "the attackers' connections are still there");
        std::thread::sleep(Duration::from_millis(20));
    }
    let counted = gateway.metrics();
    for limit in ["head_deadline", "body_rate"] {
        assert!(counted.sum("vertice_limit_hits_total", &[("limit", limit)]) >= 1.0, "{limit} was never hit");
    }
    gateway.assert_sound();
}

fn drip_on(mut conns: Vec<TcpStream>, opening: &str, drip: &str, over: &AtomicBool) {
    conns.retain_mut(|conn| conn.write_all(opening.as_bytes()).is_ok());
    while !over.load(Ordering::SeqCst) {
        conns.retain_mut(|conn| drip.is_empty() || conn.write_all(drip.as_bytes()).is_ok());
        std::thread::sleep(Duration::from_millis(200));
    }
}
