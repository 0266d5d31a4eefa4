//! What both lanes serve requests with, on all listeners and workers.

use crate::accept::Drain;
use crate::control::Control;
use crate::proxy::again::Again;
use crate::proxy::rules::Rules;
use crate::proxy::watch::Watchdog;
use crate::rates::Rates;
use crate::resolve::Resolver;
use crate::telemetry::access::AccessLog;
use crate::telemetry::metrics::Metrics;
use crate::upstream::Table;
use arc_swap::ArcSwap;
use std::sync::Arc;

/// See the module.
pub struct Shared {
    /// The rules of requests that begin now. Each request loads them once.
    pub rules: ArcSwap<Rules>,
    /// Local endpoints, by the rules of now.
    pub control: ArcSwap<Control>,
    /// The routing table.
    pub table: Arc<Table>,
    /// Names of instances, which are looked up again when one cannot be reached.
    pub resolver: Arc<Resolver>,
    /// The rate limits in force, whatever rules name them.
    pub rates: Arc<Rates>,
    /// Watches over silent instances.
    pub watchdog: Arc<Watchdog>,
    /// Whether the process is on its way out.
    pub drain: Arc<Drain>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Access log.
    pub access: AccessLog,
}

impl Shared {
    /// What another attempt is decided with.
    #[must_use]
    pub fn again(&self) -> Again<'_> {
        Again { table: &self.table, resolver: &self.resolver, metrics: &self.metrics }
    }
}
