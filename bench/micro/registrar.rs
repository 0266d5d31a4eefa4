//! How long the registrar lets others wait: from asking until the change is routable, and until it is stored; heartbeats;
//! and what look-ups feel of it. Percentiles, because a mean hides who waits.
//!
//! `cargo bench --bench registrar -- [--quick]`. What it measured is in `bench/RESULTS.md`.
//!
//! The registrar runs on a runtime and thread of its own and the keeper on another thread, as in the gateway; the caller is
//! a third. On two cores they compete: that belongs to the figure.

mod world;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use vertice_core::command::{Command, Deregistration, Renewal};
use vertice_core::seed;
use vertice_gateway::registrar::outbox::Outbox;
use vertice_gateway::registrar::{Applied, Handle};
use vertice_gateway::store::{self, Keeper, Memory, Store, StoreState};
use vertice_gateway::upstream::Table;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SERVICES: usize = 10_000;
/// Between two measured questions: each finds the registrar asleep unless something else keeps it busy.
const PAUSE: Duration = Duration::from_micros(500);

/// How much is measured.
#[derive(Clone, Copy)]
struct Effort {
    questions: usize,
    look_ups: usize,
}

fn main() -> io::Result<()> {
    let is_quick = std::env::args().any(|argument| argument == "--quick");
    let effort = if is_quick {
        Effort { questions: 1_000, look_ups: 500_000 }
    } else {
        Effort { questions: 8_000, look_ups: 8_000_000 }
    };
    let mut report = Report::new()?;
    registrations(effort, &mut report)?;
    heartbeats(effort, &mut report)?;
    look_ups(effort, &mut report)
}

/// Register until routable, at 10 000 registered services, on both stores, alone and among 1 000 registrations a second.
fn registrations(effort: Effort, report: &mut Report) -> io::Result<()> {
    for store in [StoreKind::Embedded, StoreKind::Memory] {
        let running = Running::start(SERVICES, 1, store)?;
        for rate in [0, 1_000] {
            let background = running.background(rate, |at| world::register(random(at, SERVICES), 0));
            let again = measure(&running, effort, |at| world::register(random(at ^ 0xA5A5, SERVICES), 0));
            let new = measure_new(&running, effort);
            drop(background);
            let set = format!("{store:?} store, {rate}/s background");
            report.line(&format!("register a new service → routable; {set}"), new.answered)?;
            report.line(&format!("register again → routable; {set}"), again.answered)?;
            if store == StoreKind::Embedded {
                report.line(&format!("register again → stored; {set}"), again.stored)?;
            }
        }
    }
    Ok(())
}

/// Heartbeats, alone and at the rate of all instances beating every 30 s, and at ten times that rate.
fn heartbeats(effort: Effort, report: &mut Report) -> io::Result<()> {
    for instances in [10_000, 100_000] {
        let each = instances / SERVICES;
        let running = Running::start(SERVICES, each, StoreKind::Embedded)?;
        for rate in [0, instances / 30, instances / 3] {
            let renew = move |at: usize| {
                let at = random(at, instances);
                renewal(at / each, at % each)
            };
            let background = running.background(rate, renew);
            let beats = measure(&running, effort, |at| renew(at ^ 0xA5A5));
            drop(background);
            report.line(&format!("heartbeat; {instances} instances, {rate}/s background"), beats.answered)?;
        }
    }
    Ok(())
}

/// Single look-ups with the clock read around each, while 1 000 registrations a second replace the table.
fn look_ups(effort: Effort, report: &mut Report) -> io::Result<()> {
    let running = Running::start(SERVICES, 1, StoreKind::Embedded)?;
    let names = world::shuffled_names(SERVICES);
    for rate in [0, 1_000] {
        let background = running.background(rate, |at| world::register(random(at, SERVICES), 0));
        let took = (0..effort.look_ups).map(|at| {
            let started = now();
            let found = running.table.load().get(&names[at % names.len()]).is_some();
            let took = started.elapsed();
            assert!(found, "{} is registered", names[at % names.len()]);
            took
        });
        let took = took.collect();
        drop(background);
        report.line(&format!("look-up (clock included); {rate}/s registrations"), took)?;
    }
    let clock = (0..effort.look_ups).map(|_| now().elapsed()).collect();
    report.line("reading the clock twice, nothing else", clock)
}

/// How long each question took.
#[derive(Default)]
struct Waits {
    /// Until the answer; the table shows the change by then.
    answered: Vec<Duration>,
    /// Until the store had it.
    stored: Vec<Duration>,
}

fn measure(running: &Running, effort: Effort, command: impl Fn(usize) -> Command) -> Waits {
    let caller = runtime();
    let mut waits = Waits::default();
    for at in 0..effort.questions {
        std::thread::sleep(PAUSE);
        let command = command(at);
        caller.block_on(async {
            let started = now();
            let applied = ask(&running.handle, command).await;
            waits.answered.push(started.elapsed());
            if let Some(stored) = applied.stored {
                // A store that forgets says false, and takes as long.
                let _ = stored.await;
                waits.stored.push(started.elapsed());
            }
        });
    }
    waits
}

