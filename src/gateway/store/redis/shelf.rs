//! What is asked of Redis, in terms of instances: the one place that knows both sides.

use super::connect::Link;
use super::failure::Failure;
use super::predecessor::{self, Flat, Shown};
use super::record::{self, FIELDS, Fields, Kept};
use super::script::{self, PIPELINE_MAX, list, micros, number, text};
use super::skipped::Skipped;
use super::state::Replica;
use crate::clock;
use crate::random::random;
use crate::registrar::outbox::{Change, Key};
use crate::telemetry::metrics::Metrics;
use redis::{Cmd, Value};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use vertice_core::name::{InstanceId, ServiceName};
use vertice_core::record::{Gone, ReplicaId, Standing, Stored};
use vertice_core::time::Moment;

/// Events kept for readers that fall behind: so many, and fewer of large ones, so that they take up about so much at most.
const EVENTS_KEPT: usize = 10_000;
const EVENTS_BYTES: usize = 64 * 1024 * 1024;
/// Of the largest ones so many are kept all the same.
const EVENTS_KEPT_MIN: usize = 500;
/// Entries with renewals kept; a missed one is asked for.
const RENEWALS_KEPT: u32 = 1_000;
/// A pipeline's calls hold about so much at most.
const PIPELINE_BYTES: usize = 1024 * 1024;
/// So many hashes are read in one call.
pub(super) const READ_MAX: usize = 50;
/// A service's index has so many entries at most: as many as it may have instances, and graves besides.
const INDEX_MAX: usize = 2_000_000;
/// So many entries of indexes are read in one call.
const ENTRIES_MAX: usize = 10_000;
/// So many members of a set of services are looked at.
const NAMES_MAX: usize = 200_000;
/// A replica's description is no longer.
const DESCRIPTION_MAX: usize = 2_048;

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is in the store now, or was already.
    Done,
    /// The store knows something newer, or that it is alive: that is worth reading.
    Outdone,
    /// The store has nothing of it.
    Absent,
    /// Its place is taken by something else.
    Foreign,
}

impl Answer {
    fn of(value: &Value) -> Option<Self> {
        Some(match text(value)? {
            "written" | "unheard" | "same" | "renewed" => Self::Done,
            "newer" | "gone" | "alive" => Self::Outdone,
            "absent" => Self::Absent,
            "foreign" => Self::Foreign,
            _ => return None,
        })
    }
}

/// What a beat tells.
#[derive(Debug)]
pub(super) struct Pulse {
    /// The store's time.
    pub(super) micros: u64,
    /// When the question left and the answer came.
    pub(super) sent: Moment,
    pub(super) received: Moment,
    /// Another one than before means that the store was flushed.
    pub(super) epoch: String,
    pub(super) replicas: Vec<Replica>,
}

/// What the store has of a service.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) standings: Vec<(InstanceId, Standing)>,
    /// Entries that say nothing any more, as they were read.
    pub(super) stale: Vec<(String, String)>,
}

/// Where the streams end.
#[derive(Debug)]
pub(super) struct Position {
    pub(super) seq: u64,
    pub(super) events: String,
    pub(super) renewals: String,
}

/// How this replica describes itself.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Description {
    pub(super) replica_id: String,
    pub(super) zone: Option<String>,
    pub(super) version: &'static str,
}

#[derive(Deserialize)]
struct Described {
    replica_id: String,
    #[serde(default)]
    zone: Option<String>,
    #[serde(default)]
    version: String,
    at_ms: u64,
}

/// A connection, and what is done with it.
#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) link: Link,
    pub(super) me: ReplicaId,
    pub(super) lease_ttl: Duration,
    pub(super) metrics: Arc<Metrics>,
    pub(super) skipped: Arc<Skipped>,
}

impl Shelf {
    /// Writes the first of `changes`, as many as go in one pipeline; an answer for each that was written. They were decided at
    /// `at`, in microseconds on the store's clock.
    pub(super) fn write_some(&mut self, changes: &[(Key, Change)], at: u64) -> Result<Vec<Answer>, Failure> {
        let now = clock::mono();
        let (mut calls, mut bytes) = (Vec::new(), 0);
        for (_, change) in changes.iter().take(PIPELINE_MAX) {
            let (call, size) = self.write_call(change, now, at);
            calls.push(call);
            bytes += size;
            if bytes >= PIPELINE_BYTES {
                break;
            }
        }
        let results = self.link.run("write", calls, &self.metrics)?;
        results.into_iter().zip(changes).map(|(result, (key, _))| self.answer(key, result)).collect()
    }

