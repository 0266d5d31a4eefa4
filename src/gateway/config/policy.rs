//! The sections that together make the policy of a service: `balance`, `timeouts`, `retry`, `breaker`, `outlier` and `health`.

use std::ops::RangeInclusive;
use std::time::Duration;

use vertice_core::balance::Tried;
use vertice_core::breaker::BreakerPolicy;
use vertice_core::concurrency::Concurrency;
use vertice_core::policy::{Connections, Policy, RetryPolicy, Timeouts};
use vertice_core::priority::Priority;
use vertice_core::retry::Budget;

use super::balance::{read_balance, read_outlier, read_probes};
use super::reader::Reader;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The sections that make a policy, at the top of the file or in `services.NAME`; what they do not say is as in `base`.
pub(super) fn read_policy(r: &mut Reader<'_>, base: &Policy) -> Policy {
    Policy {
        balance: r.within("balance", |r| read_balance(r, &base.balance)),
        timeouts: r.within("timeouts", |r| read_timeouts(r, base.timeouts)),
        connections: r.within("timeouts", |r| read_connections(r, base.connections)),
        retry: r.within("retry", |r| read_retry(r, base.retry)),
        breaker: r.within("breaker", |r| read_breaker(r, base.breaker)),
        outlier: r.within("outlier", |r| read_outlier(r, base.outlier)),
        probes: r.within("health", |r| read_probes(r, base.probes)),
        concurrency: r.within("concurrency", |r| read_concurrency(r, base.concurrency)),
        priority: base.priority,
        allow_half_close: base.allow_half_close,
        preserve_host: base.preserve_host,
        body_bytes: base.body_bytes,
    }
}

/// What one service has of its own, over `base`.
pub(super) fn read_policy_of_service(r: &mut Reader<'_>, base: &Policy) -> Policy {
    Policy {
        allow_half_close: r.boolean("allow_half_close", base.allow_half_close),
        preserve_host: r.boolean("preserve_host", base.preserve_host),
        body_bytes: r.optional_bytes("body_bytes").unwrap_or(base.body_bytes),
        priority: read_priority(r).unwrap_or(base.priority),
        ..read_policy(r, base)
    }
}

/// How important requests are, if that is said.
pub(super) fn read_priority(r: &mut Reader<'_>) -> Option<Priority> {
    r.choice("priority", None, &Priority::ALL.map(|(word, priority)| (word, Some(priority))))
}

/// The keys of a section `timeouts`, over `base`.
pub(super) fn read_timeouts(r: &mut Reader<'_>, base: Timeouts) -> Timeouts {
    Timeouts {
        connect: r.duration("connect", base.connect, MS..=300 * SECOND),
        first_byte: r.duration("first_byte", base.first_byte, MS..=DAY),
        silence: r.duration("upstream_silence", base.silence, MS..=DAY),
        request: r.optional_duration("request", base.request, MS..=DAY),
        tunnel_idle: r.duration("tunnel_idle", base.tunnel_idle, MS..=7 * DAY),
    }
}

/// Beside the timeouts, for people; a route has none of it, because its service's connections are everybody's.
fn read_connections(r: &mut Reader<'_>, base: Connections) -> Connections {
    Connections { keepalive: r.duration("upstream_keepalive", base.keepalive, Duration::ZERO..=HOUR), ..base }
}

fn read_retry(r: &mut Reader<'_>, base: RetryPolicy) -> RetryPolicy {
    let backoff: RangeInclusive<Duration> = Duration::ZERO..=10 * SECOND;
    let shortest = r.duration("backoff_min", base.backoff, backoff.clone());
    let retry = RetryPolicy {
        attempts: r.integer("attempts_max", base.attempts, 1..=Tried::MAX as u32),
        backoff: shortest,
        backoff_max: r.duration("backoff_max", base.backoff_max.max(shortest), backoff),
        budget: Budget {
            percent: r.integer("budget_percent", base.budget.percent, 0..=100),
            min_per_second: r.integer("budget_min_per_second", base.budget.min_per_second, 0..=100_000),
        },
    };
    if retry.backoff > retry.backoff_max {
        r.refuse_pair("backoff_min", "backoff_max", "backoff_min is longer than backoff_max".to_owned());
    }
    retry
}

fn read_breaker(r: &mut Reader<'_>, base: BreakerPolicy) -> BreakerPolicy {
    let open = r.duration("open", base.open, 10 * MS..=HOUR);
    let breaker = BreakerPolicy {
        failures: r.integer("failures", base.failures, 1..=63),
        successes: r.integer("successes", base.successes, 1..=15),
        open,
        open_max: r.duration("open_max", base.open_max.max(open), 10 * MS..=DAY),
        ..base
    };
    if breaker.open > breaker.open_max {
        r.refuse_pair("open", "open_max", "open is longer than open_max".to_owned());
    }
    breaker
}

fn read_concurrency(r: &mut Reader<'_>, base: Concurrency) -> Concurrency {
    let max = r.optional_integer("max", base.max, 1..=Concurrency::MAX);
    let concurrency = Concurrency {
        max,
        is_adaptive: r.boolean("adaptive", base.is_adaptive),
        min: r.integer("min", base.min.min(max.unwrap_or(base.min)), 1..=Concurrency::MAX),
    };
    if concurrency.is_adaptive && concurrency.max.is_some_and(|max| max < concurrency.min) {
        r.refuse_pair("min", "max", "min is more than max".to_owned());
    }
    concurrency
}