/// Each question registers a service that was not there, and sees it in the table; then it goes again, unmeasured.
fn measure_new(running: &Running, effort: Effort) -> Waits {
    let caller = runtime();
    let mut waits = Waits::default();
    for at in 0..effort.questions {
        std::thread::sleep(PAUSE);
        let (service_no, name) = (SERVICES + at % 1_000, world::service(SERVICES + at % 1_000));
        let command = world::register(service_no, 0);
        caller.block_on(async {
            let started = now();
            ask(&running.handle, command).await;
            let is_routable = running.table.load().get(name.as_str()).is_some();
            waits.answered.push(started.elapsed());
            assert!(is_routable, "{name} is routable when its registration is answered");
            let registrant = std::net::Ipv4Addr::LOCALHOST.into();
            ask(
                &running.handle,
                Command::Deregister(Deregistration { service: name, id: None, all: true, registrant, drain: None }),
            )
            .await;
        });
    }
    waits
}

async fn ask(handle: &Handle, command: Command) -> Applied {
    handle.ask(command).await.expect("the limits are higher and the queue is short")
}

fn renewal(service_no: usize, instance_no: usize) -> Command {
    let (service, id) = (world::service(service_no), Some(world::instance(instance_no)));
    Command::Renew(Renewal { service, id, registrant: std::net::Ipv4Addr::LOCALHOST.into(), status: None, metadata: None })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StoreKind {
    Embedded,
    Memory,
}

/// A registrar and a keeper at work, until dropped.
struct Running {
    table: Arc<Table>,
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    stop_keeper: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
    /// Removed after the threads have ended.
    _dir: tempfile::TempDir,
}

impl Running {
    fn start(services: usize, instances: usize, kind: StoreKind) -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        let (outbox, metrics) = (Arc::<Outbox>::default(), world::metrics());
        let (registrar, table, handle) = world::registrar(services, instances, &outbox, &metrics);
        let store: Box<dyn Store> = match kind {
            StoreKind::Embedded => store::open(&dir.path().join("store")).map_err(io::Error::other)?.store,
            StoreKind::Memory => Box::new(Memory::default()),
        };
        let state = Arc::new(StoreState::new(store.kind(), None, store.is_durable(), None));
        let keeper = Keeper::new(store, outbox.clone(), state, metrics);
        let stop_keeper = Arc::new(AtomicBool::new(false));
        let keeper = std::thread::spawn({
            let stop = stop_keeper.clone();
            move || keeper.run(&stop)
        });
        let (stop, stopped) = oneshot::channel();
        let registrar = std::thread::spawn(move || {
            runtime().block_on(registrar.run(async {
                // Both a word and silence mean the end.
                let _ = stopped.await;
            }));
        });
        while !outbox.is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let threads = vec![registrar, keeper];
        Ok(Self { table, handle, stop: Some(stop), stop_keeper, threads, _dir: dir })
    }

    /// Sends so many commands a second, in the steps of a millisecond, until dropped.
    fn background(&self, rate: usize, command: impl Fn(usize) -> Command + Send + 'static) -> Background {
        let stop = Arc::new(AtomicBool::new(rate == 0));
        let thread = std::thread::spawn({
            let (stop, handle) = (stop.clone(), self.handle.clone());
            move || send_at(rate, &stop, |at| handle.tell(command(at)).is_ok())
        });
        Background { stop, thread: Some(thread) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.stop_keeper.store(true, Ordering::Release);
        self.threads.drain(..).for_each(|thread| thread.join().expect("it does not panic"));
    }
}

struct Background {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it does not panic");
        }
    }
}

fn send_at(rate: usize, stop: &AtomicBool, send: impl Fn(usize) -> bool) {
    let (started, mut sent) = (now(), 0);
    while !stop.load(Ordering::Acquire) {
        let due = (started.elapsed().as_secs_f64() * rate as f64) as usize;
        while sent < due {
            assert!(send(sent), "the queue is long enough");
            sent += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime can be had")
}

/// A number below `bound` that is the same for the same `at`.
fn random(at: usize, bound: usize) -> usize {
    let bound = u32::try_from(bound).unwrap_or(u32::MAX);
    seed::below(seed::mix(at as u64), bound) as usize
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn now() -> Instant {
    Instant::now()
}

/// A table in Markdown.
struct Report;

impl Report {
    fn new() -> io::Result<Self> {
        writeln!(io::stdout(), "| µs | p50 | p99 | p99.9 | max | n |\n|---|---|---|---|---|---|")?;
        Ok(Self)
    }

    fn line(&mut self, what: &str, mut waits: Vec<Duration>) -> io::Result<()> {
        waits.sort_unstable();
        let micros = |wait: Duration| wait.as_nanos() as f64 / 1e3;
        let at = |part: f64| micros(waits[((waits.len() as f64 * part) as usize).min(waits.len() - 1)]);
        let (p50, p99, p999, max) = (at(0.5), at(0.99), at(0.999), at(1.0));
        let digits = if p50 < 1.0 { 3 } else { 1 };
        let n = waits.len();
        writeln!(io::stdout(), "| {what} | {p50:.digits$} | {p99:.digits$} | {p999:.digits$} | {max:.digits$} | {n} |")
    }
}
