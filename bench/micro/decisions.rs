//! What each request decides, in nanoseconds: look-up and pick, breaker, limits, static routes, the head's check; and what one
//! publish costs at 10 000 services.
//!
//! `cargo bench --bench decisions -- [FILTER]`. What it measured is in `bench/RESULTS.md`.

mod limits;
mod routes;
mod world;

use arc_swap::ArcSwap;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::Barrier;
use std::time::{Duration, Instant};
use vertice_core::balance::{Preference, Tried, pick};
use vertice_core::breaker::BreakerPolicy;
use vertice_core::cell::BreakerCell;
use vertice_core::command::{Command, Policies};
use vertice_core::name::ServiceName;
use vertice_core::outcome::{Ending, Verdict};
use vertice_core::policy::{Algorithm, Balance, Policy};
use vertice_core::registry::Registry;
use vertice_core::seed;
use vertice_core::table::{Bare, Snapshot};
use vertice_core::time::Moment;
use vertice_gateway::accept::head::{HeadLimits, check};
use vertice_gateway::clock;
use vertice_gateway::proxy::attempt::Attempt;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SERVICES: usize = 10_000;
const NOW: Moment = Moment::from_millis(1_000_000);

fn look_up_and_pick(c: &mut Criterion) {
    let mut group = c.benchmark_group("lookup+pick");
    for algorithm in Algorithm::ALL {
        for instances in [1, 3, 20] {
            let (table, names) = bare_table(algorithm, instances);
            let one = |name: &str, at: usize| {
                let table = table.load();
                let preference = Preference { key: Some(seed::mix(at as u64)), token: 0 };
                let pick =
                    table.get(name).and_then(|service| pick(service, &Tried::default(), &preference, NOW, at as u64).ok());
                black_box(pick.map(|pick| pick.address));
            };
            // Each time another service, and so mostly out of the caches; always the same one.
            let any = |at: usize| one(&names[at % names.len()], at);
            let same = |at: usize| one(&names[0], at);
            for threads in [1, 2] {
                let id = |which| {
                    BenchmarkId::new(format!("{algorithm:?}/{instances} instances/{which}"), format!("{threads} threads"))
                };
                group.bench_function(id("any service"), |b| b.iter_custom(|count| on_threads(threads, count, any)));
                group.bench_function(id("same service"), |b| b.iter_custom(|count| on_threads(threads, count, same)));
            }
        }
    }
    group.finish();
}

/// A request's whole share of deciding: look-up, clock, random number, pick, in-flight count, and the outcome recorded.
fn attempt(c: &mut Criterion) {
    let (_registrar, table, _handle) = world::registrar(SERVICES, 3, &Arc::default(), &world::metrics());
    let names = world::shuffled_names(SERVICES);
    let one = |at: usize| {
        let service = table.load().get(&names[at % names.len()]).cloned();
        let (tried, preference) = (&mut Tried::default(), Preference::default());
        let attempt = service.and_then(|service| Attempt::start(&service, tried, &preference, clock::mono()).ok());
        if let Some(mut attempt) = attempt {
            let now = clock::mono();
            attempt.answered(now);
            attempt.end(Ending::Answered { status: 200 }, now);
        }
    };
    for threads in [1, 2] {
        let id = format!("attempt, start to end/{threads} threads");
        c.bench_function(&id, |b| b.iter_custom(|count| on_threads(threads, count, one)));
    }
}

fn breaker(c: &mut Criterion) {
    let policy = BreakerPolicy::default();
    let mut group = c.benchmark_group("breaker");
    for threads in [1, 2] {
        let cell = BreakerCell::default();
        let happy = |_| {
            black_box(cell.admit(&policy, NOW));
            black_box(cell.record(Verdict::Success, &policy, NOW, 1));
        };
        let id = BenchmarkId::new("admit+record, nothing changes", format!("{threads} threads"));
        group.bench_function(id, |b| b.iter_custom(|count| on_threads(threads, count, happy)));
        // So many that two threads, whose failures may follow one another, do not open it.
        let patient = BreakerPolicy { failures: 63, ..policy };
        let cell = BreakerCell::default();
        let flapping = |at: usize| {
            let verdict = if at.is_multiple_of(2) { Verdict::Failure } else { Verdict::Success };
            black_box(cell.admit(&patient, NOW));
            black_box(cell.record(verdict, &patient, NOW, 1));
        };
        let id = BenchmarkId::new("admit+record, each one a compare-and-swap", format!("{threads} threads"));
        group.bench_function(id, |b| b.iter_custom(|count| on_threads(threads, count, flapping)));
    }
    group.finish();
}