    fn write_call(&self, change: &Change, now: Moment, at: u64) -> (Cmd, usize) {
        match change {
            Change::Put(stored) => self.put(stored, now, at),
            Change::Gone(gone) => (self.gone(gone, at), 512),
        }
    }

    fn put(&self, stored: &Stored, now: Moment, at: u64) -> (Cmd, usize) {
        let record = stored.record(now, self.me);
        let facts = &record.facts;
        let json = record::encoded(facts);
        let size = json.len() * 2;
        let (key, index) = (record::record_key(&facts.service, &facts.id), record::index_key(facts.service.as_str()));
        let mut call = script::PUT.on([&*key, &index, "vx:names", "vx:seq", "vx:events"].into_iter());
        call.arg(facts.service.as_str()).arg(facts.id.as_str()).arg(record::version(facts.version_no));
        call.arg(record::hex(record.holder)).arg(record::millis(record.left));
        call.arg(record.drain.map(|left| record::millis(left).to_string()).unwrap_or_default());
        let kept = (EVENTS_BYTES / json.len().max(1)).clamp(EVENTS_KEPT_MIN, EVENTS_KEPT);
        call.arg(json).arg(record::hex(self.me)).arg(at).arg(kept).arg(record::millis(facts.ttl));
        (call, size)
    }

    fn gone(&self, gone: &Gone, at: u64) -> Cmd {
        let Gone { service, id, .. } = gone;
        let (key, index, flat) =
            (record::record_key(service, id), record::index_key(service.as_str()), record::flat_key(service));
        let keys = [&*key, &index, "vx:names", "vx:seq", "vx:events", &flat, "services:index", "vx:mirrors"];
        let mut call = script::GONE.on(keys.into_iter());
        call.arg(service.as_str()).arg(id.as_str()).arg(record::version(gone.version_no));
        call.arg(record::why_word(gone.why)).arg(record::hex(gone.by));
        call.arg(gone.finishing.map(|span| record::millis(span).to_string()).unwrap_or_default());
        call.arg(record::millis(gone.kept).max(1)).arg(at).arg(EVENTS_KEPT);
        call
    }

    /// Moves the ends of leases; at most [`PIPELINE_MAX`] of them.
    pub(super) fn renew(&mut self, renewals: &[(Key, Stored)]) -> Result<Vec<Answer>, Failure> {
        let now = clock::mono();
        let keys: Vec<String> = renewals.iter().map(|((service, id), _)| record::record_key(service, id)).collect();
        let all: Vec<&str> = std::iter::once("vx:renewals").chain(keys.iter().map(String::as_str)).collect();
        let mut call = script::RENEW.on(all.into_iter());
        call.arg(record::hex(self.me)).arg(RENEWALS_KEPT);
        for ((service, id), stored) in renewals {
            let record = stored.record(now, self.me);
            call.arg(service.as_str()).arg(id.as_str()).arg(record::version(record.facts.version_no));
            call.arg(record::hex(record.holder)).arg(record::millis(record.left)).arg(record::millis(record.facts.ttl));
        }
        let reply = self.link.run_one("renew", call, &self.metrics)?;
        let answers = list(&reply).filter(|answers| answers.len() == renewals.len());
        let answers = answers.ok_or_else(|| Failure::reply("renewals"))?.to_vec();
        answers.into_iter().zip(renewals).map(|(answer, (key, _))| self.answer(key, Ok(answer))).collect()
    }

    /// What one call came to. What is refused for the sake of one key is that key's trouble.
    fn answer(&self, (service, id): &Key, result: Result<Value, Failure>) -> Result<Answer, Failure> {
        let answer = match result {
            Ok(value) => {
                if text(&value) == Some("unheard") {
                    self.skipped.note(
                        "vx:events",
                        "foreign",
                        "it or vx:seq cannot be used; other replicas hear of nothing at once",
                    );
                }
                Answer::of(&value).ok_or_else(|| Failure::reply("a write"))?
            }
            Err(failure) => {
                self.skipped.note(&record::record_key(service, id), "foreign", &failure.text);
                return Ok(Answer::Foreign);
            }
        };
        if answer == Answer::Foreign {
            self.skipped.note(&record::record_key(service, id), "foreign", "it is not of the type that it should have");
        }
        Ok(answer)
    }

