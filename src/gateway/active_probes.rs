//! Asks instances for their health in the background, where the operator wants that.
//!
//! When an instance is due, and what its answers mean, is decided in `vertice_core::probing`; verdicts are notes on the
//! instance's cells, which every pick reads. So many probes run at once and no more; who is due meanwhile waits for a place.

use crate::clock;
use crate::probe::Prober;
use crate::random::random;
use crate::telemetry::metrics::Metrics;
use crate::upstream::{Service, Table, Upstream};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use vertice_core::breaker::Phase;
use vertice_core::cell::Transition;
use vertice_core::time::Moment;

/// How often it is looked who is due.
const TICK: Duration = Duration::from_millis(100);
/// So many probes run at once.
const PROBES_MAX: usize = 64;
/// A probe ends long before; one that does not is taken for lost.
const LOST: Duration = Duration::from_secs(120);

/// Where among the services, and among that one's instances.
type Turn = (usize, usize);

/// What it takes to probe.
#[derive(Clone, Debug)]
pub struct ActiveProbes {
    /// Where the instances are.
    pub table: Arc<Table>,
    /// Asks them.
    pub prober: Arc<Prober>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

impl ActiveProbes {
    /// Probes for as long as it is polled.
    pub async fn run(self) {
        let places = Arc::new(Semaphore::new(PROBES_MAX));
        let (mut generation, mut probed, mut turn) = (None, Vec::new(), Turn::default());
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let table = self.table.load();
            if generation.replace(table.generation()) != Some(table.generation()) {
                let now_probed = table.iter().filter(|service| service.policy.probes.active).cloned().collect();
                forget_others(&std::mem::replace(&mut probed, now_probed), &table);
            }
            drop(table);
            if !self.start_due(&probed, &places, &mut turn) {
                self.metrics.limit_hit("active_probes");
            }
        }
    }

    /// Starts the probes that are due; tells whether there was a place for each. Who found none is the first to be asked the next
    /// time: where there are too many for the interval, all are probed less often, and not some of them never.
    fn start_due(&self, services: &[Arc<Service>], places: &Arc<Semaphore>, turn: &mut Turn) -> bool {
        let now = clock::mono();
        let everybody = services.iter().enumerate().flat_map(|(nth, service)| {
            service.instances.iter().enumerate().map(move |(at, upstream)| ((nth, at), service, upstream))
        });
        let first = *turn;
        let later = everybody.clone().skip_while(|(at, ..)| *at < first);
        let mut in_turn = later.chain(everybody.take_while(|(at, ..)| *at < first));
        let without = in_turn.find(|(_, service, upstream)| !self.start_if_due(service, upstream, places, now));
        without.inspect(|(at, ..)| *turn = *at).is_none()
    }

    /// Starts an instance's probe if it is due; `false` when there is no place for it.
    fn start_if_due(&self, service: &Arc<Service>, upstream: &Arc<Upstream>, places: &Arc<Semaphore>, now: Moment) -> bool {
        if upstream.is_leaving || upstream.addresses.is_empty() {
            return true;
        }
        let standing = &upstream.cells.standing;
        match standing.probe_due() {
            None => standing.begin_probes(service.policy.probes.first(now, random())),
            Some(due) if due > now => {}
            Some(_) => {
                let Ok(place) = places.clone().try_acquire_owned() else { return false };
                standing.plan_probe(now.plus(LOST));
                tokio::spawn(probe(self.prober.clone(), service.clone(), upstream.clone(), place));
            }
        }
        true
    }
}

/// Those that were probed and are no longer have no verdict.
fn forget_others(before: &[Arc<Service>], table: &vertice_core::table::Snapshot<crate::upstream::Hung>) {
    let is_probed = |service: &Service| table.get(service.name.as_str()).is_some_and(|service| service.policy.probes.active);
    for service in before.iter().filter(|service| !is_probed(service)) {
        service.instances.iter().for_each(|upstream| upstream.cells.standing.forget_probes());
    }
}

async fn probe(prober: Arc<Prober>, service: Arc<Service>, upstream: Arc<Upstream>, _place: OwnedSemaphorePermit) {
    let status = prober.probe(&upstream).await;
    let passed = status.is_some_and(|status| (200..300).contains(&status));
    let (policy, now) = (&service.policy.probes, clock::mono());
    let standing = &upstream.cells.standing;
    if standing.probe_due().is_none() {
        // It was switched off meanwhile.
        return;
    }
    standing.plan_probe(policy.next(now, random()));
    service.x.probed(passed);
    let (name, instance) = (&service.name, &upstream.facts.id);
    match standing.note_probe(passed, policy, now) {
        Some(true) => tracing::info!(service = %name, %instance, "instance passes its probes again"),
        Some(false) => tracing::warn!(service = %name, %instance, ?status, "instance fails its probes"),
        None => {}
    }
    if passed && upstream.cells.breaker.load().phase(now) == Phase::Open {
        upstream.cells.breaker.try_now();
        service.x.breaker_changed(Transition { from: Phase::Open, to: Phase::HalfOpen });
        tracing::info!(service = %name, %instance, "a probe passed: circuit breaker half-open");
    }
}
