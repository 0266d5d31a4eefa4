//! Load for gateways that share a registry, for the rig. Prints JSON objects, one a line; times in them are microseconds.
//!
//! * `bench-replicas propagate UPSTREAM COUNT BEATS REGISTRIES ROUTERS` registers COUNT services, one after another, at the
//!   first of the REGISTRIES; each of the ROUTERS is asked for the service until it answers 200. BEATS heartbeats a second go
//!   to all REGISTRIES meanwhile.
//! * `bench-replicas register UPSTREAM COUNT BACKGROUND REGISTRY` registers COUNT services, one after another, while another
//!   connection registers BACKGROUND a second.
//! * `bench-replicas fleet UPSTREAM SERVICES INSTANCES CONNECTIONS REGISTRIES` registers as many INSTANCES of each of as many
//!   SERVICES over so many CONNECTIONS and prints how that went. Each has a heartbeat every 30 s, always at the next of the
//!   REGISTRIES, as behind a load balancer.
//! * `bench-replicas sweep SERVICES CONNECTIONS ROUTER` asks once for each service of a fleet.
//! * `bench-replicas steady UPSTREAM REGISTRIES ROUTERS` sends 500 requests a second to the first of the ROUTERS and 500 to
//!   all in turn; services beat every 3 s and others register, at all REGISTRIES in turn.
//!
//! REGISTRIES and ROUTERS are ports with commas between them. `fleet` and `steady` go on until their input ends; on each line
//! of it they print what happened since the last one. Threads that block instead of tasks: each connection has one, and
//! sleeps are shorter than a timer wheel's millisecond.

mod client;
mod measure;
mod tally;

use client::Client;
use measure::{micros, now, percentiles, say};
use std::io::{self, BufRead};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use tally::Tally;

const PATIENCE: Duration = Duration::from_secs(20);
/// How long a prober waits before it asks again; what is measured is late by half of it and an answer's time.
const PROBE_PAUSE: Duration = Duration::from_micros(500);
const BEATERS: usize = 16;
const BEAT_INTERVAL: Duration = Duration::from_secs(30);
const FILL_PATIENCE: Duration = Duration::from_secs(300);
/// Of `steady`: connections of each of the two kinds, and how often each of them asks.
const STEADY_CONNECTIONS: usize = 8;
const STEADY_PAUSE: Duration = Duration::from_millis(16);
const STEADY_SERVICES: usize = 20;
const STEADY_TTL: u32 = 10;
const STEADY_BEAT: Duration = Duration::from_secs(3);
const CHURN_PAUSE: Duration = Duration::from_millis(200);
const CHURN_SERVICES: usize = 50;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((command, rest)) = arguments.split_first() else { return Err(usage()) };
    let numbers: Vec<Vec<usize>> = rest.iter().map(|word| list(word)).collect::<io::Result<_>>()?;
    let numbers: Vec<&[usize]> = numbers.iter().map(Vec::as_slice).collect();
    match (command.as_str(), numbers.as_slice()) {
        ("propagate", &[&[upstream], &[count], &[beats], registries, routers]) => {
            propagate(upstream, count, beats, &ports(registries), &ports(routers))
        }
        ("register", &[&[upstream], &[count], &[background], &[registry]]) => {
            register(upstream, count, background, registry as u16)
        }
        ("fleet", &[&[upstream], &[services], &[instances], &[connections], registries]) => {
            Fleet { upstream, services, instances, registries: ports(registries) }.run(connections)
        }
        ("sweep", &[&[services], &[connections], &[router]]) => sweep(services, connections, router as u16),
        ("steady", &[&[upstream], registries, routers]) => steady(upstream, &ports(registries), &ports(routers)),
        _ => Err(usage()),
    }
}

fn usage() -> io::Error {
    io::Error::other("usage: bench-replicas propagate|register|fleet|sweep|steady …; see its source")
}

fn list(word: &str) -> io::Result<Vec<usize>> {
    word.split(',').map(|number| number.parse().map_err(io::Error::other)).collect()
}

fn ports(numbers: &[usize]) -> Vec<u16> {
    numbers.iter().map(|number| *number as u16).collect()
}

// ---- propagate -----------------------------------------------------------------------------------------------------------

