//! A service is restarted instance by instance while it is used, and nobody notices.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::harness::http::one_chunk;
use crate::harness::process::Process;
use crate::harness::scripts::{script, text, upgrade_echo};
use crate::harness::{After, Conn, Gate, Gateway, PATIENCE, Request, SteadyLoad, Upstream, delete, eventually, get, post};
use crate::sidecar_exec::{Service, service_command};

const NAME: &str = "rolled_service";
/// How long an instance has to finish what it began.
const DRAIN: Duration = Duration::from_secs(1);

/// Many clients: short and long requests, those that may be sent again and those that may not.
struct Crowd(Vec<SteadyLoad>);

impl Crowd {
    #[track_caller]
    fn start(gateway: &Gateway) -> Self {
        let path = |rest: &str| format!("/v2/{NAME}/{rest}");
        let body = json!({"text": "x".repeat(3000)});
        let mixes = [
            vec![get(&path("x")), post(&path("x"), &body)],
            vec![post(&path("x"), &body), post(&path("slow"), &body)],
            vec![post(&path("slow"), &body), get(&path("slow")), Request::new("DELETE", &path("x"))],
        ];
        Self(mixes.into_iter().map(|mix| SteadyLoad::asking(gateway.gateway, mix)).collect())
    }

    #[track_caller]
    fn goes_on(&self) {
        self.0.iter().for_each(SteadyLoad::goes_on);
    }

    /// Ends it; nothing has failed. Tells how many requests there were.
    #[track_caller]
    fn stop(self) -> usize {
        self.goes_on();
        let reports: Vec<_> = self.0.into_iter().map(SteadyLoad::stop).collect();
        let (sent, failed) = (reports.iter().map(|r| r.sent).sum(), reports.iter().map(|r| r.failed).sum::<usize>());
        let shown: Vec<String> = reports.iter().map(ToString::to_string).collect();
        assert_eq!(failed, 0, "{failed} of {sent} were lost: {shown:#?}");
        eprintln!("{sent} requests, none lost");
        sent
    }
}

/// An instance without a sidecar: it registers and deregisters itself.
struct Plain {
    service: Service,
    process: Process,
}

impl Plain {
    #[track_caller]
    fn start(gateway: &Gateway, service: Service, dir: &Path) -> Self {
        let process = Process::start(service_command(), &service.env("http://127.0.0.1:1"), "plain", dir);
        eventually("the service to serve", || service.pid().is_some());
        gateway.register_at(NAME, &service.url());
        Self { service, process }
    }
}

/// Instances that are asked to leave in some way, killed as soon as they may be, and started again where they were.
#[track_caller]
fn roll(gateway: &Gateway, rounds: usize, leave: impl Fn(&Gateway, &Service)) -> usize {
    let start = |service| Plain::start(gateway, service, gateway.dir());
    let mut instances: Vec<Plain> = (0..3).map(|_| start(Service::new(NAME, gateway.dir()))).collect();
    let crowd = Crowd::start(gateway);
    for _ in 0..rounds {
        for _ in 0..instances.len() {
            let Plain { service, mut process } = instances.remove(0);
            leave(gateway, &service);
            // Without a word, with every connection that is still pooled.
            process.kill();
            crowd.goes_on();
            instances.push(start(service));
            crowd.goes_on();
        }
    }
    let sent = crowd.stop();
    assert_eq!(gateway.metrics().sum("vertice_breaker_transitions_total", &[]), 0.0, "somebody was blamed");
    sent
}

#[test]
fn instances_that_deregister_with_a_drain_lose_nothing() {
    let gateway = Gateway::start();
    let sent = roll(&gateway, 2, |gateway, service| {
        let target = format!("/deregister/{NAME}?instance_id={}&drain={}s", service.id(), DRAIN.as_secs());
        gateway.api(delete(&target)).expect(200);
        std::thread::sleep(DRAIN);
    });
    assert!(sent > 1000, "{sent}");
}

