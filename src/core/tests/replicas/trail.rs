//! What happened last, in words short enough to be read.

use super::replica::Write;
use super::store::{Found, Written};
use super::{Key, World};
use vertice_core::command::Command;
use vertice_core::record::{Gone, Record, ReplicaId, Standing};

/// Steps that are kept.
const STEPS_MAX: usize = 400;

impl World {
    /// Notes a step, if steps are noted.
    pub(crate) fn note(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.trail.is_none() {
            return;
        }
        let line = format!("{:>9.3} s  {}", self.clock_ms as f64 / 1e3, line(self));
        let is_about = self.about.as_ref().is_none_or(|about| line.contains(about.as_str()) || line.contains("trouble"));
        let Some(trail) = self.trail.as_mut().filter(|_| is_about) else { return };
        if trail.len() == STEPS_MAX {
            trail.pop_front();
        }
        trail.push_back(line);
    }

    /// Which replica that is.
    fn who(&self, id: ReplicaId) -> String {
        let n = self.replicas.iter().position(|replica| replica.id == id);
        n.map_or_else(|| "dead".to_owned(), |n| n.to_string())
    }

    fn record(&self, record: &Record) -> String {
        let facts = &record.facts;
        let (left, holder) = (record.left.as_millis(), self.who(record.holder));
        let drain = if record.drain.is_some() { ", drained" } else { "" };
        format!(
            "{} v{} at {} {} left {left} ms held by {holder}{drain}",
            facts.id,
            facts.version_no,
            facts.endpoint.authority(),
            facts.status
        )
    }

    fn gone(&self, gone: &Gone) -> String {
        format!("{} {:?} v{} by {}", gone.id, gone.why, gone.version_no, self.who(gone.by))
    }

    /// A command and what it says.
    pub(crate) fn brief(&self, command: &Command) -> String {
        match command {
            Command::Register(it) => {
                format!("register {} at {}", it.id.as_ref().map_or("", |id| id.as_str()), it.endpoint.authority())
            }
            Command::Renew(it) => format!("renew {} {:?}", it.id.as_ref().map_or("", |id| id.as_str()), it.status),
            Command::Deregister(it) => format!("deregister {}", it.id.as_ref().map_or("", |id| id.as_str())),
            Command::Drain(it) => format!("drain {} {:?}", it.id.as_ref().map_or("", |id| id.as_str()), it.span),
            Command::Merge(record) => format!("merge {}", self.record(record)),
            Command::MergeGone(gone) => format!("merge gone {}", self.gone(gone)),
            Command::Renewed { id, version_no, left, holder, .. } => {
                format!("renewed {id} v{version_no} left {} ms by {}", left.as_millis(), self.who(*holder))
            }
            Command::Compare { service, stored } => {
                let each = stored.iter().map(|(id, standing)| match standing {
                    Standing::Record(version_no) => format!("{id} v{version_no}"),
                    Standing::Gone(version_no) => format!("{id} gone v{version_no}"),
                });
                format!("compare {service}: {}", each.collect::<Vec<_>>().join(", "))
            }
            Command::Fetched { id, record: None, .. } => format!("fetched {id}: nothing"),
            Command::Fetched { record: Some(record), is_holder_alive, .. } => {
                format!("fetched {}, alive: {is_holder_alive}", self.record(record))
            }
            other => format!("{other:?}"),
        }
    }

    /// A write and what came of it.
    pub(crate) fn brief_write(&self, write: &Write, record: Option<&Record>, written: Written) -> String {
        match (write, record) {
            (Write::Gone(gone), _) => format!("store: gone {}: {written:?}", self.gone(gone)),
            (Write::Put(_), Some(record)) => format!("store: put {}: {written:?}", self.record(record)),
            (Write::Put(stored), None) => format!("store: put {}: {written:?}", stored.facts.id),
        }
    }

    pub(crate) fn brief_renewal(&self, key: &Key, version_no: u64, left: std::time::Duration, written: Written) -> String {
        format!("store: renew {} v{version_no} left {} ms: {written:?}", key.1, left.as_millis())
    }

    pub(crate) fn brief_found(&self, key: &Key, found: &Found) -> String {
        match found {
            Found::Record(record, is_alive) => format!("found {}, alive: {is_alive}", self.record(record)),
            Found::Grave(gone) => format!("found grave {}", self.gone(gone)),
            Found::Nothing => format!("found nothing of {}", key.1),
        }
    }
}
