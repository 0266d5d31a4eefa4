//! When leases are not believed: most instances silent at once, or the gateway itself stopped (SPEC §3, "Leases").

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::clock::epoch_s;
use crate::harness::scripts::{script, text};
use crate::harness::{After, Gateway, PATIENCE, Upstream, eventually, get, now, post};

/// The shortest that a registration may ask for.
const TTL: Duration = Duration::from_secs(5);

/// Instances of one service behind one listener, told apart by the prefix of their endpoint.
struct Fleet {
    upstream: Upstream,
    count: usize,
    /// Whose health endpoint fails.
    ill: Arc<Mutex<Vec<String>>>,
}

impl Fleet {
    fn start(count: usize) -> Self {
        let ill = Arc::<Mutex<Vec<String>>>::default();
        let listed = ill.clone();
        let upstream = Upstream::start(script(move |exchange| {
            exchange.read_body()?;
            let is_ill = listed.lock().unwrap().iter().any(|id| exchange.seen.target == format!("/{id}/health"));
            let status = if is_ill { "503 Service Unavailable" } else { "200 OK" };
            exchange.answer(status, &[], b"here")?;
            Ok(After::KeepAlive)
        }));
        Self { upstream, count, ill }
    }

    fn ids(&self) -> Vec<String> {
        (0..self.count).map(|n| format!("i{n:02}")).collect()
    }

    /// Registers all, within half a TTL.
    fn register(&self, gateway: &Gateway) {
        loop {
            let start = now();
            for id in self.ids() {
                let endpoint = format!("{}/{id}", self.upstream.url());
                let ttl = TTL.as_secs();
                let body = json!({"service_name": "fleet", "instance_id": id, "endpoint": endpoint, "ttl": ttl});
                gateway.api(post("/register", &body)).expect(201);
            }
            if start.elapsed() < TTL / 2 {
                return;
            }
        }
    }

    fn renew(&self, gateway: &Gateway, members: std::ops::Range<usize>) {
        for id in &self.ids()[members] {
            gateway.api(post("/heartbeat", &json!({"service_name": "fleet", "instance_id": id}))).expect(200);
        }
    }

    fn was_probed(&self, id: &str) -> bool {
        self.upstream.seen().iter().any(|seen| seen.target == format!("/{id}/health"))
    }
}

fn leases(gateway: &Gateway) -> Value {
    gateway.status()["leases"].clone()
}

fn ids(gateway: &Gateway) -> Vec<String> {
    gateway.instances("fleet").iter().map(|instance| instance["instance_id"].as_str().unwrap().to_owned()).collect()
}

fn holds(gateway: &Gateway) -> f64 {
    gateway.registry_metrics().only("registry_lease_holds_total", &[])
}

#[test]
fn thirty_that_fall_silent_at_once_are_held_and_probed_and_only_the_dead_go() {
    let gateway = Gateway::start();
    let fleet = Fleet::start(30);
    let before = epoch_s();
    fleet.register(&gateway);
    eventually("all to be past their deadline, and held", || leases(&gateway)["held"] == 30);

    let answer = gateway.api(get("/health")).expect(200).json();
    assert_eq!(answer["status"], "degraded");
    let detail = "mass lapse suspected: 30 of 30 instances have not been renewed; holding 30, probing them";
    assert_eq!(answer["components"]["leases"], json!({"status": "degraded", "detail": detail}));
    let shown = leases(&gateway);
    assert_eq!((&shown["holding"], &shown["instances"], &shown["silent"]), (&json!(true), &json!(30), &json!(30)));
    let since = shown["since"].as_f64().unwrap();
    assert!((before + 4.0..epoch_s() + 1.0).contains(&since), "{since}");
    assert!(gateway.instances("fleet").iter().all(|instance| instance["held"] == true));
    let metrics = gateway.registry_metrics();
    assert_eq!(metrics.only("registry_leases_held", &[]), 30.0);
    assert_eq!(metrics.only("registry_lease_holds_total", &[]), 1.0);
    assert_eq!(metrics.only("registry_lapses_total", &[]), 0.0);
    assert!(gateway.process.stderr().contains("mass lapse suspected"), "{}", gateway.process.stderr());
    for _ in 0..60 {
        gateway.data(get("/v2/fleet/x")).expect(200);
    }
    assert_eq!(gateway.service("fleet")["ttl_remaining"], 0);

    eventually("each to be probed", || fleet.ids().iter().all(|id| fleet.was_probed(id)));
    fleet.ill.lock().unwrap().extend(["i03".to_owned(), "i17".to_owned()]);
    eventually("the two dead ones to go", || ids(&gateway).len() == 28);
    assert!(!ids(&gateway).iter().any(|id| id == "i03" || id == "i17"));
    let metrics = gateway.registry_metrics();
    assert_eq!(metrics.only("registry_held_evictions_total", &[]), 2.0);
    assert_eq!(metrics.only("registry_lapses_total", &[]), 0.0);
    assert!(metrics.sum("registry_held_probes_total", &[("result", "failed")]) >= 4.0);
    gateway.data(get("/v2/fleet/x")).expect(200);
}

