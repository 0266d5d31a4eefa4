//! Entries under our prefixes that are not ours, damaged, or of a later version: left alone, counted, and told of once.

use crate::telemetry::metrics::Metrics;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;

/// So many are remembered; then forgotten, and told of again.
const TOLD_MAX: usize = 1_000;

/// Remembers which have been told of.
#[derive(Debug)]
pub(super) struct Skipped {
    metrics: Arc<Metrics>,
    told: Mutex<HashSet<(String, &'static str)>>,
}

impl Skipped {
    /// Nothing told yet.
    #[must_use]
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, told: Mutex::default() }
    }

    /// `key` is left alone. `reason` is one of a few words, `detail` is for people.
    pub(super) fn note(&self, key: &str, reason: &'static str, detail: &str) {
        self.metrics.store_skipped.with_label_values(&[reason]).inc();
        let key: String = key.chars().take(200).collect();
        let mut told = self.told.lock();
        if told.len() >= TOLD_MAX {
            told.clear();
        }
        if told.insert((key.clone(), reason)) {
            let detail: String = detail.chars().take(200).collect();
            tracing::warn!(key, reason, detail, "an entry of the store is not usable and left alone");
        }
    }
}
