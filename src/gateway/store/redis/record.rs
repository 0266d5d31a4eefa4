//! Instances and graves as they lie in Redis, and as they travel in its streams.

use crate::store::codec;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;
use vertice_core::name::{InstanceId, ServiceName};
use vertice_core::record::{Gone, Record, ReplicaId, Standing, Why};
use vertice_core::table::Facts;
use vertice_core::version::micros_of;

/// No record is larger.
pub(super) const BYTES_MAX: usize = 256 * 1024;
/// No hash has more fields.
pub(super) const FIELDS_MAX: usize = 64;
/// Versions further ahead of the store's time are nobody's: a hundred years, because the store's clock may be set back by any
/// error that clocks have, and the versions given before that must count. The scripts know it, too.
const AHEAD_MAX_MICROS: u64 = 100 * 365 * 24 * 3600 * 1_000_000;
/// No lease, drain or grave lasts longer.
const SPAN_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// The fields of an instance's hash, in the order in which they are read.
pub(super) const FIELDS: [&str; 7] = ["v", "holder", "until", "drain_until", "record", "gone", "why"];

/// An instance in the store.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kept {
    /// It is there.
    Record(Record),
    /// Its grave is.
    Gone(Gone),
}

/// Why something was not understood: a word for metrics, a sentence for people.
pub(super) type Misread = (&'static str, String);

/// `services:{name}`
pub(super) fn flat_key(service: &ServiceName) -> String {
    format!("services:{service}")
}

/// `services:{name}:i:{id}`
pub(super) fn record_key(service: &ServiceName, id: &InstanceId) -> String {
    format!("services:{service}:i:{id}")
}

/// `vx:i:{name}`
pub(super) fn index_key(service: &str) -> String {
    format!("vx:i:{service}")
}

/// Twenty digits, so that versions are ordered as texts.
pub(super) fn version(version_no: u64) -> String {
    format!("{version_no:020}")
}

/// Sixteen hexadecimal digits.
pub(super) fn hex(id: ReplicaId) -> String {
    format!("{:016x}", id.number())
}

/// Whole milliseconds.
pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.min(SPAN_MAX).as_millis()).unwrap_or(0)
}

/// An instance as JSON.
pub(super) fn encoded(facts: &Facts) -> Vec<u8> {
    codec::encode(facts)
}

/// The version in its text.
pub(super) fn read_version(text: &str, store_micros: u64) -> Result<u64, Misread> {
    let is_ours = text.len() == 20 && text.bytes().all(|byte| byte.is_ascii_digit());
    let version_no: u64 = is_ours
        .then(|| text.parse().ok())
        .flatten()
        .ok_or_else(|| ("damaged", format!("{:?} is not a version", shortened(text))))?;
    if micros_of(version_no) > store_micros.saturating_add(AHEAD_MAX_MICROS) {
        return Err(("future", format!("version {version_no} is more than a hundred years ahead")));
    }
    Ok(version_no)
}

/// A replica's number.
pub(super) fn read_hex(text: &str) -> Option<ReplicaId> {
    let is_ours = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_ours.then(|| u64::from_str_radix(text, 16).ok()).flatten().map(ReplicaId::of)
}

/// What a service's index says of an instance; `None` when it is a grave whose time is over.
pub(super) fn read_standing(text: &str, store_micros: u64) -> Result<Option<Standing>, Misread> {
    let damaged = || ("damaged", format!("{:?} is not an index entry", shortened(text)));
    match text.split_at_checked(1).ok_or_else(damaged)? {
        ("r", version) => Ok(Some(Standing::Record(read_version(version, store_micros)?))),
        ("g", rest) => {
            let (version, until_ms) = rest.split_once(':').ok_or_else(damaged)?;
            let until_ms: u64 = until_ms.parse().map_err(|_| damaged())?;
            let version_no = read_version(version, store_micros)?;
            Ok((until_ms > store_micros / 1000).then_some(Standing::Gone(version_no)))
        }
        _ => Err(damaged()),
    }
}

/// The values of [`FIELDS`], and how long the key lives.
pub(super) struct Fields<'a> {
    pub(super) values: [Option<&'a str>; FIELDS.len()],
    pub(super) lives: Duration,
}

impl Fields<'_> {
    /// What they say of this instance. `store_micros` is the store's time when they were read.
    pub(super) fn read(&self, service: &ServiceName, id: &InstanceId, store_micros: u64) -> Result<Kept, Misread> {
        let [version, holder, until, drain_until, record, gone, why] = self.values;
        let damaged = |what: &str| ("damaged", what.to_owned());
        let version_no = read_version(version.ok_or_else(|| damaged("it has no version"))?, store_micros)?;
        if let Some(by) = gone {
            let by = read_hex(by).ok_or_else(|| damaged("nobody says that it is gone"))?;
            let why = read_why(why.unwrap_or_default())?;
            let (service, id, kept) = (service.clone(), id.clone(), self.lives.min(SPAN_MAX));
            return Ok(Kept::Gone(Gone { service, id, version_no, why, by, kept, finishing: None }));
        }
        let record = record.ok_or_else(|| damaged("it has neither record nor grave"))?;
        let facts = read_facts(record, version_no, Some((service, id)))?;
        let holder = holder.and_then(read_hex).ok_or_else(|| damaged("nobody holds it"))?;
        let until = until.ok_or_else(|| damaged("it has no end"))?;
        let left = left_until(until, store_micros).ok_or_else(|| damaged("its end is not a time"))?;
        let drain = drain_until.and_then(|until| left_until(until, store_micros)).filter(|left| !left.is_zero());
        // More than a whole lease is not cut here: it tells that the store's clock was set back.
        Ok(Kept::Record(Record { left, facts: Arc::new(facts), holder, drain }))
    }
}

