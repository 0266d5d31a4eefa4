//! One event = one log line and its metrics.

use super::metrics::Metrics;
use vertice_core::event::Event;

/// Tells people what happened in the registry.
pub fn tell(metrics: &Metrics, event: &Event) {
    match event {
        Event::Registered { service, instance, replaced } => {
            tracing::info!(%service, %instance, replaced, "instance registered");
        }
        Event::Deregistered { service, instance } => tracing::info!(%service, %instance, "instance deregistered"),
        Event::DrainStarted { service, instance, span, leaves } => {
            tracing::info!(%service, %instance, ?span, leaves, "instance drained");
        }
        Event::DrainEnded { service, instance } => tracing::info!(%service, %instance, "drain over"),
        Event::Lapsed { service, instance } => {
            metrics.lapses.inc();
            tracing::warn!(%service, %instance, "lease lapsed");
        }
        Event::Restored { service, instance } => tracing::info!(%service, %instance, "instance restored from the store"),
        Event::StatusChanged { service, instance, status } => {
            tracing::info!(%service, %instance, %status, "instance changed its status");
        }
    }
}
