//! The sections of a policy that say who takes a request: `balance`, `outlier`, and what `health` says of active probes.

use std::sync::Arc;
use std::time::Duration;

use vertice_core::grammar::is_token_byte;
use vertice_core::outlier::OutlierPolicy;
use vertice_core::policy::{Algorithm, Balance, HashKey, SameSite, Sticky};
use vertice_core::probing::ProbePolicy;

use super::raw::Value;
use super::reader::Reader;
use super::value;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) fn read_balance(r: &mut Reader<'_>, base: &Balance) -> Balance {
    let algorithms = Algorithm::ALL.map(|algorithm| (algorithm.as_str(), algorithm));
    Balance {
        algorithm: r.choice("algorithm", base.algorithm, &algorithms),
        hash_key: r.value("hash_key", hash_key).unwrap_or_else(|| base.hash_key.clone()),
        sticky: r.within("sticky", |r| read_sticky(r, &base.sticky)),
        zone: read_zone(r, base.zone.as_ref()),
        slow_start: r.duration("slow_start", base.slow_start, Duration::ZERO..=HOUR),
        panic_percent: r.integer("panic_below", base.panic_percent, 0..=100),
    }
}

pub(super) fn read_outlier(r: &mut Reader<'_>, base: OutlierPolicy) -> OutlierPolicy {
    let ejection = r.duration("ejection", base.ejection, 10 * MS..=HOUR);
    let outlier = OutlierPolicy {
        active: r.boolean("active", base.active),
        interval: r.duration("interval", base.interval, 100 * MS..=HOUR),
        requests_min: r.integer("requests_min", base.requests_min, 1..=1_000_000),
        hosts_min: r.integer("instances_min", base.hosts_min, 3..=1000),
        deviation_milli: r.value("deviations", thousandths).unwrap_or(base.deviation_milli),
        latency_milli: r.value("slower_times", thousandths).unwrap_or(base.latency_milli),
        latency_min: r.duration("slower_by", base.latency_min, Duration::ZERO..=HOUR),
        ejection,
        ejection_max: r.duration("ejection_max", base.ejection_max.max(ejection), 10 * MS..=DAY),
        ejected_max_percent: r.integer("ejected_max", base.ejected_max_percent, 0..=100),
    };
    if outlier.ejection > outlier.ejection_max {
        r.refuse_pair("ejection", "ejection_max", "ejection is longer than ejection_max".to_owned());
    }
    outlier
}

pub(super) fn read_probes(r: &mut Reader<'_>, base: ProbePolicy) -> ProbePolicy {
    ProbePolicy {
        active: r.boolean("active", base.active),
        interval: r.duration("interval", base.interval, 100 * MS..=HOUR),
        failures: r.integer("failures", base.failures, 1..=255),
        successes: r.integer("successes", base.successes, 1..=255),
    }
}

fn read_sticky(r: &mut Reader<'_>, base: &Sticky) -> Sticky {
    let sites = [("lax", SameSite::Lax), ("strict", SameSite::Strict), ("none", SameSite::None)];
    let sticky = Sticky {
        enabled: r.boolean("enabled", base.enabled),
        cookie: r.value("cookie", cookie_name).or_else(|| base.cookie.clone()),
        ttl: r.optional_duration("ttl", base.ttl, SECOND..=400 * DAY),
        path: r.value("path", cookie_path).unwrap_or_else(|| base.path.clone()),
        secure: r.boolean("secure", base.secure),
        same_site: r.choice("same_site", base.same_site, &sites),
    };
    if sticky.same_site == SameSite::None && !sticky.secure {
        r.refuse_pair("same_site", "secure", "browsers take a cookie with same_site none only when it is secure".to_owned());
    }
    sticky
}

/// The zone that is preferred: that of `server.zone`, which need not be known where nobody prefers it.
fn read_zone(r: &mut Reader<'_>, base: Option<&Arc<str>>) -> Option<Arc<str>> {
    if !r.choice("zone", base.is_some(), &[("off", false), ("prefer", true)]) {
        return None;
    }
    let own = r.peek("server", "zone", |value| value::label(value).ok());
    if own.is_none() {
        r.warn("balance.zone is \"prefer\", but server.zone does not say which zone that is: none is preferred".to_owned());
    }
    own.map(Arc::from)
}

/// `address`, `header:NAME` or `cookie:NAME`.
fn hash_key(value: &Value) -> Result<HashKey, String> {
    let text = value::text(value)?;
    let named = |name: &str| !name.is_empty() && name.len() <= 128 && name.bytes().all(is_token_byte);
    match text.split_once(':') {
        None if text == "address" => Ok(HashKey::Address),
        Some(("header", name)) if named(name) => Ok(HashKey::Header(name.to_ascii_lowercase().into())),
        Some(("cookie", name)) if named(name) => Ok(HashKey::Cookie(name.into())),
        _ => Err(format!("{} is not one of address, header:NAME, cookie:NAME", value::given(value))),
    }
}

fn cookie_name(value: &Value) -> Result<Arc<str>, String> {
    match value::text(value)? {
        text if !text.is_empty() && text.len() <= 128 && text.bytes().all(is_token_byte) => Ok(text.into()),
        _ => Err(format!("{} is not the name of a cookie; 1 to 128 letters, digits, '_' and '-'", value::given(value))),
    }
}

fn cookie_path(value: &Value) -> Result<Arc<str>, String> {
    let path = value::path(value)?;
    if path.contains([';', ',']) { Err(format!("{} has a ';' or ','", value::given(value))) } else { Ok(path.into()) }
}

/// A factor from 0 to 1000, in thousandths.
fn thousandths(value: &Value) -> Result<u32, String> {
    let parsed = match value {
        Value::Float(number) => Some(*number),
        Value::Integer(number) => u32::try_from(*number).ok().map(f64::from),
        Value::Text(text) => text.trim().parse().ok(),
        _ => None,
    };
    let factor = parsed.filter(|factor: &f64| (0.0..=1000.0).contains(factor));
    factor
        .map(|factor| (factor * 1000.0).round() as u32)
        .ok_or_else(|| format!("{} is not a number from 0 to 1000", value::given(value)))
}
