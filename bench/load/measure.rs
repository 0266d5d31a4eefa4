//! What the rig's load generators share: time, percentiles, and lines for the rig to read.

use std::io::{self, Write};
use std::time::Instant;

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Zero when it was before.
pub(crate) fn micros(at: Instant, since: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(since).as_micros()).unwrap_or(u64::MAX)
}

/// As a JSON object; zeros when there is nothing.
pub(crate) fn percentiles(micros: &mut [u64]) -> String {
    micros.sort_unstable();
    let at = |share: f64| micros.get((micros.len() as f64 * share) as usize).or(micros.last()).copied().unwrap_or(0);
    format!("{{\"p50\":{},\"p99\":{},\"p999\":{},\"max\":{}}}", at(0.5), at(0.99), at(0.999), at(1.0))
}

/// Prints a line at once.
pub(crate) fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")?;
    io::stdout().flush()
}
