//! How many requests may come in which time: the sections `[[rate_limits]]`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use vertice_core::grammar::is_token_byte;
use vertice_core::limiter::{By, Quota, RateLimit};
use vertice_core::route::StaticRoute;

use super::raw::Value;
use super::reader::Reader;
use super::routes::required;
use super::value;

/// Every request looks at each of them.
const LIMITS_MAX: usize = 32;
const KEYS: u32 = 100_000;
const HEADER_NAME_BYTES_MAX: usize = 128;

/// The sections `[[rate_limits]]`; they may name these routes.
pub(super) fn read_rate_limits(r: &mut Reader<'_>, routes: &[StaticRoute]) -> Vec<RateLimit> {
    r.within("rate_limits", |r| {
        let mut names = BTreeSet::new();
        let indexes = r.children();
        if indexes.len() > LIMITS_MAX {
            r.refuse_section(format!("{} rate limits; there may be {LIMITS_MAX}", indexes.len()));
        }
        let read = |index: &String| r.within(index, |r| read_listed(r, index, routes, &mut names));
        indexes.iter().filter_map(read).collect()
    })
}

/// Asks for every key of a rate limit once.
pub(super) fn read_sample(r: &mut Reader<'_>) {
    r.within("rate_limits", |r| r.within("*", |r| read_rate_limit(r, &[], &mut BTreeSet::new())));
}

fn read_listed(r: &mut Reader<'_>, index: &str, routes: &[StaticRoute], names: &mut BTreeSet<String>) -> Option<RateLimit> {
    if index.parse::<u64>().is_err() {
        r.refuse_section("rate_limits is a list without names: write [[rate_limits]]".to_owned());
        return None;
    }
    read_rate_limit(r, routes, names)
}

fn read_rate_limit(r: &mut Reader<'_>, routes: &[StaticRoute], names: &mut BTreeSet<String>) -> Option<RateLimit> {
    let name = required(r, "name", value::label);
    if let Some(name) = name.as_ref().filter(|name| !names.insert((*name).clone())) {
        r.refuse("name", format!("{name:?} is the name of an earlier rate limit too"));
    }
    let rate = required(r, "rate", rate);
    let burst = r.integer("burst", rate.map_or(1, |(requests, _)| requests.min(Quota::BURST_MAX)), 1..=Quota::BURST_MAX);
    let quota = rate.and_then(|(requests, period)| Quota::new(requests, period, burst));
    if rate.is_some() && quota.is_none() {
        r.refuse("rate", format!("cannot be kept; at most {} per second, and a burst within a year", Quota::PER_SECOND_MAX));
    }
    let limit = RateLimit {
        by: required(r, "by", by).unwrap_or(By::Client),
        services: r.list("services", |value| value::service_name(value::text(value)?)).unwrap_or_default(),
        routes: r.list("routes", |value| route(value, routes)).unwrap_or_default(),
        is_shared: r.boolean("shared", false),
        keys_max: r.integer("keys_max", KEYS, 1..=10_000_000) as usize,
        name: name?.into(),
        quota: quota?,
    };
    Some(limit)
}

/// `100/s`, `1000/m` or, for any time, `10/30s`.
fn rate(value: &Value) -> Result<(u32, Duration), String> {
    let parsed = value::text(value)?.split_once('/').and_then(|(requests, period)| {
        let period = match period.trim() {
            "s" => Duration::from_secs(1),
            "m" | "min" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            "d" => Duration::from_secs(24 * 3600),
            other => humantime::parse_duration(other).ok()?,
        };
        Some((requests.trim().parse().ok()?, period))
    });
    let is_one = |(requests, period): &(u32, Duration)| *requests > 0 && !period.is_zero();
    parsed
        .filter(is_one)
        .ok_or_else(|| format!("{} is not a rate; give for example \"100/s\", \"1000/m\" or \"10/30s\"", value::given(value)))
}

fn by(value: &Value) -> Result<By, String> {
    let text = value::text(value)?;
    let header = || {
        let name = text.strip_prefix("header:")?.trim();
        let is_name = !name.is_empty() && name.len() <= HEADER_NAME_BYTES_MAX && name.bytes().all(is_token_byte);
        is_name.then(|| By::Header(name.to_ascii_lowercase().into()))
    };
    match text {
        "service" => Ok(By::Service),
        "route" => Ok(By::Route),
        "client" => Ok(By::Client),
        _ => header().ok_or_else(|| format!("{} is not one of service, route, client, header:NAME", value::given(value))),
    }
}

fn route(value: &Value, routes: &[StaticRoute]) -> Result<Arc<str>, String> {
    let name = value::label(value)?;
    if name != RateLimit::V2 && !routes.iter().any(|route| *route.name == *name) {
        return Err(format!("no route is called {name:?}"));
    }
    Ok(name.into())
}
