//! Attempts after the first one.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::scripts::{raw_then_close, script, stale, text};
use crate::harness::{After, Conn, Gateway, Request, Upstream, eventually, get, net};

#[test]
fn while_one_of_two_instances_is_dead_no_request_fails() {
    let gateway = Gateway::start();
    let living = Upstream::start(text("living"));
    gateway.register_at("pair", &format!("http://{}", net::closed()));
    gateway.register("pair", &living);
    for round in 0..40 {
        let request = match round % 4 {
            0 => Request::new("POST", "/v2/pair/x").body("body"),
            1 => Request::new("PATCH", "/v2/pair/x").chunked(&[b"chunk"]),
            _ => get("/v2/pair/x"),
        };
        assert_eq!(gateway.data(request).expect(200).text(), "living", "round {round}");
    }
    assert_eq!(living.count(), 40);
    let bodies = living.seen().into_iter().filter(|seen| seen.method == "POST").map(|seen| seen.body);
    assert!(bodies.into_iter().all(|body| body == b"body"));
    assert!(gateway.metrics().only("vertice_upstream_retries_total", &[("service", "pair")]) >= 1.0);
}

#[test]
fn with_all_instances_dead_the_answer_is_502_and_then_503() {
    let gateway = Gateway::start();
    for _ in 0..2 {
        gateway.register_at("dead", &format!("http://{}", net::closed()));
    }
    gateway.data(get("/v2/dead/x")).problem(502, "upstream_connect");
    eventually("both breakers to open", || {
        let answer = gateway.data(get("/v2/dead/x"));
        assert!(matches!(answer.status, 502 | 503));
        answer.reason() == Some("breaker_open")
    });
}

#[test]
fn an_instance_that_dies_under_load_costs_no_request() {
    // In turn: the default algorithm may leave one of the two alone for long when its first answer was slow.
    let gateway = Arc::new(Gateway::builder().config("[balance]\nalgorithm = \"round_robin\"\n").start());
    let (mut mortal, living) = (Upstream::start(text("mortal")), Upstream::start(text("living")));
    gateway.register("pair", &mortal);
    gateway.register("pair", &living);
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (gateway, stop, asked) = (gateway.clone(), stop.clone(), asked.clone());
            std::thread::spawn(move || {
                let mut conn = Conn::open(gateway.gateway);
                let mut failed = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    conn.start(&get("/v2/pair/x"));
                    match conn.try_response("GET") {
                        Ok(answer) if answer.status == 200 && answer.complete => {
                            if answer.header("connection") == Some("close") {
                                conn = Conn::open(gateway.gateway);
                            }
                        }
                        other => {
                            failed.push(format!("after {} requests: {other:?}", asked.load(Ordering::SeqCst)));
                            conn = Conn::open(gateway.gateway);
                        }
                    }
                    asked.fetch_add(1, Ordering::SeqCst);
                }
                failed
            })
        })
        .collect();
    eventually("both to be at work", || mortal.count() > 20 && living.count() > 20);
    mortal.stop();
    let then = asked.load(Ordering::SeqCst);
    eventually("traffic without it", || asked.load(Ordering::SeqCst) > then + 200);
    stop.store(true, Ordering::SeqCst);
    let failed: Vec<String> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    assert_eq!(failed, Vec::<String>::new());
}

#[test]
fn a_stale_connection_is_replaced_unnoticed() {
    let gateway = Gateway::builder().one_worker().start();
    let upstream = Upstream::start(stale());
    gateway.register("stale", &upstream);
    for _ in 0..10 {
        assert_eq!(gateway.data(get("/v2/stale/x")).expect(200).text(), "fresh");
    }
    let answered: BTreeSet<usize> = upstream.seen().iter().filter(|seen| seen.nth == 0).map(|seen| seen.connection).collect();
    assert_eq!(answered.len(), 10, "each answer came on a connection of its own");
    assert!(upstream.seen().iter().any(|seen| seen.nth > 0), "no connection was ever reused: the test shows nothing");
    assert_eq!(gateway.breaker("stale"), "closed");
}

/// An instance that takes one connection and listens no more; it drops that one with the first request after `over`.
fn ending(over: &Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind((net::loopback(), 0)).unwrap();
    let (addr, over) = (listener.local_addr().unwrap(), over.clone());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        drop(listener);
        let mut space = [0; 4096];
        while stream.read(&mut space).is_ok_and(|length| length > 0) && !over.load(Ordering::SeqCst) {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nending").unwrap();
        }
    });
    addr
}

