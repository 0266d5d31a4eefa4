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
        Event::Learned { service, instance, replaced } => {
            tracing::info!(%service, %instance, replaced, "instance registered at another replica");
        }
        Event::Departed { service, instance } => tracing::info!(%service, %instance, "instance gone, says another replica"),
        Event::StatusChanged { service, instance, status } => {
            tracing::info!(%service, %instance, %status, "instance changed its status");
        }
        Event::HoldStarted { instances, silent } => {
            metrics.holds.inc();
            tracing::warn!(instances, silent, "mass lapse suspected: most instances are silent; holding and probing them");
        }
        Event::HoldEnded { lasted, instances, on_grace } => {
            tracing::info!(
                ?lasted,
                instances,
                on_grace,
                "mass lapse no longer suspected: who is still silent has one more TTL"
            );
        }
        Event::Evicted { service, instance, failures } => {
            metrics.held_evictions.inc();
            tracing::warn!(%service, %instance, failures, "held instance removed: its health endpoint failed");
        }
        Event::Stalled { stall, leases } => {
            metrics.stall_seconds.inc_by(stall.as_secs_f64());
            tracing::warn!(?stall, leases, "this process did not run for a while: leases were extended");
        }
    }
}
