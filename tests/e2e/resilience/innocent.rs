//! What does not speak against an instance: here one failure opens a breaker, and none may.

use std::thread;
use std::time::Duration;

use crate::harness::http::one_chunk;
use crate::harness::scripts::{script, text};
use crate::harness::upstream::Script;
use crate::harness::{After, Conn, Gate, Gateway, Request, Upstream, eventually, get};

const LARGE: usize = 8 * 1024 * 1024;

/// A service that nobody may be put off by.
struct World {
    gateway: Gateway,
    upstream: Upstream,
}

impl World {
    fn new(settings: &str, script: Script) -> Self {
        let gateway = Gateway::builder().config(&format!("[breaker]\nfailures = 1\n{settings}")).start();
        let upstream = Upstream::start(script);
        gateway.register("svc", &upstream);
        Self { gateway, upstream }
    }

    fn clients(&self, count: usize) -> Vec<Conn> {
        (0..count).map(|_| Conn::open(self.gateway.gateway)).collect()
    }

    /// Ends the test: all are gone, and the instance is as good as before.
    #[track_caller]
    fn nobody_is_blamed(&self) {
        eventually("nothing in flight", || self.gateway.instances("svc")[0]["in_flight"] == 0);
        let instance = &self.gateway.instances("svc")[0];
        assert_eq!(instance["breaker"], "closed", "{instance}");
        assert_eq!(instance["ejected_seconds"], 0.0, "{instance}");
        let changes = self.gateway.metrics().sum("vertice_breaker_transitions_total", &[("service", "svc")]);
        assert_eq!(changes, 0.0, "the breaker opened in between");
        self.upstream.set(text("sound"));
        self.gateway.data(get("/v2/svc/x")).expect(200);
    }
}

fn reading() -> Script {
    script(|exchange| {
        exchange.read_body()?;
        exchange.answer("200 OK", &[], b"ok")?;
        Ok(After::KeepAlive)
    })
}

#[test]
fn clients_that_stall_their_uploads_wherever_they_stop() {
    let world = World::new(
        "[timeouts]\nfirst_byte = \"300ms\"\nupstream_silence = \"300ms\"\n[limits]\nbody_stall = \"900ms\"\n",
        reading(),
    );
    for _ in 0..2 {
        let mut clients = world.clients(3);
        for (client, stalled) in clients.iter_mut().zip([
            "POST /v2/svc/x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n",
            "PUT /v2/svc/x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nonly this",
            "POST /v2/svc/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\nff\r\nhalf of",
        ]) {
            client.send(stalled);
        }
        for client in &mut clients {
            client.response("POST").problem(408, "request_timeout");
        }
    }
    world.nobody_is_blamed();
}

#[test]
fn clients_that_upload_more_slowly_than_instances_may_answer() {
    let world = World::new("[timeouts]\nfirst_byte = \"1s\"\nupstream_silence = \"1s\"\n", reading());
    let mut clients = world.clients(3);
    clients.iter_mut().for_each(|client| client.send("POST /v2/svc/x HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n"));
    for piece in ["slow", "er", " still"] {
        // Longer than an instance may be silent: nothing must happen in this time.
        thread::sleep(Duration::from_millis(1300));
        clients.iter_mut().for_each(|client| client.send(piece));
    }
    clients.iter_mut().for_each(|client| drop(client.response("POST").expect(200)));
    assert!(world.upstream.seen().iter().all(|seen| seen.body == b"slower still"));
    eventually("nothing in flight", || world.gateway.instances("svc")[0]["in_flight"] == 0);
    let average = world.gateway.instances("svc")[0]["ewma_ms"].as_f64().unwrap();
    assert!(average < 1000.0, "the clients' time counts as the instance's: {average} ms");
    world.nobody_is_blamed();
}