    /// Reads instances and graves, at most [`READ_MAX`]. What the predecessor shows of an instance counts, too.
    pub(super) fn fetch(&mut self, keys: &[Key]) -> Result<Vec<Option<Kept>>, Failure> {
        let paths: Vec<String> = keys.iter().map(|(service, id)| record::record_key(service, id)).collect();
        let (store_micros, answers) = self.hashes("fetch", &paths, &FIELDS)?;
        let mut found: Vec<Option<Kept>> = Vec::with_capacity(keys.len());
        for ((path, (service, id)), answer) in paths.iter().zip(keys).zip(&answers) {
            let fields = self.fields(path, answer)?;
            found.push(fields.and_then(|(values, lives)| {
                let values = std::array::from_fn(|n| values.get(n).copied().flatten());
                let read = Fields { values, lives }.read(service, id, store_micros);
                read.inspect_err(|(reason, detail)| self.skipped.note(path, reason, detail)).ok()
            }));
        }
        self.fetch_flat(keys, &mut found, store_micros)?;
        Ok(found)
    }

    /// Completes what was found by what the predecessor shows.
    fn fetch_flat(&mut self, keys: &[Key], found: &mut [Option<Kept>], store_micros: u64) -> Result<(), Failure> {
        let is_theirs = |kept: &Option<Kept>| match kept {
            None => true,
            Some(Kept::Record(record)) => record.holder == ReplicaId::PREDECESSOR,
            Some(Kept::Gone(_)) => false,
        };
        // Only an address with its port can be an instance that the predecessor shows.
        let open: Vec<usize> = (0..keys.len()).filter(|&n| is_theirs(&found[n]) && keys[n].1.as_str().contains(':')).collect();
        let names: Vec<ServiceName> = open.iter().map(|&n| keys[n].0.clone()).collect();
        let flats = self.flats(&names)?;
        for (n, flat) in open.into_iter().zip(flats) {
            let Some(flat) = flat.filter(|flat| flat.id().as_ref() == Some(&keys[n].1)) else { continue };
            match &mut found[n] {
                Some(Kept::Record(record)) => record.left = record.left.max(flat.left.min(record.facts.ttl)),
                place => *place = flat.record(&keys[n].0, self.lease_ttl, store_micros).map(Kept::Record),
            }
        }
        Ok(())
    }

