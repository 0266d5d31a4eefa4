//! Starting and ending the store's threads.

use super::connect::Dialler;
use super::health;
use super::rates;
use super::reader::Reader;
use super::settings::Settings;
use super::shared::Shared;
use super::skipped::Skipped;
use super::state::RedisState;
use super::writer::Writer;
use crate::clock;
use crate::rates::Rates;
use crate::registrar::Handle;
use crate::registrar::outbox::Outbox;
use crate::telemetry::metrics::Metrics;
use crate::upstream::Table;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// So long the threads have to end. Each looks often whether it should; only a server that answers, but never with an end to
/// its answer, can keep one of them longer.
const END: Duration = Duration::from_secs(3);
const GLANCE: Duration = Duration::from_millis(5);

/// The store's threads, running.
#[derive(Debug)]
pub struct Threads {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Starts the threads. They connect on their own, for as long as it takes.
///
/// # Errors
/// When a thread cannot be started, or the settings can lead nowhere.
pub fn start(
    settings: Settings,
    outbox: Arc<Outbox>,
    handle: Handle,
    table: Arc<Table>,
    state: Arc<RedisState>,
    limits: Arc<Rates>,
    metrics: Arc<Metrics>,
) -> io::Result<Threads> {
    let dialler = || Dialler::new(&settings.redis).map_err(|failure| io::Error::other(failure.text));
    let (to_write, to_read, to_ask, to_count) = (dialler()?, dialler()?, dialler()?, dialler()?);
    let stop = Arc::new(AtomicBool::new(false));
    let shared = Shared {
        settings: Arc::new(settings),
        handle,
        table,
        state,
        metrics: metrics.clone(),
        skipped: Arc::new(Skipped::new(metrics)),
        stop: stop.clone(),
    };
    let writer = Writer::new(shared.clone(), outbox, to_write);
    let reader = Reader { shared: shared.clone(), dialler: to_read };
    let mut running = Threads { stop, threads: Vec::new() };
    running.spawn("store-write", move || writer.run())?;
    running.spawn("store-read", move || reader.run())?;
    running.spawn("store-rates", {
        let shared = shared.clone();
        move || rates::run(&shared, to_count, &limits)
    })?;
    running.spawn("store-health", move || health::run(&shared, to_ask))?;
    Ok(running)
}

impl Threads {
    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(std::thread::Builder::new().name(name.to_owned()).spawn(work)?);
        Ok(())
    }

    /// Writes what waits, if that is possible within a second, takes this replica out of the list, and ends the threads. One
    /// that does not end is left behind.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Release);
        let until = clock::mono().plus(END);
        for thread in self.threads.drain(..) {
            while !thread.is_finished() && clock::mono() < until {
                std::thread::sleep(GLANCE);
            }
            if !thread.is_finished() {
                tracing::error!(name = thread.thread().name(), "a thread of the store does not end, and is left behind");
            } else if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.end();
    }
}
