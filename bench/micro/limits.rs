//! What limits cost a request: a rate limit's decision, a place among the requests under way, and both where there are none.

use super::{NOW, on_threads, world};
use criterion::{BenchmarkId, Criterion};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;
use vertice_core::cell::ServiceCells;
use vertice_core::concurrency::Concurrency;
use vertice_core::limiter::{By, Quota, RateCell, RateLimit};
use vertice_core::priority::Priority;
use vertice_core::time::Moment;
use vertice_gateway::proxy::overload::{Permit, Process};
use vertice_gateway::rates::Rates;

pub(crate) fn rate_limits(c: &mut Criterion) {
    let metrics = world::metrics();
    // So much that nobody is refused, and so little that everybody is.
    let [wide, narrow] = [1_000_000, 1].map(|requests| Quota::new(requests, Duration::from_secs(1), requests));
    let (wide, narrow) = (wide.expect("a quota"), narrow.expect("a quota"));
    let limit = |quota| RateLimit {
        name: "bench".into(),
        quota,
        by: By::Client,
        services: Vec::new(),
        routes: Vec::new(),
        is_shared: false,
        keys_max: 100_000,
    };
    let keyed = Rates::new(metrics.clone()).adopt(&[limit(wide)], Moment::ZERO).remove(0);
    let keys: Vec<[u8; 5]> = (0..50_000u32).map(|n| n.to_be_bytes()).map(|[a, b, c, d]| [b'c', a, b, c, d]).collect();
    let later = |at: usize| NOW.plus(Duration::from_micros(at as u64));
    let mut group = c.benchmark_group("rate limit");
    for threads in [1, 2] {
        let id = |what| BenchmarkId::new(what, format!("{threads} threads"));
        let (open, shut) = (RateCell::default(), RateCell::default());
        let admitted = |at| {
            black_box(open.admit(&wide, later(at)));
        };
        group.bench_function(id("one cell, admitted"), |b| b.iter_custom(|count| on_threads(threads, count, admitted)));
        let refused = |_| {
            black_box(shut.admit(&narrow, NOW));
        };
        group.bench_function(id("one cell, refused"), |b| b.iter_custom(|count| on_threads(threads, count, refused)));
        let of_many = |at: usize| {
            black_box(keyed.admit(&keys[at * 7919 % keys.len()], later(at), &metrics));
        };
        group.bench_function(id("one of 50 000 clients"), |b| b.iter_custom(|count| on_threads(threads, count, of_many)));
        let the_same = |at| {
            black_box(keyed.admit(&keys[0], later(at), &metrics));
        };
        group.bench_function(id("always the same client"), |b| b.iter_custom(|count| on_threads(threads, count, the_same)));
    }
    group.finish();
}

pub(crate) fn concurrency(c: &mut Criterion) {
    let metrics = world::metrics();
    let none = Concurrency::default();
    let fixed = Concurrency { max: Some(1_000), ..none };
    let adaptive = Concurrency { is_adaptive: true, ..none };
    let mut group = c.benchmark_group("place, taken and given back");
    for threads in [1, 2] {
        let id = |what| BenchmarkId::new(what, format!("{threads} threads"));
        for (what, policy, max) in [
            ("nothing is bounded", none, None),
            ("the service", fixed, None),
            ("the process", none, Some(1_000)),
            ("both", fixed, Some(1_000)),
            ("the service, adaptive", adaptive, None),
        ] {
            let (cells, process) = (Arc::<ServiceCells>::default(), Process { max, ..Process::default() });
            let one = |_| drop(black_box(Permit::take(&process, (&cells, &policy), || Priority::Normal, &metrics)));
            group.bench_function(id(what), |b| b.iter_custom(|count| on_threads(threads, count, one)));
        }
        let cells = ServiceCells::default();
        let sample = |at: usize| {
            let took = Duration::from_micros(900 + at as u64 % 256);
            cells.concurrency.observe(&adaptive, took, NOW.plus(Duration::from_micros(at as u64)));
        };
        group.bench_function(id("a sample"), |b| b.iter_custom(|count| on_threads(threads, count, sample)));
    }
    group.finish();
}
