//! Many runs of a simulation: which seeds, on every core; and which failures a planted fault must lead to.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The seeds asked for: `SIM_SEEDS=n` runs n, `SIM_SEED=s` replays one, both together run n from s on.
#[expect(clippy::disallowed_methods, reason = "the replay is asked for through the environment")]
fn asked_for(usual: u64) -> Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    match (number("SIM_SEED"), number("SIM_SEEDS")) {
        (Some(first), count) => first..first + count.unwrap_or(1),
        (None, count) => 0..count.unwrap_or(usual),
    }
}

/// Runs the seeds asked for, as many as `usual` unless told otherwise, each for `simulated`; what happened in them, and whether
/// they were at least as many. A seed that fails says so and ends it.
#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "the speed needs a clock, and is told")]
pub(crate) fn run<S: Copy + Debug + Default + Send>(
    usual: u64,
    simulated: Duration,
    plus: impl Fn(S, S) -> S + Sync,
    simulate: impl Fn(u64) -> Result<(u64, S), String> + Sync,
) -> (S, bool) {
    let (seeds, start) = (asked_for(usual), std::time::Instant::now());
    let (steps, seen) = on_every_core(&seeds, plus, simulate);
    let count = seeds.end - seeds.start;
    let (hours, took) = (simulated.as_secs_f64() * count as f64 / 3600.0, start.elapsed().as_secs_f64());
    println!("{count} seeds, {steps} steps, {hours:.0} simulated hours in {took:.1} s: {:.1} hours per second", hours / took);
    println!("{seen:?}");
    (seen, count >= usual)
}

fn on_every_core<S: Copy + Default + Send>(
    seeds: &Range<u64>,
    plus: impl Fn(S, S) -> S + Sync,
    simulate: impl Fn(u64) -> Result<(u64, S), String> + Sync,
) -> (u64, S) {
    let next = AtomicU64::new(seeds.start);
    let sum = |one: (u64, S), other: (u64, S)| (one.0 + other.0, plus(one.1, other.1));
    let some = || {
        let claim = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| seeds.contains(seed));
        let run = |seed| simulate(seed).unwrap_or_else(|what| panic!("{what}"));
        std::iter::from_fn(claim).map(run).fold(Default::default(), sum)
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(some)).collect();
        let done = threads.into_iter().map(|thread| thread.join().expect("a seed failed; it says above which"));
        done.fold(Default::default(), sum)
    })
}

/// Some of the first seeds fails under the fault, and says one of these things.
pub(crate) fn noticed<S>(
    fault: &dyn Debug,
    first: u64,
    as_one_of: &[&str],
    simulate: impl Fn(u64) -> Result<(u64, S), String>,
) {
    let mut other = Vec::new();
    for failure in (0..first).filter_map(|seed| simulate(seed).err()) {
        let line = failure.lines().next().unwrap_or_default().to_owned();
        if as_one_of.iter().any(|what| line.contains(what)) {
            return;
        }
        other.push(line);
    }
    panic!("{fault:?}: {other:#?}");
}
