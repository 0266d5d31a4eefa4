//! The store's thread: takes what waits in the outbox, writes it, tells those who wait, syncs now and then.

use super::{Store, StoreError, StoreState, SyncJob};
use crate::clock;
use crate::registrar::outbox::{Batch, Outbox};
use crate::telemetry::metrics::Metrics;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;
use vertice_core::time::Moment;

/// What was written survives power loss after this.
const SYNC_EVERY: Duration = Duration::from_millis(50);
/// Pause after a failed write.
const RETRY_EVERY: Duration = Duration::from_secs(1);

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
        let mut syncer = Syncer::start();
        loop {
            let stopping = stop.load(Ordering::Acquire);
            match self.outbox.take(if stopping { Duration::ZERO } else { SYNC_EVERY / 2 }) {
                Some(batch) => {
                    let ok = self.write(batch);
                    syncer.dirty |= ok;
                    if !ok && stopping {
                        break;
                    } else if !ok {
                        std::thread::sleep(RETRY_EVERY);
                    }
                }
                None if stopping => break,
                None => {}
            }
            self.sync_aside(&mut syncer);
        }
        drop(syncer);
        if let Err(error) = self.store.sync() {
            tracing::error!(%error, "failed to sync the store at the end");
        }
    }

    /// Has the disk waited for on the other thread, so that a slow one delays no write.
    fn sync_aside(&mut self, syncer: &mut Syncer) {
        if let Some(Err(error)) = syncer.finished() {
            self.metrics.store_errors.inc();
            self.state.note(Some(error.to_string()));
            self.store.sync_failed();
            syncer.dirty = true;
        }
        if !syncer.is_due(clock::mono()) {
            return;
        }
        match self.store.begin_sync() {
            Ok(Some(job)) => syncer.run(job, clock::mono()),
            Ok(None) => syncer.dirty = false,
            Err(error) => {
                self.metrics.store_errors.inc();
                self.state.note(Some(error.to_string()));
            }
        }
    }

    /// Writes the changes. Renewals and questions are none of a store that nobody shares: a restart gives a fresh lease.
    fn write(&mut self, mut batch: Batch) -> bool {
        let started = clock::mono();
        let result = if batch.changes.is_empty() { Ok(Vec::new()) } else { self.store.write(&batch.changes) };
        self.metrics.store_write_duration.observe(clock::mono().since(started).as_secs_f64());
        let ok = result.is_ok();
        self.state.note(result.as_ref().err().map(ToString::to_string));
        if !ok {
            self.metrics.store_errors.inc();
            let changes = std::mem::take(&mut batch.changes);
            self.outbox.put_back(Batch { changes, ..Batch::default() });
        }
        self.metrics.store_pending.set(i64::try_from(self.outbox.len()).unwrap_or(i64::MAX));
        batch.answer(ok && self.state.is_durable);
        ok
    }
}

/// The thread that waits for the disk, and what it is doing.
struct Syncer {
    jobs: Option<SyncSender<SyncJob>>,
    results: Receiver<Result<(), StoreError>>,
    thread: Option<JoinHandle<()>>,
    running: bool,
    started: Moment,
    /// Something was written since the last sync began.
    dirty: bool,
}

impl Syncer {
    fn start() -> Self {
        let (jobs, todo) = sync_channel::<SyncJob>(1);
        let (done, results) = sync_channel(1);
        let work = move || {
            while let Ok(job) = todo.recv() {
                if done.send(job()).is_err() {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().name("store-sync".into()).spawn(work);
        let thread =
            thread.inspect_err(|error| tracing::error!(%error, "failed to start the thread that syncs the store")).ok();
        Self { jobs: Some(jobs), results, thread, running: false, started: Moment::ZERO, dirty: false }
    }

    /// Due when there is something to sync, no sync is under way, and the last one began a while ago.
    fn is_due(&self, now: Moment) -> bool {
        self.dirty && !self.running && now.since(self.started) >= SYNC_EVERY / 2
    }

    fn run(&mut self, job: SyncJob, now: Moment) {
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.try_send(job).is_ok());
        self.running = sent;
        self.dirty = !sent;
        self.started = now;
    }

    fn finished(&mut self) -> Option<Result<(), StoreError>> {
        let result = self.results.try_recv().ok()?;
        self.running = false;
        Some(result)
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.jobs = None;
        // A job under way ends before the last sync begins.
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that syncs the store panicked");
        }
    }
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("state", &self.state).finish_non_exhaustive()
    }
}
