//! Has the instances of each service compared at intervals, and tells what came of it: who was ejected, how many are out, and
//! which services panic.

use crate::clock;
use crate::random::random;
use crate::upstream::{Service, Table};
use std::sync::Arc;
use std::time::Duration;
use vertice_core::balance;
use vertice_core::outlier::{self, Due, Ejection, Shed};

/// How often it is looked whether an interval is over.
const TICK: Duration = Duration::from_millis(250);
/// After so many services, others on this thread get a turn.
const BATCH: usize = 256;

/// What it takes to compare.
#[derive(Clone, Debug)]
pub struct Outliers {
    /// Where the instances are.
    pub table: Arc<Table>,
}

impl Outliers {
    /// Compares for as long as it is polled.
    pub async fn run(self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let table = self.table.load_full();
            for (nth, service) in table.iter().enumerate() {
                look_at(service);
                if nth % BATCH == BATCH - 1 {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

fn look_at(service: &Service) {
    let (policy, review) = (&service.policy.outlier, &service.cells.review);
    let now = clock::mono();
    let mut is_news = service.policy.probes.active || review.shed().is_any();
    if policy.compares(service.usable.len()) {
        match review.due(now, policy.interval) {
            Due::NotYet => {}
            Due::First => outlier::start(service),
            Due::Now => {
                let ejections = outlier::review(service, now, random());
                is_news |= !ejections.is_empty();
                ejections.iter().for_each(|ejection| tell(service, ejection));
            }
        }
    }
    if !policy.active && review.shed().ejected > 0 {
        // It was switched off; an ejection of hours would outlast the operator's decision.
        service.instances.iter().for_each(|upstream| upstream.cells.standing.pardon(now));
    }
    if is_news {
        show(
            service,
            Shed {
                ejected: count(service, |standing| standing.ejected_until(now).is_some()),
                failed: count(service, |standing| standing.has_failed_probes()),
                panics: balance::is_in_panic(service, now),
            },
        );
    }
}

fn count(service: &Service, is_so: impl Fn(&vertice_core::standing::StandingCell) -> bool) -> u32 {
    let counted = service.instances.iter().filter(|upstream| is_so(&upstream.cells.standing)).count();
    u32::try_from(counted).unwrap_or(u32::MAX)
}

fn tell(service: &Service, ejection: &Ejection<crate::upstream::Hung>) {
    service.x.ejected(ejection.cause);
    let (instance, cause) = (&ejection.upstream.facts.id, ejection.cause.as_str());
    tracing::warn!(service = %service.name, %instance, cause, span = ?ejection.span, "instance ejected: it does worse than the others");
}

fn show(service: &Service, shed: Shed) {
    let before = service.cells.review.show(shed);
    if before == shed {
        return;
    }
    service.x.set_shed(shed);
    let name = &service.name;
    if shed.ejected < before.ejected {
        tracing::info!(service = %name, ejected = shed.ejected, "ejected instances are back");
    }
    match (before.panics, shed.panics) {
        (false, true) => tracing::warn!(service = %name, "panic: too few instances are left, ejections and probes are ignored"),
        (true, false) => tracing::info!(service = %name, "panic is over: ejections and probes count again"),
        _ => {}
    }
}
