//! The store's thread: takes what waits in the outbox, writes it, tells those who wait, syncs now and then.

use super::{Change, Store, codec};
use crate::clock;
use crate::registrar::outbox::{Batch, Outbox};
use crate::telemetry::metrics::Metrics;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What was written survives power loss after this.
const SYNC_EVERY: Duration = Duration::from_millis(50);
/// Pause after a failed write.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// How the store is doing, for `/health` and status.
#[derive(Debug)]
pub struct StoreState {
    /// `embedded` or `memory`.
    pub kind: &'static str,
    /// Where it is, if anywhere.
    pub path: Option<String>,
    /// Whether it was asked for and could not be had, or lost records; shown for as long as the process lives.
    pub trouble: Option<String>,
    /// Whether acknowledged writes survive the process.
    pub is_durable: bool,
    failing: AtomicBool,
    last_error: Mutex<Option<String>>,
}

impl StoreState {
    /// A store that works, as far as is known.
    #[must_use]
    pub fn new(kind: &'static str, path: Option<String>, is_durable: bool, trouble: Option<String>) -> Self {
        Self { kind, path, trouble, is_durable, failing: AtomicBool::new(false), last_error: Mutex::default() }
    }

    /// Whether writes succeed and nothing went wrong at the start.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.trouble.is_none() && !self.failing.load(Ordering::Relaxed)
    }

    /// What is wrong, if anything is.
    #[must_use]
    pub fn detail(&self) -> Option<String> {
        self.last_error.lock().clone().filter(|_| self.failing.load(Ordering::Relaxed)).or_else(|| self.trouble.clone())
    }

    fn note(&self, error: Option<String>) {
        let was_failing = self.failing.swap(error.is_some(), Ordering::Relaxed);
        match &error {
            Some(error) if !was_failing => tracing::error!(%error, "store not writable; changes are kept and tried again"),
            None if was_failing => tracing::info!("store writable again"),
            _ => {}
        }
        if error.is_some() {
            *self.last_error.lock() = error;
        }
    }
}

/// Owns the store; runs on a thread of its own.
pub struct Keeper {
    store: Box<dyn Store>,
    outbox: Arc<Outbox>,
    state: Arc<StoreState>,
    metrics: Arc<Metrics>,
}

impl Keeper {
    /// A keeper of `store`.
    #[must_use]
    pub fn new(store: Box<dyn Store>, outbox: Arc<Outbox>, state: Arc<StoreState>, metrics: Arc<Metrics>) -> Self {
        Self { store, outbox, state, metrics }
    }

    /// Runs until `stop` is set and nothing waits any more; the last thing it does is to sync.
    pub fn run(mut self, stop: &AtomicBool) {
        let mut dirty = false;
        loop {
            let stopping = stop.load(Ordering::Acquire);
            match self.outbox.take(if stopping { Duration::ZERO } else { SYNC_EVERY }) {
                Some(batch) => {
                    let failed = !self.write(batch);
                    dirty |= !failed;
                    if failed && stopping {
                        break;
                    } else if failed {
                        std::thread::sleep(RETRY_EVERY);
                    }
                }
                None if stopping => break,
                None => {}
            }
            if dirty {
                dirty = !self.sync();
            }
        }
        self.sync();
    }

    fn write(&mut self, batch: Batch) -> bool {
        let started = clock::mono();
        let changes: Vec<Change> = batch
            .changes
            .iter()
            .map(|((service, id), facts)| Change { key: codec::key(service, id), value: facts.as_deref().map(codec::encode) })
            .collect();
        let result = if changes.is_empty() { Ok(()) } else { self.store.write(&changes) };
        self.metrics.store_write_duration.observe(clock::mono().since(started).as_secs_f64());
        let ok = result.is_ok();
        if let Err(error) = result {
            self.metrics.store_errors.inc();
            self.state.note(Some(error.to_string()));
            self.outbox.put_back(batch.changes);
        } else {
            self.state.note(None);
        }
        self.metrics.store_pending.set(i64::try_from(self.outbox.len()).unwrap_or(i64::MAX));
        let is_stored = ok && self.state.is_durable;
        // Whoever no longer waits has its answer already.
        for waiting in batch.waiting {
            let _ = waiting.send(is_stored);
        }
        ok
    }

    fn sync(&mut self) -> bool {
        match self.store.sync() {
            Ok(()) => true,
            Err(error) => {
                self.metrics.store_errors.inc();
                self.state.note(Some(error.to_string()));
                false
            }
        }
    }
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("state", &self.state).finish_non_exhaustive()
    }
}
