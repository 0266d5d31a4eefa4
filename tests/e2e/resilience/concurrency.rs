//! Limits on requests under way, of a service and of the process, and who is shed first (SPEC §5).

use std::thread::JoinHandle;
use std::time::Duration;

use crate::harness::scripts::{gated, script, slow, text, upgrade_echo};
use crate::harness::{After, Conn, Gate, Gateway, Request, Response, Upstream, eventually, get};

const ROUTES: &str = r#"
[[routes]]
name = "vital"
prefix = "/vital"
service = "svc"
priority = "critical"
[[routes]]
name = "batch"
prefix = "/batch"
service = "svc"
priority = "low"
"#;

/// Requests that are under way until the gate is opened.
struct Held {
    gate: Gate,
    arrived: Gate,
    upstream: Upstream,
    clients: Vec<JoinHandle<Response>>,
}

impl Held {
    fn start() -> Self {
        let (gate, arrived) = (Gate::new(), Gate::new());
        let upstream = Upstream::start(gated(&arrived, &gate));
        Self { gate, arrived, upstream, clients: Vec::new() }
    }

    /// Starts so many more, and waits until the service has them.
    fn add(&mut self, gateway: &Gateway, target: &str, count: usize) {
        for _ in 0..count {
            let (request, address) = (get(target), gateway.gateway);
            self.clients.push(std::thread::spawn(move || request.send(address)));
        }
        self.arrived.wait(self.clients.len() as u64);
    }

    #[track_caller]
    fn finish(self) {
        self.gate.open();
        self.clients.into_iter().for_each(|client| drop(client.join().unwrap().expect(200)));
    }
}

fn priority(request: Request, word: &str) -> Request {
    request.header("X-Vertice-Priority", word)
}

#[test]
fn a_service_gets_no_more_at_once_than_it_may_and_others_notice_nothing() {
    let config = format!("[services.svc.concurrency]\nmax = 10\n{ROUTES}");
    let gateway = Gateway::builder().config(&config).start();
    let (mut held, other) = (Held::start(), Upstream::start(text("other")));
    gateway.register("svc", &held.upstream);
    gateway.register("other", &other);
    held.add(&gateway, "/v2/svc/x", 7);
    let low = gateway.data(get("/batch"));
    low.problem(503, "overloaded");
    assert_eq!(low.header("retry-after"), Some("1"));
    gateway.data(priority(get("/v2/svc/x"), "low")).problem(503, "overloaded");
    gateway.data(get("/v2/svc/x").header("Priority", "u=7")).problem(503, "overloaded");
    held.add(&gateway, "/v2/svc/x", 2);
    gateway.data(get("/v2/svc/x")).problem(503, "overloaded");
    gateway.data(priority(get("/v2/svc/x"), "critical")).problem(503, "overloaded");
    held.add(&gateway, "/vital", 1);
    gateway.data(get("/vital")).problem(503, "overloaded");
    gateway.data(get("/v2/other/x")).expect(200);
    let metrics = gateway.metrics();
    assert_eq!(metrics.only("vertice_limit_hits_total", &[("limit", "concurrency")]), 6.0);
    assert_eq!(metrics.only("vertice_requests_shed_total", &[("limit", "concurrency"), ("priority", "low")]), 3.0);
    assert_eq!(metrics.only("vertice_requests_shed_total", &[("priority", "critical")]), 1.0);
    eventually("the gauges", || {
        let metrics = gateway.metrics();
        let of = |kind| metrics.sum("vertice_service_concurrency", &[("service", "svc"), ("kind", kind)]);
        (of("in_flight"), of("limit")) == (10.0, 10.0)
    });
    assert_eq!(held.upstream.count(), 10);
    let upstream_is_free = || gateway.data(get("/v2/svc/x")).status == 200;
    held.gate.open();
    eventually("room again", upstream_is_free);
    held.finish();
}

#[test]
fn the_process_sheds_the_least_important_first_and_never_its_own_paths() {
    let gateway = Gateway::builder().config(ROUTES).env("VERTICE_LIMITS__REQUESTS", "4").start();
    let mut held = Held::start();
    gateway.register("svc", &held.upstream);
    held.add(&gateway, "/batch", 3);
    gateway.data(get("/batch")).problem(503, "overloaded");
    held.add(&gateway, "/vital", 1);
    gateway.data(get("/vital")).problem(503, "overloaded");
    gateway.data(get("/health")).expect(200);
    gateway.data(get("/gateway/status")).expect(200);
    gateway.register("svc", &held.upstream);
    assert_eq!(gateway.metrics().only("vertice_limit_hits_total", &[("limit", "requests")]), 2.0);
    held.finish();
}