#[test]
fn instances_that_an_operator_drains_or_that_say_so_themselves_lose_nothing() {
    let gateway = Gateway::start();
    roll(&gateway, 1, |gateway, service| {
        let target = format!("/gateway/drain/{NAME}?instance_id={}&for=1m", service.id());
        gateway.api(post(&target, &json!({}))).expect(200);
        eventually("it to be idle", || {
            gateway.instances(NAME).iter().any(|i| i["status"] == "draining" && i["in_flight"] == 0)
        });
    });
    let beaten = Gateway::start();
    roll(&beaten, 1, |gateway, service| {
        let beat = json!({"service_name": NAME, "instance_id": service.id(), "status": "draining"});
        gateway.api(post("/heartbeat", &beat)).expect(200);
        eventually("it to be idle", || {
            gateway.instances(NAME).iter().any(|i| i["status"] == "draining" && i["in_flight"] == 0)
        });
    });
}

#[test]
fn instances_with_a_sidecar_as_parent_lose_nothing() {
    let gateway = Gateway::start();
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let mut instances: Vec<(Service, Process)> = Vec::new();
    for dir in &dirs {
        let service = Service::new(NAME, dir.path());
        let sidecar = service.launch_in(&gateway, &[], dir.path());
        instances.push((service, sidecar));
    }
    let crowd = Crowd::start(&gateway);
    for dir in &dirs {
        let (service, mut sidecar) = instances.remove(0);
        sidecar.terminate();
        sidecar.exit_within(PATIENCE);
        crowd.goes_on();
        let sidecar = service.launch_in(&gateway, &[], dir.path());
        crowd.goes_on();
        instances.push((service, sidecar));
    }
    crowd.stop();
}

#[test]
fn what_an_instance_began_it_ends() {
    let gateway = Gateway::start();
    let gate = Gate::new();
    let stepped = gate.clone();
    let leaving = Upstream::start(script(move |exchange| {
        match exchange.seen.target.as_str() {
            "/chat" => return upgrade_echo()(exchange),
            "/events" => {
                exchange.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?
            }
            _ => exchange.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?,
        }
        for step in 1..=3 {
            stepped.wait(step);
            exchange.write(one_chunk(format!("part {step}").as_bytes()))?;
        }
        exchange.write("0\r\n\r\n")?;
        Ok(After::KeepAlive)
    }));
    let body = json!({"service_name": NAME, "endpoint": leaving.url(), "instance_id": "leaving"});
    gateway.api(post("/register", &body)).expect(201);
    let open = |target: &str| {
        let mut conn = Conn::open(gateway.gateway);
        conn.start(&get(&format!("/v2/{NAME}/{target}")));
        assert_eq!(conn.head().status, 200);
        conn
    };
    let mut slow = [open("download"), open("events")];
    let mut tunnel = Conn::open(gateway.gateway);
    let handshake = get(&format!("/v2/{NAME}/chat")).header("Connection", "Upgrade").header("Upgrade", "websocket");
    tunnel.start(&handshake.header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==").header("Sec-WebSocket-Version", "13"));
    assert_eq!(tunnel.head().status, 101);
    assert_eq!(tunnel.exactly(5).unwrap(), b"hello");

    let other = Upstream::start(text("other"));
    gateway.register(NAME, &other);
    let asked = leaving.count();
    let mut talk = |step: u64| {
        gate.open();
        for conn in &mut slow {
            assert_eq!(conn.chunk().unwrap(), format!("part {step}").as_bytes());
        }
        tunnel.send(format!("step {step}"));
        assert_eq!(tunnel.exactly(6).unwrap(), format!("step {step}").as_bytes());
        for _ in 0..20 {
            assert_eq!(gateway.data(get(&format!("/v2/{NAME}/x"))).expect(200).text(), "other");
        }
    };
    gateway.api(post(&format!("/gateway/drain/{NAME}?instance_id=leaving&for=1m"), &json!({}))).expect(200);
    talk(1);
    gateway.api(delete(&format!("/deregister/{NAME}?instance_id=leaving&drain=1s"))).expect(200);
    talk(2);
    eventually("it to be gone", || gateway.instances(NAME).len() == 1);
    talk(3);
    assert!(slow.into_iter().all(|mut conn| conn.chunk().unwrap().is_empty()));
    assert_eq!(leaving.count(), asked, "it was asked for something new");
}