#[test]
fn first_bytes_shortly_before_the_limit() {
    let world = World::new(
        "[timeouts]\nfirst_byte = \"3s\"\nupstream_silence = \"300ms\"\n",
        script(|exchange| {
            exchange.read_body()?;
            thread::sleep(Duration::from_millis(1500));
            exchange.answer("200 OK", &[], b"at last")?;
            Ok(After::KeepAlive)
        }),
    );
    let mut clients = world.clients(3);
    clients[0].start(&get("/v2/svc/x"));
    clients[1].start(&Request::new("POST", "/v2/svc/x").body("whole"));
    clients[2].start(&Request::new("PUT", "/v2/svc/x").chunked(&[b"in", b"parts"]));
    for client in &mut clients {
        assert_eq!(client.response("GET").expect(200).text(), "at last");
    }
    assert_eq!(world.upstream.count(), 3, "nobody was asked twice");
    world.nobody_is_blamed();
}

#[test]
fn event_streams_that_are_quiet_for_longer_than_a_first_byte_may_take() {
    let world = World::new(
        "[timeouts]\nfirst_byte = \"1s\"\nupstream_silence = \"6s\"\n",
        script(|exchange| {
            exchange.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            for event in 0..3 {
                thread::sleep(Duration::from_millis(1300));
                exchange.write(one_chunk(format!("data: {event}\n\n").as_bytes()))?;
            }
            exchange.write("0\r\n\r\n")?;
            Ok(After::KeepAlive)
        }),
    );
    let mut clients = world.clients(3);
    clients.iter_mut().for_each(|client| client.start(&get("/v2/svc/events")));
    for client in &mut clients {
        assert_eq!(client.head().status, 200);
        for event in 0..3 {
            assert_eq!(client.chunk().unwrap(), format!("data: {event}\n\n").as_bytes());
        }
        assert_eq!(client.chunk().unwrap(), b"");
    }
    world.nobody_is_blamed();
}

#[test]
fn clients_that_take_a_download_slowly_or_not_at_all() {
    let large = vec![b'x'; LARGE];
    let world = World::new(
        "[timeouts]\nupstream_silence = \"1500ms\"\n[limits]\nwrite_stall = \"3s\"\n",
        script(move |exchange| {
            exchange.read_body()?;
            exchange.answer("200 OK", &[], &large)?;
            Ok(After::KeepAlive)
        }),
    );
    let mut slow = world.clients(3);
    let mut never = world.clients(3);
    slow.iter_mut().chain(&mut never).for_each(|client| client.start(&get("/v2/svc/large")));
    for client in &mut slow {
        assert_eq!(client.head().status, 200);
    }
    for _ in 0..4 {
        // Shorter than a stall of the client, longer than one of the instance in all.
        thread::sleep(Duration::from_millis(700));
        for client in &mut slow {
            client.exactly(LARGE / 4).expect("the next part");
        }
    }
    eventually("those who take nothing to be cut off", || world.gateway.instances("svc")[0]["in_flight"] == 0);
    world.nobody_is_blamed();
}

#[test]
fn clients_that_leave_in_the_middle_of_uploads_and_downloads() {
    let arrived = Gate::new();
    let counting = arrived.clone();
    let world = World::new(
        "",
        script(move |exchange| {
            counting.open();
            if exchange.seen.method == "POST" {
                exchange.read_body()?;
            }
            exchange.answer("200 OK", &[], &vec![b'x'; LARGE])?;
            Ok(After::KeepAlive)
        }),
    );
    for round in 0..12u64 {
        let mut client = Conn::open(world.gateway.gateway);
        if round % 2 == 0 {
            client.send("POST /v2/svc/x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf of");
            arrived.wait(round + 1);
        } else {
            client.start(&get("/v2/svc/large"));
            client.exactly(100_000).expect("a part of it");
        }
        if round % 4 < 2 { client.reset() } else { drop(client) }
    }
    world.nobody_is_blamed();
}

#[test]
fn connections_that_the_instance_has_closed_while_they_were_idle() {
    let world = World::new(
        "",
        script(|exchange| {
            exchange.read_body()?;
            exchange.answer("200 OK", &[], b"and goodbye")?;
            Ok(After::Close)
        }),
    );
    let mut client = Conn::open(world.gateway.gateway);
    for round in 0..30 {
        let request = if round % 2 == 0 { get("/v2/svc/x") } else { Request::new("PUT", "/v2/svc/x").body("x") };
        client.ask(&request).expect(200);
    }
    world.nobody_is_blamed();
}