fn propagate(upstream: usize, count: usize, beats: usize, registries: &[u16], routers: &[u16]) -> io::Result<()> {
    let stop = AtomicBool::new(false);
    let (beside, own) = (Mutex::default(), Mutex::default());
    let (mut sent, mut answered) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let _stops = StopAtEnd(&stop);
        if beats > 0 {
            for (at, registry) in registries.iter().enumerate() {
                let pause = Duration::from_secs(1) * registries.len() as u32 / beats as u32;
                let (stop, beside) = (&stop, &beside);
                scope.spawn(move || beat_beside(upstream, at, *registry, pause, stop, beside));
            }
            thread::sleep(Duration::from_millis(500));
        }
        let (found, arrivals) = mpsc::sync_channel(routers.len());
        let mut probers = Vec::new();
        for router in routers {
            let (ask, asked) = mpsc::sync_channel::<String>(1);
            let found = found.clone();
            scope.spawn(move || asked.iter().all(|service| found.send(probe(*router, &service)).is_ok()));
            probers.push(ask);
        }
        let mut clients = [Client::new(registries[0])];
        for turn in 0..count {
            let service = format!("moved_{beats}_{turn:05}");
            for prober in &probers {
                prober.send(service.clone()).map_err(io::Error::other)?;
            }
            // The probers are asking by then, on warm connections.
            thread::sleep(Duration::from_millis(2));
            let sent_at = now();
            Tally::ask(&own, &mut clients, 0, &registration(&service, "one", upstream, 3600), 201);
            let answered_at = now();
            for _ in routers {
                let Some(at) = arrivals.recv_timeout(PATIENCE).map_err(io::Error::other)? else {
                    return Err(io::Error::other(format!("{service} did not become routable everywhere")));
                };
                sent.push(micros(at, sent_at));
                answered.push(micros(at, answered_at));
            }
            // No rhythm that the replicas' own could fall in with.
            thread::sleep(Duration::from_millis(10 + turn as u64 * 7 % 20));
        }
        Ok(())
    })?;
    say(&format!(
        "{{\"from_request\":{},\"from_201\":{},\"register\":{},\"beats\":{}}}",
        percentiles(&mut sent),
        percentiles(&mut answered),
        Tally::take(&own),
        Tally::take(&beside)
    ))
}

/// Asks until the service is routable; tells when it was.
fn probe(router: u16, service: &str) -> Option<Instant> {
    let mut client = Client::new(router);
    let (request, begun) = (fetch(service), now());
    while now() - begun < PATIENCE {
        if client.ask(&request).is_ok_and(|answer| answer.status == 200) {
            return Some(now());
        }
        thread::sleep(PROBE_PAUSE);
    }
    None
}

/// Heartbeats of 100 instances at one replica.
fn beat_beside(upstream: usize, at: usize, registry: u16, pause: Duration, stop: &AtomicBool, tally: &Mutex<Tally>) {
    let service = format!("beside_{at}");
    let mut clients = [Client::new(registry)];
    for instance in 0..100 {
        Tally::ask(tally, &mut clients, 0, &registration(&service, &format!("i{instance}"), upstream, 3600), 201);
    }
    let mut due = now();
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        Tally::ask(tally, &mut clients, 0, &heartbeat(&service, &format!("i{}", turn % 100)), 200);
        due += pause;
        sleep_until(due);
    }
}

// ---- register ------------------------------------------------------------------------------------------------------------

fn register(upstream: usize, count: usize, background: usize, registry: u16) -> io::Result<()> {
    let stop = AtomicBool::new(false);
    let (own, beside) = (Mutex::default(), Mutex::default());
    // Names that no earlier run used: an overwritten registration is another case.
    let run = std::process::id();
    thread::scope(|scope| {
        let _stops = StopAtEnd(&stop);
        if background > 0 {
            scope.spawn(|| {
                let (mut clients, mut due) = ([Client::new(registry)], now());
                for turn in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    Tally::ask(&beside, &mut clients, 0, &registration(&format!("b{run}_{turn}"), "one", upstream, 3600), 201);
                    due += Duration::from_secs(1) / background as u32;
                    sleep_until(due);
                }
            });
        }
        let mut clients = [Client::new(registry)];
        for turn in 0..count {
            Tally::ask(&own, &mut clients, 0, &registration(&format!("s{run}_{turn}"), "one", upstream, 3600), 201);
            // Between a mill's pace and none: the next one finds an idle gateway.
            thread::sleep(Duration::from_millis(2));
        }
    });
    say(&format!("{{\"own\":{},\"beside\":{}}}", Tally::take(&own), Tally::take(&beside)))
}