/// An event of `vx:events`.
#[derive(Debug, PartialEq)]
pub(super) struct Event {
    /// Who wrote it.
    pub(super) by: ReplicaId,
    /// What it says.
    pub(super) kept: Kept,
}

#[derive(Deserialize)]
struct PutEvent<'a> {
    v: String,
    holder: String,
    left_ms: u64,
    #[serde(default)]
    drain_ms: Option<u64>,
    #[serde(borrow)]
    record: &'a RawValue,
}

#[derive(Deserialize)]
struct GoneEvent {
    service: String,
    id: String,
    v: String,
    why: String,
    left_ms: u64,
    #[serde(default)]
    finishing_ms: Option<u64>,
}

impl Event {
    /// Reads `put`, written `ago`.
    pub(super) fn put(by: ReplicaId, text: &str, ago: Duration, store_micros: u64) -> Result<Self, Misread> {
        let event: PutEvent<'_> = parsed(text)?;
        let version_no = read_version(&event.v, store_micros)?;
        let facts = read_facts(event.record.get(), version_no, None)?;
        let holder = read_hex(&event.holder).ok_or_else(|| ("damaged", "nobody holds it".to_owned()))?;
        let since = |millis| span(millis).saturating_sub(ago);
        let drain = event.drain_ms.map(since).filter(|left| !left.is_zero());
        let record = Record { left: since(event.left_ms).min(facts.ttl), facts: Arc::new(facts), holder, drain };
        Ok(Self { by, kept: Kept::Record(record) })
    }

    /// Reads `gone`, written `ago`.
    pub(super) fn gone(by: ReplicaId, text: &str, ago: Duration, store_micros: u64) -> Result<Self, Misread> {
        let event: GoneEvent = parsed(text)?;
        let (service, id) = read_names(&event.service, &event.id)?;
        let version_no = read_version(&event.v, store_micros)?;
        let since = |millis| span(millis).saturating_sub(ago);
        let finishing = event.finishing_ms.map(since).filter(|left| !left.is_zero());
        let (why, kept) = (read_why(&event.why)?, since(event.left_ms));
        Ok(Self { by, kept: Kept::Gone(Gone { service, id, version_no, why, by, kept, finishing }) })
    }
}

/// A renewal of `vx:renewals`.
#[derive(Debug, PartialEq)]
pub(super) struct RenewedThere {
    pub(super) service: ServiceName,
    pub(super) id: InstanceId,
    pub(super) version_no: u64,
    pub(super) left: Duration,
}

/// Reads renewals that were written `ago`. One that makes no sense spoils only itself.
pub(super) fn read_renewals(
    text: &str,
    ago: Duration,
    store_micros: u64,
) -> Result<Vec<Result<RenewedThere, Misread>>, Misread> {
    let renewals: Vec<(String, String, String, u64)> = parsed(text)?;
    let read = |(service, id, version, left_ms): (String, String, String, u64)| {
        let (service, id) = read_names(&service, &id)?;
        let version_no = read_version(&version, store_micros)?;
        Ok(RenewedThere { service, id, version_no, left: span(left_ms).saturating_sub(ago) })
    };
    Ok(renewals.into_iter().map(read).collect())
}

/// The word for it.
pub(super) const fn why_word(why: Why) -> &'static str {
    match why {
        Why::Removed => "removed",
        Why::Lapsed => "lapsed",
    }
}

fn read_why(word: &str) -> Result<Why, Misread> {
    [Why::Removed, Why::Lapsed]
        .into_iter()
        .find(|why| why_word(*why) == word)
        .ok_or_else(|| ("damaged", format!("{:?} is no end", shortened(word))))
}

fn read_names(service: &str, id: &str) -> Result<(ServiceName, InstanceId), Misread> {
    let service = ServiceName::parse(service).map_err(|error| ("damaged", format!("the service's name {error}")))?;
    let id = InstanceId::parse(id).map_err(|error| ("damaged", format!("the instance's id {error}")))?;
    Ok((service, id))
}

fn read_facts(json: &str, version_no: u64, expected: Option<(&ServiceName, &InstanceId)>) -> Result<Facts, Misread> {
    if json.len() > BYTES_MAX {
        return Err(("large", format!("a record of {} bytes", json.len())));
    }
    let facts = codec::decode(json.as_bytes()).map_err(|error| {
        let is_later = error.contains("has format");
        (if is_later { "format" } else { "damaged" }, error)
    })?;
    if expected.is_some_and(|(service, id)| facts.service != *service || facts.id != *id) {
        return Err(("damaged", "it is another instance's record".to_owned()));
    }
    if facts.version_no != version_no {
        return Err(("damaged", "it is another version's record".to_owned()));
    }
    if facts.ttl.is_zero() || facts.ttl > SPAN_MAX {
        return Err(("damaged", "its lease makes no sense".to_owned()));
    }
    Ok(facts)
}

fn parsed<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Misread> {
    if text.len() > BYTES_MAX {
        return Err(("large", format!("an event of {} bytes", text.len())));
    }
    serde_json::from_str(text).map_err(|error| ("damaged", error.to_string()))
}

fn span(millis: u64) -> Duration {
    Duration::from_millis(millis).min(SPAN_MAX)
}

fn left_until(text: &str, store_micros: u64) -> Option<Duration> {
    let until_ms: u64 = text.parse().ok()?;
    Some(span(until_ms.saturating_sub(store_micros / 1000)))
}

fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}