#[test]
fn whoever_leaves_gives_the_place_back() {
    let gateway = Gateway::builder().config("[concurrency]\nmax = 1\n").start();
    let held = Held::start();
    gateway.register("svc", &held.upstream);
    let under_way = |count: f64| {
        let of = || gateway.metrics().sum("vertice_service_concurrency", &[("service", "svc"), ("kind", "in_flight")]);
        eventually(&format!("{count} under way"), || of() == count);
    };
    for round in 1..=2 {
        let mut client = Conn::open(gateway.gateway);
        client.start(&get("/v2/svc/x"));
        held.arrived.wait(round);
        gateway.data(get("/v2/svc/x")).problem(503, "overloaded");
        under_way(1.0);
        drop(client);
        under_way(0.0);
    }
}

#[test]
fn tunnels_and_event_streams_hold_no_place() {
    let gateway = Gateway::builder().config("[concurrency]\nmax = 1\n").start();
    let events = script(|exchange| {
        exchange
            .write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ndata:\r\n")?;
        exchange.hold()
    });
    let (tunnels, streams) = (Upstream::start(upgrade_echo()), Upstream::start(events));
    gateway.register("tunnels", &tunnels);
    gateway.register("streams", &streams);
    let upgrade = get("/v2/tunnels/x").header("Connection", "Upgrade").header("Upgrade", "websocket");
    let held: Vec<Conn> = [upgrade, get("/v2/streams/x")]
        .iter()
        .flat_map(|request| [request, request, request])
        .map(|request| {
            let mut conn = Conn::open(gateway.gateway);
            conn.start(request);
            let status = conn.head().status;
            assert!(status == 101 || status == 200, "{status}");
            conn
        })
        .collect();
    assert_eq!(held.len(), 6);
}

#[test]
fn downloads_that_take_their_time_do_not_shut_a_service_with_an_adaptive_limit() {
    let config = "[services.svc.concurrency]\nadaptive = true\nmin = 2\n";
    let gateway = Gateway::builder().config(config).start();
    let upstream = Upstream::start(script(|exchange| {
        if exchange.seen.target == "/quick" {
            exchange.answer("200 OK", &[], b"quick")?;
            return Ok(After::KeepAlive);
        }
        exchange.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")?;
        exchange.hold()
    }));
    gateway.register("svc", &upstream);
    let download = || {
        let mut conn = Conn::open(gateway.gateway);
        conn.start(&get("/v2/svc/large"));
        assert_eq!(conn.head().status, 200);
        conn
    };
    let under_way: Vec<Conn> = (0..6).map(|_| download()).collect();
    gateway.data(get("/v2/svc/quick")).expect(200);
    drop(under_way);
}

#[test]
fn an_adaptive_limit_keeps_an_overloaded_service_quick() {
    // One request at a time, 10 ms each: what is more waits in the service.
    let turn = std::sync::Mutex::new(());
    let busy = script(move |exchange| {
        exchange.read_body()?;
        {
            let _turn = turn.lock().unwrap();
            std::thread::sleep(Duration::from_millis(10));
        }
        exchange.answer("200 OK", &[], b"done")?;
        Ok(After::KeepAlive)
    });
    let config = "[services.svc.concurrency]\nadaptive = true\nmin = 2\n";
    let gateway = Gateway::builder().config(config).start();
    let upstream = Upstream::start(busy);
    gateway.register("svc", &upstream);
    let shed = || gateway.metrics().sum("vertice_requests_shed_total", &[("limit", "concurrency")]);
    let answers: Vec<u16> = std::thread::scope(|scope| {
        let client = || {
            let mut conn = Conn::open(gateway.gateway);
            (0..40).map(|_| conn.ask(&get("/v2/svc/x")).status).collect::<Vec<_>>()
        };
        let clients: Vec<_> = (0..30).map(|_| scope.spawn(client)).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|status| [200, 503].contains(status)), "{answers:?}");
    assert!(answers.contains(&200) && shed() > 0.0, "thirty at once are too many for it, and it serves some");
    let limit = || gateway.metrics().sum("vertice_service_concurrency", &[("service", "svc"), ("kind", "limit")]);
    eventually("a limit near what the service can do", || (2.0..20.0).contains(&limit()));
}

#[test]
fn without_a_limit_nobody_is_shed() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(slow(Duration::from_millis(200)));
    gateway.register("svc", &upstream);
    let clients: Vec<_> = (0..40)
        .map(|_| {
            let address = gateway.gateway;
            std::thread::spawn(move || get("/v2/svc/x").send(address).status)
        })
        .collect();
    assert!(clients.into_iter().all(|client| client.join().unwrap() == 200));
    assert!(!gateway.metrics().has("vertice_requests_shed_total"));
}