// ---- fleet ---------------------------------------------------------------------------------------------------------------

struct Fleet {
    upstream: usize,
    services: usize,
    instances: usize,
    registries: Vec<u16>,
}

impl Fleet {
    fn run(&self, connections: usize) -> io::Result<()> {
        let (stop, next) = (AtomicBool::new(false), AtomicUsize::new(0));
        let (fill, beats) = (Mutex::default(), Mutex::default());
        let registered: Vec<AtomicBool> = (0..self.len()).map(|_| AtomicBool::new(false)).collect();
        let begun = now();
        thread::scope(|scope| {
            let _stops = StopAtEnd(&stop);
            let fillers: Vec<_> =
                (0..connections).map(|_| scope.spawn(|| self.fill(&next, begun, &registered, &fill))).collect();
            for beater in 0..BEATERS {
                let (stop, registered, beats) = (&stop, &registered, &beats);
                scope.spawn(move || self.beat(beater, begun, stop, registered, beats));
            }
            for filler in fillers {
                filler.join().map_err(|_| io::Error::other("a thread panicked"))?;
            }
            say(&format!("{{\"micros\":{},\"fill\":{}}}", micros(now(), begun), Tally::take(&fill)))?;
            for _ in io::stdin().lock().lines().map_while(Result::ok) {
                say(&format!("{{\"beats\":{}}}", Tally::take(&beats)))?;
            }
            Ok(())
        })
    }

    fn len(&self) -> usize {
        self.services * self.instances
    }

    /// The nth instance; neighbours are of different services.
    fn name(&self, nth: usize) -> (String, String) {
        (fleet_service(nth % self.services), format!("i{}", nth / self.services))
    }

    /// Registers the next one that nobody has registered, until there is none.
    fn fill(&self, next: &AtomicUsize, begun: Instant, registered: &[AtomicBool], tally: &Mutex<Tally>) {
        let (own, mut clients) = (Mutex::default(), self.clients());
        while now() - begun < FILL_PATIENCE {
            let nth = next.fetch_add(1, Ordering::Relaxed);
            let Some(registered) = registered.get(nth) else { break };
            let (service, instance) = self.name(nth);
            let is_done = Tally::ask(&own, &mut clients, nth, &registration(&service, &instance, self.upstream, 60), 201);
            registered.store(is_done, Ordering::Relaxed);
        }
        Tally::add(tally, own);
    }

    /// Heartbeats of those that are registered, spread evenly over the interval from the very beginning: nobody is silent for
    /// longer, however long registering all takes.
    fn beat(&self, beater: usize, begun: Instant, stop: &AtomicBool, registered: &[AtomicBool], tally: &Mutex<Tally>) {
        let mut clients = self.clients();
        for turn in (beater..).step_by(BEATERS) {
            sleep_until(begun + BEAT_INTERVAL.mul_f64(turn as f64 / self.len() as f64));
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let (nth, cycle) = (turn % self.len(), turn / self.len());
            if registered[nth].load(Ordering::Relaxed) {
                let (service, instance) = self.name(nth);
                Tally::ask(tally, &mut clients, nth + cycle, &heartbeat(&service, &instance), 200);
            }
        }
    }

    fn clients(&self) -> Vec<Client> {
        self.registries.iter().map(|port| Client::new(*port)).collect()
    }
}

fn sweep(services: usize, connections: usize, router: u16) -> io::Result<()> {
    let (next, tally) = (AtomicUsize::new(0), Mutex::default());
    thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                let (own, mut clients) = (Mutex::default(), [Client::new(router)]);
                loop {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    if nth >= services {
                        break;
                    }
                    Tally::ask(&own, &mut clients, 0, &fetch(&fleet_service(nth)), 200);
                }
                Tally::add(&tally, own);
            });
        }
    });
    say(&Tally::take(&tally))
}

