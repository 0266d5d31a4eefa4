//! Tables and services that were replaced, kept until nobody reads them any more.
//!
//! Whoever lets go of one last frees it: hundreds of shards and thousands of references after a storm of changes, which takes
//! hundreds of microseconds. That shall be the registrar, never a worker in the middle of a request. So the registrar keeps
//! what it replaced, and lets go of it when it is the only one left that has it.

use crate::telemetry::metrics::Metrics;
use crate::upstream::{Hung, Service};
use std::collections::VecDeque;
use std::sync::Arc;
use vertice_core::table::Snapshot;

/// So many are kept of either kind; of more than that the eldest are left to those who read them. Readers of tables are done
/// within milliseconds, but a service is held for as long as a request to it takes.
const KEPT_MAX: usize = 1024;
/// So many are looked at in one go.
const LOOKS: usize = 64;
/// A service of fewer instances is freed within a microsecond or two, by whomever.
const LARGE: usize = 32;

/// See the module.
#[derive(Default)]
pub(super) struct Retired {
    tables: VecDeque<Arc<Snapshot<Hung>>>,
    services: VecDeque<Arc<Service>>,
}

impl Retired {
    /// Keeps a table that has just been replaced.
    pub(super) fn keep_table(&mut self, table: Arc<Snapshot<Hung>>, metrics: &Metrics) {
        keep(&mut self.tables, table, metrics);
    }

    /// Keeps a service that is about to be replaced, if that is worth it.
    pub(super) fn keep_service(&mut self, service: &Arc<Service>, metrics: &Metrics) {
        if service.instances.len() >= LARGE {
            keep(&mut self.services, service.clone(), metrics);
        }
    }

    /// Frees what nobody reads any more. Tables come first, because they have services.
    pub(super) fn free(&mut self) {
        free(&mut self.tables);
        free(&mut self.services);
    }
}

fn keep<T>(kept: &mut VecDeque<Arc<T>>, one: Arc<T>, metrics: &Metrics) {
    if kept.len() == KEPT_MAX {
        metrics.limit_hit("retired");
        kept.pop_front();
    }
    kept.push_back(one);
}

/// Nobody can take another reference to what is not in the table any more: a count of one stays one.
fn free<T>(kept: &mut VecDeque<Arc<T>>) {
    for _ in 0..kept.len().min(LOOKS) {
        if let Some(one) = kept.pop_front()
            && Arc::strong_count(&one) > 1
        {
            kept.push_back(one);
        }
    }
}
