//! Probes of held instances: the registry says who is due, the answers go back to it as commands.
//!
//! It never asks for more at once than its limit, and each probe ends within the prober's timeout, so the tasks here are
//! bounded. A result that finds the registrar's queue full waits for room: losing it would cost a slot for minutes.

use crate::probe::Prober;
use crate::registrar::Handle;
use crate::telemetry::metrics::Metrics;
use crate::upstream::Table;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::Receiver;
use vertice_core::command::{Command, Probe};

const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(50);

/// What it takes to probe, and to tell what came of it.
#[derive(Clone, Debug)]
pub struct HeldProbes {
    /// Where the instances are.
    pub table: Arc<Table>,
    /// Asks them.
    pub prober: Arc<Prober>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Is told the results.
    pub registrar: Handle,
}

impl HeldProbes {
    /// Carries out probes until nobody asks for them any more.
    pub async fn run(self, mut asked: Receiver<Probe>) {
        while let Some(probe) = asked.recv().await {
            let this = self.clone();
            tokio::spawn(async move {
                let passed = this.is_well(&probe).await;
                this.metrics.held_probes.with_label_values(&[if passed { "passed" } else { "failed" }]).inc();
                while this.registrar.tell(Command::Probed { no: probe.no, passed }).is_err() {
                    tokio::time::sleep(QUEUE_FULL_PAUSE).await;
                }
            });
        }
    }

    /// Whether the instance's health endpoint answers 2xx. One that has left the table is not, and nobody waits for it.
    async fn is_well(&self, probe: &Probe) -> bool {
        let service = self.table.load().get(probe.service.as_str()).cloned();
        let upstream = service.as_ref().and_then(|s| s.instances.iter().find(|upstream| upstream.facts.id == probe.instance));
        let status = match upstream {
            Some(upstream) => self.prober.probe(upstream).await,
            None => None,
        };
        status.is_some_and(|status| (200..300).contains(&status))
    }
}