#[test]
fn dead_connections_to_one_instance_do_not_use_up_those_to_the_next() {
    let gateway = Gateway::builder().one_worker().config("[balance]\nalgorithm = \"round_robin\"\n").start();
    let over = Arc::<AtomicBool>::default();
    let restarted = Upstream::start({
        let over = over.clone();
        script(move |exchange| {
            if over.load(Ordering::SeqCst) && exchange.seen.nth > 0 {
                return Ok(After::Close);
            }
            exchange.answer("200 OK", &[], b"restarted")?;
            Ok(After::KeepAlive)
        })
    });
    gateway.register("pair", &restarted);
    gateway.register_at("pair", &format!("http://{}", ending(&over)));
    let mut heard = Vec::new();
    while heard.len() < 2 || heard.last().is_some_and(|last| last != "restarted") {
        heard.push(gateway.data(get("/v2/pair/x")).expect(200).text());
    }
    over.store(true, Ordering::SeqCst);
    // The other one's turn: its connection is dead, it listens no more, and the connection to this one is dead as well.
    assert_eq!(gateway.data(get("/v2/pair/x")).expect(200).text(), "restarted");
    let stale = restarted.seen().iter().filter(|seen| seen.nth > 0).count();
    assert!(stale > 0, "no connection was ever reused: the test shows nothing");
}

#[test]
fn a_body_that_is_sent_again_counts_once() {
    let gateway = Gateway::builder().one_worker().env("VERTICE_LIMITS__BODY_BYTES", "1000").start();
    let upstream = Upstream::start(stale());
    gateway.register("stale", &upstream);
    for round in 0..10 {
        let answer = gateway.data(Request::new("PUT", "/v2/stale/x").body(vec![b'x'; 600]));
        assert_eq!((answer.status, answer.text().as_str()), (200, "fresh"), "round {round}");
    }
    assert!(upstream.seen().iter().any(|seen| seen.nth > 0), "no connection was ever reused: the test shows nothing");
}

#[test]
fn a_request_that_may_have_been_seen_is_not_sent_twice() {
    let gateway = Gateway::builder().one_worker().start();
    let upstream = Upstream::start(stale());
    gateway.register("stale", &upstream);
    for round in 0..10 {
        let answer = gateway.data(Request::new("POST", &format!("/v2/stale/{round}")).body("pay"));
        match answer.status {
            200 => {}
            502 => drop(answer.problem(502, "upstream_reset")),
            status => panic!("{status}: {}", answer.text()),
        }
    }
    let mut targets: Vec<String> = upstream.seen().into_iter().map(|seen| seen.target).collect();
    let delivered = targets.len();
    targets.dedup();
    assert_eq!(targets.len(), delivered, "a POST was sent twice");
    assert_eq!(gateway.breaker("stale"), "closed", "a stale connection is no failure of the instance");
}

#[test]
fn a_connection_known_to_be_closed_is_not_used_even_for_a_post() {
    let gateway = Gateway::builder().one_worker().start();
    let upstream = Upstream::start(raw_then_close("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nclose"));
    gateway.register("closing", &upstream);
    for _ in 0..6 {
        let answer = gateway.data(Request::new("POST", "/v2/closing/x").body("pay")).expect(200);
        assert_eq!(answer.text(), "close");
        eventually("the connection to be closed", || upstream.open_connections() == 0);
    }
    assert_eq!(upstream.count(), 6);
}

#[test]
fn a_gateway_that_got_no_time_still_gives_old_connections_up() {
    let gateway = Gateway::builder().one_worker().env("VERTICE_TIMEOUTS__UPSTREAM_KEEPALIVE", "500ms").start();
    let upstream = Upstream::start(text("ok"));
    gateway.register("svc", &upstream);
    let post = |target: &str| Request::new("POST", target).body("pay");
    for _ in 0..6 {
        let mut conn = Conn::open(gateway.gateway);
        conn.ask(&post("/v2/svc/before")).expect(200);
        gateway.process.freeze();
        conn.start(&post("/v2/svc/after"));
        // Longer than connections are kept. Its timers are late now: it finds the request and the time's end at once.
        std::thread::sleep(Duration::from_millis(800));
        gateway.process.thaw();
        conn.response("POST").expect(200);
    }
    let old = upstream.seen().iter().filter(|seen| seen.target == "/after" && seen.nth > 0).count();
    assert_eq!(old, 0, "POSTs were sent on connections that any instance may have closed by then");
}

#[test]
fn a_restarted_service_is_found_again_without_a_failed_request() {
    let gateway = Gateway::builder().env("VERTICE_BREAKER__OPEN", "100ms").start();
    let mut upstream = Upstream::start(text("first"));
    gateway.register("restarted", &upstream);
    assert_eq!(gateway.data(get("/v2/restarted/x")).expect(200).text(), "first");
    let addr = upstream.addr;
    upstream.stop();
    let again = Upstream::start_at(addr, text("second"));
    for _ in 0..5 {
        assert_eq!(gateway.data(get("/v2/restarted/x")).expect(200).text(), "second");
    }
    assert_eq!(again.count(), 5);
}