fn publish(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("publish at {SERVICES} services"));
    let (table, names) = bare_table(Algorithm::P2c, 1);
    let registry = bare_registry(Algorithm::P2c, 1);
    let names: Vec<ServiceName> = names.iter().filter_map(|name| ServiceName::parse(name).ok()).collect();
    let mut turns = 0;
    group.bench_function("one service: build, with, store, drop the retired", |b| {
        b.iter(|| {
            turns += 1;
            let name = &names[turns % names.len()];
            let service = registry.build(name, turns as u64, None, &Bare).map(Arc::new);
            let new = table.load_full().with(turns as u64, vec![(name.clone(), service)]);
            table.store(Arc::new(new));
        });
    });
    // As many as go in one batch, so that nearly every shard is another one afterwards.
    let storm = |turn: u64| {
        let changed = names.iter().take(1_024);
        let build = |name: &ServiceName| (name.clone(), registry.build(name, turn, None, &Bare).map(Arc::new));
        table.load_full().with(turn, changed.map(build).collect())
    };
    group.bench_function("1 024 services: build, with, store", |b| {
        b.iter_custom(|count| (0..count).map(|turn| timed(|| table.swap(Arc::new(storm(turn)))).1).sum());
    });
    group.bench_function("1 024 services: free the retired table", |b| {
        b.iter_custom(|count| {
            let free = |turn| {
                let retired = table.swap(Arc::new(storm(turn)));
                timed(|| drop(retired)).1
            };
            (0..count).map(free).sum()
        });
    });
    let (mut registrar, _table, _handle) = world::registrar(SERVICES, 1, &Arc::default(), &world::metrics());
    group.bench_function("one service: as the registrar does, register to outbox", |b| {
        b.iter(|| {
            turns += 1;
            registrar.restore(std::iter::once(world::register(turns % SERVICES, 0)));
        });
    });
    group.finish();
}

fn head_check(c: &mut Criterion) {
    const CURL: &[u8] = b"GET /v2/nmap_service/scan?target=10.0.0.1 HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\
        User-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n";
    const BROWSER: &[u8] = b"GET /v2/nmap_service/scan?target=10.0.0.1 HTTP/1.1\r\nHost: gateway.example.com\r\n\
        User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
        Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n\
        Accept-Encoding: gzip, deflate, br, zstd\r\nReferer: https://gateway.example.com/console/services?page=2\r\n\
        Connection: keep-alive\r\nCookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\
        Sec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Site: same-origin\r\nPriority: u=0, i\r\n\r\n";
    let limits = HeadLimits::default();
    let mut group = c.benchmark_group("head check");
    for (kind, head) in [("curl", CURL), ("browser", BROWSER)] {
        let id = BenchmarkId::new(kind, format!("{} bytes", head.len()));
        group.bench_function(id, |b| b.iter(|| black_box(check(black_box(head), &limits))));
    }
    group.finish();
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    let result = work();
    (result, started.elapsed())
}

/// How long `threads` threads take for `count` operations each.
#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn on_threads(threads: usize, count: u64, one: impl Fn(usize) + Sync) -> Duration {
    let barrier = Barrier::new(threads);
    let timed = |thread: usize| {
        // Threads walk the table at different places.
        let offset = thread * SERVICES / 2;
        barrier.wait();
        let started = Instant::now();
        (0..usize::try_from(count).unwrap_or(usize::MAX)).for_each(|at| one(at + offset));
        started.elapsed()
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|thread| scope.spawn(move || timed(thread))).collect();
        let own = timed(0);
        others.into_iter().filter_map(|other| other.join().ok()).fold(own, Duration::max)
    })
}

fn bare_registry(algorithm: Algorithm, instances: usize) -> Registry {
    let mut registry = world::registry();
    let default = Arc::new(Policy { balance: Balance { algorithm, ..Balance::default() }, ..Policy::default() });
    let policies = Command::SetPolicies(Policies { default, ..Policies::default() });
    let registrations = (0..SERVICES * instances).map(|at| world::register(at / instances, at % instances));
    for command in std::iter::once(policies).chain(registrations) {
        registry.apply(command, vertice_core::time::Now::default()).expect("the limits are higher");
        drop(registry.drain());
    }
    registry
}

/// A table with nothing hung on it, and the names of its services in random order.
fn bare_table(algorithm: Algorithm, instances: usize) -> (ArcSwap<Snapshot<Bare>>, Vec<String>) {
    let mut registry = bare_registry(algorithm, instances);
    let changed = registry.take_changed();
    let build = |(name, at)| {
        let service = registry.build(&name, at, None, &Bare).map(Arc::new);
        (name, service)
    };
    let changes = changed.into_iter().map(build).collect();
    let table = ArcSwap::from_pointee(Snapshot::empty(42).with(1, changes));
    (table, world::shuffled_names(SERVICES))
}

criterion_group! {
    name = decisions;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(20);
    targets = look_up_and_pick, attempt, breaker, limits::rate_limits, limits::concurrency, publish, routes::find, routes::find_at_worst, head_check
}
criterion_main!(decisions);