#[test]
fn the_hold_ends_when_most_are_back_and_the_others_lapse_one_ttl_later() {
    let gateway = Gateway::start();
    let fleet = Fleet::start(12);
    fleet.register(&gateway);
    eventually("all to be held", || leases(&gateway)["held"] == 12);
    fleet.renew(&gateway, 0..9);
    eventually("the hold to end", || leases(&gateway)["holding"] == false);
    let ended = now();
    let shown = leases(&gateway);
    assert_eq!((&shown["since"], &shown["held"]), (&Value::Null, &json!(0)));
    assert_eq!(ids(&gateway).len(), 12, "the others have time to come back");
    let detail = gateway.health()["components"]["leases"]["detail"].clone();
    assert!(!detail.to_string().contains("mass lapse"), "{detail}");
    eventually("the others to lapse", || {
        fleet.renew(&gateway, 0..9);
        ids(&gateway).len() == 9
    });
    assert!(ended.elapsed() > TTL - Duration::from_secs(1), "{:?}", ended.elapsed());
    assert_eq!(ids(&gateway), fleet.ids()[..9]);
    let metrics = gateway.registry_metrics();
    assert_eq!(metrics.only("registry_lapses_total", &[]), 3.0);
    assert_eq!(metrics.only("registry_held_evictions_total", &[]), 0.0);
    assert!(gateway.process.stderr().contains("no longer suspected"));
}

#[test]
fn a_single_silent_one_among_twelve_lapses_on_time() {
    let gateway = Gateway::start();
    let fleet = Fleet::start(12);
    let registered = now();
    fleet.register(&gateway);
    let last = now();
    eventually("the silent one to lapse", || {
        fleet.renew(&gateway, 1..12);
        ids(&gateway).len() < 12
    });
    assert!(registered.elapsed() >= TTL);
    // Its deadline is over 100 ms after at the latest; the rest is for machines that are busy with something else.
    assert!(last.elapsed() < TTL + Duration::from_secs(4), "{:?}", last.elapsed());
    assert_eq!(ids(&gateway), fleet.ids()[1..]);
    assert_eq!(holds(&gateway), 0.0);
}

#[test]
fn fewer_than_ten_are_not_protected() {
    let gateway = Gateway::start();
    let fleet = Fleet::start(9);
    fleet.register(&gateway);
    eventually("all nine to lapse", || gateway.services().is_empty());
    let metrics = gateway.registry_metrics();
    assert_eq!((metrics.only("registry_lapses_total", &[]), holds(&gateway)), (9.0, 0.0));
    assert_eq!(gateway.api(get("/health")).expect(200).json()["active_services"], 0);
}

#[test]
fn a_gateway_that_was_stopped_for_longer_than_a_ttl_loses_nobody() {
    const CLIENTS: usize = 12;
    let ttl = Duration::from_secs(3);
    let gateway = Gateway::builder().env("VERTICE_LEASE__TTL", "3s").start();
    let upstream = Upstream::start(text("here"));
    let register = |n: usize| {
        let body = json!({"service_name": format!("client-{n}"), "instance_id": "it", "endpoint": upstream.url()});
        gateway.api(post("/register", &body)).expect(201);
    };
    (0..CLIENTS).for_each(register);

    let (over, refused, beats) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let start = now();
    std::thread::scope(|scope| {
        for n in 0..CLIENTS {
            let (over, refused, beats, gateway) = (&over, &refused, &beats, &gateway);
            scope.spawn(move || {
                // When the test fails nobody tells that it is over.
                while !over.load(Ordering::SeqCst) && start.elapsed() < 4 * PATIENCE {
                    let body = json!({"service_name": format!("client-{n}"), "instance_id": "it"});
                    // While the gateway is stopped this waits in its sockets.
                    match post("/heartbeat", &body).try_send(gateway.registry) {
                        Ok(answer) if answer.status == 200 => beats.fetch_add(1, Ordering::SeqCst),
                        _ => refused.fetch_add(1, Ordering::SeqCst),
                    };
                    std::thread::sleep(ttl / 3);
                }
            });
        }
        eventually("everybody to beat twice", || beats.load(Ordering::SeqCst) >= 2 * CLIENTS);
        gateway.process.signal("STOP");
        std::thread::sleep(ttl * 8 / 5);
        gateway.process.signal("CONT");
        let before = beats.load(Ordering::SeqCst);
        eventually("everybody to beat again, and again", || {
            assert_eq!(gateway.services().len(), CLIENTS, "{}", gateway.process.stderr());
            beats.load(Ordering::SeqCst) >= before + 4 * CLIENTS
        });
        over.store(true, Ordering::SeqCst);
    });
    assert_eq!(refused.load(Ordering::SeqCst), 0, "{}", gateway.process.stderr());
    for n in 0..CLIENTS {
        gateway.data(get(&format!("/v2/client-{n}/x"))).expect(200);
    }
    let metrics = gateway.registry_metrics();
    assert_eq!(metrics.only("registry_lapses_total", &[]), 0.0);
    let stalled = metrics.only("vertice_stall_seconds_total", &[]);
    assert!(stalled >= ttl.as_secs_f64() * 1.6 - 0.1, "{stalled}");
    assert!(gateway.process.stderr().contains("did not run for a while"));
    let left = gateway.service("client-0")["ttl_remaining"].as_u64().unwrap();
    assert!(left <= 3, "{left}");
}
