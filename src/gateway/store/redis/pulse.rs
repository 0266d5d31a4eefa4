//! That replicas live, and where the streams end: what a replica says of itself, and is told of the store and the others.

use super::failure::Failure;
use super::record;
use super::script::{self, list, number, text};
use super::shelf::Shelf;
use super::state::Replica;
use crate::clock;
use crate::random::random;
use redis::Value;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use vertice_core::time::Moment;

/// A replica's description is no longer.
const DESCRIPTION_MAX: usize = 2_048;

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

impl Shelf {
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
}
