//! What the store's threads have in common.

use super::connect::{Dialler, Link};
use super::failure::Failure;
use super::settings::Settings;
use super::shelf::Shelf;
use super::skipped::Skipped;
use super::state::RedisState;
use crate::clock;
use crate::registrar::Handle;
use crate::telemetry::metrics::Metrics;
use crate::upstream::Table;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use vertice_core::command::Command;
use vertice_core::record::StoreNews;

/// How often a thread that waits looks whether it is to end.
const GLANCE: Duration = Duration::from_millis(20);

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) settings: Arc<Settings>,
    pub(super) handle: Handle,
    pub(super) table: Arc<Table>,
    pub(super) state: Arc<RedisState>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) skipped: Arc<Skipped>,
    pub(super) stop: Arc<AtomicBool>,
}

impl Shared {
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Waits, unless it is time to end.
    pub(super) fn pause(&self, wait: Duration) {
        let until = clock::mono().plus(wait);
        while clock::mono() < until && !self.is_stopping() {
            std::thread::sleep(until.since(clock::mono()).min(GLANCE));
        }
    }

    /// Tells the registry, however busy it is.
    pub(super) fn deliver(&self, command: Command) {
        // It finds no place only when everything ends.
        let _ = self.handle.deliver(command, || !self.is_stopping());
    }

    /// Tells the registry what time it is in the store, and waits until that and everything before is done and its wishes are
    /// in the outbox.
    pub(super) fn settle(&self) {
        if let Some(micros) = self.state.store_micros(clock::mono()) {
            let _ = self.handle.carry_out(Command::Store(StoreNews::Time { micros }), || !self.is_stopping());
        }
    }

    pub(super) fn shelf(&self, link: Link) -> Shelf {
        Shelf {
            link,
            me: self.settings.me,
            lease_ttl: self.settings.lease_ttl,
            metrics: self.metrics.clone(),
            skipped: self.skipped.clone(),
        }
    }

    pub(super) fn dial(&self, dialler: &mut Dialler) -> Result<Shelf, Failure> {
        dialler.dial(|| !self.is_stopping()).map(|link| self.shelf(link))
    }
}
