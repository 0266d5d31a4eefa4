//! What the store holds, read at once before anybody is served.

use super::connect::Dialler;
use super::contents::READ_MAX;
use super::failure::Failure;
use super::record::Kept;
use super::settings::Settings;
use super::shelf::Shelf;
use super::skipped::Skipped;
use super::state::Replica;
use crate::clock;
use crate::registrar::outbox::Key;
use crate::store::StoreError;
use crate::telemetry::metrics::Metrics;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use vertice_core::name::ServiceName;
use vertice_core::record::{Gone, Record, ReplicaId};
use vertice_core::time::Moment;

/// A hundred thousand instances are read in three seconds.
const EVERYTHING: Duration = Duration::from_secs(20);
/// The wait before another try.
const AGAIN: Duration = Duration::from_millis(50);
/// So often one starts over that broke off.
const TRIES: usize = 3;

/// Everything that was there.
#[derive(Debug)]
pub struct Loaded {
    /// Instances, each with what is left of its lease: one whole lease where its holder is gone, for nobody could renew it.
    pub records: Vec<Record>,
    /// Graves.
    pub graves: Vec<Gone>,
    /// The other processes that share the store.
    pub replicas: Vec<Replica>,
    /// Whether it broke off before everything was read. The rest comes with the first comparison.
    pub is_partial: bool,
    micros: u64,
    at: Moment,
}

impl Loaded {
    /// Microseconds since 1970 on the store's clock.
    #[must_use]
    pub fn store_micros(&self, now: Moment) -> u64 {
        self.micros.saturating_add(u64::try_from(now.since(self.at).as_micros()).unwrap_or(0))
    }
}

/// Reads everything. A connection is waited for about `bound`; as long as something comes it goes on, for some seconds at most,
/// because a gateway that knows half of its services answers 503 for the other half.
///
/// # Errors
/// [`StoreError::Away`] when nothing could be read.
pub fn load(settings: &Settings, bound: Duration, metrics: &Arc<Metrics>) -> Result<Loaded, StoreError> {
    let until = clock::mono().plus(bound);
    let mut trouble = Failure::new("timeout", "no time to connect");
    let (mut partial, mut tries) = (None, TRIES);
    let end = until.plus(EVERYTHING);
    let mut dialler = Dialler::new(&settings.redis)?;
    while clock::mono() < until || (partial.is_some() && tries > 0) {
        let loaded = dialler.dial(|| clock::mono() < until).and_then(|link| {
            let (metrics, skipped) = (metrics.clone(), Arc::new(Skipped::new(metrics.clone())));
            everything(
                Shelf { link, me: settings.me, lease_ttl: settings.lease_ttl, metrics, skipped },
                &settings.replica_id,
                end,
            )
        });
        match loaded {
            Ok(loaded) if !loaded.is_partial => return Ok(loaded),
            Ok(loaded) => partial = Some(loaded),
            Err(failure) => trouble = failure,
        }
        tries = tries.saturating_sub(usize::from(partial.is_some()));
        std::thread::sleep(AGAIN);
    }
    partial.ok_or_else(|| trouble.into())
}

/// Fails only when nothing could be read.
fn everything(mut shelf: Shelf, name: &str, end: Moment) -> Result<Loaded, Failure> {
    let pulse = shelf.look()?;
    // One of our own name was killed a moment ago, and only seems to live.
    let others = pulse.replicas.into_iter().filter(|replica| replica.name != name);
    let mut loaded = Loaded {
        records: Vec::new(),
        graves: Vec::new(),
        replicas: others.collect(),
        is_partial: false,
        micros: pulse.micros,
        at: pulse.sent.plus(pulse.received.since(pulse.sent) / 2),
    };
    let flat = shelf.names("services:index")?;
    let mut names = shelf.names("vx:names")?;
    names.extend(flat.iter().cloned());
    for names in names.into_iter().collect::<Vec<_>>().chunks(READ_MAX) {
        let read = services(&mut shelf, names, &flat, &mut loaded);
        let _ = read.as_ref().inspect_err(|failure| tracing::warn!(%failure, "failed to read everything from Redis"));
        if read.is_err() || clock::mono() >= end {
            loaded.is_partial = true;
            break;
        }
    }
    Ok(loaded)
}

fn services(
    shelf: &mut Shelf,
    names: &[ServiceName],
    flat: &BTreeSet<ServiceName>,
    loaded: &mut Loaded,
) -> Result<(), Failure> {
    let mut keys: Vec<Key> = Vec::new();
    let before = loaded.records.len();
    for (service, index) in names.iter().zip(shelf.indexes(names)?) {
        let ids = index.into_iter().flat_map(|index| index.standings);
        keys.extend(ids.map(|(id, _)| (service.clone(), id)));
    }
    for keys in keys.chunks(READ_MAX) {
        for kept in shelf.fetch(keys)?.into_iter().flatten() {
            match kept {
                Kept::Gone(gone) => loaded.graves.push(gone),
                Kept::Record(record) => {
                    let left = if is_alive(&record, &loaded.replicas) { record.left } else { record.facts.ttl };
                    loaded.records.push(Record { left, ..record });
                }
            }
        }
    }
    let flat: Vec<ServiceName> = names.iter().filter(|name| flat.contains(*name)).cloned().collect();
    predecessors(shelf, &flat, loaded, before)
}

/// Whether somebody is there who could have renewed it.
fn is_alive(record: &Record, replicas: &[Replica]) -> bool {
    let now = clock::mono();
    match record.holder {
        ReplicaId::PREDECESSOR => !record.left.is_zero(),
        holder => replicas.iter().any(|replica| replica.id == holder && replica.is_alive(now)),
    }
}

/// What the predecessor wrote, and no gateway. The instances of these services begin at `first`.
fn predecessors(shelf: &mut Shelf, names: &[ServiceName], loaded: &mut Loaded, first: usize) -> Result<(), Failure> {
    let records = shelf.flats_as_shown(names)?;
    let store_micros = loaded.store_micros(clock::mono());
    for (service, (flat, shown)) in names.iter().zip(records) {
        let (Some(flat), Some(shown)) = (flat, shown) else { continue };
        let is_noted = shown.is_some_and(|(endpoint, _)| endpoint == flat.endpoint.to_string());
        // What was noted may be lost.
        let is_shown = |record: &Record| record.facts.service == *service && flat.shows(&record.facts);
        if !is_noted && !loaded.records.iter().skip(first).any(is_shown) {
            loaded.records.extend(flat.record(service, shelf.lease_ttl, store_micros));
        }
    }
    Ok(())
}