    /// Reads flat records, one for each name.
    pub(super) fn flats(&mut self, names: &[ServiceName]) -> Result<Vec<Option<Flat>>, Failure> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let paths: Vec<String> = names.iter().map(record::flat_key).collect();
        let (_, answers) = self.hashes("fetch", &paths, &predecessor::FIELDS)?;
        let mut flats = Vec::with_capacity(names.len());
        for (path, answer) in paths.iter().zip(&answers) {
            let fields = self.fields(path, answer)?;
            flats.push(fields.and_then(|(values, lives)| {
                let values = std::array::from_fn(|n| values.get(n).copied().flatten());
                Flat::read(values, lives).inspect_err(|(reason, detail)| self.skipped.note(path, reason, detail)).ok()
            }));
        }
        Ok(flats)
    }

    /// Flat records, and what gateways have noted that they showed there; `None` where that changed while it was read. Both
    /// are written at once, but not read at once: a record that a gateway is just writing must not look like a predecessor's.
    #[expect(clippy::type_complexity, reason = "a record and what was noted of it")]
    pub(super) fn flats_as_shown(
        &mut self,
        names: &[ServiceName],
    ) -> Result<Vec<(Option<Flat>, Option<Option<(String, f64)>>)>, Failure> {
        let before = self.shown(names)?;
        let flats = self.flats(names)?;
        let after = self.shown(names)?;
        let settled = before.into_iter().zip(after).map(|(before, after)| (before == after).then_some(after));
        Ok(flats.into_iter().zip(settled).collect())
    }

    /// What gateways have shown the predecessor of these services: the endpoint, and the last heartbeat.
    fn shown(&mut self, names: &[ServiceName]) -> Result<Vec<Option<(String, f64)>>, Failure> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut call = redis::cmd("HMGET");
        call.arg("vx:mirrors");
        names.iter().for_each(|name| {
            call.arg(name.as_str());
        });
        let Some(Ok(reply)) = self.link.run("fetch", vec![call], &self.metrics)?.pop() else {
            self.skipped.note("vx:mirrors", "foreign", "it is no hash");
            return Ok(vec![None; names.len()]);
        };
        let values = list(&reply).filter(|values| values.len() == names.len()).ok_or_else(|| Failure::reply("a hash"))?;
        let read = |value: &Value| {
            let (endpoint, last_heartbeat) = text(value)?.rsplit_once(' ')?;
            Some((endpoint.to_owned(), last_heartbeat.parse().ok()?))
        };
        Ok(values.iter().map(read).collect())
    }

    fn hashes(&mut self, operation: &'static str, keys: &[String], fields: &[&str]) -> Result<(u64, Vec<Value>), Failure> {
        let mut call = script::FETCH.on(keys.iter().map(String::as_str));
        call.arg(record::FIELDS_MAX).arg(record::BYTES_MAX);
        fields.iter().for_each(|field| {
            call.arg(*field);
        });
        self.timed(operation, call, keys.len())
    }

    /// An answer that begins with the time.
    fn timed(&mut self, operation: &'static str, call: Cmd, expected: usize) -> Result<(u64, Vec<Value>), Failure> {
        match self.link.run_one(operation, call, &self.metrics)? {
            Value::Array(mut answers) if answers.len() == expected + 1 => {
                let time = micros(&answers.remove(0)).ok_or_else(|| Failure::reply("the time"))?;
                Ok((time, answers))
            }
            _ => Err(Failure::reply("what was read")),
        }
    }

    /// The texts of a hash that was read, and how long it lives. `None` where there is none that could be used.
    #[expect(clippy::type_complexity, reason = "a row of texts and a duration")]
    fn fields<'a>(&self, key: &str, answer: &'a Value) -> Result<Option<(Vec<Option<&'a str>>, Duration)>, Failure> {
        let Some(values) = list(answer) else {
            match text(answer) {
                Some("absent") => {}
                Some("foreign") => self.skipped.note(key, "foreign", "it is no hash"),
                Some("large") => self.skipped.note(key, "large", "it is larger than any of ours"),
                _ => return Err(Failure::reply("a hash")),
            }
            return Ok(None);
        };
        let (lives, values) = values.split_last().ok_or_else(|| Failure::reply("a hash"))?;
        let lives: i64 = number(lives).ok_or_else(|| Failure::reply("a key's life"))?;
        // A key that nobody lets expire is looked at again and again.
        let lives = u64::try_from(lives).map_or(Duration::from_secs(24 * 3600), Duration::from_millis);
        Ok(Some((values.iter().map(text).collect(), lives)))
    }

    /// The indexes of services, at most [`READ_MAX`], one for each name; `None` where it cannot be used.
    pub(super) fn indexes(&mut self, names: &[ServiceName]) -> Result<Vec<Option<Index>>, Failure> {
        let keys: Vec<String> = names.iter().map(|name| record::index_key(name.as_str())).collect();
        let mut call = script::INDEX.on(keys.iter().map(String::as_str));
        call.arg(ENTRIES_MAX).arg("");
        names.iter().for_each(|name| {
            call.arg(name.as_str());
        });
        let (store_micros, answers) = self.timed("reconcile", call, keys.len())?;
        let mut indexes = Vec::with_capacity(names.len());
        for ((name, key), answer) in names.iter().zip(&keys).zip(&answers) {
            indexes.push(match list(answer).and_then(<[Value]>::split_last) {
                Some((_, entries)) => {
                    let mut index = Index::default();
                    self.read_index(key, entries, store_micros, &mut index);
                    Some(index)
                }
                None if text(answer) == Some("large") => self.large_index(name, key)?,
                None => {
                    self.skipped.note(key, "foreign", "it is no index of ours");
                    None
                }
            });
        }
        Ok(indexes)
    }

    /// Reads an index in parts. What changes meanwhile is found missing, or found twice; neither does harm.
    fn large_index(&mut self, name: &ServiceName, key: &str) -> Result<Option<Index>, Failure> {
        let (mut index, mut at) = (Index::default(), "0".to_owned());
        loop {
            let mut call = script::INDEX.on(std::iter::once(key));
            call.arg(ENTRIES_MAX).arg(&at).arg(name.as_str());
            let (store_micros, answers) = self.timed("reconcile", call, 1)?;
            let Some((next, entries)) = answers.first().and_then(list).and_then(<[Value]>::split_last) else {
                self.skipped.note(key, "foreign", "it is no index of ours");
                return Ok(None);
            };
            self.read_index(key, entries, store_micros, &mut index);
            at = text(next).ok_or_else(|| Failure::reply("a cursor"))?.to_owned();
            if at.is_empty() || at == "0" {
                return Ok(Some(index));
            }
            if index.standings.len() > INDEX_MAX {
                self.skipped.note(key, "large", "it has more entries than any of ours");
                return Ok(None);
            }
        }
    }

    fn read_index(&self, key: &str, entries: &[Value], store_micros: u64, index: &mut Index) {
        for pair in entries.chunks_exact(2) {
            let (Some(id), Some(entry)) = (text(&pair[0]), text(&pair[1])) else {
                self.skipped.note(key, "damaged", "an entry is no text");
                continue;
            };
            let (entry, is_missing) = entry.strip_prefix('-').map_or((entry, false), |entry| (entry, true));
            let read = record::read_standing(entry, store_micros);
            match (InstanceId::parse(id), read) {
                (Ok(id), Ok(Some(standing))) if !is_missing => index.standings.push((id, standing)),
                (Ok(_), Ok(_)) => index.stale.push((id.to_owned(), entry.to_owned())),
                (Err(error), _) => self.skipped.note(key, "damaged", &format!("an id {error}")),
                (_, Err((reason, detail))) => self.skipped.note(key, reason, &detail),
            }
        }
    }

    /// Takes entries out of an index that still say what they said.
    pub(super) fn tidy(&mut self, service: &ServiceName, entries: &[(String, String)]) -> Result<(), Failure> {
        for entries in entries.chunks(1_000) {
            let index = record::index_key(service.as_str());
            let mut call = script::TIDY.on([&*index, "vx:names"].into_iter());
            call.arg(service.as_str());
            for (id, entry) in entries {
                call.arg(id).arg(entry);
            }
            self.link.run_one("reconcile", call, &self.metrics)?;
        }
        Ok(())
    }

    /// The services in this set.
    pub(super) fn names(&mut self, key: &str) -> Result<BTreeSet<ServiceName>, Failure> {
        let (mut names, mut cursor, mut seen) = (BTreeSet::new(), 0_u64, 0);
        loop {
            let call = redis::cmd("SSCAN").arg(key).arg(cursor).arg("COUNT").arg(1_000).to_owned();
            let reply = match self.link.run("reconcile", vec![call], &self.metrics)?.pop() {
                Some(Ok(reply)) => reply,
                _ => {
                    self.skipped.note(key, "foreign", "it is no set");
                    return Ok(names);
                }
            };
            let Some([next, members]) = list(&reply) else { return Err(Failure::reply("a set")) };
            let members = list(members).ok_or_else(|| Failure::reply("a set"))?;
            seen += members.len();
            for member in members {
                match text(member).map(ServiceName::parse) {
                    Some(Ok(name)) => drop(names.insert(name)),
                    _ => self.skipped.note(key, "damaged", "a member is no service's name"),
                }
            }
            cursor = number(next).ok_or_else(|| Failure::reply("a cursor"))?;
            if seen >= NAMES_MAX {
                self.metrics.limit_hit("store_names");
                return Ok(names);
            }
            if cursor == 0 {
                return Ok(names);
            }
        }
    }

    /// Says that this replica lives (or, without a description, that it ends).
    pub(super) fn beat(&mut self, description: Option<&Description>) -> Result<Pulse, Failure> {
        self.pulse(description, &format!("{:016x}{:016x}", random(), random()))
    }

    /// The same without a word of our own: also of a server that can be read and not written.
    pub(super) fn look(&mut self) -> Result<Pulse, Failure> {
        self.pulse(None, "")
    }

    fn pulse(&mut self, description: Option<&Description>, new_epoch: &str) -> Result<Pulse, Failure> {
        let mut call = script::BEAT.on(["vx:replicas", "vx:epoch"].into_iter());
        let json = description.map(|description| serde_json::to_string(description).unwrap_or_default());
        let open = json.as_deref().and_then(|json| json.strip_suffix('}')).unwrap_or_default();
        call.arg(record::hex(self.me)).arg(open).arg(new_epoch).arg(DESCRIPTION_MAX);
        let sent = clock::mono();
        let reply = self.link.run_one("beat", call, &self.metrics)?;
        let received = clock::mono();
        let Some([seconds, micros, epoch, replicas]) = list(&reply) else { return Err(Failure::reply("a beat")) };
        let micros = script::micros(&Value::Array(vec![seconds.clone(), micros.clone()]));
        let micros = micros.ok_or_else(|| Failure::reply("the time"))?;
        let epoch = text(epoch).ok_or_else(|| Failure::reply("the epoch"))?.to_owned();
        if epoch == "foreign" {
            self.skipped.note("vx:epoch", "foreign", "it is no text");
        }
        let entries = list(replicas).unwrap_or_else(|| {
            self.skipped.note("vx:replicas", "foreign", "it is no hash");
            &[]
        });
        let replicas = entries.chunks_exact(2).filter_map(|pair| self.replica(pair, micros, received)).collect();
        Ok(Pulse { micros, sent, received, epoch, replicas })
    }

    fn replica(&self, pair: &[Value], store_micros: u64, now: Moment) -> Option<Replica> {
        let description = text(&pair[1]).filter(|description| description.len() <= DESCRIPTION_MAX);
        let read = || {
            let id = record::read_hex(text(&pair[0])?)?;
            let described: Described = serde_json::from_str(description?).ok()?;
            let ago = Duration::from_millis((store_micros / 1000).saturating_sub(described.at_ms));
            let Described { replica_id: name, zone, version, .. } = described;
            Some(Replica { id, name, zone, version, seen: now.minus(ago) })
        };
        let replica = read();
        if replica.is_none() {
            self.skipped.note("vx:replicas", "damaged", "an entry is no replica");
        }
        replica
    }

    /// Where the streams end now.
    pub(super) fn note(&mut self) -> Result<Position, Failure> {
        let call = script::NOTE.on(["vx:seq", "vx:events", "vx:renewals"].into_iter());
        let reply = self.link.run_one("note", call, &self.metrics)?;
        let Some([seq, events, renewals]) = list(&reply) else { return Err(Failure::reply("a position")) };
        match (number(seq), text(events), text(renewals)) {
            (Some(seq), Some(events), Some(renewals)) => {
                Ok(Position { seq, events: events.to_owned(), renewals: renewals.to_owned() })
            }
            _ => Err(Failure::reply("a position")),
        }
    }

    /// Shows services' best instances to the predecessor; at most [`PIPELINE_MAX`].
    pub(super) fn mirror(&mut self, shown: &[Shown]) -> Result<(), Failure> {
        let call = |shown: &Shown| {
            let Shown { service, id, .. } = shown;
            let (flat, record) = (record::flat_key(service), record::record_key(service, id));
            let mut call = script::MIRROR.on([&*flat, "services:index", "vx:mirrors", &record].into_iter());
            call.arg(service.as_str()).arg(record::millis(shown.left).max(1)).arg(record::version(shown.version_no));
            shown.values.iter().for_each(|value| {
                call.arg(value);
            });
            call
        };
        let calls = shown.iter().map(call).collect();
        for (result, Shown { service, .. }) in self.link.run("mirror", calls, &self.metrics)?.iter().zip(shown) {
            let is_foreign = result.as_ref().map_or(true, |value| text(value) == Some("foreign"));
            if is_foreign {
                self.skipped.note(&record::flat_key(service), "foreign", "it is no flat record");
            }
        }
        Ok(())
    }
}
