//! Where registrations survive: which store it is, what it held, and the threads that keep it.

use crate::clock;
use crate::config::{Config, StoreKind};
use crate::rates::Rates;
use crate::registrar::Handle;
use crate::registrar::outbox::Outbox;
use crate::store::redis::{self, RedisState, Threads};
use crate::store::{self, Keeper, Memory, Store, StoreError, StoreState, codec};
use crate::telemetry::metrics::Metrics;
use crate::upstream::Table;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use vertice_core::command::Command;
use vertice_core::record::{ReplicaId, StoreNews};
use vertice_core::registry::Registry;
use vertice_core::table::Facts;

/// The start waits so long for Redis, and as long as it takes for what it holds.
const LOAD_WAIT: Duration = Duration::from_secs(2);

/// The store, opened and read; nothing is written yet.
pub struct Persistence {
    /// How it is.
    pub state: Arc<StoreState>,
    kind: Kind,
    restored: Vec<Command>,
    outbox: Arc<Outbox>,
    metrics: Arc<Metrics>,
    stale_after: Duration,
}

enum Kind {
    Local(Box<dyn Store>),
    Redis(Box<redis::Settings>, Arc<RedisState>),
}

/// The threads that keep the store.
#[derive(Debug)]
pub enum Keeping {
    /// Of a local one.
    Local {
        /// Ends it.
        stop: Arc<AtomicBool>,
        /// The keeper's.
        thread: JoinHandle<()>,
    },
    /// Of Redis.
    Redis(Threads),
}

impl Persistence {
    /// Opens the configured store and reads what it holds, as `me`.
    ///
    /// What cannot be opened is replaced by memory, loudly: known services come back with their next heartbeat, which is
    /// better than no gateway. What Redis holds is read as soon as it is there.
    #[must_use]
    pub fn open(config: &Config, me: ReplicaId, replica_id: &str, outbox: Arc<Outbox>, metrics: Arc<Metrics>) -> Self {
        let opened = match (&config.store.kind, &config.store.redis) {
            (StoreKind::Redis, Some(redis)) => {
                let (redis, replica_id, zone) = (redis.clone(), replica_id.to_owned(), config.server.zone.clone());
                open_redis(redis::Settings { redis, me, replica_id, zone, lease_ttl: config.lease.ttl }, &metrics)
            }
            (StoreKind::Embedded, _) => open_embedded(&config.store.path),
            _ => in_memory(None, None),
        };
        let Opened { kind, state, restored } = opened;
        Self { state: Arc::new(state), kind, restored, outbox, metrics, stale_after: config.lease.stale_after }
    }

    /// The registry as this store wants it.
    #[must_use]
    pub fn share(&self, registry: Registry) -> Registry {
        match &self.kind {
            Kind::Redis(settings, _) => registry.shared(settings.me, self.stale_after),
            Kind::Local(_) => registry,
        }
    }

    /// What the store held, as commands.
    #[must_use]
    pub fn take_restored(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.restored)
    }

    /// Starts the threads.
    ///
    /// # Errors
    /// When the operating system refuses one.
    pub fn start(self, handle: Handle, table: Arc<Table>, rates: Arc<Rates>) -> io::Result<Keeping> {
        match self.kind {
            Kind::Redis(settings, state) => {
                redis::start(*settings, self.outbox, handle, table, state, rates, self.metrics).map(Keeping::Redis)
            }
            Kind::Local(store) => {
                let keeper = Keeper::new(store, self.outbox, self.state, self.metrics);
                let stop = Arc::<AtomicBool>::default();
                let thread = std::thread::Builder::new().name("store".into()).spawn({
                    let stop = stop.clone();
                    move || keeper.run(&stop)
                })?;
                Ok(Keeping::Local { stop, thread })
            }
        }
    }
}

impl Keeping {
    /// Writes what waits and ends the threads. To be called when nobody is left who could still change something.
    pub fn end(self) {
        match self {
            Self::Redis(threads) => threads.stop(),
            Self::Local { stop, thread } => {
                stop.store(true, Ordering::Release);
                if thread.join().is_err() {
                    tracing::error!("the store's thread panicked");
                }
            }
        }
    }
}

struct Opened {
    kind: Kind,
    state: StoreState,
    restored: Vec<Command>,
}

fn open_redis(settings: redis::Settings, metrics: &Arc<Metrics>) -> Opened {
    let restored = match redis::load(&settings, LOAD_WAIT, metrics) {
        Ok(loaded) => {
            let micros = loaded.store_micros(clock::mono());
            tracing::info!(
                instances = loaded.records.len(),
                replicas = loaded.replicas.len(),
                is_partial = loaded.is_partial,
                "read from Redis"
            );
            let graves = loaded.graves.into_iter().map(Command::MergeGone);
            let records = loaded.records.into_iter().map(|record| Command::Merge(Box::new(record)));
            std::iter::once(Command::Store(StoreNews::Time { micros })).chain(graves).chain(records).collect()
        }
        Err(error) => {
            tracing::error!(%error, "Redis is not available; started without what it holds");
            Vec::new()
        }
    };
    let state = Arc::<RedisState>::default();
    let kind = Kind::Redis(Box::new(settings), state.clone());
    Opened { kind, state: StoreState::shared(state), restored }
}

fn open_embedded(path: &std::path::Path) -> Opened {
    let shown = path.display().to_string();
    let opened = match store::open(path) {
        Ok(opened) => opened,
        Err(error) => {
            let hint = match error {
                StoreError::Locked { .. } => "another process uses it; registrations are kept in memory only",
                _ => "registrations are kept in memory only",
            };
            tracing::error!(%error, hint, "store not available");
            return in_memory(Some(shown), Some(format!("{error}; {hint}")));
        }
    };
    let moved = opened.moved_aside.map(|moved| {
        let text = format!("the store was corrupt ({}) and was moved to {}; started empty", moved.cause, moved.path.display());
        tracing::error!(%text, "store corrupt");
        text
    });
    let mut unreadable = 0_usize;
    let mut decode = |value: &[u8]| {
        let decoded = codec::decode(value);
        decoded
            .inspect_err(|error| {
                unreadable += 1;
                tracing::error!(%error, "stored record skipped");
            })
            .ok()
    };
    let facts: Vec<Facts> = opened.records.iter().filter_map(|(_, value)| decode(value)).collect();
    let skipped = (unreadable > 0).then(|| format!("{unreadable} stored records could not be read and were skipped"));
    tracing::info!(path = shown, instances = facts.len(), "store opened");
    let state = StoreState::new(opened.store.kind(), Some(shown), opened.store.is_durable(), moved.or(skipped));
    let restored = facts.into_iter().map(|facts| Command::Restore(Box::new(facts))).collect();
    Opened { kind: Kind::Local(opened.store), state, restored }
}

fn in_memory(path: Option<String>, trouble: Option<String>) -> Opened {
    let store = Memory::default();
    let state = StoreState::new(store.kind(), path, store.is_durable(), trouble);
    Opened { kind: Kind::Local(Box::new(store)), state, restored: Vec::new() }
}

impl std::fmt::Debug for Persistence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Persistence").field("state", &self.state).finish_non_exhaustive()
    }
}
