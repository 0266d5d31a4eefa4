//! Instances and Redis: a connection, and what is written over it. What is read is in `contents.rs` and `pulse.rs`.

use super::connect::Link;
use super::failure::Failure;
use super::predecessor::Shown;
use super::record;
use super::script::{self, PIPELINE_MAX, list, text};
use super::skipped::Skipped;
use crate::clock;
use crate::registrar::outbox::{Change, Key};
use crate::telemetry::metrics::Metrics;
use redis::{Cmd, Value};
use std::sync::Arc;
use std::time::Duration;
use vertice_core::record::{Gone, ReplicaId, Stored};
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
}