fn fleet_service(nth: usize) -> String {
    format!("fleet_{nth:05}")
}

// ---- steady --------------------------------------------------------------------------------------------------------------

fn steady(upstream: usize, registries: &[u16], routers: &[u16]) -> io::Result<()> {
    let (stop, tallies) = (AtomicBool::new(false), <[Mutex<Tally>; 4]>::default());
    let [one, all, beats, churn] = &tallies;
    let clients = |ports: &[u16]| -> Vec<Client> { ports.iter().map(|port| Client::new(*port)).collect() };
    let mut registrants = clients(registries);
    let services: Vec<String> = (0..STEADY_SERVICES).map(|nth| format!("steady_{nth}")).collect();
    for (nth, service) in services.iter().enumerate() {
        Tally::ask(beats, &mut registrants, nth, &registration(service, "one", upstream, STEADY_TTL), 201);
    }
    thread::scope(|scope| {
        let _stops = StopAtEnd(&stop);
        let (stop, services) = (&stop, &services);
        for nth in 0..STEADY_CONNECTIONS * 2 {
            let (ports, tally) = if nth % 2 == 0 { (&routers[..1], one) } else { (routers, all) };
            let request = move |turn: usize| fetch(&services[(turn + nth) % STEADY_SERVICES]);
            scope.spawn(move || repeat(clients(ports), STEADY_PAUSE, stop, tally, 200, request));
        }
        let request = |turn: usize| heartbeat(&services[turn % STEADY_SERVICES], "one");
        let pause = STEADY_BEAT / STEADY_SERVICES as u32;
        scope.spawn(move || repeat(clients(registries), pause, stop, beats, 200, request));
        let request = move |turn: usize| registration(&format!("churn_{}", turn % CHURN_SERVICES), "one", upstream, 60);
        scope.spawn(move || repeat(clients(registries), CHURN_PAUSE, stop, churn, 201, request));
        // Others may not have heard of the services yet.
        thread::sleep(Duration::from_secs(1));
        for tally in &tallies {
            Tally::take(tally);
        }
        say("ready")?;
        for _ in io::stdin().lock().lines().map_while(Result::ok) {
            let [one, all, beats, churn] = tallies.each_ref().map(Tally::take);
            say(&format!("{{\"one\":{one},\"all\":{all},\"beats\":{beats},\"churn\":{churn}}}"))?;
        }
        Ok(())
    })
}

/// One request after another at a steady pace, each to the next client; what is late is not made up for.
fn repeat(
    mut clients: Vec<Client>,
    pause: Duration,
    stop: &AtomicBool,
    tally: &Mutex<Tally>,
    wanted: u16,
    request: impl Fn(usize) -> String,
) {
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let due = now() + pause;
        // Another step than the requests', or each service would always meet the same replica.
        let at = turn + turn / clients.len().max(STEADY_SERVICES);
        Tally::ask(tally, &mut clients, at, &request(turn), wanted);
        sleep_until(due);
    }
}

/// Ends the other threads of a scope however it ends.
struct StopAtEnd<'s>(&'s AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn sleep_until(due: Instant) {
    thread::sleep(due.saturating_duration_since(now()));
}

// ---- requests ------------------------------------------------------------------------------------------------------------

fn registration(service: &str, instance: &str, upstream: usize, ttl: u32) -> String {
    // Each instance has an endpoint of its own, and the upstream answers all of them.
    post(
        "/register",
        &format!(
            "{{\"service_name\":\"{service}\",\"instance_id\":\"{instance}\",\"endpoint\":\"http://127.0.0.1:{upstream}/{instance}\",\
         \"ttl\":{ttl},\"metadata\":{{\"version\":\"1.0.0\"}}}}"
        ),
    )
}

fn heartbeat(service: &str, instance: &str) -> String {
    post("/heartbeat", &format!("{{\"service_name\":\"{service}\",\"instance_id\":\"{instance}\"}}"))
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn fetch(service: &str) -> String {
    format!("GET /v2/{service}/ HTTP/1.1\r\nHost: bench\r\n\r\n")
}
