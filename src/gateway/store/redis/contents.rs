//! What lies on the shelf: records, graves, flat records, and the indexes that say which there are.

use super::failure::Failure;
use super::predecessor::{self, Flat};
use super::record::{self, FIELDS, Fields, Kept};
use super::script::{self, list, micros, number, text};
use super::shelf::Shelf;
use crate::registrar::outbox::Key;
use redis::{Cmd, Value};
use std::collections::BTreeSet;
use std::time::Duration;
use vertice_core::name::{InstanceId, ServiceName};
use vertice_core::record::{ReplicaId, Standing};

/// So many hashes are read in one call.
pub(super) const READ_MAX: usize = 50;
/// A service's index has so many entries at most: as many as it may have instances, and graves besides.
const INDEX_MAX: usize = 2_000_000;
/// So many entries of indexes are read in one call.
const ENTRIES_MAX: usize = 10_000;
/// So many members of a set of services are looked at.
const NAMES_MAX: usize = 200_000;

/// What the store has of a service.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) standings: Vec<(InstanceId, Standing)>,
    /// Entries that say nothing any more, as they were read.
    pub(super) stale: Vec<(String, String)>,
}

impl Shelf {
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
}
