//! How many connections there may be, how long each lives, and what becomes of those that are one too many.

use std::net::IpAddr;
use std::time::Duration;

use crate::harness::scripts::{echo, text};
use crate::harness::{Conn, Gateway, PATIENCE, Request, Upstream, eventually, get};

fn hits(gateway: &Gateway, limit: &str) -> f64 {
    // The data plane's listener may be full.
    gateway.registry_metrics().sum("vertice_limit_hits_total", &[("limit", limit)])
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn from(source: &str, gateway: &Gateway) -> Conn {
    Conn::open_from(Some(ip(source)), gateway.gateway).unwrap()
}

/// The answer to a request on a connection that may be refused before it was sent.
fn ask(mut conn: Conn, target: &str) -> (Conn, crate::harness::Response) {
    conn.try_send(get(target).bytes("x")).ok();
    let answer = conn.response("GET");
    (conn, answer)
}

#[test]
fn one_address_has_only_so_many_connections() {
    let gateway = Gateway::builder().env("VERTICE_LIMITS__CONNECTIONS_PER_CLIENT", "5").start();
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    let mut held: Vec<Conn> = (0..5).map(|_| ask(from("127.77.0.1", &gateway), "/v2/echo/x").0).collect();
    for _ in 0..3 {
        let (mut conn, answer) = ask(from("127.77.0.1", &gateway), "/v2/echo/x");
        answer.problem(503, "overloaded");
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert!(conn.closes_within(PATIENCE));
    }
    assert_eq!(hits(&gateway, "connections_per_client"), 3.0);
    ask(from("127.77.0.2", &gateway), "/v2/echo/x").1.expect(200);
    held[0].ask(&get("/v2/echo/x")).expect(200);
    held.truncate(4);
    eventually("room again", || {
        get("/v2/echo/x").from(ip("127.77.0.1")).try_send(gateway.gateway).is_ok_and(|a| a.status == 200)
    });
}

#[test]
fn a_trusted_proxy_speaks_for_many() {
    let gateway = Gateway::builder()
        .env("VERTICE_LIMITS__CONNECTIONS_PER_CLIENT", "2")
        .env("VERTICE_SERVER__TRUSTED_PROXIES", "127.77.1.0/24")
        .start();
    let held: Vec<Conn> = (0..20)
        .map(|_| {
            let (conn, answer) = ask(from("127.77.1.9", &gateway), "/health");
            answer.expect(200);
            conn
        })
        .collect();
    assert_eq!(held.len(), 20);
    let _two = [from("127.77.2.9", &gateway), from("127.77.2.9", &gateway)].map(|conn| ask(conn, "/health").0);
    ask(from("127.77.2.9", &gateway), "/health").1.problem(503, "overloaded");
}

#[test]
fn clients_of_the_data_plane_leave_room_for_heartbeats() {
    let gateway = Gateway::builder().env("VERTICE_LIMITS__CONNECTIONS", "32").start();
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    // A connection that was refused is one that was not admitted: only those that have had an answer hold a place.
    let held: Vec<Conn> = (0..40)
        .filter_map(|_| {
            let (conn, answer) = ask(Conn::open(gateway.gateway), "/v2/echo/x");
            (answer.status == 200).then_some(conn)
        })
        .collect();
    assert_eq!(held.len(), 30);
    gateway.register("another", &upstream);
    assert_eq!(hits(&gateway, "connections"), 10.0);
}

#[test]
fn without_a_descriptor_left_it_serves_those_it_has_and_recovers() {
    let mut gateway = Gateway::builder().open_files(160).start();
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    assert!(gateway.process.stderr().contains("the limit of open files is enough for 72"), "{}", gateway.process.stderr());
    let mut served = Vec::new();
    let mut crowd: Vec<Conn> = (0..200).map(|_| Conn::open(gateway.gateway)).collect();
    crowd.iter_mut().for_each(|conn| drop(conn.try_send(get("/v2/echo/x").bytes("x"))));
    for mut conn in crowd {
        match conn.try_response("GET") {
            Ok(answer) if answer.status == 200 => served.push(conn),
            Ok(answer) => drop(answer.problem(503, "overloaded")),
            Err(_) => {}
        }
    }
    assert!((30..=72).contains(&served.len()), "{} were served", served.len());
    for conn in &mut served {
        conn.ask(&get("/v2/echo/x")).expect(200);
    }
    gateway.register("while_full", &upstream);
    drop(served);
    eventually("room again", || get("/v2/echo/x").try_send(gateway.gateway).is_ok_and(|answer| answer.status == 200));
    gateway.assert_sound();
    assert_eq!(gateway.breaker("echo"), "closed");
}

#[test]
fn every_turn_of_a_connection_may_be_idle_only_so_long() {
    let gateway = Gateway::builder().env("VERTICE_LIMITS__IDLE_KEEPALIVE", "600ms").start();
    let upstream = Upstream::start(text("ok"));
    gateway.register("svc", &upstream);
    let turns: [&[Request]; 5] = [
        &[get("/v2/svc/1"), get("/v2/svc/2")],
        &[get("/v2/svc/1"), get("/v2/svc/2"), get("/v2/svc/3")],
        &[get("/v2/svc/1"), Request::new("POST", "/v2/svc/2").chunked(&[b"some", b"chunks"])],
        &[Request::new("PUT", "/v2/svc/1").body("x"), get("/v2/nobody/2")],
        &[get("/nowhere"), get("/v2/svc/2"), get("/health")],
    ];
    for requests in turns {
        let mut conn = Conn::open(gateway.gateway);
        for request in requests {
            conn.ask(request);
        }
        assert!(conn.closes_within(PATIENCE), "after {requests:?}");
    }
}

#[test]
fn a_connection_carries_only_so_many_requests() {
    let gateway = Gateway::builder().env("VERTICE_LIMITS__REQUESTS_PER_CONNECTION", "3").start();
    let upstream = Upstream::start(text("ok"));
    gateway.register("svc", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    for expected in ["keep-alive", "keep-alive", "close"] {
        let answer = conn.ask(&get("/v2/svc/x")).expect(200);
        assert_eq!(answer.header("connection").unwrap_or("keep-alive"), expected);
    }
    assert!(conn.closes_within(PATIENCE));
}

#[test]
fn a_connection_ends_with_the_first_answer_of_its_old_age() {
    let gateway = Gateway::builder().env("VERTICE_LIMITS__CONNECTION_AGE", "300ms").start();
    let upstream = Upstream::start(text("ok"));
    gateway.register("svc", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    let answers = std::iter::repeat_with(|| {
        let answer = conn.ask(&get("/v2/svc/x")).expect(200);
        std::thread::sleep(Duration::from_millis(20));
        answer.header("connection").is_some_and(|value| value == "close")
    });
    assert!(answers.take(1000).any(|is_last| is_last), "no answer said that it was the last one");
    assert!(conn.closes_within(PATIENCE));
}
